package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"fairlead/dns"
	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/packet"
	"fairlead/test/lab"
)

// Networks of the tests: one that may ask outside, one that may not.
const (
	outgoing packet.NetworkID = 1
	inward   packet.NetworkID = 2
)

// patience bounds what is waited for, on a machine that does other things too.
const patience = 20 * time.Second

// nameserverOf starts a nameserver with a resolv.conf of its own. Connections
// from 127.0.1.C are those of container C.
func nameserverOf(t *testing.T, resolvConf string, policies ...egress) *nameserver {
	t.Helper()
	conf := nameserverConfig{
		Descriptors: 1 << 20,
		ResolvConf:  filepath.Join(t.TempDir(), "resolv.conf"),
	}
	if resolvConf != "" {
		writeFile(t, conf.ResolvConf, resolvConf)
	}
	d, err := newNameserver(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	d.setOwner(func(a netip.AddrPort) (packet.ContainerID, packet.NetworkID, bool) {
		b := a.Addr().As4()
		return packet.ContainerID(b[3]), outgoing, b[2] == 1
	})
	policies = append(policies, allowsAll{})
	d.setNetworks([]known{
		{dns.NetworkName{Network: outgoing}, dns.Network{Gateway: netip.MustParsePrefix("172.17.0.1/16")}, policies[0]},
		{dns.NetworkName{Network: inward}, dns.Network{Gateway: netip.MustParsePrefix("10.9.0.1/24"), Internal: true}, policies[0]},
	})
	return d
}

// allowsAll is no policy.
type allowsAll struct{}

func (allowsAll) Closed(packet.ContainerID) bool                           { return false }
func (allowsAll) WantsName(packet.ContainerID, string) bool                { return false }
func (allowsAll) LearnName(packet.ContainerID, string, packet.Addr, int64) {}

// learns is a policy for what container 1 asks; container 9 has no way out.
type learns chan string

func (learns) Closed(c packet.ContainerID) bool              { return c == 9 }
func (learns) WantsName(c packet.ContainerID, _ string) bool { return c == 1 }
func (l learns) LearnName(_ packet.ContainerID, name string, a packet.Addr, until int64) {
	left := time.Duration(until - loop.Clock()).Round(time.Minute)
	l <- name + " " + a.String() + " " + left.String()
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// An upstream is a resolver of the test's own. answer returns the datagrams, or
// by TCP the messages, it says to a query.
type upstream struct {
	t      *testing.T
	udp    net.PacketConn
	asked  sync.Map                    // names
	by     atomic.Pointer[net.UDPAddr] // who asked by UDP last
	answer func(m *mdns.Msg, tcp bool) []*mdns.Msg
}

// resolver starts one at port 53 of an address of the loopback.
func resolver(t *testing.T, addr string, answer func(m *mdns.Msg, tcp bool) []*mdns.Msg) *upstream {
	t.Helper()
	at := net.JoinHostPort(addr, "53")
	udp, err := net.ListenPacket("udp", at)
	if errors.Is(err, fs.ErrPermission) {
		lab.NotRun(t, "may not be a server at port 53", "make test")
	}
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, udp: udp, answer: answer}
	t.Cleanup(func() { _ = udp.Close(); _ = tcp.Close() })
	go u.serveUDP()
	go u.serveTCP(tcp)
	return u
}

func (u *upstream) serveUDP() {
	for b := make([]byte, 65535); ; {
		n, from, err := u.udp.ReadFrom(b)
		if err != nil {
			return
		}
		u.by.Store(from.(*net.UDPAddr))
		for _, m := range u.said(b[:n], false) {
			_, _ = u.udp.WriteTo(m, from)
		}
	}
}

func (u *upstream) serveTCP(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if b, err := readFramed(conn, 65535); err == nil {
			for _, m := range u.said(b, true) {
				_, _ = conn.Write(framed(m))
			}
		}
		_ = conn.Close()
	}
}

func (u *upstream) said(b []byte, tcp bool) (list [][]byte) {
	var m mdns.Msg
	if err := m.Unpack(b); err != nil {
		u.t.Errorf("asked % x: %v", b, err)
		return nil
	}
	u.asked.Store(m.Question[0].Name, true)
	for _, r := range u.answer(&m, tcp) {
		packed, err := r.Pack()
		if err != nil {
			u.t.Error(err)
		}
		list = append(list, packed)
	}
	return list
}

