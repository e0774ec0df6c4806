package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/packet"
)

// A fakeSegment is a network's addresses, and who answers ARP on it.
type fakeSegment struct {
	taken   map[netip.Addr]bool
	holders map[netip.Addr]packet.MAC
	probes  []netip.Addr
}

func newSegment() *fakeSegment {
	return &fakeSegment{taken: map[netip.Addr]bool{}, holders: map[netip.Addr]packet.MAC{}}
}

func (s *fakeSegment) Take(a netip.Addr) bool {
	if s.taken[a] {
		return false
	}
	s.taken[a] = true
	return true
}

func (s *fakeSegment) Give(a netip.Addr) {
	if !s.taken[a] {
		panic("given back twice: " + a.String())
	}
	delete(s.taken, a)
}

func (s *fakeSegment) Probe(a netip.Addr) { s.probes = append(s.probes, a) }

func (s *fakeSegment) Holder(a netip.Addr) (packet.MAC, bool) {
	mac, ok := s.holders[a]
	return mac, ok
}

var (
	office  = netip.MustParsePrefix("192.0.2.1/28")
	highest = netip.MustParseAddr("192.0.2.14")
	alice   = Station{MAC: packet.MAC{2, 0, 0, 0, 0, 1}}
	bob     = Station{MAC: packet.MAC{2, 0, 0, 0, 0, 2}}
)

// A shop is a server and who asks it, at a time the test sets.
type shop struct {
	t       *testing.T
	server  *Server
	segment *fakeSegment
	now     int64
	heard   []Reply
}

func newShop(t *testing.T, change ...func(*ServerConfig)) *shop {
	conf := ServerConfig{Server: office, Router: office.Addr(), DNS: []netip.Addr{office.Addr()}, MTU: 1400, Domain: "lab.example"}
	for _, fn := range change {
		fn(&conf)
	}
	s := &shop{t: t, segment: newSegment(), now: 1000 * second}
	s.server = NewServer(conf, s.segment)
	if taken := s.server.Configure(conf); taken != nil {
		t.Fatalf("taken: %v", taken)
	}
	t.Cleanup(func() {
		s.server.Close()
		if len(s.segment.taken) > 0 {
			t.Errorf("not given back: %v", s.segment.taken)
		}
	})
	return s
}

// says sends a message and returns what is answered to it at once.
func (s *shop) says(from Station, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	s.t.Helper()
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: from.MAC[:], TransactionID: [4]byte{1, 2, 3, 4},
		Options: dhcpv4.OptionsFromList(dhcpv4.OptMessageType(kind))}
	for _, fn := range more {
		fn(m)
	}
	return s.sends(from, m.ToBytes())
}

func (s *shop) sends(from Station, b []byte) *dhcpv4.DHCPv4 {
	s.t.Helper()
	s.heard = nil
	before := bytes.Clone(b)
	s.server.Receive(s.now, from, b, func(r Reply) { s.heard = append(s.heard, r) })
	if !bytes.Equal(b, before) {
		s.t.Error("the message was changed")
	}
	return s.answer()
}

