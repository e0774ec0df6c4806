package network

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	vswitch "fairlead/switch"
	"fairlead/test/lab"
)

func TestParseOptions(t *testing.T) {
	standard := Options{MTU: 1500, Ageing: 5 * time.Minute, FloodLimit: 100_000}
	with := func(change func(*Options)) Options {
		o := standard
		change(&o)
		return o
	}
	for _, c := range []struct {
		pairs map[string]string
		want  Options
	}{
		{nil, standard},
		{map[string]string{"mtu": "576"}, with(func(o *Options) { o.MTU = 576 })},
		{map[string]string{"mtu": "65521"}, with(func(o *Options) { o.MTU = 65521 })},
		{map[string]string{"hub": "on"}, with(func(o *Options) { o.Hub, o.FloodLimit = true, -1 })},
		{map[string]string{"hub": "off"}, standard},
		{map[string]string{"guard": "off"}, with(func(o *Options) { o.Unguarded = true })},
		{map[string]string{"guard": "yes"}, standard},
		{map[string]string{"join": "off"}, with(func(o *Options) { o.Unjoined = true })},
		{map[string]string{"join": "on"}, standard},
		{map[string]string{"loop-guard": "off"}, with(func(o *Options) { o.LoopsLeft = true })},
		{map[string]string{"ageing": "1s"}, with(func(o *Options) { o.Ageing = time.Second })},
		{map[string]string{"ageing": "1000000s"}, with(func(o *Options) { o.Ageing = 1e6 * time.Second })},
		{map[string]string{"flood-limit": "5"}, with(func(o *Options) { o.FloodLimit = 5 })},
		{map[string]string{"flood-limit": "0"}, with(func(o *Options) { o.FloodLimit = -1 })},
		{map[string]string{"mtu": "9000", "hub": "true", "guard": "0", "ageing": "30s", "flood-limit": "10000000"},
			Options{MTU: 9000, Hub: true, Unguarded: true, Ageing: 30 * time.Second, FloodLimit: 10_000_000}},
	} {
		if got, err := ParseOptions(c.pairs); err != nil || got != c.want {
			t.Errorf("%v: %+v, %v, want %+v", c.pairs, got, err, c.want)
		}
	}
}

func TestParseOptionsNamesTheOption(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"mtu", "575", `option mtu: "575" is not a number from 576 to 65521`},
		{"mtu", "65522", `option mtu: "65522" is not a number from 576 to 65521`},
		{"mtu", "", `option mtu: "" is not a number from 576 to 65521`},
		{"mtu", "1500.0", `option mtu: "1500.0" is not a number from 576 to 65521`},
		{"hub", "maybe", `option hub: "maybe" is neither on nor off`},
		{"guard", "", `option guard: "" is neither on nor off`},
		{"ageing", "300", `option ageing: "300" is not a time from 1s to 1000000s, such as 300s`},
		{"ageing", "999ms", `option ageing: "999ms" is not a time from 1s to 1000000s, such as 300s`},
		{"ageing", "1000001s", `option ageing: "1000001s" is not a time from 1s to 1000000s, such as 300s`},
		{"ageing", "-5s", `option ageing: "-5s" is not a time from 1s to 1000000s, such as 300s`},
		{"flood-limit", "-1", `option flood-limit: "-1" is not a number from 0 to 100000000`},
		{"flood-limit", "many", `option flood-limit: "many" is not a number from 0 to 100000000`},
		{"color", "off", `unknown option "color"; a network has ageing, dhcp, dhcp-host, dhcp-lease, dhcp-range, dhcp-route, domain, flood-limit, guard, hub, icc, join, link, loop-guard, masquerade, mtu, offload and routed, and all together flows and flows-per-container`},
		{"MTU", "1500", `unknown option "MTU"; a network has ageing, dhcp, dhcp-host, dhcp-lease, dhcp-range, dhcp-route, domain, flood-limit, guard, hub, icc, join, link, loop-guard, masquerade, mtu, offload and routed, and all together flows and flows-per-container`},
	} {
		if _, err := ParseOptions(map[string]string{c.key: c.value}); err == nil || err.Error() != c.want {
			t.Errorf("%s=%s: %v, want %s", c.key, c.value, err, c.want)
		}
	}
}

