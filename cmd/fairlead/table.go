package main

import (
	"cmp"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"fairlead/node/api"
	"fairlead/node/lockin"
)

// A table is rows of cells in columns as wide as they must be.
type table struct{ w *tabwriter.Writer }

// newTable begins a table. Two blanks between columns keep most of them within
// 80 characters.
func newTable(out io.Writer, head ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	t.row(head...)
	return t
}

// row adds a row; an empty last cell makes no trailing blanks.
func (t *table) row(cells ...string) {
	for len(cells) > 1 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) end() error { return t.w.Flush() }

// psTable is `docker ps` without the column of images.
func psTable(out io.Writer, containers []api.Container, whole bool, now time.Time) error {
	t := newTable(out, "CONTAINER ID", "COMMAND", "STATUS", "NETWORK", "IP", "PORTS", "NAMES")
	for _, c := range containers {
		command := quoteCommand(c.Command, whole)
		if c.Foreign != "" {
			command = c.Foreign
		}
		status := "Created"
		switch c.Status {
		case "running":
			status = "Up " + ago(now.Sub(c.Created))
		case "unreachable": // by a node that came after another; --json says why
			status = c.Status
		}
		t.row(shortID(c.ID, whole), command, status, c.Network, dash(c.IP), dash(strings.Join(c.Ports, ", ")), c.Name)
	}
	return t.end()
}

// switchTable is `brctl show` with a line for each port, and what it counted.
func switchTable(out io.Writer, switches []api.Switch) error {
	t := newTable(out, "network", "bridge id", "loop guard", "port", "container", "in", "out", "dropped")
	for _, s := range switches {
		first := []string{s.Network, s.BridgeID, s.LoopGuard}
		if len(s.Ports) == 0 {
			t.row(first...)
		}
		for _, p := range s.Ports {
			name := p.Container
			switch {
			case p.Blocked > 0:
				name += " (blocked)"
			case p.SentNothing > 0:
				name += " (slow)"
			}
			t.row(append(first, strconv.Itoa(p.Port), name,
				number(p.Counts.Read), number(p.Counts.Written), number(sum(p.Counts.Dropped)+sum(p.Counts.Failed)))...)
			first = []string{"", "", ""}
		}
	}
	return t.end()
}

// switchDetails is all there is to say about each port and its cable.
func switchDetails(out io.Writer, switches []api.Switch) {
	for _, s := range switches {
		fmt.Fprintf(out, "%s: bridge id %s, loop guard %s\n", s.Network, s.BridgeID, s.LoopGuard)
		fmt.Fprintf(out, "    subnet %s, gateway %s, mtu %d, ageing %s, hub %s\n",
			s.Subnet, s.Gateway, s.MTU, seconds(s.Ageing), onOff(s.Hub))
		for _, p := range s.Ports {
			portDetails(out, &p)
		}
	}
}

