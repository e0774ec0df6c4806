package dns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

const (
	lab      packet.NetworkID = 1
	internal packet.NetworkID = 2
)

var (
	first  = netip.MustParseAddrPort("192.0.2.1:53")
	second = netip.MustParseAddrPort("192.0.2.2:53")
	web    = packet.AddrFrom4([4]byte{172, 17, 0, 2})
	gate   = packet.AddrFrom4([4]byte{172, 17, 0, 1})
)

// A world is a Forwarder, and all it has said.
type world struct {
	t       *testing.T
	f       *Forwarder
	now     int64
	replies []*dns.Msg
	raw     [][]byte
	asks    []*Ask
	learned []string

	unanswered int
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	w := &world{t: t, now: 1e9}
	conf := Config{Containers: 4, Total: 6, Seed: [32]byte{1},
		Wants: func(*Question, string) bool { return true },
		Learn: func(q *Question, name string, addrs []packet.Addr, ttl time.Duration) {
			s := name
			for _, a := range addrs {
				s += " " + a.String()
			}
			w.learned = append(w.learned, s+" "+ttl.String())
		}}
	for _, fn := range change {
		fn(&conf)
	}
	w.f = New(conf)
	w.f.SetNetwork(lab, Network{Gateway: netip.MustParsePrefix("172.17.0.1/16")})
	w.f.SetNetwork(internal, Network{Gateway: netip.MustParsePrefix("10.9.0.1/24"), Internal: true})
	w.f.SetServers(Servers{Addrs: []netip.AddrPort{first, second}, Timeout: perTry, Attempts: 2})
	return w
}

// do takes down what is to be done.
func (w *world) do(s Step) {
	w.t.Helper()
	for _, r := range s.Replies {
		r.To(r.Message)
	}
	if s.Ask != nil {
		w.asks = append(w.asks, s.Ask)
	}
}

func question(name string, t uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, t)
	m.Id = 7
	return m
}

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// from is where a query comes from: a port of a container.
func from(c packet.ContainerID, port uint16, proto packet.Proto) Question {
	return Question{Network: lab, Container: c,
		From: packet.Tuple{Src: web, SrcPort: port, Dst: gate, DstPort: 53, Proto: proto}}
}

// query asks; the answer goes to w.replies.
func (w *world) query(q Question, b []byte) {
	w.t.Helper()
	q.Payload = b
	w.do(w.f.Query(w.now, q, func(b []byte) {
		if b == nil {
			w.unanswered++
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			w.t.Errorf("malformed reply: %v\n% x", err, b)
		}
		w.raw, w.replies = append(w.raw, b), append(w.replies, m)
	}))
}

func (w *world) udp(m *dns.Msg) { w.query(from(1, 4000, packet.ProtoUDP), packed(w.t, m)) }
func (w *world) tcp(m *dns.Msg) { w.query(from(1, 4000, packet.ProtoTCP), packed(w.t, m)) }

// asked is the server's question that was asked last.
func (w *world) asked() (*Ask, *dns.Msg) {
	w.t.Helper()
	if len(w.asks) == 0 {
		w.t.Fatal("nobody was asked")
	}
	a, m := w.asks[len(w.asks)-1], new(dns.Msg)
	if err := m.Unpack(a.Message); err != nil {
		w.t.Fatal(err)
	}
	return a, m
}

// answer has a server answer the last question, as change says.
func (w *world) answer(change func(m *dns.Msg)) {
	w.t.Helper()
	a, m := w.asked()
	r := new(dns.Msg).SetReply(m)
	change(r)
	s, ok := w.f.Answer(w.now, a.Try, packed(w.t, r))
	if !ok {
		w.t.Errorf("not taken: %v", r)
	}
	w.do(s)
}

func (w *world) fail(after time.Duration) {
	w.t.Helper()
	a, _ := w.asked()
	w.now += int64(after)
	w.do(w.f.Failed(w.now, a.Try))
}

// reply is the one reply there is.
func (w *world) reply() *dns.Msg {
	w.t.Helper()
	if len(w.replies) != 1 {
		w.t.Fatalf("%d replies, want one", len(w.replies))
	}
	return w.replies[0]
}

