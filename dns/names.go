package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// ownTTL is that of answers of our own: what they say may change at any time.
const ownTTL = uint32(time.Minute / time.Second)

// hostNames are the names of the host's loopback; the second one is Docker's.
var hostNames = []string{"host.fairlead.internal", "host.docker.internal"}

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

// own looks a name up among those that are answered here. No address means that
// the name does not exist; ours is false when others are to be asked.
func (f *Forwarder) own(q *Question, name string) (addrs []packet.Addr, ours bool) {
	if slices.Contains(hostNames, name) {
		if n := f.networks[q.Network]; n.HostLoopback {
			addrs = []packet.Addr{packet.AddrFromNetip(n.Gateway.Addr())}
		}
		return addrs, true
	}
	if p, ok := reversed(name); ok {
		for _, n := range f.networks {
			if p.Bits() >= n.Gateway.Bits() && n.Gateway.Contains(p.Addr()) {
				return nil, true
			}
		}
	}
	if f.conf.Names != nil {
		return f.conf.Names(q, name)
	}
	return nil, false
}

// reversed reads a name below in-addr.arpa as the addresses it is about: four
// numbers are one address, less are a block, and what stands before four of them
// does not matter (RFC 1035 3.5).
func reversed(name string) (netip.Prefix, bool) {
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

// ownAnswer is the answer to a query for a name of our own.
func ownAnswer(m *dns.Msg, addrs []packet.Addr, limit int) *dns.Msg {
	if len(addrs) == 0 {
		r := reply(m, dns.RcodeNameError)
		r.Authoritative = true
		return r
	}
	r := reply(m, dns.RcodeSuccess)
	r.Authoritative = true
	asked := m.Question[0]
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: asked.Name, Rrtype: t, Class: dns.ClassINET, Ttl: ownTTL}
	}
	wants := func(t uint16) bool {
		return (asked.Qtype == t || asked.Qtype == dns.TypeANY) && (asked.Qclass == dns.ClassINET || asked.Qclass == dns.ClassANY)
	}
	for _, a := range addrs {
		switch {
		case a.Is4() && wants(dns.TypeA):
			r.Answer = append(r.Answer, &dns.A{Hdr: header(dns.TypeA), A: a.Netip().AsSlice()})
		case !a.Is4() && wants(dns.TypeAAAA):
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: a.Netip().AsSlice()})
		}
	}
	r.Truncate(limit)
	return r
}
