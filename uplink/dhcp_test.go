package uplink

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/arp"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A server is a DHCP server as a test writes it down. It answers what the uplink
// sends.
type server struct {
	*rig
	me    station
	lends netip.Addr
	more  []dhcpv4.Modifier
	deaf  bool
	asked []string // what it heard, in words
}

// serve gives the uplink's segment a server that lends us.IP for an hour.
func serve(t *testing.T, more ...dhcpv4.Modifier) *server {
	s := &server{rig: newRig(t, lending), me: router, lends: us.IP, more: more}
	s.answer = s.hear
	return s
}

func (s *server) hear(b []byte) {
	f := s.frame(b)
	if f.EtherType != packet.EtherTypeIPv4 {
		return
	}
	ip, udp := packet.IPv4(f.Packet()), packet.UDP(f.Transport())
	if f.SrcPort != 68 || f.DstPort != 67 || packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff ||
		packettest.Sum(udp, packettest.PseudoSum(netip.AddrFrom4(ip.Src()), netip.AddrFrom4(ip.Dst()), packet.ProtoUDP, len(udp))) != 0xffff {
		s.t.Errorf("no good DHCP message: % x", b)
	}
	m, err := dhcpv4.FromBytes(udp.Payload())
	if err != nil {
		s.t.Fatal(err)
	}
	to := "server"
	if f.Flags.Has(packet.Broadcast) {
		to = "everybody"
	}
	s.asked = append(s.asked, m.MessageType().String()+" "+netip.AddrFrom4(ip.Src()).String()+" to "+to)
	kind := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck,
	}[m.MessageType()]
	if s.deaf || kind == dhcpv4.MessageTypeNone {
		return
	}
	s.waiting = append(s.waiting, s.reply(m, kind))
}

// reply is a frame with the server's answer, to the address it lends.
func (s *server) reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) []byte {
	reply, err := dhcpv4.NewReplyFromRequest(m, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(s.lends.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.me.IP.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithOption(dhcpv4.OptRouter(router.IP.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Hour)),
	}, s.more...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return packettest.UDP(s.me, station{MAC: us.MAC, IP: s.lends}, 67, 68, reply.ToBytes())
}

func TestDHCP(t *testing.T) {
	s := serve(t, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0x78})))
	s.run(299 * second / 1000)
	if s.u.Addr() != (packet.Addr{}) || s.u.State(s.now).DHCP != "BOUND" {
		t.Errorf("the address is used before it was probed for: %+v", s.u.State(s.now))
	}
	s.run(second)
	st := s.u.State(s.now)
	if s.u.Addr() != addrOf(us) || s.u.NextHop() != addrOf(router) || s.u.Subnet() != netip.MustParsePrefix("192.0.2.0/24") ||
		s.u.MTU() != 1400 || st.Problem != nil || st.Lease.Server != router.IP || st.Addr != netip.MustParsePrefix("192.0.2.2/24") {
		t.Errorf("%+v", st)
	}
	want := []string{"DISCOVER 0.0.0.0 to everybody", "REQUEST 0.0.0.0 to everybody"}
	if !slices.Equal(s.asked, want) {
		t.Errorf("the server was asked %v", s.asked)
	}
	if got := s.arps(); !slices.Equal(got, []string{"probe 192.0.2.2", "probe 192.0.2.2", "probe 192.0.2.2", "announce 192.0.2.2"}) {
		t.Errorf("said %v", got)
	}

	// Half an hour later it is renewed: the address is used all the time, and
	// neither probed for nor announced anew.
	s.run(2 * second)
	s.sent, s.asked = nil, nil
	s.run(1900 * second)
	if got := s.u.State(s.now); len(s.arps()) != 0 || !slices.Equal(s.asked, []string{"REQUEST 192.0.2.2 to server"}) ||
		got.Lease.Expires <= st.Lease.Expires || got.DHCP != "BOUND" || len(s.gone) != 0 {
		t.Errorf("said %v, asked %v, %+v", s.arps(), s.asked, got)
	}
	if last := packet.Ethernet(s.frame(s.sent[0]).Ether()); last.Dst() != router.MAC {
		t.Errorf("renewed at %v", last.Dst())
	}
}

