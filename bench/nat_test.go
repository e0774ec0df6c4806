package main

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/nat"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/packet/packettest"
	hosts "fairlead/test/lab"
)

// The routing path allocates nothing, whichever way a packet is translated: half
// a million packets out and back, to a published port and back, and from one
// container to the other's published port leave the garbage collector nothing to
// do. The links are memory, so all that is measured is ours.
func TestReleaseNoAllocationsNAT(t *testing.T) {
	const packets, most = 500_000, 100
	hosts.NeedRelease(t)
	y := newYard(t)
	y.until(t, 10_000, y.kinds) // what is made once
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, first := time.Now(), y.arrived
	total := y.until(t, packets, y.kinds)
	runtime.ReadMemStats(&after)
	took, allocs := time.Since(start), after.Mallocs-before.Mallocs
	for i, kind := range y.kinds {
		t.Logf("%-14s %d packets", kind.name, y.arrived[i]-first[i])
		if y.arrived[i]-first[i] < packets/len(y.kinds)/2 {
			t.Errorf("%s: %d packets of %d", kind.name, y.arrived[i]-first[i], total)
		}
	}
	t.Logf("%d packets in %v, %.0f a second: %d allocations", total, took.Round(time.Millisecond), float64(total)/took.Seconds(), allocs)
	if allocs > most {
		t.Errorf("%d allocations, want at most %d", allocs, most)
	}
}

// A yard is two containers and a host outside, all of whom the test plays.
type yard struct {
	kinds   []kind
	arrived [6]int // packets, by kind
	batch   *packet.Batch
	// Of each link, what is answered there to who asks by ARP.
	answers map[*link.Mem][]*packet.Frame
}

// A kind is a way to be translated: packets from one link to another.
type kind struct {
	name     string
	from, to *link.Mem
	frames   []*packet.Frame

	// By what one is known that arrives.
	src, dst uint16
}

func newYard(t *testing.T) *yard {
	l, router, n, err := newNetwork(workers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		router.Close()
		l.Close()
	})
	y := &yard{batch: packet.NewBatch(), answers: map[*link.Mem][]*packet.Frame{}}
	near, far := link.NewPair(packet.BatchFrames)
	if _, err := router.AddUplink(network.UplinkConfig{Name: "up0", MAC: uplinkMAC, Addr: uplinkAddr}, near); err != nil {
		t.Fatal(err)
	}
	if err := n.SetUplinks("up0"); err != nil {
		t.Fatal(err)
	}
	var web, client packettest.Station
	var links [2]*link.Mem
	for i, s := range []*packettest.Station{&web, &client} {
		near, links[i] = link.NewPair(packet.BatchFrames)
		e := end{MAC: packet.MACFromIPv4(addrs[i]), Addr: addrs[i]}
		*s = packettest.Station{MAC: e.MAC, IP: e.Addr}
		endpoint := e.endpoint(i, near)
		if _, err := n.Attach(endpoint); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			continue
		}
		router.Flows(func(t *nat.Table) {
			_, err = t.Publish(nat.Rule{Network: networkID, Container: endpoint.Container, Inside: packet.AddrFromNetip(e.Addr),
				Proto: packet.ProtoUDP, OutsidePort: publishedPort, InsidePort: 53})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	gatewayMAC := packet.MACFromIPv4(gatewayAddr.Addr())
	at := func(mac packet.MAC, ip netip.Addr) packettest.Station { return packettest.Station{MAC: mac, IP: ip} }
	add := func(name string, from, to *link.Mem, src, dst packettest.Station, srcPort, dstPort, wantSrc, wantDst uint16) {
		k := kind{name: name, from: from, to: to, src: wantSrc, dst: wantDst}
		for range 8 {
			k.frames = append(k.frames, &packet.Frame{B: packettest.UDP(src, dst, srcPort, dstPort, make([]byte, 18))})
		}
		y.kinds = append(y.kinds, k)
	}
	gw, host, outside := at(gatewayMAC, gatewayAddr.Addr()), at(uplinkMAC, uplinkAddr.Addr()), at(packet.MAC{2, 0xfe}, outsideAddr.Addr())
	y.answers[far] = []*packet.Frame{{B: packettest.ARPReply(outside, host)}}
	y.answers[links[0]] = []*packet.Frame{{B: packettest.ARPReply(web, gw)}}
	y.answers[links[1]] = []*packet.Frame{{B: packettest.ARPReply(client, gw)}}
	add("out", links[0], far, web, at(gatewayMAC, outside.IP), 5000, 9, 5000, 9)
	add("back", far, links[0], outside, host, 9, 5000, 9, 5000)
	add("published", far, links[0], outside, host, 7000, publishedPort, 7000, 53)
	add("answered", links[0], far, web, at(gatewayMAC, outside.IP), 53, 7000, publishedPort, 7000)
	add("hairpin", links[1], links[0], client, at(gatewayMAC, host.IP), 6000, publishedPort, 6000, 53)
	add("hairpin back", links[0], links[1], web, at(gatewayMAC, host.IP), 53, 6000, publishedPort, 6000)
	for i := range y.kinds { // an answer comes after what it answers
		y.until(t, 1, y.kinds[i:i+1])
	}
	return y
}

// until sends packets of some kinds until so many more have arrived, and
// returns how many did.
func (y *yard) until(t *testing.T, packets int, kinds []kind) (total int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); total < packets; {
		for i := range kinds {
			k := &kinds[i]
			for frames := k.frames; len(frames) > 0; {
				n, err := k.from.WriteBatch(frames)
				frames = frames[n:]
				if errors.Is(err, link.ErrFull) {
					runtime.Gosched()
				} else if err != nil {
					t.Fatal(err)
				}
			}
			total += y.receive(t, k.to)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d packets within a minute: %v", total, packets, y.arrived)
		}
	}
	return total
}

// receive reads what has arrived on a link and answers who asks by ARP.
func (y *yard) receive(t *testing.T, q *link.Mem) (n int) {
	y.batch.Reset()
	if _, err := q.ReadBatch(y.batch); err != nil {
		t.Fatal(err)
	}
	for i := range y.batch.Frames {
		f := &y.batch.Frames[i]
		if packet.Parse(f) != packet.OK {
			t.Fatalf("malformed: %x", f.B)
		}
		if f.EtherType == packet.EtherTypeARP {
			_, _ = q.WriteBatch(y.answers[q])
		}
		for j := range y.kinds {
			if k := &y.kinds[j]; k.to == q && f.Proto == packet.ProtoUDP && f.SrcPort == k.src && f.DstPort == k.dst {
				y.arrived[j]++
				n++
			}
		}
	}
	return n
}
