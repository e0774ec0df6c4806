package policy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"fairlead/packet"
)

// An Egress says where the containers of a network, or one of them, may open
// connections to. Its rules are numbered from 1 and do not change; the first that
// fits decides, and the last one fits everything. Which addresses a rule with a
// name stands for is learned from the answers of our DNS.
//
// Check, CheckOwn and Learn are for one at a time: the owner holds a lock. All else
// any goroutine may call.
type Egress struct {
	spec  string
	rules []egressRule
	hits  []atomic.Uint64

	names map[string]*named        // those in rules
	open  map[packet.Addr][]*named // by the addresses they have now, or had
}

// An egressRule fits packets to a prefix, to the addresses of a name, or with own
// to the host itself.
type egressRule struct {
	allow  bool
	what   string // for people
	prefix netip.Prefix
	name   *named
	own    bool
	port   uint16       // 0 is every port, and of protocols that have none
	proto  packet.Proto // 0 is TCP and UDP if there is a port, else everything
	line   int          // of the file, 0 is none
}

// A named is a name in rules, and the addresses our DNS has answered for it.
type named struct {
	name  string
	rules []int // places in Egress.rules, in order
	until map[packet.Addr]int64
}

// maxLearned bounds the addresses of one name.
const maxLearned = 64

// ParseEgress reads what --egress says: all, none, internet, or allow:FILE, the
// file being one that open opens.
func ParseEgress(spec string, open func(name string) (io.ReadCloser, error)) (*Egress, error) {
	e := &Egress{spec: spec, names: make(map[string]*named), open: make(map[packet.Addr][]*named)}
	file, isFile := strings.CutPrefix(spec, "allow:")
	switch {
	case spec == "all":
		e.rest(true)
	case spec == "none":
		e.rest(false)
	case spec == "internet":
		for _, s := range special {
			e.rules = append(e.rules, egressRule{what: s.prefix + ", " + s.what, prefix: netip.MustParsePrefix(s.prefix)})
		}
		e.rules = append(e.rules, egressRule{what: "the host's own addresses", own: true})
		e.rest(true)
	case isFile && file != "":
		if err := e.read(file, open); err != nil {
			return nil, fmt.Errorf("egress: %w", err)
		}
		e.rest(false)
	default:
		return nil, fmt.Errorf("egress: %q is none of all, none, internet and allow:FILE", spec)
	}
	e.hits = make([]atomic.Uint64, len(e.rules))
	return e, nil
}

// rest adds the rule for everything else.
func (e *Egress) rest(allow bool) {
	e.rules = append(e.rules, egressRule{allow: allow, what: "everything else"})
	if len(e.rules) == 1 {
		e.rules[0].what = "everything"
	}
}