// TestLeaseEnds: the address is lost with the lease, and the router is told.
func TestLeaseEnds(t *testing.T) {
	s := serve(t)
	s.run(5 * second)
	s.deaf = true
	s.run(3590 * second)
	if s.u.Addr() != addrOf(us) {
		t.Error("lost too early")
	}
	s.run(5 * second)
	if p := s.u.State(s.now).Problem; p != nil {
		t.Errorf("called a problem at once: %v", p)
	}
	s.run(5 * second)
	st := s.u.State(s.now)
	if s.u.Addr() != (packet.Addr{}) || s.u.Owns(addrOf(us)) || !slices.Equal(s.gone, []packet.Addr{addrOf(us)}) ||
		st.DHCP != "SELECTING" || st.Problem == nil || !strings.Contains(st.Problem.Error(), "no DHCP server") {
		t.Errorf("the lease is over: %+v, gone %v", st, s.gone)
	}
	if d := s.resolve(1, addrOf(router)); d.Reason != packet.HostUnreachable {
		t.Errorf("without an address: %v", d.Reason)
	}
	// It is back, and lends another address.
	s.deaf, s.lends = false, alice.IP
	s.run(65 * second)
	if s.u.Addr() != addrOf(alice) || !s.u.Owns(addrOf(alice)) || s.u.State(s.now).Problem != nil {
		t.Errorf("%+v", s.u.State(s.now))
	}
}

// TestLentTwice: an address somebody has already is declined and not used.
func TestLentTwice(t *testing.T) {
	s := serve(t)
	hear := s.answer
	s.answer = func(b []byte) {
		hear(b)
		if f := s.frame(b); f.EtherType == packet.EtherTypeARP && packet.ARP(f.Packet()).TargetIP() == us.IP.As4() {
			s.waiting = append(s.waiting, packettest.ARPReply(rival, station{MAC: us.MAC, IP: nobody}))
		}
	}
	s.run(5 * second)
	st := s.u.State(s.now)
	want := []string{"DISCOVER 0.0.0.0 to everybody", "REQUEST 0.0.0.0 to everybody", "DECLINE 0.0.0.0 to everybody"}
	if !slices.Equal(s.asked, want) || s.u.Addr() != (packet.Addr{}) ||
		st.Problem == nil || !strings.Contains(st.Problem.Error(), rival.MAC.String()) {
		t.Errorf("asked %v; %+v", s.asked, st)
	}
	s.lends = bob.IP
	s.run(10 * second)
	if st = s.u.State(s.now); s.u.Addr() != addrOf(bob) || st.Problem != nil {
		t.Errorf("%+v", st)
	}
	if slices.ContainsFunc(st.Claims, func(c Claim) bool { return c.State != arp.Claimed }) {
		t.Errorf("%+v", st.Claims)
	}
}

// TestLentWhereWeAre: an address in a network of containers cannot be used.
func TestLentWhereWeAre(t *testing.T) {
	conf := lending
	conf.Avoid = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/16")}
	s := &server{rig: newRig(t, conf), me: router, lends: us.IP}
	s.answer = s.hear
	s.run(5 * second)
	st := s.u.State(s.now)
	if s.u.Addr() != (packet.Addr{}) || len(s.arps()) > 0 || st.Problem == nil || !strings.Contains(st.Problem.Error(), "192.0.2.2/24") {
		t.Errorf("said %v; %+v", s.arps(), st)
	}
}

func TestStop(t *testing.T) {
	s := serve(t)
	<-s.u.Stop() // it has not begun
	s.run(5 * second)
	stopped := s.u.Stop()
	<-s.u.Stop() // nothing more to wait for
	s.Wake(network, s.now)
	s.run(0)
	<-stopped
	if last := s.asked[len(s.asked)-1]; last != "RELEASE 192.0.2.2 to server" || s.u.Addr() != (packet.Addr{}) {
		t.Errorf("%s, address %v", last, s.u.Addr())
	}
	s.run(3600 * second)
	if s.wake != 0 {
		t.Error("stopped, and still awake")
	}
	r := up(t, static)
	<-r.u.Stop() // nothing to give back
}