// says is an answer of one address, which says who answered.
func says(last byte) func(*mdns.Msg, bool) []*mdns.Msg {
	return func(m *mdns.Msg, _ bool) []*mdns.Msg {
		r := new(mdns.Msg).SetReply(m)
		r.Answer = append(r.Answer, &mdns.A{A: net.IPv4(192, 0, 2, last),
			Hdr: mdns.RR_Header{Name: m.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}})
		return []*mdns.Msg{r}
	}
}

// saysNothing is a resolver that is there and silent.
func saysNothing(*mdns.Msg, bool) []*mdns.Msg { return nil }

// saysText answers with a text that fits no datagram of a careful server.
func saysText(n int) func(*mdns.Msg, bool) []*mdns.Msg {
	return func(m *mdns.Msg, tcp bool) []*mdns.Msg {
		r := new(mdns.Msg).SetReply(m)
		if opt := m.IsEdns0(); opt != nil {
			r.SetEdns0(1232, opt.Do())
		}
		for range n / 100 {
			r.Answer = append(r.Answer, &mdns.TXT{Txt: []string{strings.Repeat("x", 85)},
				Hdr: mdns.RR_Header{Name: m.Question[0].Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: 60}})
		}
		r.Compress = true
		if !tcp {
			r.Truncate(1232)
		}
		return []*mdns.Msg{r}
	}
}

// query asks for a name as a container, by UDP, and returns the answer.
func (d *nameserver) query(t *testing.T, from gateway.Question, m *mdns.Msg) *mdns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	from.Payload = b
	if from.From.Proto == 0 {
		from.From = packet.Tuple{SrcPort: m.Id, DstPort: 53, Proto: packet.ProtoUDP}
	}
	answer := make(chan []byte, 1)
	if !d.Query(from, func(b []byte) { answer <- b }) {
		t.Fatal("not taken")
	}
	select {
	case b := <-answer:
		r := new(mdns.Msg)
		if err := r.Unpack(b); err != nil || r.Id != m.Id {
			t.Fatalf("answered %v, % x: %v", r, b, err)
		}
		return r
	case <-time.After(patience):
		t.Fatal("no answer")
		return nil
	}
}

func asks(name string, qtype uint16) *mdns.Msg { return new(mdns.Msg).SetQuestion(name, qtype) }

var fromOne = gateway.Question{Network: outgoing, Container: 1}

// answered is who answered, and how.
func answered(m *mdns.Msg) string {
	s := mdns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		if a, ok := rr.(*mdns.A); ok {
			s += " " + a.A.String()
		}
	}
	return s
}

func (d *nameserver) expect(t *testing.T, from gateway.Question, name, want string) {
	t.Helper()
	if got := answered(d.query(t, from, asks(name, mdns.TypeA))); got != want {
		t.Errorf("%s: %s, want %s", name, got, want)
	}
}

func TestNameserverForwards(t *testing.T) {
	u := resolver(t, "127.0.2.1", says(1))
	learned := make(learns, 1)
	d := nameserverOf(t, "nameserver 127.0.2.1\n", learned)
	d.expect(t, fromOne, "www.example.", "NOERROR 192.0.2.1")
	if got, want := <-learned, "www.example 192.0.2.1 1m0s"; got != want {
		t.Errorf("learned %q, want %q", got, want)
	}
	d.expect(t, gateway.Question{Network: inward, Container: 2}, "www.example.", "SERVFAIL")
	d.expect(t, gateway.Question{Network: 77, Container: 2}, "www.example.", "SERVFAIL")
	d.expect(t, gateway.Question{Network: 77, Container: 2}, "host.docker.internal.", "NXDOMAIN")
	d.expect(t, gateway.Question{Network: outgoing, Container: 9}, "www.example.", "REFUSED")
	d.expect(t, fromOne, "host.docker.internal.", "NXDOMAIN")
	d.expect(t, fromOne, "2.0.17.172.in-addr.arpa.", "NXDOMAIN")
	d.expect(t, gateway.Question{Network: outgoing, Container: 9}, "secret.example.", "REFUSED")
	u.asked.Range(func(name, _ any) bool {
		if name != "www.example." {
			t.Errorf("%s was asked outside", name)
		}
		return true
	})

	ports := map[int]bool{}
	for range 8 {
		d.expect(t, gateway.Question{Network: outgoing, Container: 3}, "www.example.", "NOERROR 192.0.2.1")
		ports[u.by.Load().Port] = true
	}
	if len(ports) < 6 { // eight of 28,000 are nearly always eight
		t.Errorf("eight queries came from the ports %v", ports)
	}
	s, _, flying := d.stats()
	if s.Queries != 16 || s.Forwarded != 9 || s.Kept != 4 || s.Own != 3 || flying != 0 {
		t.Errorf("%+v, %d in flight", s, flying)
	}
}

