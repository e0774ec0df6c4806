package dhcp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/packet"
	"fairlead/test/lab"
)

// A modelServer is a DHCP server as RFC 2131 tells it: a list of who has what
// until when, which is searched from its start. What it leaves open, which address
// is offered, it is told, and says whether that is allowed.
type modelServer struct {
	conf    ServerConfig
	segment *fakeSegment
	list    []*modelLease
	others  map[netip.Addr]bool // containers have them
}

type modelLease struct {
	who   string // container, and what it calls itself; empty: quarantined
	from  Station
	addr  netip.Addr
	state string // offered, bound, probing, declined; empty: what it had once
	until int64
}

// of is what somebody has, or had.
func (m *modelServer) of(who string) *modelLease {
	for _, l := range m.list {
		if l.who == who {
			return l
		}
	}
	l := &modelLease{who: who}
	m.list = append(m.list, l)
	return l
}

// at is who has an address.
func (m *modelServer) at(a netip.Addr) *modelLease {
	for _, l := range m.list {
		if l.addr == a && l.state != "" {
			return l
		}
	}
	return nil
}

// reserved is the host an address is reserved for.
func (m *modelServer) reserved(a netip.Addr) *Host {
	for i := range m.conf.Hosts {
		if m.conf.Hosts[i].Addr == a {
			return &m.conf.Hosts[i]
		}
	}
	return nil
}

func (m *modelServer) host(x *speech) *Host {
	for i := range m.conf.Hosts {
		if h := &m.conf.Hosts[i]; h.ID != "" && h.ID == x.id || h.ID == "" && h.MAC == x.from.MAC {
			return h
		}
	}
	return nil
}

// allowed reports whether somebody may have an address at all.
func (m *modelServer) allowed(x *speech, a netip.Addr) bool {
	if h := m.reserved(a); h != nil {
		return h == m.host(x)
	}
	return m.conf.Server.Masked().Contains(a) && a != m.conf.Server.Addr() && a != m.conf.Server.Masked().Addr() &&
		a != broadcast(m.conf.Server) && !m.others[a]
}

// full reports whether nobody behind a container may have one more.
func (m *modelServer) full(c packet.ContainerID) bool {
	all, own := 0, 0
	for _, l := range m.list {
		if l.state != "" {
			all++
			if l.from.Container == c {
				own++
			}
		}
	}
	most := 1<<(32-m.conf.Server.Bits()-1) - 1 + len(m.conf.Hosts)
	return all >= most || c != 0 && own >= max(2, most/4)
}

// A speech is what a client says.
type speech struct {
	from       Station
	id         string
	kind       dhcpv4.MessageType
	want, have netip.Addr
	server     netip.Addr
}

func (x *speech) who() string {
	switch {
	case x.from.Fixed.IsValid():
		return fmt.Sprint(x.from.Container, "fixed", x.from.MAC)
	case x.id != "":
		return fmt.Sprint(x.from.Container, "id", x.id)
	}
	return fmt.Sprint(x.from.Container, x.from.MAC)
}

// whose is who a binding is for, as speech.who has it.
func whose(b Binding) string {
	if id, _ := hex.DecodeString(b.ID); len(id) > 0 {
		return fmt.Sprint(b.Container, "id", string(id))
	}
	return fmt.Sprint(b.Container, b.MAC)
}

// A cafe is a server, its model, and who comes and goes.
type cafe struct {
	*shop
	model *modelServer
	rng   *rand.Rand
	seen  map[string]int
}

func TestServerAgainstModel(t *testing.T) {
	seed := lab.Seed(t)
	conf := ServerConfig{Server: netip.MustParsePrefix("192.0.2.1/27"), Lease: 10 * time.Minute, Hosts: []Host{
		{MAC: packet.MAC{2, 0, 0, 0, 0, 1}, Addr: netip.MustParseAddr("192.0.2.20")},
		{ID: "\x00b", Addr: netip.MustParseAddr("192.0.2.30")},
	}}
	c := &cafe{shop: newShop(t, func(to *ServerConfig) { *to = conf }), rng: rand.New(rand.NewPCG(seed, 0)), seen: map[string]int{}}
	c.model = &modelServer{conf: conf, segment: c.segment, others: map[netip.Addr]bool{}}
	for i := range 20_000 {
		c.step()
		if t.Failed() {
			t.Fatalf("seed %d, step %d", seed, i)
		}
	}
	for a := range c.model.others {
		c.segment.Give(a)
	}
	for _, what := range []string{"DISCOVER OFFER", "DISCOVER NONE", "REQUEST ACK", "REQUEST NAK", "REQUEST NONE", "INFORM ACK",
		"DISCOVER ACK", "offered late", "expired", "declined", "released", "conflict", "full", "reserved"} {
		if t.Logf("%-16s %d", what, c.seen[what]); c.seen[what] < 20 {
			t.Errorf("%s came up %d times", what, c.seen[what])
		}
	}
}