// answer is what was heard, nil if it is nothing.
func (s *shop) answer() *dhcpv4.DHCPv4 {
	s.t.Helper()
	if len(s.heard) == 0 {
		return nil
	}
	if len(s.heard) > 1 {
		s.t.Fatalf("%d answers", len(s.heard))
	}
	m, err := dhcpv4.FromBytes(s.heard[0].Payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != [4]byte{1, 2, 3, 4} || !m.ServerIdentifier().Equal(s.server.conf.Server.Addr().AsSlice()) {
		s.t.Fatalf("%v, %v", m, err)
	}
	return m
}

// passes lets time pass and returns what is said then.
func (s *shop) passes(d time.Duration) *dhcpv4.DHCPv4 {
	s.t.Helper()
	s.heard = nil
	s.now += int64(d)
	s.server.Tick(s.now)
	return s.answer()
}

// discovers asks for an address, and waits until it is offered.
func (s *shop) discovers(from Station, more ...dhcpv4.Modifier) netip.Addr {
	s.t.Helper()
	m := s.says(from, dhcpv4.MessageTypeDiscover, more...)
	for i := 0; m == nil && i < 3; i++ {
		m = s.passes(time.Duration(probeTime))
	}
	if m == nil {
		return netip.Addr{}
	}
	if m.MessageType() != dhcpv4.MessageTypeOffer {
		s.t.Fatalf("%v", m.Summary())
	}
	return station(m.YourIPAddr)
}

// takes asks for an address and takes it.
func (s *shop) takes(from Station, more ...dhcpv4.Modifier) netip.Addr {
	s.t.Helper()
	a := s.discovers(from, more...)
	if !a.IsValid() {
		return a
	}
	m := s.says(from, dhcpv4.MessageTypeRequest, append(more, wants(a), chooses(s.server.conf.Server.Addr()))...)
	if m.MessageType() != dhcpv4.MessageTypeAck || station(m.YourIPAddr) != a {
		s.t.Fatalf("%v", m.Summary())
	}
	return a
}

func wants(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice()))
}

func chooses(server netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice()))
}

func has(a netip.Addr) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = a.AsSlice() }
}

func calls(id string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte(id)))
}

func is(t *testing.T, m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, a netip.Addr) {
	t.Helper()
	switch {
	case m == nil && kind == dhcpv4.MessageTypeNone:
	case m == nil || m.MessageType() != kind:
		t.Errorf("said %v, want %v", m, kind)
	case station(m.YourIPAddr) != a:
		t.Errorf("lends %v, want %v", m.YourIPAddr, a)
	}
}

func TestLends(t *testing.T) {
	s := newShop(t)
	if m := s.says(alice, dhcpv4.MessageTypeDiscover); m != nil {
		t.Errorf("offered before it was probed for: %v", m.Summary())
	}
	if !slices.Equal(s.segment.probes, []netip.Addr{highest}) {
		t.Errorf("probed for %v", s.segment.probes)
	}
	if due := s.server.Tick(s.now); due != s.now+probeTime {
		t.Errorf("due at %d", due-s.now)
	}
	m := s.passes(time.Duration(probeTime))
	is(t, m, dhcpv4.MessageTypeOffer, highest)
	if r := s.heard[0]; r.MAC != alice.MAC || r.Addr != highest {
		t.Errorf("offered to %v, %v", r.MAC, r.Addr)
	}
	m = s.says(alice, dhcpv4.MessageTypeRequest, wants(highest), chooses(office.Addr()), dhcpv4.WithOption(dhcpv4.OptHostName("laptop")))
	is(t, m, dhcpv4.MessageTypeAck, highest)
	for what, ok := range map[string]bool{
		"mask": bytes.Equal(m.SubnetMask(), net.CIDRMask(28, 32)), "router": m.Router()[0].Equal(office.Addr().AsSlice()),
		"DNS": m.DNS()[0].Equal(office.Addr().AsSlice()), "MTU": bytes.Equal(m.Options.Get(dhcpv4.OptionInterfaceMTU), []byte{5, 120}),
		"domain": m.DomainName() == "lab.example", "broadcast": m.BroadcastAddress().Equal(net.IPv4(192, 0, 2, 15)),
		"time": m.IPAddressLeaseTime(0) == time.Hour, "T1": m.IPAddressRenewalTime(0) == 30*time.Minute, "T2": m.IPAddressRebindingTime(0) == 52*time.Minute+30*time.Second,
	} {
		if !ok {
			t.Errorf("%s: %v", what, m.Summary())
		}
	}
	want := Binding{MAC: alice.MAC, Addr: highest, Name: "laptop", State: "bound", Until: s.now + 3600*second}
	if list := s.server.Bindings(); len(list) != 1 || list[0] != want {
		t.Errorf("%+v", list)
	}
	if a := s.takes(bob); a != highest.Prev() {
		t.Errorf("the second one got %v", a)
	}
	s.now += 1800 * second
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, has(highest)), dhcpv4.MessageTypeAck, highest)
	if r := s.heard[0]; r.Addr != highest || r.MAC != alice.MAC {
		t.Errorf("renewed to %v", r.Addr)
	}
	s.now += 1900 * second // bob's is over
	if s.server.Tick(s.now); len(s.server.Bindings()) != 1 {
		t.Errorf("%+v", s.server.Bindings())
	}
	s.says(alice, dhcpv4.MessageTypeRelease, has(highest), chooses(office.Addr()))
	if list := s.server.Bindings(); len(list) != 0 || len(s.segment.taken) != 0 {
		t.Errorf("released, and still there: %+v", list)
	}
	// Each has what it had, as long as nobody else does.
	if a := s.takes(bob); a != highest.Prev() {
		t.Errorf("back with %v", a)
	}
	if a := s.takes(alice); a != highest {
		t.Errorf("back with %v", a)
	}
}

