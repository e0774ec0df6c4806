package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/packet"
)

var (
	mac    = packet.MAC{2, 0x42, 0, 0, 0, 9}
	server = net.IPv4(192, 0, 2, 1)
	lent   = net.IPv4(192, 0, 2, 77)
)

// A conversation is a client, and the server that is written down in a test.
type conversation struct {
	t      *testing.T
	client *Client
	now    int64
	due    int64
	last   *dhcpv4.DHCPv4 // what the client has sent last
	to     netip.Addr
	from   netip.Addr
}

func talk(t *testing.T) *conversation {
	c := &conversation{t: t, client: NewClient(Config{MAC: mac, Host: "lab", Seed: 1}), now: 100 * second}
	c.client.Start(c.now)
	return c
}

// says is the kind of message the client sends now; zero when it says nothing.
func (c *conversation) says() dhcpv4.MessageType {
	c.t.Helper()
	var m *Message
	if m, c.due = c.client.Next(c.now); m == nil {
		return dhcpv4.MessageTypeNone
	}
	var err error
	if c.last, err = dhcpv4.FromBytes(m.Payload); err != nil {
		c.t.Fatalf("malformed: %v\n% x", err, m.Payload)
	}
	if c.last.OpCode != dhcpv4.OpcodeBootRequest || packet.MAC(c.last.ClientHWAddr) != mac || len(m.Payload) < 300 {
		c.t.Errorf("%v from %v, %d bytes", c.last.OpCode, c.last.ClientHWAddr, len(m.Payload))
	}
	c.from, c.to = m.Src, m.Dst
	return c.last.MessageType()
}

// expect wants a kind of message from and to an address, and a state after it.
func (c *conversation) expect(kind dhcpv4.MessageType, from, to string, state State) {
	c.t.Helper()
	got := c.says()
	if got != kind || c.client.State() != state {
		c.t.Fatalf("at %v: says %v, is %v; want %v, %v", time.Duration(c.now), got, c.client.State(), kind, state)
	}
	if kind != dhcpv4.MessageTypeNone && (c.from != netip.MustParseAddr(from) || c.to != netip.MustParseAddr(to)) {
		c.t.Errorf("%v goes from %v to %v, want %s to %s", kind, c.from, c.to, from, to)
	}
}

// silent wants nothing to be due before a time, and goes there.
func (c *conversation) silent(until int64) {
	c.t.Helper()
	if m, due := c.client.Next(until - 1); m != nil || due != 0 && due < until {
		c.t.Fatalf("before %v: says %v, due at %v", time.Duration(until), m, time.Duration(due))
	}
	c.now = until
}

// reply forms a server's message to what was heard last.
func (c *conversation) reply(kind dhcpv4.MessageType, more ...dhcpv4.Modifier) []byte {
	c.t.Helper()
	m, err := dhcpv4.NewReplyFromRequest(c.last, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(server), dhcpv4.WithYourIP(lent),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithOption(dhcpv4.OptRouter(server)),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Hour)),
	}, more...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	return m.ToBytes()
}

// hears gives the client a message; it has to matter or not to.
func (c *conversation) hears(b []byte, matters bool) {
	c.t.Helper()
	before, lease := c.client.State(), c.client.Lease()
	if got := c.client.Receive(c.now, b); got != matters {
		c.t.Fatalf("Receive = %v in %v", got, before)
	}
	if !matters && (c.client.State() != before || c.client.Lease() != lease) {
		c.t.Errorf("a message that does not matter made %v of %v", c.client.State(), before)
	}
}

// bound is a conversation up to the lease.
func bound(t *testing.T, more ...dhcpv4.Modifier) *conversation {
	t.Helper()
	c := talk(t)
	c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
	c.hears(c.reply(dhcpv4.MessageTypeOffer, more...), true)
	c.expect(dhcpv4.MessageTypeRequest, "0.0.0.0", "255.255.255.255", Requesting)
	if ip := c.last.RequestedIPAddress(); !ip.Equal(lent) || !c.last.ServerIdentifier().Equal(server) {
		t.Errorf("requests %v of %v", ip, c.last.ServerIdentifier())
	}
	c.hears(c.reply(dhcpv4.MessageTypeAck, more...), true)
	if c.client.State() != Bound {
		t.Fatalf("%v after the acknowledgement", c.client.State())
	}
	return c
}

const hour = 3600 * second

