package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"fairlead/packet"
)

// The file of --egress allow:FILE has a rule on each line:
//
//	allow NAME|CIDR [PORT[/PROTO]]   # and a comment
//
// NAME is one that our DNS is asked for, exactly; CIDR an address or a prefix;
// PROTO tcp or udp. Without a port every packet to there is meant, with one and
// without a protocol TCP and UDP. What no line allows is refused.

const (
	// maxFile bounds the file's bytes, maxRules its rules: more is no list made by
	// hand, and each is looked at for each new connection.
	maxFile  = 1 << 20
	maxRules = 4096
)

// addLine adds the rule on a line, if there is one.
func (e *Egress) addLine(line string, number int) error {
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
		return nil
	case words[0] != "allow":
		return fmt.Errorf("%q: a rule begins with allow", words[0])
	case len(words) == 1:
		return errors.New("allow whom? A name, an address or a prefix is missing")
	case len(words) > 3:
		return fmt.Errorf("%q: a rule is allow NAME|CIDR [PORT[/PROTO]]", words[3])
	case len(e.rules) == maxRules:
		return fmt.Errorf("more than %d rules", maxRules)
	}
	r := egressRule{allow: true, what: words[1], line: number}
	if len(words) == 3 {
		var err error
		if r.port, r.proto, err = parsePort(words[2]); err != nil {
			return err
		}
	}
	var err error
	if r.prefix, err = parsePrefix(words[1]); err != nil {
		return err
	}
	if !r.prefix.IsValid() {
		name := canonical(words[1])
		if err := checkName(name); err != nil {
			return err
		}
		n := e.names[name]
		if n == nil {
			n = &named{name: name, until: make(map[packet.Addr]int64)}
			e.names[name] = n
		}
		n.rules = append(n.rules, len(e.rules))
		r.name = n
	}
	e.rules = append(e.rules, r)
	return nil
}

// parsePrefix reads an address or prefix; the zero Prefix and no error are for
// what is neither.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a = a.Unmap(); a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q: an address here has no zone", s)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	if !strings.Contains(s, "/") && !strings.Contains(s, ":") {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is no prefix such as 192.0.2.0/24", s)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q: write the IPv4 prefix as such", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits behind its length: %s is meant, or %s/%d", s, p.Masked(), p.Addr(), p.Addr().BitLen())
	}
	return p, nil
}

func parsePort(s string) (uint16, packet.Proto, error) {
	port, proto, has := strings.Cut(s, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return 0, 0, fmt.Errorf("%q: %q is no port from 1 to 65535", s, port)
	}
	switch {
	case !has:
		return uint16(n), 0, nil
	case proto == "tcp":
		return uint16(n), packet.ProtoTCP, nil
	case proto == "udp":
		return uint16(n), packet.ProtoUDP, nil
	}
	return 0, 0, fmt.Errorf("%q: %q is neither tcp nor udp", s, proto)
}

// canonical is the form in which names are compared: DNS knows no case, and the
// dot at the end is of the notation.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// checkName wants a name that a host can have (RFC 1123 2.1), with the underscore
// that some have nevertheless.
func checkName(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("%.20s…: a name has at most 253 characters", name)
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		bad := strings.IndexFunc(l, func(c rune) bool {
			return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_')
		})
		switch {
		case strings.Contains(l, "*"):
			return fmt.Errorf("%q: a name stands for itself alone, there is no *", name)
		case l == "" || len(l) > 63 || bad >= 0 || l[0] == '-' || l[len(l)-1] == '-':
			return fmt.Errorf("%q is neither a host name nor an address", name)
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q is neither a host name nor an address", name) // RFC 3696 section 2
	}
	return nil
}