// TestAnswersTo is RFC 2131 4.1.
func TestAnswersTo(t *testing.T) {
	fixed := alice
	fixed.Fixed = netip.MustParseAddr("192.0.2.2")
	everybody := Reply{MAC: packet.BroadcastMAC, Addr: everybody}
	s := newShop(t)
	for name, c := range map[string]struct {
		kind dhcpv4.MessageType
		more []dhcpv4.Modifier
		want Reply
	}{
		"offer":              {dhcpv4.MessageTypeDiscover, nil, Reply{MAC: alice.MAC, Addr: fixed.Fixed}},
		"offer, to all":      {dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{dhcpv4.WithBroadcast(true)}, everybody},
		"ack, to all":        {dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{wants(fixed.Fixed), dhcpv4.WithBroadcast(true)}, everybody},
		"renewed":            {dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{has(fixed.Fixed), dhcpv4.WithBroadcast(true)}, Reply{MAC: alice.MAC, Addr: fixed.Fixed}},
		"refused":            {dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{wants(highest)}, everybody},
		"refused to renew":   {dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{has(highest)}, everybody},
		"inform":             {dhcpv4.MessageTypeInform, []dhcpv4.Modifier{has(highest)}, Reply{MAC: alice.MAC, Addr: highest}},
		"says it has ours":   {dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{has(office.Addr())}, Reply{MAC: alice.MAC, Addr: fixed.Fixed}},
		"says it is a group": {dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{has(netip.MustParseAddr("224.0.0.1"))}, Reply{MAC: alice.MAC, Addr: fixed.Fixed}},
	} {
		if s.says(fixed, c.kind, c.more...); len(s.heard) != 1 || s.heard[0].MAC != c.want.MAC || s.heard[0].Addr != c.want.Addr {
			t.Errorf("%s: %+v", name, s.heard)
		}
	}
}

// TestFixed: a container is offered what it has, and nothing else.
func TestFixed(t *testing.T) {
	s := newShop(t)
	web := Station{MAC: alice.MAC, Container: 7, Fixed: netip.MustParseAddr("192.0.2.2"), Name: "web"}
	for _, id := range []string{"", "\x01another", "\xff\x00\x01"} {
		if a := s.takes(web, calls(id)); a != web.Fixed {
			t.Errorf("%q got %v", id, a)
		}
	}
	m := s.says(web, dhcpv4.MessageTypeRequest, wants(web.Fixed))
	if is(t, m, dhcpv4.MessageTypeAck, web.Fixed); m.HostName() != "web" {
		t.Errorf("called %q", m.HostName())
	}
	is(t, s.says(web, dhcpv4.MessageTypeRequest, wants(highest)), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(web, dhcpv4.MessageTypeRequest, has(highest)), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(web, dhcpv4.MessageTypeDecline, wants(web.Fixed), chooses(office.Addr())), dhcpv4.MessageTypeNone, netip.Addr{})
	want := Binding{MAC: web.MAC, Addr: web.Fixed, Container: 7, State: "bound", Fixed: true, Until: s.now + 3600*second}
	if list := s.server.Bindings(); len(list) != 1 || list[0] != want || len(s.segment.taken) != 0 || len(s.segment.probes) != 0 {
		t.Errorf("%+v, taken %v, probed %v", list, s.segment.taken, s.segment.probes)
	}
	s.server.Forget(7)
	if list := s.server.Bindings(); len(list) != 0 {
		t.Errorf("gone, and still there: %+v", list)
	}
}