func (c *cafe) step() {
	switch n := c.rng.IntN(100); {
	case n < 8:
		c.wait([]time.Duration{100 * time.Millisecond, time.Second, 20 * time.Second, 31 * time.Second, 6 * time.Minute, 11 * time.Minute}[c.rng.IntN(6)])
	case n < 12: // somebody takes an address by hand, or leaves it
		a := c.anyAddr()
		if _, ok := c.segment.holders[a]; ok {
			delete(c.segment.holders, a)
		} else if len(c.segment.holders) < 3 {
			c.segment.holders[a] = packet.MAC{2, 9, 9, 9, 9, 9}
		}
	case n < 14: // a container comes or goes
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + 5*c.rng.IntN(6))})
		if c.model.others[a] {
			delete(c.model.others, a)
			c.segment.Give(a)
		} else if c.rng.IntN(2) == 0 && c.segment.Take(a) {
			c.model.others[a] = true
		}
	default:
		c.speak(c.speech())
	}
	c.compare()
}

func (c *cafe) anyAddr() netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(c.rng.IntN(40))})
}

func (c *cafe) speech() *speech {
	x := &speech{kind: []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRequest,
		dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeInform}[c.rng.IntN(8)]}
	x.from = Station{Container: packet.ContainerID(c.rng.IntN(3)), MAC: packet.MAC{2, 0, 0, 0, 0, byte(c.rng.IntN(9))}}
	switch c.rng.IntN(8) {
	case 0:
		x.from.Container, x.from.Fixed = 9, netip.MustParseAddr("192.0.2.2")
	case 1, 2:
		x.id = "\x00" + string(rune('a'+c.rng.IntN(6)))
	}
	l := c.model.of(x.who())
	mine := l.addr
	if x.from.Fixed.IsValid() {
		mine = x.from.Fixed
	}
	if c.rng.IntN(8) == 0 || !mine.IsValid() {
		mine = c.anyAddr()
	}
	us := c.model.conf.Server.Addr()
	switch x.kind {
	case dhcpv4.MessageTypeDiscover:
		if c.rng.IntN(3) == 0 {
			x.want = mine
		}
	case dhcpv4.MessageTypeRequest:
		switch c.rng.IntN(5) {
		case 0, 1:
			x.want, x.server = mine, us
		case 2:
			x.want = mine
		case 3:
			x.have = mine
		default:
			x.want, x.server = mine, netip.MustParseAddr("192.0.2.77")
		}
	case dhcpv4.MessageTypeRelease:
		x.have, x.server = mine, us
	case dhcpv4.MessageTypeDecline:
		x.want, x.server = mine, us
		if c.rng.IntN(4) > 0 {
			x.kind, x.have = dhcpv4.MessageTypeRequest, mine // seldom
		}
	case dhcpv4.MessageTypeInform:
		x.have = mine
	}
	return x
}