func portDetails(out io.Writer, p *api.Port) {
	who, it := fmt.Sprintf("%s (%s)", p.Container, shortID(p.ID, false)), "the container"
	if p.Container == api.HostPort {
		who, it = p.Container, "the host"
	}
	fmt.Fprintf(out, "  port %d: %s, %s, %s\n", p.Port, who, dash(p.IP), dash(p.MAC))
	fmt.Fprintf(out, "    cable    %s: %s\n", p.Kind, inside(p))
	switch {
	case p.Container == api.HostPort:
		fmt.Fprintf(out, "             an interface of this host, with the gateway's address\n")
	case p.HostIface != "":
		fmt.Fprintf(out, "             other end: %s on the host\n", p.HostIface)
	case p.Kind == api.ForeignInterface:
		fmt.Fprintf(out, "             an interface of this host, which it shares with the network; a LAN is behind it\n")
	case p.Kind == api.ForeignVeth && p.Peer == 0:
		fmt.Fprintf(out, "             one end of a pair somebody made, in a network namespace of its own\n")
	case p.Kind == api.ForeignVeth:
		fmt.Fprintf(out, "             other end: index %d, in a network namespace of its own; inside it is %s@if%d, link-netnsid %d\n", p.Peer, p.Interface, p.Peer, p.LinkNetns)
	default:
		fmt.Fprintf(out, "             no host interface: a TAP lives in the container only\n")
	}
	fmt.Fprintf(out, "    offload  %s\n", p.Offload)
	fmt.Fprintf(out, "    guard    %s, isolated %s\n", onOff(p.Guard), yesNo(p.Isolated))
	if p.VLANs != "" {
		fmt.Fprintf(out, "    vlans    %s\n", p.VLANs)
	}
	if p.Blocked > 0 {
		fmt.Fprintf(out, "    blocked  for %s more: it leads back to this switch by port %d\n", seconds(p.Blocked), p.BlockedFrom)
	}
	if p.SentNothing > 0 {
		fmt.Fprintf(out, "    slow     sent nothing for %s more: its network stack took long to receive, and all wait for that\n", seconds(p.SentNothing))
	}
	if p.RateIn != "" || p.RateOut != "" {
		fmt.Fprintf(out, "    rates    in %s, out %s\n", dash(p.RateIn), dash(p.RateOut))
	}
	c := &p.Counts
	fmt.Fprintf(out, "    in       %s from %s: %d unicast, %d flooded, %d to the gateway\n",
		frames(c.Read, c.ReadSegments, c.ReadBytes), it, c.Unicast, c.Flooded, c.Gateway)
	if c.Held > 0 || c.Split > 0 {
		fmt.Fprintf(out, "             %d waited, %d further fragments made\n", c.Held, c.Split)
	}
	if c.Paused > 0 {
		fmt.Fprintf(out, "             not read for a while %d times: more than its rate, or than its share of a worker's time (docs/limits.md)\n", c.Paused)
	}
	if p.Lost > 0 {
		fmt.Fprintf(out, "             %d came and were lost: the link had no room for them (sysctl net.core.rmem_max)\n", p.Lost)
	}
	fmt.Fprintf(out, "    out      %s to %s\n", frames(c.Written, c.WrittenSegments, c.WrittenBytes), it)
	if c.Joined > 0 {
		fmt.Fprintf(out, "             %d of them joined to the one before: one large frame there\n", c.Joined)
	}
	reasonLine(out, "dropped", c.Dropped)
	reasonLine(out, "failed", c.Failed)
}

// inside says where the container's end of the cable is, as far as it is known.
func inside(p *api.Port) string {
	s := p.Interface
	if p.Index != 0 {
		s += fmt.Sprintf(", index %d", p.Index)
	}
	if p.Netns != 0 {
		s += fmt.Sprintf(", in network namespace %d", p.Netns)
	}
	if p.Pid != 0 {
		s += fmt.Sprintf(" of pid %d", p.Pid)
	}
	return s
}

// frames says how many frames there were, and when large ones crossed whole
// how many segments they stood for.
func frames(n, segments, octets uint64) string {
	s := fmt.Sprintf("%d frames", n)
	if n == 1 {
		s = "1 frame"
	}
	if segments != n {
		s += fmt.Sprintf(" of %d segments", segments)
	}
	return s + ", " + bytesWord(octets)
}

func reasonLine(out io.Writer, word string, counts map[string]uint64) {
	var parts []string
	for _, reason := range sortedKeys(counts) {
		if counts[reason] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", reason, counts[reason]))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(out, "    %-8s %s\n", word, strings.Join(parts, ", "))
	}
}

// macTable is `brctl showmacs` for every network, and whose MAC it is.
func macTable(out io.Writer, macs []api.MAC) error {
	t := newTable(out, "network", "port no", "mac addr", "vlan", "is local?", "ageing timer", "container")
	for _, m := range macs {
		vlan, age := "", fmt.Sprintf("%.2f", m.Age)
		if m.VLAN != 0 {
			vlan = strconv.Itoa(int(m.VLAN))
		}
		if m.Static {
			age = "static"
		}
		name := m.Container
		if m.Local {
			name = "(gateway)"
		}
		t.row(m.Network, strconv.Itoa(m.Port), m.MAC, dash(vlan), yesNo(m.Local), age, name)
	}
	return t.end()
}

