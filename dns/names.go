package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// How long answers of our own hold, in seconds: as long as Docker's. The host, where
// caches are, is told to keep none: what they say may change at any time.
const (
	ownTTL  = 600
	hostTTL = 0
)

// hostNames are the names of the host's loopback; the second one is Docker's.
var hostNames = []string{"host.fairlead.internal", "host.docker.internal"}

// Domain is what containers' names end in where they are beside all others, which
// is on the host.
const Domain = "fairlead.internal"

// HostNetwork is the network of a question that this host asks itself.
const HostNetwork packet.NetworkID = 0

// A Network is what queries from one are answered by.
type Network struct {
	Gateway netip.Prefix // its address, with the length of the subnet
	// MaxUDP is the longest answer that goes to its containers by UDP; 0 is MaxUDP.
	// What is longer has to be asked for by TCP, and never comes in fragments.
	MaxUDP int
	// Internal says that nothing leaves the network, queries neither.
	Internal bool
	// HostLoopback says that the gateway's address leads to the host's loopback,
	// and so has the host's names.
	HostLoopback bool
}

// What is known of a name that is answered here.
type own struct {
	exists bool
	addrs  []packet.Addr
	target string // of a PTR record
	ttl    uint32
}

// own looks a name up among those that are answered here; ours is false when
// others are to be asked.
func (f *Forwarder) own(q *Question, name string) (o own, ours bool) {
	o.ttl = ownTTL
	if q.Network == HostNetwork {
		o.ttl = hostTTL
	} else if slices.Contains(hostNames, name) {
		if n := f.networks[q.Network]; n.HostLoopback {
			o.exists, o.addrs = true, []packet.Addr{packet.AddrFromNetip(n.Gateway.Addr())}
		}
		return o, true
	}
	if rest, ok := strings.CutSuffix(name, Domain); ok && (rest == "" || strings.HasSuffix(rest, ".")) {
		o.addrs, o.exists = f.zone.lookUp(q, strings.TrimSuffix(rest, "."))
		o.exists = o.exists || rest == ""
		return o, true
	}
	if q.Network != HostNetwork { // a container's name must not hide one the host finds outside
		if o.addrs, o.exists = f.zone.lookUp(q, name); o.exists {
			return o, true
		}
	}
	p, ok := reversed(name)
	if !ok {
		return o, false
	}
	if p.IsSingleIP() && name+"." == reverse(p.Addr()) {
		if o.target = f.zone.nameOf(q, packet.AddrFromNetip(p.Addr())); o.target != "" && q.Network == HostNetwork {
			o.target += Domain + "."
		}
		o.exists = o.target != ""
	}
	return o, o.exists || f.isOwn(p)
}

// isOwn reports whether addresses are on a network of ours: nobody outside is
// asked whose they are.
func (f *Forwarder) isOwn(p netip.Prefix) bool {
	for _, n := range f.networks {
		if p.Bits() >= n.Gateway.Bits() && n.Gateway.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// reverse is the name that stands for an address.
func reverse(a netip.Addr) string {
	name, _ := dns.ReverseAddr(a.String()) // every address has one
	return name
}

// ReverseZones are the names below which those of a subnet's addresses are. There
// are several when it ends within a byte.
func ReverseZones(subnet netip.Prefix) (zones []string) {
	bits := (subnet.Bits() + 7) / 8 * 8
	a := subnet.Masked().Addr()
	for subnet.Contains(a) {
		parts := strings.Split(reverse(a), ".")
		zones = append(zones, strings.TrimSuffix(strings.Join(parts[4-bits/8:], "."), "."))
		b := a.As4()
		next := binary.BigEndian.Uint32(b[:]) + 1<<(32-bits)
		if bits == 0 || next == 0 {
			break
		}
		binary.BigEndian.PutUint32(b[:], next)
		a = netip.AddrFrom4(b)
	}
	return zones
}

// reversed reads a name below in-addr.arpa as the addresses it is about: four
// numbers are one address, less are a block, and what stands before four of them
// does not matter (RFC 1035 3.5). Below ip6.arpa it reads whole addresses (RFC
// 3596 2.5).
func reversed(name string) (netip.Prefix, bool) {
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		return reversed6(rest)
	}
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Prefix{}, false
	}
	var a [4]byte
	n := 0
	for n < len(a) && rest != "" {
		at := strings.LastIndexByte(rest, '.')
		v, err := strconv.ParseUint(rest[at+1:], 10, 8)
		if err != nil {
			break
		}
		a[n], n = byte(v), n+1
		rest = rest[:max(at, 0)]
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), 8*n), n > 0
}

// reversed6 reads 32 digits, the last one first, with dots between them.
func reversed6(digits string) (netip.Prefix, bool) {
	var a [16]byte
	if len(digits) != 4*len(a)-1 {
		return netip.Prefix{}, false
	}
	for i := range 2 * len(a) {
		v, err := strconv.ParseUint(digits[2*i:][:1], 16, 4)
		if err != nil || i > 0 && digits[2*i-1] != '.' {
			return netip.Prefix{}, false
		}
		at := len(a) - 1 - i/2
		a[at] |= byte(v) << (4 * (i % 2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 128), true
}

// ownAnswer is the answer to a query for a name of our own.
func (f *Forwarder) ownAnswer(m *dns.Msg, o own, limit int) *dns.Msg {
	if !o.exists {
		r := reply(m, dns.RcodeNameError)
		r.Authoritative = true
		return r
	}
	r := reply(m, dns.RcodeSuccess)
	r.Authoritative = true
	asked := m.Question[0]
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: asked.Name, Rrtype: t, Class: dns.ClassINET, Ttl: o.ttl}
	}
	wants := func(t uint16) bool {
		return (asked.Qtype == t || asked.Qtype == dns.TypeANY) && (asked.Qclass == dns.ClassINET || asked.Qclass == dns.ClassANY)
	}
	for _, a := range o.addrs {
		switch {
		case a.Is4() && wants(dns.TypeA):
			r.Answer = append(r.Answer, &dns.A{Hdr: header(dns.TypeA), A: a.Netip().AsSlice()})
		case !a.Is4() && wants(dns.TypeAAAA):
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: a.Netip().AsSlice()})
		}
	}
	if o.target != "" && wants(dns.TypePTR) {
		r.Answer = append(r.Answer, &dns.PTR{Hdr: header(dns.TypePTR), Ptr: o.target})
	}
	f.shuffle(len(r.Answer), func(i, j int) { r.Answer[i], r.Answer[j] = r.Answer[j], r.Answer[i] })
	r.Truncate(limit)
	return r
}