func TestLease(t *testing.T) {
	c := bound(t, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0x78})))
	want := Lease{
		Addr: netip.MustParsePrefix("192.0.2.77/24"), Router: netip.MustParseAddr("192.0.2.1"), MTU: 1400,
		Server: netip.MustParseAddr("192.0.2.1"),
		Renew:  100*second + hour/2, Rebind: 100*second + hour/8*7, Expires: 100*second + hour,
	}
	if got := c.client.Lease(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if host := c.last.HostName(); host != "lab" {
		t.Errorf("host name %q", host)
	}
	if id := c.last.Options.Get(dhcpv4.OptionClientIdentifier); !slices.Equal(id, append([]byte{1}, mac[:]...)) {
		t.Errorf("client identifier % x", id)
	}
	if c.says(); c.due != want.Renew {
		t.Errorf("due at %d, the lease is renewed at %d", c.due, want.Renew)
	}
}

// TestNobodyAnswers: the pause doubles up to a minute and some, with jitter.
func TestNobodyAnswers(t *testing.T) {
	c := talk(t)
	pause := second
	for i := range 12 {
		c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
		if d := c.due - c.now; d < pause-second/4 || d > pause+second/4 {
			t.Errorf("pause %d is %v, want %v", i, time.Duration(d), time.Duration(pause))
		}
		if secs := int64(c.last.NumSeconds); secs != (c.now-100*second)/second {
			t.Errorf("it says it has asked for %d s", secs)
		}
		pause = min(2*pause, 64*second)
		c.silent(c.due)
	}
	// After all that time the lease counts from when it was asked for.
	c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
	c.hears(c.reply(dhcpv4.MessageTypeOffer), true)
	c.expect(dhcpv4.MessageTypeRequest, "0.0.0.0", "255.255.255.255", Requesting)
	asked := c.now
	c.now += second / 2
	c.hears(c.reply(dhcpv4.MessageTypeAck), true)
	if lease := c.client.Lease(); lease.Expires != asked+hour {
		t.Errorf("lent until %d, asked for at %d", lease.Expires, asked)
	}
}

func TestServerGoesAwayAfterItsOffer(t *testing.T) {
	c := talk(t)
	c.says()
	xid := c.last.TransactionID
	c.hears(c.reply(dhcpv4.MessageTypeOffer), true)
	for range maxRequests {
		c.expect(dhcpv4.MessageTypeRequest, "0.0.0.0", "255.255.255.255", Requesting)
		if c.last.TransactionID != xid {
			t.Error("the request is of another transaction than the offer")
		}
		c.silent(c.due)
	}
	c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
	if c.last.TransactionID == xid {
		t.Error("the same transaction again")
	}
}

func TestRenew(t *testing.T) {
	c := bound(t)
	c.silent(100*second + hour/2)
	c.expect(dhcpv4.MessageTypeRequest, "192.0.2.77", "192.0.2.1", Renewing)
	if c.last.RequestedIPAddress() != nil || c.last.ServerIdentifier() != nil || !c.last.ClientIPAddr.Equal(lent) {
		t.Errorf("RFC 2131 table 5 wants only ciaddr in a renewal: %v", c.last.Summary())
	}
	c.now += second
	c.hears(c.reply(dhcpv4.MessageTypeAck), true)
	if lease := c.client.Lease(); c.client.State() != Bound || lease.Expires != 100*second+hour/2+hour {
		t.Errorf("%v, until %v", c.client.State(), time.Duration(lease.Expires))
	}
}

// TestLeaseEnds follows a lease nobody renews: half of what is left between
// requests, but a minute at least, then everybody is asked, then it is over.
func TestLeaseEnds(t *testing.T) {
	c := bound(t)
	var at []int64
	for c.says(); c.due < 100*second+hour; {
		c.silent(c.due)
		switch {
		case c.now < 100*second+hour/8*7:
			c.expect(dhcpv4.MessageTypeRequest, "192.0.2.77", "192.0.2.1", Renewing)
		default:
			c.expect(dhcpv4.MessageTypeRequest, "192.0.2.77", "255.255.255.255", Rebinding)
		}
		at = append(at, (c.now-100*second)/second)
	}
	want := []int64{1800, 2475, 2812, 2981, 3065, 3125, 3150, 3375, 3487, 3547}
	if !slices.Equal(at, want) {
		t.Errorf("asked at %v s, want %v", at, want)
	}
	c.silent(100*second + hour)
	c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
	if c.client.Lease() != (Lease{}) {
		t.Errorf("still there: %+v", c.client.Lease())
	}
}