// ends wants one reply with a code, and nothing left.
func (w *world) ends(rcode int) *dns.Msg {
	w.t.Helper()
	r := w.reply()
	if r.Rcode != rcode || r.Id != 7 || !r.Response {
		w.t.Errorf("replied %v\nwant %s", r, dns.RcodeToString[rcode])
	}
	if w.f.InFlight() != 0 || len(w.f.flights)+len(w.f.tries)+len(w.f.waiting) != 0 {
		w.t.Errorf("left in flight: %d, %v %v %v", w.f.InFlight(), w.f.flights, w.f.tries, w.f.waiting)
	}
	return r
}

func a(name string, last byte) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: net.IPv4(192, 0, 2, last)}
}

func txt(name string, n int) dns.RR {
	s := make([]string, 0, n/200)
	for range n / 200 {
		s = append(s, strings.Repeat("x", 199))
	}
	return &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 30}, Txt: s}
}

func TestForward(t *testing.T) {
	w := newWorld(t)
	m := question("WWW.example.org.", dns.TypeA)
	m.CheckingDisabled, m.AuthenticatedData = true, true
	m.SetEdns0(1400, true)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("unheard of")})
	w.udp(m)
	ask, up := w.asked()
	if up.Id = m.Id; up.String() != m.String() {
		t.Errorf("asked\n%v\nwant\n%v", up, m)
	}
	if ask.Server != first || ask.TCP || ask.Within != perTry {
		t.Errorf("asked as %+v", ask)
	}
	w.answer(func(r *dns.Msg) {
		r.Answer = append(r.Answer, a("WWW.example.org.", 80))
		r.SetEdns0(1232, true)
	})
	r := w.ends(dns.RcodeSuccess)
	if len(r.Answer) != 1 || r.IsEdns0() == nil {
		t.Errorf("replied %v", r)
	}
	if want := []string{"www.example.org 192.0.2.80 30s"}; !slices.Equal(w.learned, want) {
		t.Errorf("learned %q, want %q", w.learned, want)
	}
}

// The server's answer is handed on byte for byte, but for the id.
func TestVerbatim(t *testing.T) {
	w := newWorld(t)
	w.udp(question("x.", dns.TypeA))
	ask, m := w.asked()
	b := packed(t, new(dns.Msg).SetReply(m))
	binary.BigEndian.PutUint16(b[6:], 1)
	b = append(b, "\x00\xff\x01\x00\x01\x00\x00\x00\x00\x00\x03???"...) // a record of type 65281
	sent := slices.Clone(b)
	s, _ := w.f.Answer(w.now, ask.Try, b)
	w.do(s)
	w.ends(dns.RcodeSuccess)
	if !slices.Equal(w.raw[0][2:], sent[2:]) {
		t.Errorf("% x became % x", sent, w.raw[0])
	}
}

// Labels are any bytes, dots among them (RFC 2181 section 11).
func TestOddNames(t *testing.T) {
	for _, name := range []string{`My\.Printer\ 2._ipp._tcp.example.`, `\000\255.example.`, ".", strings.Repeat(strings.Repeat("x", 61)+".", 4)} {
		w := newWorld(t)
		w.udp(question(name, dns.TypeSRV))
		w.answer(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })
		if r := w.ends(dns.RcodeNameError); r.Question[0].Name != name {
			t.Errorf("%s: replied %v", name, r)
		}
	}
}

// Every try has an id of its own, and nobody can tell it from those before.
func TestIDs(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Containers, c.Total = 300, 300 })
	seen := map[uint16]int{}
	for port := range uint16(300) {
		m := question("x.example.", dns.TypeA)
		m.Question[0].Qtype = 1000 + port
		w.query(from(1, port, packet.ProtoUDP), packed(t, m))
		_, up := w.asked()
		seen[up.Id]++
	}
	if len(seen) < 290 { // two of 300 are the same every other time
		t.Errorf("300 tries had %d ids", len(seen))
	}
	other := newWorld(t, func(c *Config) { c.Seed = [32]byte{2} })
	other.udp(question("x.example.", dns.TypeA))
	if binary.BigEndian.Uint16(other.asks[0].Message) == binary.BigEndian.Uint16(w.asks[0].Message) {
		t.Error("ids do not depend on the seed")
	}
}