// newRouter is one on a loop with n workers.
func newRouter(t *testing.T, n int) *Router {
	t.Helper()
	l, err := loop.New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return NewRouter(vswitch.NewLanes(l), nat.Config{})
}

func TestGateway(t *testing.T) {
	router := newRouter(t, 1)
	for gateway, want := range map[string]string{
		"172.17.42.1/16":      "",
		"10.255.255.254/8":    "",
		"192.168.0.1/30":      "",
		"192.168.0.2/30":      "",
		"192.168.0.1/31":      "subnet 192.168.0.0/31: the length must be from 8 to 30",
		"192.168.0.1/32":      "subnet 192.168.0.1/32: the length must be from 8 to 30",
		"10.0.0.1/7":          "subnet 10.0.0.0/7: the length must be from 8 to 30",
		"10.0.0.0/24":         "gateway 10.0.0.0/24 is the network or broadcast address of its own subnet",
		"10.0.0.255/24":       "gateway 10.0.0.255/24 is the network or broadcast address of its own subnet",
		"127.0.0.1/8":         "gateway 127.0.0.1/8 is not an address a station can have",
		"224.0.0.1/8":         "gateway 224.0.0.1/8 is not an address a station can have",
		"240.0.0.1/8":         "gateway 240.0.0.1/8 is not an address a station can have",
		"0.0.0.1/8":           "gateway 0.0.0.1/8 is not an address a station can have",
		"2001:db8::1/64":      "gateway 2001:db8::1/64 is not an IPv4 address with a length, such as 172.17.42.1/16",
		"::ffff:10.0.0.1/104": "gateway ::ffff:10.0.0.1/104 is not an IPv4 address with a length, such as 172.17.42.1/16",
	} {
		n, err := New(Config{ID: 1, Name: "default", Gateway: netip.MustParsePrefix(gateway)}, router)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", gateway, err)
				continue
			}
			if a := netip.MustParsePrefix(gateway).Addr(); n.GatewayMAC() != packet.MACFromIPv4(a) || n.Config().Gateway.Addr() != a {
				t.Errorf("%s: %v, %v", gateway, n.GatewayMAC(), n.Config())
			}
			continue
		}
		if err == nil || err.Error() != "network default: "+want {
			t.Errorf("%s: %v, want %s", gateway, err, want)
		}
	}
	n, err := New(Config{ID: 1, Name: "default"}, router)
	if err != nil || n.Config().Gateway != DefaultSubnet {
		t.Errorf("without a gateway: %v, %v", n, err)
	}
}

func TestReserve(t *testing.T) {
	n := newNetwork(t, 1)
	p, err := n.Reserve(netip.Addr{})
	if err != nil || p.String() != "172.17.0.2/16" {
		t.Errorf("reserved %v, %v", p, err)
	}
	if _, err := n.Reserve(p.Addr()); err == nil || err.Error() != "network default: address 172.17.0.2 is already in use" {
		t.Errorf("again: %v", err)
	}
	n.Release(p.Addr())
	n.Release(netip.Addr{}) // nobody's
	if p, err = n.Reserve(ip("172.17.0.2")); err != nil {
		t.Errorf("after Release: %v, %v", p, err)
	}
}