func TestRebound(t *testing.T) {
	c := bound(t)
	c.silent(c.client.Lease().Renew)
	c.says()
	c.now = c.client.Lease().Rebind
	c.expect(dhcpv4.MessageTypeRequest, "192.0.2.77", "255.255.255.255", Rebinding)
	other := net.IPv4(192, 0, 2, 2)
	c.hears(c.reply(dhcpv4.MessageTypeAck, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(other))), true)
	if lease := c.client.Lease(); lease.Server != netip.MustParseAddr("192.0.2.2") || lease.Expires != c.now+hour {
		t.Errorf("%+v", lease)
	}
}

// A machine that slept wakes up without its lease.
func TestWakesTooLate(t *testing.T) {
	c := bound(t)
	c.now += 2 * hour
	c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
}

func TestRefused(t *testing.T) {
	for _, renewing := range []bool{false, true} {
		c := talk(t)
		if renewing {
			c = bound(t)
			c.silent(c.client.Lease().Renew)
		} else {
			c.says()
			c.hears(c.reply(dhcpv4.MessageTypeOffer), true)
		}
		c.says()
		c.hears(c.reply(dhcpv4.MessageTypeNak, dhcpv4.WithYourIP(net.IPv4zero)), true)
		if c.client.Lease() != (Lease{}) {
			t.Error("refused, and still there")
		}
		c.silent(c.now + startAgain) // no loop with a server that refuses for ever
		c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
	}
}

func TestDecline(t *testing.T) {
	c := bound(t)
	c.client.Decline(c.now)
	if c.client.Lease() != (Lease{}) {
		t.Error("declined, and still there")
	}
	c.expect(dhcpv4.MessageTypeDecline, "0.0.0.0", "255.255.255.255", Init)
	if !c.last.RequestedIPAddress().Equal(lent) || !c.last.ServerIdentifier().Equal(server) {
		t.Errorf("declines what? %v", c.last.Summary())
	}
	c.silent(c.now + declinePause)
	c.expect(dhcpv4.MessageTypeDiscover, "0.0.0.0", "255.255.255.255", Selecting)
	c.client.Decline(c.now) // nothing to be declined
	c.silent(c.now + 1)
	if c.client.State() != Selecting {
		t.Errorf("%v", c.client.State())
	}
}

func TestStop(t *testing.T) {
	c := bound(t)
	c.client.Stop(c.now)
	c.expect(dhcpv4.MessageTypeRelease, "192.0.2.77", "192.0.2.1", Stopped)
	if !c.last.ClientIPAddr.Equal(lent) || !c.last.ServerIdentifier().Equal(server) {
		t.Errorf("releases what? %v", c.last.Summary())
	}
	c.expect(dhcpv4.MessageTypeNone, "", "", Stopped)
	if c.due != 0 {
		t.Errorf("stopped, and due at %d", c.due)
	}
	c = talk(t)
	c.client.Stop(c.now)
	c.expect(dhcpv4.MessageTypeNone, "", "", Stopped)
}

// TestBehalf: for somebody else everything is asked for, and answered, by broadcast.
func TestBehalf(t *testing.T) {
	c := &conversation{t: t, client: NewClient(Config{MAC: mac, Behalf: true, Seed: 1}), now: 100 * second}
	c.client.Start(c.now)
	says := func(kind dhcpv4.MessageType, state State) {
		t.Helper()
		c.expect(kind, "0.0.0.0", "255.255.255.255", state)
		if !c.last.IsBroadcast() {
			t.Errorf("%v is to be answered to whom?", kind)
		}
	}
	says(dhcpv4.MessageTypeDiscover, Selecting)
	c.hears(c.reply(dhcpv4.MessageTypeOffer), true)
	says(dhcpv4.MessageTypeRequest, Requesting)
	c.hears(c.reply(dhcpv4.MessageTypeAck), true)
	c.now = c.client.Lease().Renew
	for _, state := range []State{Renewing, Rebinding} {
		says(dhcpv4.MessageTypeRequest, state)
		if !c.last.RequestedIPAddress().Equal(lent) || c.last.ServerIdentifier() != nil || !c.last.ClientIPAddr.IsUnspecified() {
			t.Errorf("%v: %v", state, c.last.Summary())
		}
		c.now = c.client.Lease().Rebind
	}
	c.hears(c.reply(dhcpv4.MessageTypeAck), true)
	c.client.Stop(c.now)
	says(dhcpv4.MessageTypeRelease, Stopped)
	if !c.last.ClientIPAddr.Equal(lent) {
		t.Errorf("releases what? %v", c.last.Summary())
	}
}

