package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"fairlead/node/api"
)

// What `--as kernel` prints: the columns of the tool that shows the same thing
// of the kernel, to the blank, so that scripts and eyes find what they know.

// switchAsBrctl is `brctl show`.
func switchAsBrctl(out io.Writer, switches []api.Switch) error {
	fmt.Fprint(out, "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n")
	for _, s := range switches {
		fmt.Fprintf(out, "%s\t\t%s\tno\t\t", s.Network, s.BridgeID)
		for i, p := range s.Ports {
			if i > 0 {
				fmt.Fprint(out, "\n\t\t\t\t\t\t\t")
			}
			fmt.Fprint(out, p.Container)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// macsAsBrctl is `brctl showmacs`.
func macsAsBrctl(out io.Writer, macs []api.MAC) error {
	fmt.Fprint(out, "port no\tmac addr\t\tis local?\tageing timer\n")
	for _, m := range macs {
		fmt.Fprintf(out, "%3d\t%s\t%s\t\t%7.2f\n", m.Port, m.MAC, yesNo(m.Local), m.Age)
	}
	return nil
}

// neighboursAsARP is `arp -n`.
func neighboursAsARP(out io.Writer, neighbours []api.Neighbour) error {
	row := func(cells ...any) { fmt.Fprintf(out, "%-25s%-8s%-20s%-22s%s\n", cells...) }
	row("Address", "HWtype", "HWaddress", "Flags Mask", "Iface")
	for _, n := range neighbours {
		switch {
		case n.MAC == "":
			row(n.IP, "", "(incomplete)", "", n.Network)
		case n.State == "PERMANENT":
			row(n.IP, "ether", n.MAC, "CM", n.Network)
		default:
			row(n.IP, "ether", n.MAC, "C", n.Network)
		}
	}
	return nil
}

// natAsIptables is `iptables -t nat -L -v -n`.
func natAsIptables(out io.Writer, rules []api.NATRule) error {
	var pre, post []string
	for _, r := range rules {
		n := counted(r.Packets, r.Bytes)
		match := ""
		if r.Port != 0 {
			match = fmt.Sprintf("%s dpt:%d ", r.Proto, r.Port)
		}
		switch r.Kind {
		case "none":
			post = append(post, n.rule("RETURN", r.Proto, "", "", r.Source, r.Destination, ""))
		case "masquerade":
			post = append(post, n.rule("MASQUERADE", r.Proto, r.In, r.Out, r.Source, r.Destination, ""))
		case "publish":
			pre = append(pre, n.rule("DNAT", r.Proto, r.In, r.Out, r.Source, r.Destination, match+"to:"+withPort(r.To, r.ToPort)))
		case "hairpin":
			post = append(post, n.rule("MASQUERADE", r.Proto, r.In, r.Out, r.Source, r.Destination, "ctstate DNAT"))
		case "one-to-one":
			pre = append(pre, n.rule("DNAT", r.Proto, r.In, "", r.Source, r.Destination, "to:"+r.To))
			post = append(post, n.rule("SNAT", r.Proto, "", r.In, r.To, "0.0.0.0/0", "to:"+r.Destination))
		}
	}
	for i, chain := range []string{"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"} {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printChain(out, chain, "ACCEPT", map[string][]string{"PREROUTING": pre, "POSTROUTING": post}[chain])
	}
	return nil
}

// rulesAsIptables is `iptables -L -v -n`. All of it is about what is passed on.
func rulesAsIptables(out io.Writer, rules []api.FilterRule) error {
	var forward []string
	for _, r := range rules {
		var octets uint64
		if r.Bytes != nil {
			octets = *r.Bytes
		}
		var match []string
		if r.Port != 0 {
			match = append(match, fmt.Sprintf("%s dpt:%d", r.Proto, r.Port))
		}
		switch r.Match {
		case "":
		case "established":
			match = append(match, "ctstate RELATED,ESTABLISHED")
		default:
			match = append(match, "/* "+r.Match+" */")
		}
		forward = append(forward, counted(r.Packets, octets).rule(strings.ToUpper(r.Target), r.Proto, r.In, r.Out, r.Source, r.Destination, strings.Join(match, " ")))
	}
	printChain(out, "INPUT", "ACCEPT", nil)
	fmt.Fprintln(out)
	printChain(out, "FORWARD", "DROP", forward)
	fmt.Fprintln(out)
	printChain(out, "OUTPUT", "ACCEPT", nil)
	return nil
}

func printChain(out io.Writer, name, policy string, rules []string) {
	fmt.Fprintf(out, "Chain %s (policy %s 0 packets, 0 bytes)\n", name, policy)
	fmt.Fprintln(out, " pkts bytes target     prot opt in     out     source               destination         ")
	for _, r := range rules {
		fmt.Fprintln(out, r)
	}
}

// A counters is the two leading columns of an iptables rule.
type counters string

func counted(packets, octets uint64) counters {
	return counters(fmt.Sprintf("%s %s ", abbreviated(packets), abbreviated(octets)))
}

// abbreviated is a counter in iptables' five columns (xtables_print_num).
func abbreviated(n uint64) string {
	if n <= 99999 {
		return fmt.Sprintf("%5d", n)
	}
	for _, unit := range "KMG" {
		if n = (n + 500) / 1000; n <= 9999 {
			return fmt.Sprintf("%4d%c", n, unit)
		}
	}
	return fmt.Sprintf("%4dT", (n+500)/1000)
}

// rule is a line of iptables -L -v -n.
func (c counters) rule(target, proto, in, out, source, destination, match string) string {
	line := fmt.Sprintf("%s%-9s  %-4s --  %-6s %-6s  %-19s  %-19s ", c, target, proto, anything(in), anything(out), source, destination)
	if match != "" {
		line += " " + match
	}
	return line
}

// flowsAsConntrack is `conntrack -L` with net.netfilter.nf_conntrack_acct=1.
func flowsAsConntrack(out io.Writer, flows []api.Flow) error {
	for _, f := range flows {
		head := fmt.Sprintf("%-8s %d %.0f ", f.Proto, protoNumbers[f.Proto], f.TTL)
		if f.State != "" {
			head += f.State + " "
		}
		unreplied, assured := "", ""
		if f.Unreplied {
			unreplied = "[UNREPLIED] "
		}
		if f.Assured {
			assured = "[ASSURED] "
		}
		fmt.Fprintf(out, "%s%s %s%s %smark=0 use=1\n", head, half(f.Proto, &f.Original, 8), unreplied, half(f.Proto, &f.Reply, 0), assured)
	}
	return nil
}

var protoNumbers = map[string]int{"icmp": 1, "tcp": 6, "udp": 17}

// half is one direction of a flow; of ICMP with the type of its messages.
func half(proto string, h *api.FlowHalf, icmpType int) string {
	ports := fmt.Sprintf("sport=%d dport=%d", h.SourcePort, h.DestinationPort)
	if proto == "icmp" {
		ports = fmt.Sprintf("type=%d code=0 id=%d", icmpType, h.SourcePort)
	}
	return fmt.Sprintf("src=%s dst=%s %s packets=%d bytes=%d", h.Source, h.Destination, ports, h.Packets, h.Bytes)
}

// routesAsIP is `ip route`, which lists by destination and has blanks at the
// ends of its lines.
func routesAsIP(out io.Writer, routes []api.IPRoute) error {
	routes = slices.Clone(routes)
	slices.SortStableFunc(routes, func(a, b api.IPRoute) int {
		pa, _ := netip.ParsePrefix(a.Destination)
		pb, _ := netip.ParsePrefix(b.Destination)
		return cmp.Or(pa.Addr().Compare(pb.Addr()), cmp.Compare(pa.Bits(), pb.Bits()))
	})
	printed := map[string]bool{} // networks may share an uplink
	for _, r := range routes {
		line := strings.TrimSuffix(r.Destination, "/32")
		if line == "0.0.0.0/0" {
			line = "default"
		}
		switch {
		case r.State == "no-address":
			continue // the kernel has no route before the address
		case r.Via != "":
			line += fmt.Sprintf(" via %s dev %s ", r.Via, r.Dev)
		case r.Source == "":
			line += fmt.Sprintf(" dev %s scope link ", r.Dev)
		default:
			line += fmt.Sprintf(" dev %s proto kernel scope link src %s ", r.Dev, r.Source)
		}
		if r.State == "down" {
			line += "linkdown "
		}
		if !printed[line] {
			fmt.Fprintln(out, line)
		}
		printed[line] = true
	}
	return nil
}