func (e *Egress) read(name string, open func(name string) (io.ReadCloser, error)) error {
	f, err := open(name)
	if err != nil {
		return err // it names the file
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("%s: larger than %d KiB", name, maxFile>>10)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if err := e.addLine(line, n); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return nil
}

// special are the addresses that are not of the internet: those the registries of
// IANA (RFC 6890) have as not globally reachable, and where clouds keep the
// credentials of their machines. The most specific come first, for who reads what
// refused him.
var special = []struct{ prefix, what string }{
	{"169.254.169.254/32", "metadata of the machine's cloud"},
	{"168.63.129.16/32", "metadata of the machine's cloud (Azure)"},
	{"0.0.0.0/8", "this network (RFC 791)"},
	{"10.0.0.0/8", "private (RFC 1918)"},
	{"100.64.0.0/10", "shared with a provider (RFC 6598)"},
	{"127.0.0.0/8", "loopback (RFC 1122)"},
	{"169.254.0.0/16", "link-local (RFC 3927)"},
	{"172.16.0.0/12", "private (RFC 1918)"},
	{"192.0.0.0/24", "protocol assignments (RFC 6890)"},
	{"192.0.2.0/24", "documentation (RFC 5737)"},
	{"192.88.99.0/24", "relays of 6to4 (RFC 7526)"},
	{"192.168.0.0/16", "private (RFC 1918)"},
	{"198.18.0.0/15", "benchmarks (RFC 2544)"},
	{"198.51.100.0/24", "documentation (RFC 5737)"},
	{"203.0.113.0/24", "documentation (RFC 5737)"},
	{"224.0.0.0/4", "multicast (RFC 1112)"},
	{"240.0.0.0/4", "reserved, and broadcast (RFC 1112)"},
	{"::/8", "loopback, unspecified and reserved (RFC 4291)"},
	{"64:ff9b::/96", "translated, perhaps to one of those (RFC 6052)"},
	{"64:ff9b:1::/48", "translated within a network (RFC 8215)"},
	{"100::/64", "discarded (RFC 6666)"},
	{"2001::/23", "protocol assignments (RFC 2928)"},
	{"2001:db8::/32", "documentation (RFC 3849)"},
	{"2002::/16", "6to4, perhaps of one of those (RFC 3056)"},
	{"fc00::/7", "unique local (RFC 4193)"},
	{"fe80::/10", "link-local (RFC 4291)"},
	{"ff00::/8", "multicast (RFC 4291)"},
}

// String is what it was made from.
func (e *Egress) String() string { return e.spec }

// Check says by which rule a connection may begin, or may not. An address that is
// the host's own is for CheckOwn.
func (e *Egress) Check(dst packet.Addr, port uint16, proto packet.Proto, now int64) (rule int, ok bool) {
	return e.check(dst, port, proto, now, false)
}

// CheckOwn is Check for an address that is the host's own.
func (e *Egress) CheckOwn(dst packet.Addr, port uint16, proto packet.Proto, now int64) (rule int, ok bool) {
	return e.check(dst, port, proto, now, true)
}

func (e *Egress) check(dst packet.Addr, port uint16, proto packet.Proto, now int64, own bool) (rule int, ok bool) {
	byName := e.byName(dst, port, proto, now)
	a := dst.Netip()
	for i := range e.rules {
		switch r := &e.rules[i]; {
		case i == byName, r.name == nil && (!r.own || own) && (!r.prefix.IsValid() || r.prefix.Contains(a)) && r.fits(port, proto):
			return i + 1, r.allow
		}
	}
	return len(e.rules), false // not reached: the last one fits
}

// byName is the place of the first rule that fits by a name, -1 if there is none.
func (e *Egress) byName(dst packet.Addr, port uint16, proto packet.Proto, now int64) int {
	if len(e.names) == 0 {
		return -1
	}
	first := -1
	for _, n := range e.open[dst] {
		if n.until[dst] < now {
			continue
		}
		for _, i := range n.rules {
			if e.rules[i].fits(port, proto) {
				if first < 0 || i < first {
					first = i
				}
				break
			}
		}
	}
	return first
}

// fits reports whether port and protocol are a rule's.
func (r *egressRule) fits(port uint16, proto packet.Proto) bool {
	switch {
	case r.port == 0:
		return true
	case r.proto == 0:
		return r.port == port && (proto == packet.ProtoTCP || proto == packet.ProtoUDP)
	}
	return r.port == port && r.proto == proto
}

// Closed reports whether no connection may begin at all.
func (e *Egress) Closed() bool {
	return !slices.ContainsFunc(e.rules, func(r egressRule) bool { return r.allow })
}

// Count counts a connection that a rule let begin, or a packet that it refused.
func (e *Egress) Count(rule int) {
	if 0 < rule && rule <= len(e.hits) {
		e.hits[rule-1].Add(1)
	}
}

// Wants reports whether a name is in the rules: then the answers to it are to be
// learned.
func (e *Egress) Wants(name string) bool { return e.names[canonical(name)] != nil }

// Learn takes in that our DNS has answered a container's question for a name with
// an address, and until when (the time that Check is told) the answer holds. Of a
// name with more addresses than there is room for, the one goes that ends first.
// Who answers for a name can open no address of the link, where clouds have their
// metadata, and none of a group or the host's loopback.
func (e *Egress) Learn(name string, a packet.Addr, until int64) {
	n := e.names[canonical(name)]
	if n == nil || !a.Netip().IsGlobalUnicast() {
		return
	}
	old, known := n.until[a]
	if !known {
		if len(n.until) >= maxLearned {
			e.forgetOne(n)
		}
		e.open[a] = append(e.open[a], n)
	}
	n.until[a] = max(old, until)
}

// forgetOne takes from a name the address whose time ends first.
func (e *Egress) forgetOne(n *named) {
	var first packet.Addr
	ends := int64(0)
	for a, until := range n.until {
		if ends == 0 || until < ends {
			first, ends = a, max(until, 1)
		}
	}
	delete(n.until, first)
	var rest []*named
	for _, other := range e.open[first] {
		if other != n {
			rest = append(rest, other)
		}
	}
	if e.open[first] = rest; rest == nil {
		delete(e.open, first)
	}
}

// An EgressRule is a rule as people look at it.
type EgressRule struct {
	Number int
	Allow  bool
	To     string       // a name, a prefix, or in words
	Port   uint16       // 0 is every one
	Proto  packet.Proto // 0 is every one; with a port TCP and UDP
	Line   int          // of the file, 0 if it is of none
	Hits   uint64       // connections it let begin, or packets it refused
}

// Rules lists the rules with their counters, in the order in which they are asked.
func (e *Egress) Rules() []EgressRule {
	list := make([]EgressRule, len(e.rules))
	for i := range e.rules {
		r := &e.rules[i]
		list[i] = EgressRule{i + 1, r.allow, r.what, r.port, r.proto, r.line, e.hits[i].Load()}
	}
	return list
}