func TestReservations(t *testing.T) {
	nine, ten := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")
	hosts := []Host{{MAC: alice.MAC, Addr: nine, Name: "printer"}, {ID: "\x00scanner", Addr: ten}}
	s := newShop(t, func(c *ServerConfig) { c.Hosts, c.First, c.Last = hosts, nine, netip.MustParseAddr("192.0.2.11") })
	if a := s.takes(alice); a != nine {
		t.Errorf("by MAC: %v", a)
	}
	if m := s.says(alice, dhcpv4.MessageTypeRequest, has(nine)); m.HostName() != "printer" {
		t.Errorf("called %q", m.HostName())
	}
	if a := s.takes(bob, calls("\x00scanner")); a != ten {
		t.Errorf("by client identifier: %v", a)
	}
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, wants(nine), calls("\x00else")), dhcpv4.MessageTypeNak, netip.Addr{})
	if a := s.takes(bob, calls("\x00else")); a != netip.MustParseAddr("192.0.2.11") {
		t.Errorf("what is left: %v", a)
	}
	if a := s.discovers(bob, calls("\x00more")); a.IsValid() {
		t.Errorf("somebody else's: %v", a)
	}
	// Reservations may come and go while there are leases.
	conf := s.server.conf
	eleven := netip.MustParseAddr("192.0.2.11")
	conf.Hosts = []Host{{MAC: alice.MAC, Addr: eleven}}
	if taken := s.server.Configure(conf); taken != nil {
		t.Errorf("taken: %v", taken)
	}
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, has(eleven), calls("\x00else")), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, has(nine)), dhcpv4.MessageTypeAck, nine) // until the other has left
	s.says(bob, dhcpv4.MessageTypeRelease, has(eleven), calls("\x00else"))
	if a := s.takes(alice); a != eleven {
		t.Errorf("the new one: %v", a)
	}
	s.segment.taken[netip.MustParseAddr("192.0.2.5")] = true // a container's
	conf.Hosts = append(conf.Hosts, Host{MAC: bob.MAC, Addr: netip.MustParseAddr("192.0.2.5")}, Host{MAC: bob.MAC, Addr: office.Addr()},
		Host{MAC: bob.MAC, Addr: netip.MustParseAddr("198.51.100.7")}, Host{MAC: bob.MAC, Addr: eleven})
	if taken := s.server.Configure(conf); len(taken) != 4 {
		t.Errorf("taken: %v", taken)
	}
	delete(s.segment.taken, netip.MustParseAddr("192.0.2.5"))
}

// TestFull: there is an end to it, for one container sooner than for all.
func TestFull(t *testing.T) {
	s := newShop(t, func(c *ServerConfig) { c.Server = netip.MustParsePrefix("192.0.2.1/26") })
	guest := func(c packet.ContainerID, i int) Station {
		return Station{Container: c, MAC: packet.MAC{2, 0, 0, byte(c), 0, byte(i)}}
	}
	got := func(c packet.ContainerID) (n int) {
		for i := range 100 {
			if s.takes(guest(c, i)).IsValid() {
				n++
			}
		}
		return n
	}
	if n := got(1); n != 7 {
		t.Errorf("one container got %d", n)
	}
	if n := got(2); n != 7 {
		t.Errorf("another one got %d", n)
	}
	if n := got(0); n != 31-14 {
		t.Errorf("others got %d", n)
	}
	if len(s.segment.taken) != 31 || s.server.Stats().Exhausted != 100+100+100-31 || len(s.server.leases) != 31 {
		t.Errorf("%d taken, %d remembered, %+v", len(s.segment.taken), len(s.server.leases), s.server.Stats())
	}
	// Who was refused gets it once somebody has left.
	s.server.Forget(1)
	if a := s.takes(guest(0, 99)); !a.IsValid() {
		t.Error("none, although there are some")
	}
}