// What does not answer the question, with its id, is no answer.
func TestForgedAnswers(t *testing.T) {
	for name, forge := range map[string]func(m *dns.Msg){
		"id":             func(m *dns.Msg) { m.Id++ },
		"name":           func(m *dns.Msg) { m.Question[0].Name = "y.example." },
		"type":           func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"class":          func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"a query":        func(m *dns.Msg) { m.Response = false },
		"opcode":         func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"no question":    func(m *dns.Msg) { m.Question = nil },
		"no such name":   func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeNameError },
		"more questions": func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
	} {
		w := newWorld(t)
		w.udp(question("x.example.", dns.TypeA))
		ask, up := w.asked()
		m := new(dns.Msg).SetReply(up)
		forge(m)
		if s, ok := w.f.Answer(w.now, ask.Try, packed(t, m)); ok || len(s.Replies) != 0 || s.Ask != nil {
			t.Errorf("another %s: taken, %+v", name, s)
		}
		if w.f.Stats().Ignored != 1 {
			t.Errorf("another %s: %+v", name, w.f.Stats())
		}
		w.answer(func(m *dns.Msg) { m.Question[0].Name = "X.EXAMPLE." })
		w.ends(dns.RcodeSuccess)
		if s, ok := w.f.Answer(w.now, ask.Try, packed(t, up)); !ok || len(s.Replies) != 0 {
			t.Errorf("an answer to what is over: %v %+v", ok, s)
		}
	}
}

func TestNextServer(t *testing.T) {
	w := newWorld(t)
	w.udp(question("x.example.", dns.TypeA))
	for i, want := range []netip.AddrPort{first, second, first} {
		if ask, _ := w.asked(); ask.Server != want || len(w.asks) != i+1 {
			t.Errorf("try %d asks %v, want %v", len(w.asks), ask.Server, want)
		}
		if i < 2 {
			w.fail(perTry)
		}
	}
	if ask, _ := w.asked(); ask.Within != time.Second {
		t.Errorf("the last try has %v, want what is left of %v", ask.Within, total)
	}
	w.fail(time.Second)
	w.ends(dns.RcodeServerFailure)
	if s := w.f.Stats(); s.Failed != 1 || s.Silent != 3 || s.Tries != 3 {
		t.Errorf("%+v", s)
	}
}

// A server that refuses at once costs no time.
func TestUnreachableServers(t *testing.T) {
	w := newWorld(t)
	w.udp(question("x.example.", dns.TypeA))
	for range 4 {
		w.fail(0)
	}
	w.ends(dns.RcodeServerFailure)
	if len(w.asks) != 4 {
		t.Errorf("%d tries, want two at each server", len(w.asks))
	}
	w = newWorld(t)
	w.f.SetServers(Servers{})
	w.udp(question("x.example.", dns.TypeA))
	w.ends(dns.RcodeServerFailure)
}

// A server that was silent has to be quick, as long as another one is not.
func TestSilentServer(t *testing.T) {
	w := newWorld(t)
	ask := func(want time.Duration) {
		t.Helper()
		w.udp(question("x.example.", dns.TypeA))
		if a, _ := w.asked(); a.Server != first || a.Within != want {
			t.Errorf("asks %+v, want %v within %v", a, first, want)
		}
	}
	ask(perTry)
	w.fail(perTry)
	w.answer(func(*dns.Msg) {})
	ask(forSilent)
	w.answer(func(*dns.Msg) {})
	ask(perTry) // it has answered
	w.fail(perTry)
	w.fail(perTry)
	w.fail(time.Second)
	ask(perTry) // nobody is better
}

// A name nobody answers for costs its asker time, and no other one the server that
// answers everybody else.
func TestNameWithoutAnswer(t *testing.T) {
	w := newWorld(t)
	other := from(2, 5000, packet.ProtoUDP)
	w.udp(question("dead.example.", dns.TypeA))
	dead, _ := w.asked()
	w.now += int64(time.Second)
	w.query(other, packed(t, question("x.example.", dns.TypeA)))
	w.answer(func(*dns.Msg) {})
	w.now += int64(time.Second)
	w.do(w.f.Failed(w.now, dead.Try))
	if a, _ := w.asked(); a.Server != second {
		t.Errorf("asks %v for what the first does not answer, want %v", a.Server, second)
	}
	w.query(other, packed(t, question("y.example.", dns.TypeA)))
	if a, _ := w.asked(); a.Server != first || a.Within != perTry {
		t.Errorf("asks %v within %v, want %v within %v", a.Server, a.Within, first, perTry)
	}
	w.fail(perTry) // and now it has answered nobody
	w.query(other, packed(t, question("z.example.", dns.TypeA)))
	if a, _ := w.asked(); a.Server != first || a.Within != forSilent {
		t.Errorf("asks %v within %v, want %v within %v", a.Server, a.Within, first, forSilent)
	}
}

