package node

import (
	"maps"
	"net/http"
	"slices"

	"fairlead/link"
	"fairlead/node/network"
	"fairlead/policy"
	vswitch "fairlead/switch"
)

// linkOptions are what a container's link to a network is.
type linkOptions struct {
	textbook bool // offload=off: plain frames
	veth     bool // link=veth: one end of a pair, by a packet socket
	isolated bool // isolated=on
	vlans    policy.VLANs

	plug string // what is no container's link is; see isPlug
}

// readLink reads the options of a container's link. What they leave open the
// network says.
func readLink(net network.Options, pairs map[string]string) (linkOptions, error) {
	o := linkOptions{textbook: net.Textbook, veth: net.Veth}
	for _, key := range slices.Sorted(maps.Keys(pairs)) { // the same one is named each time
		value, on := pairs[key], false
		switch {
		case key == "vlan" || key == "trunk":
			if o.vlans.Held {
				return o, fail(http.StatusBadRequest, "options trunk and vlan exclude each other: a port is a trunk or of one VLAN; a trunk's own without a tag is trunk=10,20,native=5")
			}
			var err error
			if o.vlans, err = policy.ParseVLANs(key + "=" + value); err != nil {
				return o, fail(http.StatusBadRequest, "option %s: %w", key, err)
			}
			continue
		case key != "offload" && key != "isolated" && key != "link":
			return o, fail(http.StatusBadRequest, "unknown option %q; a container's link has isolated, link, offload, trunk and vlan", key)
		case key == "link" && value != "tap" && value != "veth":
			return o, fail(http.StatusBadRequest, "option %s: %q is neither tap nor veth", key, value)
		case key == "link":
			o.veth = value == "veth"
			continue
		case value == "on":
			on = true
		case value != "off":
			return o, fail(http.StatusBadRequest, "option %s: %q is neither on nor off", key, value)
		}
		if key == "offload" {
			o.textbook = !on
		} else {
			o.isolated = on
		}
	}
	if !o.textbook || !o.veth {
		return o, nil
	}
	// A textbook wire is a TAP. The container's own word goes before the network's.
	switch _, wire := pairs["offload"]; {
	case wire && pairs["link"] == "":
		o.veth = false
	case !wire && pairs["link"] != "":
		o.textbook = false
	default:
		return o, fail(http.StatusBadRequest, "options offload=off and link=veth exclude each other: a textbook wire is a TAP; leave one of them out")
	}
	return o, nil
}

// open makes a descriptor that was handed over a queue of the kind the link is
// to be. On an error it stays the caller's.
func (e *endpoint) open(o linkOptions, fd int) (vswitch.Queue, error) {
	switch {
	case o.textbook:
		wire, err := link.AdoptWire(fd)
		if err != nil {
			return nil, err
		}
		e.kind, e.offload = "wire", "none"
		return wire, nil
	case o.veth:
		p, err := link.AdoptPacket(fd)
		if err != nil {
			return nil, err
		}
		e.kind, e.offload, e.peer = "veth", p.Offload().String(), p.Index()
		if o.plug != "" {
			e.kind, e.index, e.peer = o.plug, e.peer, 0
		}
		return p, nil
	}
	tap, err := link.AdoptTAP(fd)
	if err != nil {
		return nil, err
	}
	e.kind, e.offload = "tap", tap.Offload().String()
	return tap, nil
}