// TestRemembersSomeOnly: stations that say they are ever others fill no memory.
func TestRemembersSomeOnly(t *testing.T) {
	s := newShop(t, func(c *ServerConfig) { c.Server = netip.MustParsePrefix("10.0.0.1/8") })
	for i := range 3 * maxLeases {
		guest := Station{Container: packet.ContainerID(1 + i%3), MAC: packet.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}}
		a := s.takes(guest)
		s.says(guest, dhcpv4.MessageTypeRelease, has(a))
	}
	if n := len(s.server.leases); n > maxLeases {
		t.Errorf("%d are remembered", n)
	}
}

func TestConflict(t *testing.T) {
	s := newShop(t)
	s.segment.holders[highest] = bob.MAC // known already
	if a := s.discovers(alice); a != highest.Prev() || slices.Contains(s.segment.probes, highest) {
		t.Errorf("offered %v, probed for %v", a, s.segment.probes)
	}
	third := highest.Prev().Prev()
	guest := Station{MAC: packet.MAC{2, 0, 0, 0, 0, 3}}
	is(t, s.says(guest, dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeNone, netip.Addr{})
	s.segment.holders[third] = bob.MAC // answers the probe
	is(t, s.passes(time.Duration(probeTime)), dhcpv4.MessageTypeNone, netip.Addr{})
	is(t, s.passes(time.Duration(probeTime)), dhcpv4.MessageTypeOffer, third.Prev())
	if n := s.server.Stats().Conflicts; n != 2 {
		t.Errorf("%d conflicts", n)
	}
	// And what a station finds out itself.
	a := s.takes(alice)
	is(t, s.says(bob, dhcpv4.MessageTypeDecline, wants(a), chooses(office.Addr())), dhcpv4.MessageTypeNone, netip.Addr{})
	is(t, s.says(alice, dhcpv4.MessageTypeDecline, wants(a), chooses(office.Addr())), dhcpv4.MessageTypeNone, netip.Addr{})
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, wants(a)), dhcpv4.MessageTypeNak, netip.Addr{})
	if b := s.takes(alice, wants(a)); b == a || !b.IsValid() {
		t.Errorf("declined %v, got %v", a, b)
	}
	clear(s.segment.holders)
	s.passes(time.Duration(declineTime))
	if list := s.server.Bindings(); len(list) != 1 || list[0].State != "bound" {
		t.Errorf("%+v", list)
	}
	if n := len(s.segment.taken); n != 1 {
		t.Errorf("%d taken", n)
	}
}

// TestComesBack: a station that had an address may ask for it at once, also of a
// server that knows nothing of it.
func TestComesBack(t *testing.T) {
	s := newShop(t)
	five := netip.MustParseAddr("192.0.2.5")
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, wants(five)), dhcpv4.MessageTypeAck, five)
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, wants(five)), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, has(five)), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, wants(netip.MustParseAddr("198.51.100.5"))), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, wants(highest), chooses(office.Addr())), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, wants(highest)), dhcpv4.MessageTypeNak, netip.Addr{})
	is(t, s.says(bob, dhcpv4.MessageTypeRequest, has(highest)), dhcpv4.MessageTypeAck, highest)
	// What was offered is somebody else's again when the station takes another's.
	carol := Station{MAC: packet.MAC{2, 0, 0, 0, 0, 3}}
	a := s.discovers(carol)
	is(t, s.says(carol, dhcpv4.MessageTypeRequest, wants(five), chooses(five)), dhcpv4.MessageTypeNone, netip.Addr{})
	if s.segment.taken[a] {
		t.Errorf("%v is kept for nobody", a)
	}
}

func TestInform(t *testing.T) {
	s := newShop(t)
	m := s.says(alice, dhcpv4.MessageTypeInform, has(highest))
	if is(t, m, dhcpv4.MessageTypeAck, netip.Addr{}); m.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || len(m.Router()) != 1 || len(s.server.leases) != 0 {
		t.Errorf("%v", m.Summary())
	}
	is(t, s.says(alice, dhcpv4.MessageTypeInform, has(netip.MustParseAddr("198.51.100.5"))), dhcpv4.MessageTypeNone, netip.Addr{})
	is(t, s.says(alice, dhcpv4.MessageTypeInform), dhcpv4.MessageTypeNone, netip.Addr{})
}