// speak says it and compares the answer.
func (c *cafe) speak(x *speech) {
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: x.from.MAC[:], TransactionID: [4]byte{1, 2, 3, 4},
		Options: dhcpv4.OptionsFromList(dhcpv4.OptMessageType(x.kind))}
	if x.id != "" {
		calls(x.id)(m)
	}
	if x.want.IsValid() {
		wants(x.want)(m)
	}
	if x.server.IsValid() {
		chooses(x.server)(m)
	}
	if x.have.IsValid() {
		has(x.have)(m)
	}
	rapid := x.kind == dhcpv4.MessageTypeDiscover && c.rng.IntN(6) == 0
	if rapid {
		m.UpdateOption(dhcpv4.OptGeneric(rapidCommit, nil))
	}
	c.expire()
	conflicts := c.server.Stats().Conflicts
	h := c.model.host(x)
	better := h != nil && c.model.of(x.who()).addr != h.Addr && c.model.at(h.Addr) == nil
	var answers []*dhcpv4.DHCPv4
	speaking := true
	c.server.Receive(c.now, x.from, m.ToBytes(), func(r Reply) {
		a, err := dhcpv4.FromBytes(r.Payload)
		if err != nil {
			c.t.Fatal(err)
		}
		if speaking {
			answers = append(answers, a)
		} else {
			c.late(x, a)
		}
	})
	speaking = false
	c.found(x, conflicts)
	kind, lent := dhcpv4.MessageTypeNone, netip.Addr{}
	if len(answers) > 0 {
		kind, lent = answers[0].MessageType(), station(answers[0].YourIPAddr)
	}
	c.seen[x.kind.String()+" "+map[dhcpv4.MessageType]string{dhcpv4.MessageTypeNone: "NONE", dhcpv4.MessageTypeOffer: "OFFER",
		dhcpv4.MessageTypeAck: "ACK", dhcpv4.MessageTypeNak: "NAK"}[kind]]++
	want := c.want(x, rapid, better, lent)
	if kind != want {
		c.t.Errorf("%+v: %v of %v, want %v; the model has %+v", x, kind, lent, want, *c.model.of(x.who()))
	}
}

// late takes down what is said, when a probe has ended.
func (c *cafe) late(x *speech, a *dhcpv4.DHCPv4) {
	l := c.model.of(x.who())
	if l.state != "probing" || l.addr != station(a.YourIPAddr) {
		c.t.Errorf("%v was looked at, %v is offered", l.addr, a.YourIPAddr)
	}
	if l.state, l.until = "offered", c.now+offerTime; a.MessageType() == dhcpv4.MessageTypeAck {
		l.state, l.until = "bound", c.now+600*second
	}
	c.seen["offered late"]++
}

// want is what is to be said to x at once; lent is what was.
func (c *cafe) want(x *speech, rapid, better bool, lent netip.Addr) dhcpv4.MessageType {
	m, l := c.model, c.model.of(x.who())
	l.from = x.from
	ack := func(a netip.Addr) dhcpv4.MessageType {
		if !x.from.Fixed.IsValid() {
			l.addr, l.state, l.until = a, "bound", c.now+600*second
		}
		if lent != a {
			c.t.Errorf("%+v: lent %v, want %v", x, lent, a)
		}
		return dhcpv4.MessageTypeAck
	}
	switch x.kind {
	case dhcpv4.MessageTypeDiscover:
		return c.wantOffer(x, l, rapid, better, lent, ack)
	case dhcpv4.MessageTypeRequest:
		want := x.have
		if !station(want.AsSlice()).IsValid() {
			want = x.want
		}
		switch {
		case x.server.IsValid() && x.server != m.conf.Server.Addr():
			if l.state == "offered" || l.state == "probing" {
				l.state = ""
			}
			return dhcpv4.MessageTypeNone
		case x.from.Fixed.IsValid():
			if want == x.from.Fixed {
				return ack(want)
			}
		case l.state == "offered" || l.state == "bound":
			if want == l.addr && m.allowed(x, want) {
				return ack(want)
			}
		case x.server.IsValid() || l.state == "probing" || !m.allowed(x, want) || m.host(x) != nil && m.host(x).Addr != want || m.at(want) != nil || m.full(x.from.Container):
		default:
			if _, held := c.segment.holders[want]; held {
				if l.addr == want {
					l.addr = netip.Addr{}
				}
				return dhcpv4.MessageTypeNak // found has it
			}
			return ack(want)
		}
		return dhcpv4.MessageTypeNak
	case dhcpv4.MessageTypeRelease:
		if l.state == "bound" && l.addr == x.have {
			l.state = ""
			c.seen["released"]++
		}
	case dhcpv4.MessageTypeDecline:
		// found has taken it down already
	case dhcpv4.MessageTypeInform:
		if m.conf.Server.Masked().Contains(x.have) && station(x.have.AsSlice()).IsValid() {
			return dhcpv4.MessageTypeAck
		}
	}
	return dhcpv4.MessageTypeNone
}