func TestForever(t *testing.T) {
	c := bound(t, dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(0xffffffff*time.Second)))
	if lease := c.client.Lease(); lease.Renew != 0 || lease.Rebind != 0 || lease.Expires != 0 {
		t.Errorf("%+v", lease)
	}
	c.expect(dhcpv4.MessageTypeNone, "", "", Bound)
	if c.due != 0 {
		t.Errorf("due at %d", c.due)
	}
}

// TestLeaseOptions: what a server may say, and what is made of it.
func TestLeaseOptions(t *testing.T) {
	generic := func(code dhcpv4.OptionCode, b ...byte) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptGeneric(code, b))
	}
	without := func(code dhcpv4.OptionCode) dhcpv4.Modifier {
		return func(m *dhcpv4.DHCPv4) { m.DeleteOption(code) }
	}
	duration := func(code dhcpv4.OptionCode, s uint32) dhcpv4.Modifier {
		return generic(code, byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
	}
	for _, c := range []struct {
		name string
		more []dhcpv4.Modifier
		ok   bool
		same func(Lease) bool
	}{
		{"plain", nil, true, func(l Lease) bool { return l.MTU == 0 }},
		{"no mask: of the address's class", []dhcpv4.Modifier{without(dhcpv4.OptionSubnetMask)}, true,
			func(l Lease) bool { return l.Addr.Bits() == 24 }},
		{"a mask of one host", []dhcpv4.Modifier{generic(dhcpv4.OptionSubnetMask, 255, 255, 255, 255)}, true,
			func(l Lease) bool { return l.Addr.Bits() == 32 }},
		{"a mask with holes", []dhcpv4.Modifier{generic(dhcpv4.OptionSubnetMask, 255, 0, 255, 0)}, false, nil},
		{"a mask of everything", []dhcpv4.Modifier{generic(dhcpv4.OptionSubnetMask, 0, 0, 0, 0)}, false, nil},
		{"a short mask", []dhcpv4.Modifier{generic(dhcpv4.OptionSubnetMask, 255, 255)}, false, nil},
		{"no router", []dhcpv4.Modifier{without(dhcpv4.OptionRouter)}, true, func(l Lease) bool { return !l.Router.IsValid() }},
		{"routers, the first is nonsense", []dhcpv4.Modifier{generic(dhcpv4.OptionRouter, 0, 0, 0, 0, 192, 0, 2, 3, 192, 0, 2, 4)}, true,
			func(l Lease) bool { return l.Router == netip.MustParseAddr("192.0.2.3") }},
		{"we are our router", []dhcpv4.Modifier{generic(dhcpv4.OptionRouter, 192, 0, 2, 77)}, true, func(l Lease) bool { return !l.Router.IsValid() }},
		{"a small MTU", []dhcpv4.Modifier{generic(dhcpv4.OptionInterfaceMTU, 0, 68)}, true, func(l Lease) bool { return l.MTU == 0 }},
		{"a long MTU option", []dhcpv4.Modifier{generic(dhcpv4.OptionInterfaceMTU, 0, 0, 5, 0)}, true, func(l Lease) bool { return l.MTU == 0 }},
		{"no lease time", []dhcpv4.Modifier{without(dhcpv4.OptionIPAddressLeaseTime)}, false, nil},
		{"no time at all", []dhcpv4.Modifier{duration(dhcpv4.OptionIPAddressLeaseTime, 0)}, false, nil},
		{"its own T1 and T2", []dhcpv4.Modifier{duration(dhcpv4.OptionRenewTimeValue, 100), duration(dhcpv4.OptionRebindingTimeValue, 200)}, true,
			func(l Lease) bool { return l.Renew == 200*second && l.Rebind == 300*second }},
		{"T1 after T2", []dhcpv4.Modifier{duration(dhcpv4.OptionRenewTimeValue, 300), duration(dhcpv4.OptionRebindingTimeValue, 200)}, true,
			func(l Lease) bool { return l.Renew == 100*second+hour/2 }},
		{"T2 after the end", []dhcpv4.Modifier{duration(dhcpv4.OptionRenewTimeValue, 300), duration(dhcpv4.OptionRebindingTimeValue, 4000)}, true,
			func(l Lease) bool { return l.Rebind == 100*second+hour/8*7 }},
		{"nobody's address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4zero)}, false, nil},
		{"a group's address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))}, false, nil},
		{"a loopback address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1))}, false, nil},
		{"no server", []dhcpv4.Modifier{without(dhcpv4.OptionServerIdentifier)}, false, nil},
		{"for another MAC", []dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1})}, false, nil},
		{"of another transaction", []dhcpv4.Modifier{dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4})}, false, nil},
		{"from another server", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptServerIdentifier(lent))}, false, nil},
		{"a client's message", []dhcpv4.Modifier{func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootRequest }}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			talk := talk(t)
			talk.says()
			talk.hears(talk.reply(dhcpv4.MessageTypeOffer), true)
			talk.says()
			talk.hears(talk.reply(dhcpv4.MessageTypeAck, c.more...), c.ok)
			if c.ok && !c.same(talk.client.Lease()) {
				t.Errorf("%+v", talk.client.Lease())
			}
		})
	}
}

