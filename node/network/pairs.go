package network

import (
	"strconv"

	"fairlead/dhcp"
)

// Pairs are the options that are not as they are without a word, as `--opt` has
// them.
func (o Options) Pairs() map[string]string {
	pairs := map[string]string{}
	standard, _ := ParseOptions(nil)
	say := func(key string, differs bool, value string) {
		if differs {
			pairs[key] = value
		}
	}
	say("mtu", o.MTU != standard.MTU, strconv.Itoa(o.MTU))
	say("ageing", o.Ageing != standard.Ageing, o.Ageing.String())
	say("hub", o.Hub, "on")
	if o.Hub {
		standard.FloodLimit = -1
	}
	say("flood-limit", o.FloodLimit != standard.FloodLimit, strconv.Itoa(max(0, o.FloodLimit)))
	say("guard", o.Unguarded, "off")
	say("loop-guard", o.LoopsLeft, "off")
	say("offload", o.Textbook, "off")
	say("link", o.Veth, "veth")
	say("join", o.Unjoined, "off")
	say("icc", o.ICCOff, "off")
	say("masquerade", o.NotMasqueraded, "off")
	say("routed", o.Routed, "on")
	d := o.DHCP
	say("dhcp", d.Off, "off")
	say("dhcp", d.On, "on")
	lease := d.Lease.String()
	if d.Lease == dhcp.Forever {
		lease = "infinite"
	}
	say("dhcp-lease", d.Lease != 0, lease)
	for key, value := range map[string]string{"dhcp-range": d.Range, "dhcp-host": d.Hosts, "dhcp-route": d.Routes, "domain": d.Domain} {
		say(key, value != "", value)
	}
	return pairs
}