func (c *cafe) wantOffer(x *speech, l *modelLease, rapid, better bool, lent netip.Addr, ack func(netip.Addr) dhcpv4.MessageType) dhcpv4.MessageType {
	m := c.model
	offer := func(a netip.Addr) dhcpv4.MessageType {
		if rapid {
			return ack(a)
		}
		if lent != a {
			c.t.Errorf("%+v: offered %v, want %v", x, lent, a)
		}
		return dhcpv4.MessageTypeOffer
	}
	if x.from.Fixed.IsValid() {
		return offer(x.from.Fixed)
	}
	h := m.host(x)
	if l.state != "" && !better && m.allowed(x, l.addr) {
		switch l.state {
		case "probing":
			return dhcpv4.MessageTypeNone
		case "offered":
			l.until = c.now + offerTime
		}
		return offer(l.addr)
	}
	l.state = ""
	// Which one is looked at the server says.
	for _, b := range c.server.Bindings() {
		if b.State == "probing" && m.at(b.Addr) == nil {
			if !m.allowed(x, b.Addr) || m.full(x.from.Container) {
				c.t.Errorf("%+v: may not have %v", x, b.Addr)
			}
			_, held := c.segment.holders[b.Addr]
			switch {
			case held:
				c.t.Errorf("%v is somebody's", b.Addr)
			case h != nil && b.Addr != h.Addr && m.at(h.Addr) == nil:
				c.t.Errorf("%+v: %v, and not the reserved %v", x, b.Addr, h.Addr)
			case h != nil && b.Addr == h.Addr:
				c.seen["reserved"]++
			case h == nil && l.addr.IsValid() && b.Addr != l.addr && m.allowed(x, l.addr) && m.at(l.addr) == nil:
				c.t.Errorf("%+v: %v, and not %v as before", x, b.Addr, l.addr)
			}
			l.addr, l.state, l.until = b.Addr, "probing", c.now+probeTime
			return dhcpv4.MessageTypeNone
		}
	}
	if m.full(x.from.Container) {
		c.seen["full"]++
		return dhcpv4.MessageTypeNone
	}
	for a := m.conf.Server.Masked().Addr(); m.conf.Server.Masked().Contains(a); a = a.Next() {
		if _, held := c.segment.holders[a]; m.allowed(x, a) && m.at(a) == nil && !held {
			c.t.Errorf("%+v: nothing, and %v is free", x, a)
		}
	}
	return dhcpv4.MessageTypeNone
}

// found takes down which addresses turned out to be somebody else's: the server
// says that, and it has to be so.
func (c *cafe) found(x *speech, before uint64) {
	now := c.server.Stats().Conflicts
	for _, b := range c.server.Bindings() {
		if b.State != "declined" {
			continue
		}
		l := c.model.at(b.Addr)
		if l != nil && l.state == "declined" {
			continue
		}
		_, held := c.segment.holders[b.Addr]
		switch {
		case l != nil && held && l.state == "probing":
			l.state, l.addr = "", netip.Addr{}
			c.seen["conflict"]++
		case l != nil && (l.state == "bound" || l.state == "offered"):
			l.state, l.addr = "", netip.Addr{}
			c.seen["declined"]++
		case l == nil && held:
			c.seen["conflict"]++
			if x != nil {
				if l := c.model.of(x.who()); l.addr == b.Addr {
					l.addr = netip.Addr{}
				}
			}
		default:
			c.t.Errorf("%v is declined, held %v, %+v", b.Addr, held, l)
		}
		before++
		c.model.list = append(c.model.list, &modelLease{from: Station{Container: b.Container}, who: "nobody" + b.Addr.String(), addr: b.Addr, state: "declined", until: c.now + declineTime})
		for i, old := range c.model.list[:len(c.model.list)-1] {
			if old.who == "nobody"+b.Addr.String() {
				c.model.list = append(c.model.list[:i], c.model.list[i+1:]...)
				break
			}
		}
	}
	if before != now {
		c.t.Errorf("%d conflicts, %d addresses", now, before)
	}
}