// TestUnasked: messages nobody asked for change nothing, in any state.
func TestUnasked(t *testing.T) {
	c := talk(t)
	c.hears(nil, false)
	c.says()
	c.hears(c.reply(dhcpv4.MessageTypeAck), false)
	c.hears(c.reply(dhcpv4.MessageTypeNak), false)
	c.hears(c.reply(dhcpv4.MessageTypeDecline), false)
	c.hears(c.reply(dhcpv4.MessageTypeOffer), true)
	c.hears(c.reply(dhcpv4.MessageTypeOffer), false)
	c.says()
	c.hears(c.reply(dhcpv4.MessageTypeAck), true)
	c.hears(c.reply(dhcpv4.MessageTypeAck), false)
	c.hears(c.reply(dhcpv4.MessageTypeNak), false)
	c.client.Stop(c.now)
	c.hears(c.reply(dhcpv4.MessageTypeOffer), false)
	if s := State(99).String(); s != "?" {
		t.Errorf("state 99 is called %q", s)
	}
}

// FuzzReceive: no message brings a client into a state it cannot be in.
func FuzzReceive(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak} {
		c := talk(&testing.T{})
		c.says()
		for n := range byte(8) {
			f.Add(c.reply(kind), n, uint16(n)*700)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, moves byte, wait uint16) {
		c := talk(t)
		c.says()
		if moves&1 != 0 {
			c.client.Receive(c.now, c.reply(dhcpv4.MessageTypeOffer))
			c.says()
		}
		if moves&2 != 0 {
			c.client.Receive(c.now, c.reply(dhcpv4.MessageTypeAck))
			c.now += int64(wait) * second
			c.says()
		}
		if len(b) >= xidAt+4 {
			copy(b[xidAt:], c.client.xid[:])
		}
		before := slices.Clone(b)
		changed := c.client.Receive(c.now, b)
		if !slices.Equal(b, before) {
			t.Error("the message was changed")
		}
		lease := c.client.Lease()
		switch c.client.State() {
		case Bound, Renewing, Rebinding:
			a := lease.Addr
			if !a.IsValid() || !a.Addr().Is4() || a.Addr().IsMulticast() || a.Addr().IsUnspecified() || a.Bits() == 0 || !lease.Server.IsValid() ||
				lease.MTU != 0 && lease.MTU < 576 || lease.Renew > lease.Rebind || lease.Rebind > lease.Expires {
				t.Errorf("%v with %+v", c.client.State(), lease)
			}
		default:
			if lease != (Lease{}) {
				t.Errorf("%v with %+v", c.client.State(), lease)
			}
		}
		for i := range 50 { // it never talks faster than it should
			if c.says() != dhcpv4.MessageTypeNone && i > 4 && c.due != 0 && c.due-c.now < second/2 && lease == (Lease{}) {
				t.Fatalf("%v is due again after %v", c.client.State(), time.Duration(c.due-c.now))
			}
			if c.due == 0 {
				break
			}
			c.now = max(c.due, c.now)
		}
		if changed && c.due == 0 && lease.Expires != 0 {
			t.Error("nothing is due any more")
		}
	})
}
