package vswitch

import (
	"fmt"
	"net/netip"
	"testing"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
	"fairlead/test/lab"
)

// TestReleaseZeroAllocations takes batches of every kind through the path on
// memory queues: neither a frame nor a batch may allocate.
func TestReleaseZeroAllocations(t *testing.T) {
	lab.NeedRelease(t)
	r := newRig(t)
	in := r.add(2)
	var others []*end
	for n := range 8 {
		others = append(others, r.add(3+n))
	}
	isolated := func(c *PortConfig) { c.Isolated = true }
	alone, alsoAlone := r.add(20, isolated), r.add(21, isolated)
	limited := r.add(22, func(c *PortConfig) { c.FloodLimit = 1 })
	for _, e := range append(others, in, alone, alsoAlone, limited) {
		r.send(e, packettest.ARPRequest(e.station, gatewayAddr.Addr())) // everybody is known
	}
	gw := station{MAC: r.gw.MAC(), IP: gatewayAddr.Addr()}
	outside := station{MAC: gw.MAC, IP: stationOf(2).IP.Next()}
	outside.IP = gatewayAddr.Addr().Next().Next().Next() // in the subnet, behind the gateway's MAC

	batch := func(name string, from *end, b []byte, want packet.Verdict, reason packet.Reason) {
		t.Run(name, func(t *testing.T) {
			if d := r.decide(from, b); d.Verdict != want || d.Reason != reason {
				t.Fatalf("decided %v (%v), want %v (%v)", d.Verdict, d.Reason, want, reason)
			}
			frames := make([][]byte, packet.BatchFrames)
			for i := range frames {
				frames[i] = b
			}
			var allocs float64
			r.on(func() {
				allocs = testing.AllocsPerRun(20, func() {
					from.queue.inject = frames
					for from.port.Ready(r.now, 0) {
					}
					for _, e := range r.ends {
						for e.drain() {
						}
					}
				})
			})
			if allocs != 0 {
				t.Errorf("%v allocations for a batch of %d frames", allocs, len(frames))
			}
		})
	}
	to := others[0].station
	batch("unicast", in, ping(in.station, to), packet.Unicast, packet.KnownMAC)
	batch("unicast gso", in, packettest.GSO(packettest.TCP(in.station, to, packettest.Segment{}, make([]byte, 30000)), 1448),
		packet.Unicast, packet.KnownMAC)
	r.sw.SetJoin(true)
	others[0].queue.takes = link.OffloadAll
	batch("unicast joined", in, datagramOf(in.station, to, 9, 1, 60), packet.Unicast, packet.KnownMAC)
	batch("unicast not joined", in, packettest.Partial(packettest.UDP(in.station, to, 9, 9, nil)), packet.Unicast, packet.KnownMAC)
	r.sw.SetJoin(false)
	access, trunk := r.add(30, inVLANs(t, "vlan=10")), r.add(31, inVLANs(t, "trunk=10"))
	r.send(trunk, packettest.Tagged(packettest.ARPRequest(trunk.station, access.IP), 10))
	r.send(access, packettest.ARPRequest(access.station, trunk.IP))
	batch("unicast gets a tag", access, ping(access.station, trunk.station), packet.Unicast, packet.KnownMAC)
	batch("unicast loses its tag", trunk, packettest.Tagged(ping(trunk.station, access.station), 10), packet.Unicast, packet.KnownMAC)
	batch("flood of a VLAN", access, ping(access.station, stationOf(999)), packet.Flood, packet.UnknownMAC)
	batch("drop wrong-vlan", access, packettest.Tagged(ping(access.station, trunk.station), 10), packet.Drop, packet.WrongVLAN)
	batch("flood", in, ping(in.station, stationOf(999)), packet.Flood, packet.UnknownMAC)
	batch("broadcast to the gateway", in, packettest.ARPRequest(in.station, gw.IP), packet.Flood, packet.ToGroup)
	batch("echo", in, ping(in.station, gw), packet.Gateway, packet.ForGateway)

	drops := map[packet.Reason][]byte{
		packet.NoRoute:          ping(in.station, outside),
		packet.SpoofedMAC:       ping(to, gw),
		packet.SpoofedAddress:   ping(station{MAC: in.MAC, IP: to.IP}, gw),
		packet.SpoofedGateway:   ping(gw, to),
		packet.BadSourceMAC:     ping(station{IP: in.IP}, to),
		packet.LoopbackAddress:  packettest.UDP(in.station, station{MAC: to.MAC, IP: loopback}, 1, 2, nil),
		packet.SpoofedNeighbour: packettest.Discovery(in.station.IPv6(), to.IPv6(), packet.ICMPv6NeighborAdvert, to.MAC.LinkLocal(), in.MAC),
		packet.RogueRouter:      packettest.Discovery(in.station.IPv6(), to.IPv6(), packet.ICMPv6RouterAdvert, to.MAC.LinkLocal()),
		packet.AddressLimit:     packettest.UDP(station{MAC: in.MAC, IP: netip.MustParseAddr("fe80::99")}, to.IPv6(), 1, 2, nil),
		packet.RogueDHCP:        packettest.UDP(in.station, to, 1234, 68, nil),
		packet.SamePort:         ping(in.station, in.station),
		packet.ReservedGroup:    ping(in.station, station{MAC: packet.MAC{1, 0x80, 0xc2, 0, 0, 0}, IP: to.IP}),
		packet.Oversize:         packettest.UDP(in.station, to, 1, 2, make([]byte, 1600)),
		packet.NotUnderstood:    packettest.Ethernet(in.MAC, gw.MAC, 0x88cc, make([]byte, 60)),
	}
	for n := range 8 { // as many addresses as it may have
		r.send(in, packettest.UDP(station{MAC: in.MAC, IP: netip.MustParseAddr(fmt.Sprintf("fe80::%d", n+1))}, to.IPv6(), 1, 2, nil))
	}
	for _, e := range r.ends {
		e.got(t)
	}
	rng := newRand(1)
	for _, reason := range packettest.ParseReasons[1:] {
		drops[reason] = packettest.Broken(rng, reason, in.station, to)
	}
	for reason, b := range drops {
		batch("drop "+reason.String(), in, b, packet.Drop, reason)
	}
	batch("drop isolated", alone, ping(alone.station, alsoAlone.station), packet.Drop, packet.Isolated)
	batch("drop flood-limit", limited, packettest.ARPRequest(limited.station, to.IP), packet.Drop, packet.FloodLimit)
	hits := policy.NewHits(1)
	r.sw.SetAdmit(policy.NewAdmit([]policy.AdmitRule{{Number: 1, From: in.port.Config().Container, Proto: packet.ProtoTCP, Ports: policy.Ports{First: 80, Last: 80}, Hits: hits}}, hits))
	batch("unicast by a rule", in, packettest.TCP(in.station, to, packettest.Segment{DstPort: 80}, nil), packet.Unicast, packet.KnownMAC)
	batch("drop icc", in, ping(in.station, to), packet.Drop, packet.ICC)
	batch("flood none may have", in, ping(in.station, stationOf(999)), packet.Flood, packet.UnknownMAC)
	r.sw.SetAdmit(nil)
	fast, slow := new(Limit), new(Limit)
	fast.Set(1e12, 1e12)
	slow.Set(8000, 8000)
	limitedBy := func(n int, l *Limit) *end {
		e := r.add(n, func(c *PortConfig) { c.Limit = l })
		r.send(e, packettest.ARPRequest(e.station, gatewayAddr.Addr()))
		return e
	}
	quick, lame := limitedBy(23, fast), limitedBy(24, slow)
	batch("unicast within rates", quick, ping(quick.station, to), packet.Unicast, packet.KnownMAC)
	batch("unicast beyond the receiver's rate", quick, ping(quick.station, lame.station), packet.Unicast, packet.KnownMAC)
	batch("unicast beyond the sender's rate", lame, ping(lame.station, to), packet.Unicast, packet.KnownMAC)
	r.on(func() { lame.queue.inject = nil }) // what it may not send yet
	for _, reason := range []packet.Reason{packet.EgressDown, packet.EgressGone, packet.EgressFull, packet.EgressSegments, packet.EgressRefused} {
		others[0].queue.err = reason
		batch(fmt.Sprint("failed ", reason), in, ping(in.station, to), packet.Unicast, packet.KnownMAC)
	}
	others[0].queue.err = nil
}