// expire is what ends in the model by itself; what is probed for ends elsewhere.
func (c *cafe) expire() {
	conflicts := c.server.Stats().Conflicts
	c.server.Tick(c.now)
	for _, l := range c.model.list {
		if l.state != "" && l.state != "probing" && l.until <= c.now {
			l.state = ""
			c.seen["expired"]++
		}
	}
	c.found(nil, conflicts)
	for _, l := range c.model.list { // looked at another one after a conflict
		if l.state == "" && l.who != "" && !l.addr.IsValid() {
			for _, b := range c.server.Bindings() {
				if b.State == "probing" && c.model.at(b.Addr) == nil && whose(b) == l.who {
					l.addr, l.state, l.until = b.Addr, "probing", c.now+probeTime
					break
				}
			}
		}
	}
}

func (c *cafe) wait(d time.Duration) {
	for end := c.now + int64(d); ; {
		due := c.server.Tick(c.now)
		if due == 0 || due > end {
			c.now = end
			break
		}
		c.now = max(due, c.now)
		c.expire()
	}
	c.expire()
}

// compare wants both to know the same.
func (c *cafe) compare() {
	have := map[netip.Addr]string{}
	for _, b := range c.server.Bindings() {
		if !b.Fixed {
			have[b.Addr] = b.State
			if !c.segment.taken[b.Addr] {
				c.t.Errorf("%v is %v and not taken", b.Addr, b.State)
			}
		}
	}
	n := 0
	for _, l := range c.model.list {
		if l.state == "" {
			continue
		}
		if n++; have[l.addr] != l.state {
			c.t.Errorf("%v is %q, the model says %q", l.addr, have[l.addr], l.state)
		}
	}
	if n != len(have) {
		c.t.Errorf("%v, the model has %d", have, n)
	}
}

// FuzzServer: whatever stations send, the server neither panics nor lends one
// address twice, and what it says is well-formed and fits.
func FuzzServer(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeInform} {
		for _, more := range [][]dhcpv4.Modifier{nil, {wants(highest), chooses(office.Addr())}, {has(highest)}, {calls("\x00me"), wants(highest)},
			{dhcpv4.WithOption(dhcpv4.OptGeneric(rapidCommit, nil)), dhcpv4.WithOption(dhcpv4.OptHostName("a"))}} {
			m, err := dhcpv4.NewDiscovery(alice.MAC[:], append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind)}, more...)...)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(m.ToBytes(), byte(0), true)
			f.Add(m.ToBytes(), byte(3), false)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, who byte, fixed bool) {
		segment := newSegment()
		conf := ServerConfig{Server: office, Router: office.Addr(), DNS: []netip.Addr{office.Addr()}, MTU: 576, Domain: "lab.example",
			Search: []string{"a.example", "b.example"}, Hosts: []Host{{MAC: bob.MAC, Addr: highest}},
			Routes: []Route{{netip.MustParsePrefix("10.0.0.0/8"), highest}}}
		s := NewServer(conf, segment)
		s.Configure(conf)
		now := second
		told := func(r Reply) {
			m, err := dhcpv4.FromBytes(r.Payload)
			if err != nil || len(r.Payload) > 576-28 || !r.Addr.Is4() || m.OpCode != dhcpv4.OpcodeBootReply {
				t.Fatalf("%v to %v: % x", err, r.Addr, r.Payload)
			}
		}
		for i := range byte(6) {
			from := Station{Container: packet.ContainerID(who & 3), MAC: alice.MAC}
			if i&1 == 1 {
				from.MAC = bob.MAC
			}
			if len(b) >= 34 { // chaddr, or else hardly anything is heard
				copy(b[28:34], from.MAC[:])
			}
			if fixed {
				from.Fixed = netip.MustParseAddr("192.0.2.2")
			}
			before := bytes.Clone(b)
			s.Receive(now, from, b, told)
			if !bytes.Equal(b, before) {
				t.Fatal("the message was changed")
			}
			if due := s.Tick(now); due != 0 && due <= now {
				t.Fatalf("due at %d", due)
			}
			now += int64(who) * second / 4
		}
		if n := len(s.leases); n > 12 {
			t.Errorf("%d leases", n)
		}
		s.Close()
		if len(segment.taken) != 0 {
			t.Errorf("%v are never given back", segment.taken)
		}
	})
}