// TestServersMessage: which datagrams the client gets to see.
func TestServersMessage(t *testing.T) {
	break1 := func(b []byte) []byte { b[len(b)-1] ^= 0x55; return b }
	unsummed := func(b []byte) []byte {
		packet.UDP(b[packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen:]).SetChecksum(0)
		return b
	}
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"as it was sent", func(b []byte) []byte { return b }, "REQUESTING"},
		{"without a checksum", unsummed, "REQUESTING"},
		{"with an unfinished checksum", packettest.Partial, "REQUESTING"},
		{"with a wrong checksum", break1, "SELECTING"},
		{"of another VLAN", func(b []byte) []byte { return packettest.Tagged(b, 7) }, "SELECTING"},
	} {
		s := serve(t)
		s.deaf = true
		s.run(0)
		udp := packet.UDP(s.frame(s.sent[0]).Transport())
		m, err := dhcpv4.FromBytes(udp.Payload())
		if err != nil {
			t.Fatal(err)
		}
		for _, broadcast := range []bool{false, true} {
			b := s.reply(m, dhcpv4.MessageTypeOffer)
			if broadcast {
				packet.Ethernet(b[packet.VNetLen:]).SetDst(packet.BroadcastMAC)
			}
			s.receive(c.change(b))
		}
		s.run(0)
		if st := s.u.State(s.now); st.DHCP != c.want || s.applied != 0 {
			t.Errorf("%s: %s, want %s; the router got %d", c.name, st.DHCP, c.want, s.applied)
		}
	}
}

// TestSharedMAC: a host with our MAC has a lease of its own.
func TestSharedMAC(t *testing.T) {
	ids := map[string]bool{}
	for _, shared := range []bool{false, true} {
		conf := lending
		conf.SharedMAC = shared
		r := newRig(t, conf)
		r.run(0)
		m, err := dhcpv4.FromBytes(packet.UDP(r.frame(r.sent[0]).Transport()).Payload())
		if err != nil {
			t.Fatal(err)
		}
		ids[string(m.Options.Get(dhcpv4.OptionClientIdentifier))] = true
	}
	if len(ids) != 2 || !ids["\x00fairlead-up0"] {
		t.Errorf("client identifiers %v", ids)
	}
}

// FuzzFrames: whatever comes in, the uplink sends at most one frame for it, all
// of them well formed, and comes to rest.
func FuzzFrames(f *testing.F) {
	add := func(b []byte) { f.Add(b, uint16(100), true); f.Add(b, uint16(400), false) }
	add(packettest.ARPRequest(alice, us.IP))
	add(packettest.ARPReply(router, us))
	add(packettest.ARPRequest(rival, us.IP))
	add(packettest.Tagged(packettest.ARPRequest(alice, us.IP), 3))
	add(packettest.UDP(router, us, 67, 68, make([]byte, 300)))
	add(packettest.UDP(router, packettest.Broadcast, 67, 68, make([]byte, 240)))
	add(packettest.ICMPEcho(alice, us, 1, 1, nil))
	f.Fuzz(func(t *testing.T, b []byte, wait uint16, dhcp bool) {
		frame := &packet.Frame{B: b}
		if len(b) > packet.MaxFrame || packet.Parse(frame) != packet.OK {
			return
		}
		dst := packet.Ethernet(frame.Ether()).Dst()
		if dst != us.MAC && !dst.IsGroup() || packet.Ethernet(frame.Ether()).Src() == us.MAC {
			return // a switch does not hand it over
		}
		conf := static
		if dhcp {
			conf = lending
		}
		r := newRig(t, conf)
		r.run(int64(wait) * second / 1000)
		if !dhcp {
			r.resolve(1, addrOf(router))
		}
		for range 3 {
			r.receive(b)
			r.run(second)
		}
		r.run(100 * second)
	})
}
