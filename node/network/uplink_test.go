package network

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

var (
	upMAC    = packet.MAC{2, 0, 0, 0, 0, 2}
	upAddr   = netip.MustParsePrefix("192.0.2.2/24")
	router1  = packettest.Station{MAC: packet.MAC{2, 0, 0, 0, 0, 1}, IP: ip("192.0.2.1")}
	outsider = packettest.Station{MAC: router1.MAC, IP: ip("198.51.100.7")}
	ourSide  = packettest.Station{MAC: upMAC, IP: upAddr.Addr()}
)

// addUplink gives a network a way out and returns what is at its other end.
func addUplink(t *testing.T, n *Network) *plug {
	t.Helper()
	near, far := link.NewPair(packet.BatchFrames)
	u, err := n.router.AddUplink(UplinkConfig{Name: "up0", MAC: upMAC, Addr: upAddr, Gateway: router1.IP}, near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.router.Close)
	if err := n.SetUplinks(u.Config().Name); err != nil {
		t.Fatal(err)
	}
	return &plug{Station: router1, far: far}
}

// get waits for one frame of IPv4, or answers ARP for it. Who wants a lease renewed is
// not heard.
func (p *plug) get(t *testing.T) *packet.Frame {
	t.Helper()
	batch := packet.NewBatch()
	var got []packet.Frame
	lab.Eventually(t, 10*time.Second, func() error {
		batch.Reset()
		if _, err := p.far.ReadBatch(batch); err != nil {
			return err
		}
		for i := range batch.Frames {
			f := batch.Frames[i].Clone(nil)
			if r := packet.Parse(&f); r != packet.OK {
				t.Fatalf("%v: % x", r, f.B)
			}
			if f.EtherType == packet.EtherTypeIPv4 {
				if f.DstPort != 67 {
					got = append(got, f)
				}
			} else if a := packet.ARP(f.Packet()); a.Op() == packet.ARPRequest && netip.AddrFrom4(a.TargetIP()) == p.IP {
				asker := packettest.Station{MAC: a.SenderMAC(), IP: netip.AddrFrom4(a.SenderIP())}
				p.send(t, packettest.ARPReply(p.Station, asker))
			}
		}
		if len(got) == 0 {
			return errors.New("nothing came")
		}
		return nil
	})
	if len(got) != 1 {
		t.Errorf("%d frames, want 1", len(got))
	}
	return &got[0]
}

// check holds the conservation law at rest.
func check(t *testing.T, n *Network) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		for _, p := range n.sw.Ports() {
			c := p.Counts()
			if err := c.CheckIngress(); err != nil {
				return err
			}
		}
		return n.router.CheckCopies()
	})
}

func TestOutAndIn(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 1)
	web := attach(t, n, 1<<16|1)
	up := addUplink(t, n)
	gw := packettest.Station{MAC: n.GatewayMAC(), IP: ip("172.17.0.1")}
	via := func(s packettest.Station) packettest.Station { return packettest.Station{MAC: gw.MAC, IP: s.IP} }

	// Out: the router is asked for first, and the packet waits.
	web.send(t, packettest.UDP(web.Station, via(outsider), 40000, 53, []byte("query")))
	f := up.get(t)
	if got := f.Tuple(); got.Src != packet.AddrFromNetip(upAddr.Addr()) || got.SrcPort != 40000 || packet.IPv4(f.Packet()).TTL() != 63 {
		t.Errorf("masqueraded to %+v with TTL %d", got, packet.IPv4(f.Packet()).TTL())
	}
	src := f.SrcPort
	up.send(t, packettest.UDP(outsider, ourSide, 53, src, []byte("answer")))
	f = web.get(t)
	if got := f.Tuple(); got.Dst != packet.AddrFromNetip(web.IP) || got.DstPort != 40000 || got.SrcPort != 53 {
		t.Errorf("the answer is %+v", got)
	}

	// In: a published port, with the client's own address.
	n.router.Flows(func(table *nat.Table) {
		if _, err := table.Publish(nat.Rule{
			Network: 1, Container: 1<<16 | 1, Inside: packet.AddrFromNetip(web.IP), Proto: packet.ProtoTCP, OutsidePort: 8080, InsidePort: 80,
		}); err != nil {
			t.Fatal(err)
		}
	})
	up.send(t, packettest.TCP(outsider, ourSide, packettest.Segment{SrcPort: 5000, DstPort: 8080, Flags: packet.TCPSyn}, nil))
	f = web.get(t)
	if got := f.Tuple(); got.Src != packet.AddrFromNetip(outsider.IP) || got.DstPort != 80 || got.Dst != packet.AddrFromNetip(web.IP) {
		t.Errorf("published: %+v", got)
	}
	web.send(t, packettest.TCP(web.Station, via(outsider), packettest.Segment{SrcPort: 80, DstPort: 5000, Flags: packet.TCPSyn | packet.TCPAck}, nil))
	f = up.get(t)
	if got := f.Tuple(); got.Src != packet.AddrFromNetip(upAddr.Addr()) || got.SrcPort != 8080 {
		t.Errorf("answered as %+v", got)
	}
	check(t, n)
}
