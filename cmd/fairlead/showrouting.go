package main

import (
	"fmt"
	"io"
	"strconv"

	"fairlead/node/api"
)

// natTable is `iptables -t nat -L -v -n` for every network, and what the rules
// have done.
func natTable(out io.Writer, rules []api.NATRule) error {
	t := newTable(out, "network", "rule", "kind", "proto", "source", "destination", "uplink", "becomes", "container", "flows", "packets", "bytes")
	for _, r := range rules {
		rule := ""
		if r.Number != 0 {
			rule = strconv.Itoa(r.Number)
		}
		t.row(r.Network, dash(rule), r.Kind, r.Proto, r.Source, withPort(r.Destination, r.Port), dash(r.In+r.Out),
			dash(becomes(&r)), dash(r.Container), number(r.Flows), number(r.Packets), number(r.Bytes))
	}
	return t.end()
}

// becomes says what a rule writes.
func becomes(r *api.NATRule) string {
	switch {
	case r.Kind == "none":
		return "(as it is)"
	case r.Kind == "hairpin":
		return "from the address it met"
	case r.To == "":
		return "(no address yet)"
	case r.Kind == "masquerade":
		return "from " + withPort(r.To, r.ToPort)
	}
	return "to " + withPort(r.To, r.ToPort)
}

// flowsTable is `conntrack -L`: who talks to whom, and what NAT makes of it.
func flowsTable(out io.Writer, flows []api.Flow) error {
	t := newTable(out, "flow", "proto", "state", "ttl", "container", "source", "destination", "kind", "becomes", "packets", "answers", "bytes", "answered", "socket", "client")
	for _, f := range flows {
		o, r := &f.Original, &f.Reply
		ttl := "-"
		if f.TTL > 0 {
			ttl = seconds(f.TTL)
		}
		t.row(number(uint64(f.Number)), f.Proto, flowState(&f), ttl, dash(f.Container),
			withPort(o.Source, o.SourcePort), withPort(o.Destination, o.DestinationPort), f.Kind, dash(flowBecomes(&f)),
			number(o.Packets), number(r.Packets), number(o.Bytes), number(r.Bytes), dash(f.Socket), dash(hiddenWords(f.Hidden)))
	}
	return t.end()
}

// hiddenWords says that a container does not see who a client is, and why.
func hiddenWords(rule string) string {
	if rule == "" {
		return ""
	}
	return "hidden: " + rule
}

func flowState(f *api.Flow) string {
	switch {
	case f.State != "":
		return f.State
	case f.Unreplied:
		return "UNREPLIED"
	}
	return "REPLIED"
}

// flowBecomes is what the first packet's addresses turn into; what stays is not
// repeated.
func flowBecomes(f *api.Flow) (words string) {
	o, r := &f.Original, &f.Reply
	if r.Destination != o.Source || r.DestinationPort != o.SourcePort {
		words = "from " + withPort(r.Destination, r.DestinationPort)
	}
	if r.Source != o.Destination || r.SourcePort != o.DestinationPort {
		if words != "" {
			words += " "
		}
		words += "to " + withPort(r.Source, r.SourcePort)
	}
	return words
}

// rulesTable is `iptables -L -v -n`: what may pass, in the order of the packet's
// path. Most of what can be refused never is, so it is left out until it was.
func rulesTable(out io.Writer, rules []api.FilterRule) error {
	t := newTable(out, "network", "chain", "target", "proto", "in", "out", "source", "destination", "packets", "bytes", "reason", "if")
	idle := 0
	for _, r := range rules {
		if r.Target != "accept" && r.Packets == 0 && r.Match != everythingElse {
			idle++
			continue
		}
		octets := "-"
		if r.Bytes != nil {
			octets = number(*r.Bytes)
		}
		t.row(r.Network, r.Chain, r.Target, r.Proto, anything(r.In), anything(r.Out), r.Source, withPort(r.Destination, r.Port),
			number(r.Packets), octets, dash(r.Reason), dash(r.Match))
	}
	if err := t.end(); err != nil {
		return err
	}
	if idle > 0 {
		fmt.Fprintf(out, "\nNot listed: %d that drop or reject and have not done so yet; --json and --as kernel have them\n", idle)
	}
	return nil
}

// everythingElse is the Match of a chain's last rule.
const everythingElse = "everything else"

// routesTable is `ip route` for every network. Of routes that fit the most
// specific one is taken.
func routesTable(out io.Writer, routes []api.IPRoute) error {
	t := newTable(out, "network", "destination", "via", "dev", "source", "scope", "mtu", "state")
	for _, r := range routes {
		t.row(r.Network, r.Destination, dash(r.Via), r.Dev, dash(r.Source), r.Scope, strconv.Itoa(r.MTU), r.State)
	}
	return t.end()
}

func withPort(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

// anything is a name, or iptables' word for any.
func anything(name string) string {
	if name == "" {
		return "*"
	}
	return name
}