// drain takes what has arrived at a far end away.
func (e *end) drain() bool {
	e.batch.Reset()
	n, _ := e.far.ReadBatch(e.batch)
	return n > 0
}

func BenchmarkForward(b *testing.B) {
	t := new(testing.T)
	r := newRig(t)
	in, out := r.add(2), r.add(3)
	r.send(in, packettest.ARPRequest(in.station, gatewayAddr.Addr()))
	r.send(out, packettest.ARPRequest(out.station, gatewayAddr.Addr()))
	f := packet.Frame{B: packettest.TCP(in.station, out.station, packettest.Segment{}, make([]byte, 100)), Time: r.now, Port: in.port.ID()}
	ports := r.sw.ports.Load()
	b.ReportAllocs()
	var d packet.Decision
	for b.Loop() {
		d = packet.Decision{}
		r.sw.forward(&f, in.port, ports, &d)
		if d.Verdict != packet.Unicast {
			b.Fatal(d)
		}
	}
}

// BenchmarkTurn takes turns of one and of 64 unicast frames between metered ports,
// whose queues do nothing: what the path costs, for each frame.
func BenchmarkTurn(b *testing.B) {
	for _, frames := range []int{1, packet.BatchFrames} {
		b.Run(fmt.Sprintf("frames=%d", frames), func(b *testing.B) {
			r := newRig(new(testing.T))
			in, out := r.add(2, metered), r.add(3, metered)
			r.known(in, out)
			frame := packettest.TCP(in.station, out.station, packettest.Segment{}, make([]byte, 100))
			in.port.conf.Queue, out.port.conf.Queue = &endless{in.queue, frame, frames}, nowhere{out.queue}
			b.ReportAllocs()
			r.on(func() {
				for b.Loop() {
					r.now += 1000
					in.port.Ready(r.now, 0)
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(in.port.Counts().Read-1), "ns/frame")
			in.port.conf.Queue, out.port.conf.Queue = in.queue, out.queue
		})
	}
}

// endless is a queue in which so many frames wait whenever it is asked.
type endless struct {
	Queue
	frame   []byte
	waiting int
}

func (q *endless) ReadBatch(b *packet.Batch) (n int, err error) {
	for ; n < q.waiting && !b.Full(); n++ {
		b.Add(copy(b.Room(), q.frame))
	}
	return n, nil
}

// nowhere is a queue that takes everything at once.
type nowhere struct{ Queue }

func (nowhere) WriteBatch(frames []*packet.Frame) (int, error) { return len(frames), nil }
