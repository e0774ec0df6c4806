package dns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// Sizes of messages.
const (
	headerLen = 12
	MaxQuery  = 4096 // one with all options there are is a tenth of it
	leastUDP  = dns.MinMsgSize

	// MaxUDP is the longest answer that goes by UDP, as RFC 6891 6.2.5 suggests.
	MaxUDP = 4096
	MaxTCP = dns.MaxMsgSize
	// ownUDP is what we say we take: what fits every network unfragmented.
	ownUDP = 1232
)

// parse reads a query. m is nil when it deserves no answer; else, when rcode is
// not success, that is the answer.
func parse(b []byte) (m *dns.Msg, rcode int) {
	if len(b) < headerLen || b[2]&0x80 != 0 { // QR: an answer is not answered, or two of us would do so for ever
		return nil, 0
	}
	if len(b) > MaxQuery {
		b = b[:headerLen]
	}
	m = new(dns.Msg)
	err := m.Unpack(b)
	switch {
	case m.Opcode != dns.OpcodeQuery:
		rcode = dns.RcodeNotImplemented
	case err != nil || m.Truncated || len(m.Question) != 1 || !exact(b, m):
		rcode = dns.RcodeFormatError
	case m.Question[0].Qtype == dns.TypeAXFR || m.Question[0].Qtype == dns.TypeIXFR:
		return m, dns.RcodeRefused // a stream of messages, and nobody's business inside
	case len(m.Answer)+len(m.Ns) > 0:
		rcode = dns.RcodeFormatError
	}
	if rcode != dns.RcodeSuccess { // of what is not understood only the header is sure
		m.Question, m.Extra = nil, nil
		return m, rcode
	}
	for i, rr := range m.Extra {
		opt, ok := rr.(*dns.OPT)
		switch {
		case !ok:
		case opt.Hdr.Name != "." || m.Extra[i] != dns.RR(m.IsEdns0()): // RFC 6891 6.1.1: one at most, of the root
			return m, dns.RcodeFormatError
		case opt.Version() != 0:
			return m, dns.RcodeBadVers
		}
	}
	return m, dns.RcodeSuccess
}

// exact reports whether the sections of a query are what the header says, nothing
// follows, and the name is written out: a pointer could lead to the id, and the
// question be another one with each.
func exact(b []byte, m *dns.Msg) bool {
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(binary.BigEndian.Uint16(b[4+2*i:])) != n {
			return false
		}
	}
	name := make([]byte, len(b))
	n, err := dns.PackDomainName(m.Question[0].Name, name, 0, nil, false)
	_, end := records(b, len(m.Answer)+len(m.Ns)+len(m.Extra))
	return err == nil && end == len(b) && bytes.HasPrefix(b[headerLen:], name[:n])
}

// limit is how long an answer the asker takes, and its network.
func (f *Forwarder) limit(q *Question, m *dns.Msg) int {
	n, opt := MaxUDP, m.IsEdns0()
	switch {
	case q.From.Proto == packet.ProtoTCP:
		return MaxTCP
	case opt == nil:
		return leastUDP
	}
	if most := f.networks[q.Network].MaxUDP; most > 0 {
		n = min(n, most)
	}
	return max(min(int(opt.UDPSize()), n), leastUDP)
}

// reply begins an answer of our own.
func reply(m *dns.Msg, rcode int) *dns.Msg {
	r := new(dns.Msg).SetReply(m)
	r.Rcode = rcode
	r.RecursionAvailable = true
	if opt := m.IsEdns0(); opt != nil {
		r.SetEdns0(ownUDP, opt.Do())
	}
	return r
}

// pack writes an answer of our own.
func pack(r *dns.Msg) []byte {
	r.Compress = true
	b, err := r.Pack()
	if err != nil { // a name that can be read and not be written
		b = make([]byte, headerLen)
		setID(b, r.Id)
		b[2], b[3] = 0x80, dns.RcodeServerFailure
	}
	return b
}

func setID(b []byte, id uint16) { binary.BigEndian.PutUint16(b, id) }

// A response is the beginning of an answer.
type response struct {
	rcode     int
	truncated bool
	asked     bool // it repeats the question
}

// read looks at an answer to a question, asked with an id. ok is false when it is
// none: somebody guesses (RFC 5452 section 9.1). Only an error may come without
// the question.
func read(b []byte, id uint16, q *dns.Question) (r response, ok bool) {
	if len(b) < headerLen || binary.BigEndian.Uint16(b) != id || b[2]&0xf8 != 0x80 { // QR, opcode 0
		return r, false
	}
	r.rcode, r.truncated = int(b[3]&0xf), b[2]&2 != 0
	switch questions := binary.BigEndian.Uint16(b[4:]); {
	case questions == 0:
		return r, r.rcode != dns.RcodeSuccess && r.rcode != dns.RcodeNameError
	case questions != 1:
		return r, false
	}
	name, n, err := dns.UnpackDomainName(b, headerLen)
	if err != nil || len(b) < n+4 || !strings.EqualFold(name, q.Name) {
		return r, false
	}
	r.asked = true
	return r, binary.BigEndian.Uint16(b[n:]) == q.Qtype && binary.BigEndian.Uint16(b[n+2:]) == q.Qclass
}

// leastTTL is how long an address is known by its name at least: an answer with
// a TTL of zero is for the connection that is just about to be made.
const leastTTL = 10 * time.Second

// addresses are what an answer says of a name: the addresses at the end of its
// chain of aliases, and for how long all of that holds. An answer that cannot be
// read to its end says what stands before.
func addresses(b []byte, name string) (addrs []packet.Addr, ttl time.Duration) {
	list, _ := records(b, int(binary.BigEndian.Uint16(b[6:])))
	aliases := map[string]*dns.CNAME{} // they may stand in any order
	for _, rr := range list {
		if alias, ok := rr.(*dns.CNAME); ok {
			aliases[plain(alias.Hdr.Name)] = alias
		}
	}
	least := uint32(1<<31 - 1)
	chain := map[string]bool{}
	for name = plain(name); !chain[name]; {
		chain[name] = true
		if alias := aliases[name]; alias != nil {
			name, least = plain(alias.Target), min(least, alias.Hdr.Ttl)
		}
	}
	for _, rr := range list {
		var a netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			a, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if a.IsValid() && chain[plain(rr.Header().Name)] {
			addrs = append(addrs, packet.AddrFromNetip(a))
			least = min(least, rr.Header().Ttl)
		}
	}
	return addrs, max(time.Duration(least)*time.Second, leastTTL)
}

// records reads the first n records of a message with one question, and where
// they end. What cannot be read ends them sooner.
func records(b []byte, n int) (list []dns.RR, end int) {
	_, end, err := dns.UnpackDomainName(b, headerLen)
	if err != nil || binary.BigEndian.Uint16(b[4:]) != 1 {
		return nil, 0
	}
	end += 4 // type and class
	for range n {
		rr, next, err := dns.UnpackRR(b, end)
		if err != nil || next <= end {
			break
		}
		list, end = append(list, rr), next
	}
	return list, end
}

// plain is a name as people write it, and as it is compared: case makes no
// difference (RFC 4343).
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