// arpTable is `arp -n` as the gateway would print it.
func arpTable(out io.Writer, neighbours []api.Neighbour) error {
	t := newTable(out, "Address", "HWtype", "HWaddress", "State", "Network", "Port", "Container", "Age")
	for _, n := range neighbours {
		mac, age := n.MAC, seconds(n.Age)
		if mac == "" {
			mac, age = "(incomplete)", "-"
		}
		t.row(n.IP, "ether", mac, n.State, n.Network, strconv.Itoa(n.Port), dash(n.Container), age)
	}
	return t.end()
}

// dropsTable is what was dropped, and below it what each reason means and what
// to try.
func dropsTable(out io.Writer, drops []api.Drop, now time.Time) error {
	if len(drops) == 0 {
		fmt.Fprintln(out, "nothing was dropped")
		return nil
	}
	t := newTable(out, "reason", "network", "port", "container", "way", "count", "last")
	explain := map[string]api.Drop{}
	for _, d := range drops {
		t.row(d.Reason, d.Network, strconv.Itoa(d.Port), dash(d.Container), d.Direction, number(d.Count), ago(now.Sub(d.Last))+" ago")
		explain[d.Reason] = d
	}
	if err := t.end(); err != nil {
		return err
	}
	width := terminalWidth()
	for _, reason := range sortedKeys(explain) {
		fmt.Fprintf(out, "\n%s\n", strings.Join(wrap(reason+": "+explain[reason].Why, width), "\n"))
		if try := explain[reason].Try; try != "" {
			fmt.Fprintf(out, "    %s\n", strings.Join(wrap(try, width-4), "\n    "))
		}
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func seconds(s float64) string { return fmt.Sprintf("%.0f s", s) }

func sum(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// nodeVersion is the node's half of `version`.
func nodeVersion(out io.Writer, v *api.VersionInfo, now time.Time) {
	ends := "ends after its last container"
	if v.Stays {
		ends = "stays until `fairlead down`"
	}
	fmt.Fprintf(out, "Node:\n Version:     %s\n API:         v%d\n Go:          %s\n Kernel:      %s\n", v.Version, v.API, v.Go, v.Kernel)
	fmt.Fprintf(out, " Pid:         %d, up %s, %s\n Directory:   %s\n Containers:  %d\n", v.Pid, ago(now.Sub(v.Started)), ends, v.Dir, v.Containers)
	socketsVersion(out, &v.Sockets)
	fmt.Fprintf(out, " Lock-in:     %s\n", lockInWords(&v.LockIn))
	for _, what := range v.LockIn.Lacks {
		fmt.Fprintf(out, "              without %s\n", what)
	}
}

// lockInWords says what a node has left.
func lockInWords(l *api.LockIn) string {
	if l.Mode == string(lockin.Off) || l.Mode == "" {
		return "off"
	}
	words := []string{l.Mode}
	if l.Calls > 0 {
		words = append(words, fmt.Sprintf("%d system calls", l.Calls))
	}
	if l.Landlock > 0 {
		words = append(words, fmt.Sprintf("its own files (Landlock ABI %d)", l.Landlock))
	}
	return strings.Join(append(words, cmp.Or(strings.Join(l.Capabilities, " "), "no capabilities")), ", ")
}

// socketsVersion says how many sockets of this machine a node has and may have.
func socketsVersion(out io.Writer, s *api.Sockets) {
	fmt.Fprintf(out, " Sockets:     %d of %d, %d for one container; %d of %d listen (ulimit -n is %d)\n",
		s.Used, s.Most, s.MostEach, s.Listening, s.MostListening, s.Descriptors)
}

// socketsShort says that containers want more sockets than there are, empty when
// they do not.
func socketsShort(s *api.Sockets) string {
	if s.Used < s.Most && s.Refused == 0 {
		return ""
	}
	return fmt.Sprintf("Sockets of this machine: %d of %d are used, one container may have %d (ulimit -n is %d); %d connections were refused for want of one",
		s.Used, s.Most, s.MostEach, s.Descriptors, s.Refused)
}