// TestRapid is RFC 4039.
func TestRapid(t *testing.T) {
	s := newShop(t)
	rapid := dhcpv4.WithOption(dhcpv4.OptGeneric(rapidCommit, nil))
	is(t, s.says(alice, dhcpv4.MessageTypeDiscover, rapid), dhcpv4.MessageTypeNone, netip.Addr{})
	m := s.passes(time.Duration(probeTime))
	if is(t, m, dhcpv4.MessageTypeAck, highest); !m.Options.Has(rapidCommit) || s.server.Bindings()[0].State != "bound" {
		t.Errorf("%v", m.Summary())
	}
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, has(highest)), dhcpv4.MessageTypeAck, highest)
}

func TestIgnored(t *testing.T) {
	s := newShop(t)
	whole := func(more ...dhcpv4.Modifier) []byte {
		m, _ := dhcpv4.NewDiscovery(alice.MAC[:], more...)
		return m.ToBytes()
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "half": whole()[:200], "too long": append(whole(), make([]byte, maxMessage)...),
		"of a relay":            whole(dhcpv4.WithGatewayIP(net.IPv4(192, 0, 2, 3))),
		"of another station":    whole(dhcpv4.WithHwAddr(bob.MAC[:])),
		"a short MAC":           whole(dhcpv4.WithHwAddr(alice.MAC[:5])),
		"a server's":            whole(func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply }),
		"not Ethernet":          whole(func(m *dhcpv4.DHCPv4) { m.HWType = 6 }),
		"an offer":              whole(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)),
		"BOOTP":                 whole(func(m *dhcpv4.DHCPv4) { m.DeleteOption(dhcpv4.OptionDHCPMessageType) }),
		"a request for nothing": whole(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)),
	} {
		before := s.server.Stats().Ignored
		if m := s.sends(alice, b); m != nil || s.server.Stats().Ignored != before+1 {
			t.Errorf("%s: %v, %+v", name, m, s.server.Stats())
		}
	}
	group := Station{MAC: packet.MAC{1, 0, 0, 0, 0, 1}}
	is(t, s.says(group, dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeNone, netip.Addr{})
	if len(s.server.leases) != 0 || len(s.segment.taken) != 0 {
		t.Errorf("%v", s.server.leases)
	}
}

// TestOptions: what is told is what was asked for, as far as there is room.
func TestOptions(t *testing.T) {
	routes := []Route{{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("192.0.2.9")}}
	s := newShop(t, func(c *ServerConfig) { c.Routes, c.Search = routes, []string{"lab.example", "example"} })
	fixed := Station{MAC: alice.MAC, Fixed: highest, Name: "web"}
	asks := func(codes ...dhcpv4.OptionCode) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptParameterRequestList(codes...))
	}
	m := s.says(fixed, dhcpv4.MessageTypeDiscover)
	if r := m.ClasslessStaticRoute(); len(r) != 2 || r[0].String() != "route to 198.51.100.0/24 via 192.0.2.9" || r[1].String() != "route to 0.0.0.0/0 via 192.0.2.1" {
		t.Errorf("routes %v", r)
	}
	if d := m.DomainSearch(); d == nil || !slices.Equal(d.Labels, []string{"lab.example", "example"}) {
		t.Errorf("search %v", d)
	}
	m = s.says(fixed, dhcpv4.MessageTypeDiscover, asks(dhcpv4.OptionSubnetMask, dhcpv4.OptionNTPServers), calls("\x00me"))
	for code, want := range map[dhcpv4.OptionCode]bool{
		dhcpv4.OptionSubnetMask: true, dhcpv4.OptionRouter: false, dhcpv4.OptionDomainName: false, dhcpv4.OptionNTPServers: false,
		dhcpv4.OptionIPAddressLeaseTime: true, dhcpv4.OptionClientIdentifier: true,
	} {
		if m.Options.Has(code) != want {
			t.Errorf("%v: %v", code, m.Summary())
		}
	}
	if m = s.says(fixed, dhcpv4.MessageTypeRequest, wants(office.Addr()), calls("\x00me")); !m.Options.Has(dhcpv4.OptionClientIdentifier) || m.Options.Has(dhcpv4.OptionSubnetMask) {
		t.Errorf("refused: %v", m.Summary())
	}

	long := newShop(t, func(c *ServerConfig) {
		for i := range 12 {
			c.Search = append(c.Search, string(bytes.Repeat([]byte{byte('a' + i)}, 60))+".example")
		}
	})
	small, large := dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(300)), dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(9000))
	if m = long.says(fixed, dhcpv4.MessageTypeDiscover, small); m.DomainSearch() != nil || len(m.Router()) != 1 || len(long.heard[0].Payload) > 576-28 {
		t.Errorf("%d bytes, %v", len(long.heard[0].Payload), m.Summary())
	}
	if m = long.says(fixed, dhcpv4.MessageTypeDiscover, large); m.DomainSearch() == nil || len(m.DomainSearch().Labels) != 12 || len(long.heard[0].Payload) > 1400-28 {
		t.Errorf("%d bytes, %v", len(long.heard[0].Payload), m.Summary())
	}
}

