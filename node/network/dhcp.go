package network

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairlead/dhcp"
	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/packet"
)

// DHCP is what `--opt` says of the DHCP server of a network. Lists are in the
// words they were given in, so that Options can be compared; they are read again
// where they are used.
type DHCP struct {
	On     bool          // dhcp=on: also where a LAN is behind a port, which has a server mostly
	Off    bool          // dhcp=off: nobody is lent an address; neither is dhcp=auto
	Lease  time.Duration // dhcp-lease: 0 is dhcp.DefaultLease
	Range  string        // dhcp-range: FIRST,LAST, for stations that are no containers
	Hosts  string        // dhcp-host: MAC|id:ID,ADDRESS[,NAME], several with ; between
	Routes string        // dhcp-route: SUBNET@ROUTER, several with ; between
	Domain string        // domain: of the names here
}

// setDHCP takes a word that takes the others back: what is without a word is
// neither of them. An empty one does so too, as of all options below.
func setDHCP(o *Options, value string) error {
	if value == "" || value == "auto" {
		o.DHCP.On, o.DHCP.Off = false, false
		return nil
	}
	on, err := onOff(value)
	if err != nil {
		return fmt.Errorf("%q is neither on, off nor auto", value)
	}
	o.DHCP.On, o.DHCP.Off = on, !on
	return nil
}

func setLease(o *Options, value string) (err error) {
	if value == "" {
		o.DHCP.Lease = 0
		return nil
	}
	o.DHCP.Lease, err = parseLease(value)
	return err
}

func setRange(o *Options, value string) error {
	o.DHCP.Range = value
	_, _, err := parseRange(value)
	return err
}

func setHosts(o *Options, value string) error {
	o.DHCP.Hosts = value
	_, err := parseHosts(value)
	return err
}

func setRoutes(o *Options, value string) error {
	o.DHCP.Routes = value
	_, err := parseRoutes(value)
	return err
}

func setDomain(o *Options, value string) error {
	if value != "" && !IsDomain(value) {
		return fmt.Errorf("%q is not a domain such as lab.example", value)
	}
	o.DHCP.Domain = value
	return nil
}

func parseLease(s string) (time.Duration, error) {
	if s == "infinite" {
		return dhcp.Forever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < dhcp.LeastLease || d > dhcp.Forever {
		return 0, fmt.Errorf("%q is not a time of at least %v, such as 12h, nor the word infinite", s, dhcp.LeastLease)
	}
	return d, nil
}

// parseRange reads FIRST,LAST; of an empty one both are the zero Addr.
func parseRange(s string) (first, last netip.Addr, err error) {
	if s == "" {
		return first, last, nil
	}
	from, to, both := strings.Cut(s, ",")
	first, err = netip.ParseAddr(from)
	if err == nil {
		last, err = netip.ParseAddr(to)
	}
	if err != nil || !both || !first.Is4() || !last.Is4() || last.Less(first) {
		return first, last, fmt.Errorf("%q is not a range such as 172.30.0.100,172.30.0.200", s)
	}
	return first, last, nil
}

// maxHosts bounds what is reserved, and how many routes are told.
const maxHosts = 1024

// list splits a list.
func list(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ";"), func(s string) bool { return strings.TrimSpace(s) == "" })
}