func newNetwork(t *testing.T, workers int) *Network {
	t.Helper()
	options, err := ParseOptions(nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{ID: 1, Name: "default", Options: options}, newRouter(t, workers))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// A cable is a memory queue that notes what the network does with it.
type cable struct {
	*link.Mem
	carrier atomic.Bool
	closed  atomic.Int32
	fail    error // of SetCarrier
}

func (c *cable) SetCarrier(up bool) error {
	if c.fail == nil {
		c.carrier.Store(up)
	}
	return c.fail
}

func (c *cable) Close() error {
	c.closed.Add(1)
	return c.Mem.Close()
}

// dead is a queue that says neither when it is to be read nor how.
type dead struct {
	vswitch.Queue
	closed atomic.Int32
}

func (d *dead) Close() error {
	d.closed.Add(1)
	return nil
}

// A plug is a container on the network, seen from inside.
type plug struct {
	packettest.Station
	cable *cable
	far   *link.Mem
	port  *vswitch.Port
}

func attach(t *testing.T, n *Network, number packet.ContainerID, change ...func(*Endpoint)) *plug {
	t.Helper()
	addr, err := n.Reserve(netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	near, far := link.NewPair(packet.BatchFrames)
	p := &plug{
		Station: packettest.Station{MAC: packet.MACFromIPv4(addr.Addr()), IP: addr.Addr()},
		cable:   &cable{Mem: near}, far: far,
	}
	e := Endpoint{Name: addr.Addr().String(), Container: number, MAC: p.MAC, Addr: p.IP, Queue: p.cable}
	for _, fn := range change {
		fn(&e)
	}
	if p.port, err = n.Attach(e); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plug) send(t *testing.T, frames ...[]byte) {
	t.Helper()
	for _, b := range frames {
		if _, err := p.far.WriteBatch([]*packet.Frame{{B: b}}); err != nil {
			t.Fatal(err)
		}
	}
}

// expect waits for one frame.
func (p *plug) expect(t *testing.T, want []byte) {
	t.Helper()
	batch := packet.NewBatch()
	lab.Eventually(t, 10*time.Second, func() error {
		if n, err := p.far.ReadBatch(batch); n == 0 {
			return errors.Join(errors.New("nothing came"), err)
		}
		return nil
	})
	if len(batch.Frames) != 1 || !bytes.Equal(batch.Frames[0].B, want) {
		t.Errorf("%v got %d frames, the first is\n% x\nwant\n% x", p.IP, len(batch.Frames), batch.Frames[0].B, want)
	}
}

func TestAttach(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 2)
	a, b := attach(t, n, 1<<16|1), attach(t, n, 1<<16|2)
	if !a.cable.carrier.Load() || !b.cable.carrier.Load() {
		t.Error("no carrier although the port is read")
	}
	gw := packettest.Station{MAC: n.GatewayMAC(), IP: n.Config().Gateway.Addr()}

	request := packettest.ARPRequest(a.Station, gw.IP)
	a.send(t, request)
	a.expect(t, packettest.ARPReply(gw, a.Station))
	b.expect(t, request)
	if got := n.Neighbours(loop.Clock()); len(got) != 2 || got[0].Addr != a.IP.As4() || got[0].Container != 1<<16|1 {
		t.Errorf("neighbours: %v", got)
	}
	ping := packettest.ICMPEcho(b.Station, a.Station, 1, 1, nil)
	b.send(t, ping)
	a.expect(t, ping)

	// The guard is on, and knows the gateway's addresses of both families.
	for _, from := range []packettest.Station{
		{MAC: a.MAC, IP: ip("172.17.0.99")}, {MAC: b.MAC, IP: a.IP}, {MAC: a.MAC, IP: gw.IP}, {MAC: a.MAC, IP: gw.MAC.LinkLocal()},
	} {
		to := b.Station
		if from.IP.Is6() {
			to = b.IPv6()
		}
		a.send(t, packettest.ICMPEcho(from, to, 1, 1, nil))
	}
	a.send(t, ping2(a, b))
	b.expect(t, ping2(a, b)) // the first to pass
	counts := a.port.Counts()
	for reason, want := range map[packet.Reason]uint64{packet.SpoofedAddress: 1, packet.SpoofedMAC: 1, packet.SpoofedGateway: 2} {
		if counts.Dropped[reason].N != want {
			t.Errorf("%d dropped as %v, want %d", counts.Dropped[reason].N, reason, want)
		}
	}

	n.Close()
	if a.cable.closed.Load() != 1 || b.cable.closed.Load() != 1 || len(n.Switch().Ports()) != 0 {
		t.Error("Close has left a port, or closed a link more than once")
	}
	n.Close() // nothing more to do
}

// What is too large to wait for ARP reaches a container that has not said a word.
func TestAttachIsKnown(t *testing.T) {
	n := newNetwork(t, 1)
	a, b := attach(t, n, 1), attach(t, n, 2)
	via := packettest.Station{MAC: n.GatewayMAC(), IP: b.Station.IP}
	large := packettest.GSO(packettest.UDP(a.Station, via, 1, 7, make([]byte, 5000)), 1000)
	a.send(t, large)
	packet.Ethernet(large[packet.VNetLen:]).SetSrc(n.GatewayMAC())
	packet.Ethernet(large[packet.VNetLen:]).SetDst(b.Station.MAC)
	ip := packet.IPv4(large[packet.VNetLen+packet.EthernetLen:])
	ip.DecrementTTL()
	b.expect(t, large)
}

func ping2(a, b *plug) []byte { return packettest.ICMPEcho(a.Station, b.Station, 2, 2, nil) }

func TestAttachUnguarded(t *testing.T) {
	options, err := ParseOptions(map[string]string{"guard": "off"})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{ID: 1, Name: "default", Options: options}, newRouter(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	a, b := attach(t, n, 1), attach(t, n, 2)
	f := packettest.ICMPEcho(packettest.Station{MAC: packet.MAC{2, 9}, IP: ip("192.0.2.9")}, b.Station, 1, 1, nil)
	a.send(t, f)
	b.expect(t, f)
}

func TestAttachIsolated(t *testing.T) {
	n := newNetwork(t, 1)
	isolated := func(e *Endpoint) { e.Isolated = true }
	a, b, c := attach(t, n, 1, isolated), attach(t, n, 2, isolated), attach(t, n, 3)
	request := packettest.ARPRequest(a.Station, b.IP)
	a.send(t, request)
	c.expect(t, request)
	if k, _ := b.far.ReadBatch(packet.NewBatch()); k != 0 {
		t.Error("an isolated container heard another")
	}
}

// TestAttachFails: the queue belongs to the network in every case, so after an
// error it is closed, once, and there is no port.
func TestAttachFails(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 1)

	d := new(dead)
	_, err := n.Attach(Endpoint{Name: "web", Container: 1, Queue: d})
	if want := `network default: add port "web": its queue has neither a descriptor nor a way to notify`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if d.closed.Load() != 1 {
		t.Errorf("closed %d times", d.closed.Load())
	}

	near, _ := link.NewPair(1)
	c := &cable{Mem: near, fail: packet.EgressGone}
	_, err = n.Attach(Endpoint{Name: "web", Container: 1, Queue: c})
	if !errors.Is(err, packet.EgressGone) || !strings.HasPrefix(err.Error(), "network default: raise the carrier of web: ") {
		t.Errorf("got %v", err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if c.closed.Load() != 1 {
			return errors.New("not closed")
		}
		return nil
	})
	if ports := n.Switch().Ports(); len(ports) != 0 {
		t.Errorf("%d ports are left", len(ports))
	}
}

func TestLost(t *testing.T) {
	n := newNetwork(t, 1)
	lost := make(chan *vswitch.Port, 2)
	a := attach(t, n, 1, func(e *Endpoint) { e.Lost = func(p *vswitch.Port, _ error) { lost <- p } })
	_ = a.far.Close()
	select {
	case p := <-lost:
		if p.Config().Name != a.IP.String() {
			t.Errorf("lost %q", p.Config().Name)
		}
		n.Switch().RemovePort(p, nil)
	case <-time.After(5 * time.Second):
		t.Fatal("nobody was told")
	}
}

// TestManyAtOnce has containers come and go while others talk; it is for the
// race detector.
func TestManyAtOnce(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 2)
	a, b := attach(t, n, 1), attach(t, n, 2)
	var busy sync.WaitGroup
	for k := range 4 {
		busy.Add(1)
		go func() {
			defer busy.Done()
			for i := range 30 {
				c := attach(t, n, packet.ContainerID(10+10*k+i%10))
				c.send(t, packettest.ARPRequest(c.Station, a.IP))
				n.Switch().RemovePort(c.port, nil)
				n.Release(c.IP)
			}
		}()
	}
	for i := range 30 {
		f := packettest.ICMPEcho(b.Station, a.Station, 1, uint16(i), nil)
		b.send(t, f)
		n.Neighbours(loop.Clock())
		n.Switch().Totals()
		time.Sleep(time.Millisecond)
	}
	busy.Wait()
	if ports := n.Switch().Ports(); len(ports) != 2 {
		t.Errorf("%d ports are left, want 2", len(ports))
	}
	lab.Eventually(t, 10*time.Second, func() error {
		totals := n.Switch().Totals()
		return totals.CheckCopies()
	})
	if p, err := n.Reserve(netip.Addr{}); err != nil || p.Addr() != ip("172.17.0.4") {
		t.Errorf("an address was not given back: the next is %v, %v", p, err)
	}
}