// A server that is not there and one that says nothing are passed over; none at
// all is an error the asker hears.
func TestNameserverNextServer(t *testing.T) {
	silent := resolver(t, "127.0.2.2", saysNothing)
	resolver(t, "127.0.2.3", says(3))
	d := nameserverOf(t, "nameserver 127.0.2.1\nnameserver 127.0.2.2\nnameserver 127.0.2.3\noptions timeout:1\n")
	d.expect(t, fromOne, "www.example.", "NOERROR 192.0.2.3")
	d.expect(t, fromOne, "www.example.", "NOERROR 192.0.2.3")
	if _, ok := silent.asked.Load("www.example."); !ok {
		t.Error("the silent one was not asked")
	}
	d = nameserverOf(t, "nameserver 127.0.2.1\nnameserver 127.0.2.4\n")
	d.expect(t, fromOne, "www.example.", "SERVFAIL")
	if s, _, _ := d.stats(); s.Silent != 4 || s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

// breaks is a policy that panics about container 13, when it asks and when it is
// answered: as parsers may, of whatever they read.
type breaks struct{ allowsAll }

func (breaks) Closed(c packet.ContainerID) bool { return c == 13 && panics("asked") }
func (breaks) WantsName(c packet.ContainerID, _ string) bool {
	return c == 14 && panics("answered")
}

func panics(when string) bool { panic(when) }

// A query that makes the nameserver panic costs no more than those in flight.
func TestNameserverOutlivesPanics(t *testing.T) {
	resolver(t, "127.0.2.1", says(1))
	d := nameserverOf(t, "nameserver 127.0.2.1\n", breaks{})
	b, err := asks("www.example.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	const each = queriesPerContainer + 1 // none has kept its place
	for range each {
		for _, c := range []packet.ContainerID{13, 14} {
			q := dns.Question{Network: outgoing, Container: c, Payload: slices.Clone(b)}
			said := make(chan []byte, 1)
			if !d.enqueue(query{q, func(b []byte) { said <- b }}) {
				t.Fatal("not taken")
			}
			select {
			case b := <-said:
				if b != nil {
					t.Fatalf("container %d is answered % x", c, b)
				}
			case <-time.After(patience):
				t.Fatalf("container %d waits for good", c)
			}
		}
	}
	d.expect(t, fromOne, "www.example.", "NOERROR 192.0.2.1")
	if s, c, flying := d.stats(); c.Mishaps != 2*each || flying != 0 || s.Refused != 0 {
		t.Errorf("%+v, %+v, %d in flight", s, c, flying)
	}
}

// Only the answer to the question that was asked counts, from the server that
// was asked.
func TestNameserverForgedAnswers(t *testing.T) {
	other, err := net.ListenPacket("udp", "127.0.2.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var u atomic.Pointer[upstream]
	forged := func(m *mdns.Msg) *mdns.Msg { return says(66)(m, false)[0] }
	u.Store(resolver(t, "127.0.2.1", func(m *mdns.Msg, _ bool) []*mdns.Msg {
		b, err := forged(m).Pack()
		if err != nil {
			t.Error(err)
		}
		_, _ = other.WriteTo(b, u.Load().by.Load())
		id, name, kind := forged(m), forged(m), forged(m)
		id.Id++
		name.Question[0].Name = "w" + m.Question[0].Name
		kind.Question[0].Qtype = mdns.TypeAAAA
		return []*mdns.Msg{id, name, kind, m, says(1)(m, false)[0]}
	}))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	for range 3 {
		d.expect(t, fromOne, "www.example.", "NOERROR 192.0.2.1")
	}
	if s, _, _ := d.stats(); s.Ignored == 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNameserverSizes(t *testing.T) {
	resolver(t, "127.0.2.1", saysText(3000))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	for _, c := range []struct {
		size  uint16 // by EDNS; 0 is without
		whole bool
	}{{0, false}, {512, false}, {1232, false}, {2000, false}, {4096, true}, {65535, true}} {
		m := asks("text.example.", mdns.TypeTXT)
		limit := 512
		if c.size != 0 {
			m.SetEdns0(c.size, true)
			limit = int(c.size)
		}
		r := d.query(t, fromOne, m)
		r.Compress = true
		if r.Truncated == c.whole || (len(r.Answer) == 30) != c.whole || r.Len() > limit || (r.IsEdns0() != nil) != (c.size != 0) {
			t.Errorf("size %d: truncated %v, %d bytes, %d records, OPT %v", c.size, r.Truncated, r.Len(), len(r.Answer), r.IsEdns0())
		}
	}
}

// The file is followed, however it is changed; while it is gone, and in any
// case that is not clear, the servers stay.
func TestNameserverFollowsResolvConf(t *testing.T) {
	for i := range byte(3) {
		resolver(t, "127.0.2."+string('1'+i), says(1+i))
	}
	d := nameserverOf(t, "")
	path := d.conf.ResolvConf
	follows := func(want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(patience); got != want && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			got = answered(d.query(t, fromOne, asks("www.example.", mdns.TypeA)))
		}
		if got != want {
			t.Errorf("answered %s, want %s", got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, path, "nameserver 127.0.2.1\n")
	follows("NOERROR 192.0.2.1")
	writeFile(t, path, "nameserver 127.0.2.2\n") // in place
	follows("NOERROR 192.0.2.2")
	writeFile(t, path+".new", "nameserver 127.0.2.3\n")
	must(os.Rename(path+".new", path))
	follows("NOERROR 192.0.2.3")
	must(os.Remove(path))
	d.call(func() { d.checked = 0 })
	d.expect(t, fromOne, "www.example.", "NOERROR 192.0.2.3") // it is gone
	for i, target := range []string{"a", "b"} {
		writeFile(t, filepath.Join(filepath.Dir(path), target), "nameserver 127.0.2."+string('1'+rune(i))+"\n")
		must(os.Symlink(target, path+".link"))
		must(os.Rename(path+".link", path)) // as systemd-resolved and NetworkManager do
		follows("NOERROR 192.0.2." + string('1'+rune(i)))
	}
}

// Nobody fills the queue alone.
func TestNameserverBounds(t *testing.T) {
	resolver(t, "127.0.2.1", says(1))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	flood := func(c packet.ContainerID, n int) (taken int) {
		for i := range n {
			b, err := asks("x.example.", uint16(1000+i)).Pack()
			if err != nil {
				t.Fatal(err)
			}
			if d.Query(gateway.Question{Network: outgoing, Container: c, Payload: b}, func([]byte) {}) {
				taken++
			}
		}
		return taken
	}
	stuck, busy := make(chan struct{}), make(chan struct{})
	go d.call(func() { close(busy); <-stuck })
	<-busy
	if n := flood(1, 100); n != queuedPerContainer {
		t.Errorf("%d queries of one container wait, want %d", n, queuedPerContainer)
	}
	if n := flood(2, 1); n != 1 {
		t.Error("another container's is not taken")
	}
	for c := range packet.ContainerID(100) {
		flood(10+c, 10)
	}
	d.mu.Lock()
	dropped := d.counts.Dropped
	d.mu.Unlock()
	if want := uint64(100 - queuedPerContainer + 1000 - (maxQueued - queuedPerContainer - 1)); dropped != want {
		t.Errorf("%d queries dropped, want %d", dropped, want)
	}
	close(stuck)
	lab.Eventually(t, patience, func() error {
		if items, containers := d.queries.waiting(); items != 0 || containers != 0 {
			return fmt.Errorf("%d queries wait, of %d containers", items, containers)
		}
		return nil
	})
}

// A node that ends does not wait for resolvers.
func TestNameserverClose(t *testing.T) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	defer close(release)
	resolver(t, "127.0.2.1", func(*mdns.Msg, bool) []*mdns.Msg { asked <- struct{}{}; <-release; return nil })
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	b, err := asks("x.example.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	d.Query(gateway.Question{Network: outgoing, Container: 1, Payload: slices.Clone(b)}, func([]byte) {})
	conn := dialDNS(t, d, "127.0.1.1")
	if _, err := conn.Write(framed(b)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // by UDP and by TCP
		select {
		case <-asked:
		case <-time.After(patience):
			t.Fatal("nobody was asked")
		}
	}
	d.close()
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still served")
	}
	d.Query(gateway.Question{}, func([]byte) { t.Error("answered") })
	d.close() // once more does nothing
}