func parseHosts(s string) (hosts []dhcp.Host, err error) {
	all := list(s)
	if len(all) > maxHosts {
		return nil, fmt.Errorf("%d hosts; a network reserves addresses for %d", len(all), maxHosts)
	}
	for _, one := range all {
		h, err := parseHost(strings.TrimSpace(one))
		if err != nil {
			return nil, err
		}
		same := func(o dhcp.Host) bool { return o.Addr == h.Addr || o.ID == h.ID && o.MAC == h.MAC }
		if slices.ContainsFunc(hosts, same) {
			return nil, fmt.Errorf("%q is reserved twice, or for two", one)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func parseHost(s string) (h dhcp.Host, err error) {
	fields := strings.Split(s, ",")
	if len(fields) < 2 || len(fields) > 3 {
		return h, fmt.Errorf("%q is not MAC,ADDRESS such as 02:00:00:00:00:07,172.30.0.7; a name may follow, and id:IDENTIFIER stand for the MAC", s)
	}
	if id, ok := strings.CutPrefix(fields[0], "id:"); ok {
		if h.ID, err = parseID(id); err != nil {
			return h, err
		}
	} else if h.MAC, err = packet.ParseMAC(fields[0]); err != nil || h.MAC.IsGroup() || h.MAC.IsZero() {
		return h, fmt.Errorf("%q is not a MAC address such as 02:00:00:00:00:07, nor id: and a client identifier", fields[0])
	}
	if h.Addr, err = netip.ParseAddr(fields[1]); err != nil || !h.Addr.Is4() {
		return h, fmt.Errorf("%q is not an IPv4 address", fields[1])
	}
	if len(fields) == 3 {
		if h.Name = fields[2]; !IsDomain(h.Name) {
			return h, fmt.Errorf("%q is not a host name", h.Name)
		}
	}
	return h, nil
}

// parseID reads a client identifier: bytes with colons between, as in 01:02:03, or
// else text.
func parseID(s string) (string, error) {
	if strings.Contains(s, ":") {
		if b, err := hex.DecodeString(strings.ReplaceAll(s, ":", "")); err == nil {
			s = string(b)
		}
	}
	if len(s) < 2 || len(s) > 255 {
		return "", errors.New("a client identifier has from 2 to 255 bytes, such as id:ff:00:01 or id:printer")
	}
	return s, nil
}

func parseRoutes(s string) (routes []dhcp.Route, err error) {
	all := list(s)
	if len(all) > maxHosts {
		return nil, fmt.Errorf("%d routes; a network tells %d", len(all), maxHosts)
	}
	for _, one := range all {
		to, via, _ := strings.Cut(strings.TrimSpace(one), "@")
		r := dhcp.Route{}
		if r.Prefix, err = netip.ParsePrefix(to); err == nil {
			r.Via, err = netip.ParseAddr(via)
		}
		if err != nil || !r.Prefix.Addr().Is4() || r.Prefix != r.Prefix.Masked() || !r.Via.Is4() {
			return nil, fmt.Errorf("%q is not a route such as 10.0.0.0/8@172.30.0.2", one)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// IsDomain reports whether s may be a name of DNS, or the last part of one.
func IsDomain(s string) bool {
	if len(s) == 0 || len(s) > 200 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		odd := func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, odd) {
			return false
		}
	}
	return true
}

// Lending is what the DHCP server of a network with these options lends and tells.
// domain is that of its names where none is set; internal is without a router. It
// returns an error when the options do not fit the subnet.
func (d *DHCP) Lending(gw netip.Prefix, mtu int, domain string, internal bool) (dhcp.ServerConfig, error) {
	conf := dhcp.ServerConfig{Server: gw, DNS: []netip.Addr{gw.Addr()}, MTU: mtu, Lease: d.Lease, Domain: domain}
	if !internal {
		conf.Router = gw.Addr()
	}
	if d.Domain != "" {
		conf.Domain = d.Domain
	}
	var errs [3]error
	conf.First, conf.Last, errs[0] = parseRange(d.Range)
	conf.Hosts, errs[1] = parseHosts(d.Hosts)
	conf.Routes, errs[2] = parseRoutes(d.Routes)
	if err := errors.Join(errs[:]...); err != nil {
		return conf, err
	}
	subnet := gw.Masked()
	fits := func(option string, a netip.Addr) error {
		switch {
		case !subnet.Contains(a):
			return fmt.Errorf("option %s: %v is not in the subnet %v", option, a, subnet)
		case a == gw.Addr():
			return fmt.Errorf("option %s: %v is the gateway's", option, a)
		case a == subnet.Addr() || a == gateway.Broadcast(gw):
			return fmt.Errorf("option %s: %v is the network or broadcast address of %v", option, a, subnet)
		}
		return nil
	}
	if conf.First.IsValid() {
		for _, a := range []netip.Addr{conf.First, conf.Last} {
			if !subnet.Contains(a) {
				return conf, fmt.Errorf("option dhcp-range: %v is not in the subnet %v", a, subnet)
			}
		}
	}
	for _, h := range conf.Hosts {
		if err := fits("dhcp-host", h.Addr); err != nil {
			return conf, err
		}
	}
	for _, r := range conf.Routes {
		if !subnet.Contains(r.Via) {
			return conf, fmt.Errorf("option dhcp-route: %v is not in the subnet %v", r.Via, subnet)
		}
	}
	return conf, nil
}

// Fits is an error when the options do not fit a network with this gateway.
func (d *DHCP) Fits(gw netip.Prefix) error {
	_, err := d.Lending(gw, 0, "", false)
	return err
}

// Probe asks who has an address, and Holder says who has answered.
func (n *Network) Probe(a netip.Addr) {
	n.gw.Probe(a.As4())
	n.sw.Wake()
}

func (n *Network) Holder(a netip.Addr) (packet.MAC, bool) {
	e, ok := n.gw.Neighbour(loop.Clock(), a.As4())
	return e.MAC, ok
}