func TestLeaseTimes(t *testing.T) {
	fixed := Station{MAC: alice.MAC, Fixed: highest}
	lasts := func(d time.Duration) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(d)) }
	for _, c := range []struct{ have, ask, want time.Duration }{
		{0, 0, time.Hour}, {0, 10 * time.Minute, 10 * time.Minute}, {0, time.Second, LeastLease}, {0, Forever, time.Hour},
		{Forever, 0, Forever}, {Forever, time.Hour, time.Hour}, {12 * time.Hour, 0, 12 * time.Hour},
	} {
		s := newShop(t, func(conf *ServerConfig) { conf.Lease = c.have })
		var more []dhcpv4.Modifier
		if c.ask != 0 {
			more = append(more, lasts(c.ask))
		}
		m := s.says(fixed, dhcpv4.MessageTypeRequest, append(more, wants(highest))...)
		if m.IPAddressLeaseTime(0) != c.want || m.Options.Has(dhcpv4.OptionRenewTimeValue) == (c.want == Forever) {
			t.Errorf("%+v: %v", c, m.Summary())
		}
		if until := s.server.Bindings()[0].Until; (until == 0) != (c.want == Forever) {
			t.Errorf("%+v: until %d", c, until)
		}
	}
}

func TestRestore(t *testing.T) {
	s := newShop(t, func(c *ServerConfig) { c.Hosts = []Host{{MAC: bob.MAC, Addr: highest}} })
	five := netip.MustParseAddr("192.0.2.5")
	good := Binding{ID: "00616c", MAC: alice.MAC, Addr: five, Name: "laptop", State: "bound", Until: s.now + 100*second}
	if !s.server.Restore(good) {
		t.Fatal("not restored")
	}
	if list := s.server.Bindings(); len(list) != 1 || list[0] != good {
		t.Errorf("%+v", list)
	}
	for name, b := range map[string]Binding{
		"twice": good, "its address twice": {MAC: bob.MAC, Addr: five}, "another's": {MAC: alice.MAC, Addr: highest},
		"the server's": {MAC: bob.MAC, Addr: office.Addr()}, "outside": {MAC: bob.MAC, Addr: netip.MustParseAddr("10.0.0.1")},
		"nowhere": {MAC: bob.MAC}, "nonsense": {ID: "x", MAC: bob.MAC, Addr: five.Next()},
	} {
		if s.server.Restore(b) {
			t.Errorf("%s: restored", name)
		}
	}
	if !s.server.Restore(Binding{MAC: bob.MAC, Addr: highest, Until: s.now + 1}) {
		t.Error("one that is reserved for it")
	}
	is(t, s.says(alice, dhcpv4.MessageTypeRequest, has(five), calls("\x00al")), dhcpv4.MessageTypeAck, five)
}