func TestRotate(t *testing.T) {
	w := newWorld(t)
	w.f.SetServers(Servers{Addrs: []netip.AddrPort{first, second}, Timeout: time.Second, Attempts: 1, Rotate: true})
	for _, want := range []netip.AddrPort{second, first, second} {
		w.udp(question("x.example.", dns.TypeA))
		if ask, _ := w.asked(); ask.Server != want || ask.Within != time.Second {
			t.Errorf("asks %+v, want %v", ask, want)
		}
		w.answer(func(*dns.Msg) {})
	}
	w.replies = nil
	w.udp(question("x.example.", dns.TypeA))
	w.fail(0)
	if ask, _ := w.asked(); ask.Server != second {
		t.Errorf("then %v", ask.Server)
	}
	w.f.SetServers(Servers{Addrs: []netip.AddrPort{first}, Timeout: time.Second, Attempts: 1})
	w.answer(func(*dns.Msg) {}) // of a server that is none any more
	w.ends(dns.RcodeSuccess)
}

// An error of one server is not the last word, but it is one.
func TestRefusals(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused} {
		w := newWorld(t)
		w.udp(question("x.example.", dns.TypeA))
		w.answer(func(m *dns.Msg) { m.Rcode = rcode })
		w.answer(func(m *dns.Msg) { m.Answer = append(m.Answer, a("x.example.", 1)) })
		w.ends(dns.RcodeSuccess)

		w = newWorld(t)
		w.udp(question("x.example.", dns.TypeA))
		for range 4 {
			w.answer(func(m *dns.Msg) { m.Rcode = rcode })
		}
		w.ends(rcode)
	}
	for _, rcode := range []int{dns.RcodeNameError, dns.RcodeFormatError, dns.RcodeSuccess} {
		w := newWorld(t)
		w.udp(question("x.example.", dns.TypeA))
		w.answer(func(m *dns.Msg) { m.Rcode = rcode })
		w.ends(rcode)
	}
	// A server may refuse with nothing but a header.
	w := newWorld(t)
	w.udp(question("x.example.", dns.TypeA))
	for range 4 {
		w.answer(func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeFormatError, nil })
	}
	if r := w.ends(dns.RcodeFormatError); len(r.Question) != 1 {
		t.Errorf("replied %v", r)
	}
}

func TestTruncated(t *testing.T) {
	truncate := func(m *dns.Msg) { m.Truncated = true; m.Answer = append(m.Answer, txt("x.example.", 200)) }
	long := func(m *dns.Msg) { m.Answer = append(m.Answer, txt("x.example.", 3000)) }
	withSize := func(n uint16) *dns.Msg { return question("x.example.", dns.TypeTXT).SetEdns0(n, false) }

	// Without EDNS there is nothing to be gained: the asker goes on by TCP.
	w := newWorld(t)
	w.udp(question("x.example.", dns.TypeTXT))
	w.answer(truncate)
	if r := w.ends(dns.RcodeSuccess); !r.Truncated || len(r.Answer) != 1 {
		t.Errorf("replied %v", r)
	}

	// Who takes more than the server sends by UDP gets what it sends by TCP.
	w = newWorld(t)
	w.udp(withSize(4096))
	w.answer(truncate)
	if ask, _ := w.asked(); len(w.asks) != 2 || !ask.TCP || ask.Server != first {
		t.Fatalf("asks %+v", ask)
	}
	w.answer(long)
	if r := w.ends(dns.RcodeSuccess); r.Truncated || r.Len() < 3000 {
		t.Errorf("replied %v", r)
	}

	// What is too long, and what cannot be had by TCP, stays truncated.
	for _, end := range []func(w *world){
		func(w *world) { w.answer(long) },
		func(w *world) { w.fail(0) },
		func(w *world) { w.answer(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }) },
	} {
		w = newWorld(t)
		w.udp(withSize(1400))
		w.answer(truncate)
		end(w)
		if r := w.ends(dns.RcodeSuccess); !r.Truncated || len(r.Answer) != 1 {
			t.Errorf("replied %v", r)
		}
	}

	// A server that does not keep to the size.
	for size, want := range map[uint16]bool{0: true, 512: true, 1400: true, 4096: false, 65535: false} {
		w = newWorld(t)
		m := question("x.example.", dns.TypeTXT)
		if size != 0 {
			m.SetEdns0(size, true)
		}
		w.udp(m)
		w.answer(long)
		r := w.ends(dns.RcodeSuccess)
		if r.Truncated != want || (r.IsEdns0() != nil) != (want && size != 0) {
			t.Errorf("size %d: replied %v", size, r)
		}
	}

	// What the network does not carry in one piece.
	for _, c := range []struct{ least, most int }{{3000, 4096}, {0, 1400}, {0, 100}} {
		w = newWorld(t)
		w.f.SetNetwork(lab, Network{Gateway: netip.MustParsePrefix("172.17.0.1/16"), MaxUDP: c.most})
		w.udp(withSize(4096))
		w.answer(long)
		if r := w.ends(dns.RcodeSuccess); r.Truncated != (c.least == 0) || r.Len() < c.least {
			t.Errorf("network of %d: replied %v", c.most, r)
		}
	}

	// By TCP everything passes, also a truncated answer, once.
	w = newWorld(t)
	w.tcp(question("x.example.", dns.TypeTXT))
	if ask, _ := w.asked(); !ask.TCP {
		t.Errorf("asks %+v", ask)
	}
	w.answer(func(m *dns.Msg) { long(m); m.Truncated = true })
	if r := w.ends(dns.RcodeSuccess); !r.Truncated || r.Len() < 3000 || len(w.asks) != 1 {
		t.Errorf("replied %v", r)
	}
}

// By TCP the same query again, with the same id, is one more to be answered.
func TestRepeatedByTCP(t *testing.T) {
	w := newWorld(t)
	w.tcp(question("x.example.", dns.TypeA))
	w.tcp(question("x.example.", dns.TypeA))
	if len(w.asks) != 1 || w.f.InFlight() != 2 || w.unanswered != 0 {
		t.Fatalf("%d tries, %d in flight, %d left unanswered", len(w.asks), w.f.InFlight(), w.unanswered)
	}
	w.answer(func(m *dns.Msg) { m.Answer = append(m.Answer, a("x.example.", 1)) })
	if len(w.replies) != 2 || w.replies[0].Id != w.replies[1].Id {
		t.Errorf("replied %v", w.replies)
	}
}

// Identical queries are asked once; each asker hears the answer with its own id.
func TestJoin(t *testing.T) {
	w := newWorld(t)
	for i := range uint16(3) {
		m := question("x.example.", dns.TypeA)
		m.Id = 100 + i
		w.query(from(packet.ContainerID(i), 4000, packet.ProtoUDP), packed(t, m))
		w.query(from(packet.ContainerID(i), 4000, packet.ProtoUDP), packed(t, m)) // impatient
	}
	w.tcp(question("x.example.", dns.TypeA))
	w.udp(question("x.example.", dns.TypeAAAA))
	if len(w.asks) != 3 || w.f.InFlight() != 5 {
		t.Errorf("%d tries, %d in flight", len(w.asks), w.f.InFlight())
	}
	w.asks = w.asks[:1]
	w.answer(func(m *dns.Msg) { m.Answer = append(m.Answer, a("x.example.", 1)) })
	var ids []uint16
	for _, r := range w.replies {
		ids = append(ids, r.Id)
	}
	if !slices.Equal(ids, []uint16{100, 101, 102}) || len(w.learned) != 3 {
		t.Errorf("replied to %v, learned %q", ids, w.learned)
	}
	if s := w.f.Stats(); s.Joined != 2 || s.Repeated != 3 || s.Forwarded != 3 || w.unanswered != 3 {
		t.Errorf("%+v, %d unanswered", s, w.unanswered)
	}
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	ask := func(c packet.ContainerID, name string) {
		w.query(from(c, 4000, packet.ProtoUDP), packed(t, question(name, 1)))
	}
	for _, name := range []string{"a.", "b.", "c.", "d."} {
		ask(1, name)
	}
	ask(1, "e.")
	if r := w.reply(); r.Rcode != dns.RcodeRefused {
		t.Errorf("the fifth of a container: %v", r)
	}
	ask(2, "e.")
	ask(2, "f.")
	ask(3, "g.")
	if len(w.replies) != 2 || w.replies[1].Rcode != dns.RcodeRefused || w.f.Stats().Refused != 2 {
		t.Errorf("the seventh of all: %v", w.replies)
	}
	w.answer(func(*dns.Msg) {})
	ask(3, "g.")
	if len(w.replies) != 3 || w.f.InFlight() != 6 {
		t.Errorf("after one was answered: %v, %d in flight", w.replies, w.f.InFlight())
	}
}
