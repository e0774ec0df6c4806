package nat

import (
	"testing"

	"fairlead/packet"
)

// FuzzFlowTable reads bytes as operations on a small table: whatever order they
// come in, nothing panics, what is committed is found in both directions, and
// at the end everything can go.
func FuzzFlowTable(f *testing.F) {
	f.Add([]byte("\x00\x11\x00\x01\x00\x02\x05\xff"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte{7, 1, 1, 33, 2, 66, 3, 99, 4, 255, 5, 255, 6, 1, 0, 0, 0, 1, 0, 2, 0, 3})
	f.Add([]byte{0x20, 1, 0x23, 1, 0x25, 1, 0x45, 1, 0x65, 1, 0x4c, 1, 0x6c, 1, 0x20, 2, 0x4e, 2, 0x2a, 2})
	f.Add([]byte("out and in and out again, and time goes by, and all is flushed"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table := New(Config{Flows: 8, PerContainer: 5, Seed: 1})
		var told []uint32
		table.SetOwner(modelOwner{&told})
		table.Keep(lan2, true)
		keptFlows := 0
		now := int64(0)
		var batch Prefetch // of packets whose flows may have gone by then
		check := func(p Plan, reason packet.Reason) {
			if reason != packet.OK {
				return
			}
			made := table.Stats().Created
			flow, reason := table.Commit(p, now)
			if reason != packet.OK {
				return
			}
			tr := table.Translation(flow)
			if tr.In == lan2 || tr.Out == lan2 {
				keptFlows += int(table.Stats().Created - made)
			}
			if got, ok := table.Find(tr.In, &tr.Before, now, 0); !ok || got != flow {
				t.Fatalf("%+v is not found", tr)
			}
			if got, ok := table.Find(tr.Out, new(tr.After.Reverse()), now, 0); !ok || got.Number() != flow.Number() || got.Reply() == flow.Reply() {
				t.Fatalf("the answers of %+v are not found", tr)
			}
			table.Seen(flow, now, 1, 1, uint8(now))
			table.Expect(&batch, tr.In, &tr.Before)
		}
		for len(b) >= 2 {
			op, x := b[0], b[1]
			b = b[2:]
			table.Prefetch(&batch)
			c := packet.ContainerID(x & 3)
			in, remote := packet.AddrFrom4([4]byte{10, 0, 0, x & 3}), packet.AddrFrom4([4]byte{8, 8, 8, x >> 7})
			k := packet.Tuple{Src: in, Dst: remote, SrcPort: 1000 + uint16(x>>4&7)*20, DstPort: uint16(x >> 6 * 53),
				Proto: [4]packet.Proto{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, 47}[x>>2&3]}
			outside := ours
			uplink := lan
			if op&0x20 != 0 {
				uplink = lan2
			}
			if op&0x80 != 0 {
				k.Src, k.Dst, outside = v6Of(k.Src), v6Of(k.Dst), v6Of(ours)
			}
			switch op & 15 {
			case 0, 1, 2:
				check(table.PlanOut(net1, c, k, uplink, outside))
			case 3, 4:
				k.Src, k.Dst, k.SrcPort, k.DstPort = k.Dst, outside, k.DstPort, k.SrcPort
				check(table.PlanIn(uplink, k))
			case 5:
				if op&0xc0 == 0x40 {
					check(table.PlanRedirect(net1, c, k, uplink, outside, addr("127.0.0.1"), 53))
					break
				}
				k.Dst, k.DstPort = outside, k.SrcPort
				check(table.PlanHairpin(net1, c, k, uplink, outside))
			case 6:
				if op&0x40 != 0 {
					check(table.PlanHost(net1, c, k))
					break
				}
				check(table.PlanTrack(net1, c, k, net1))
			case 7:
				if r, err := table.Publish(Rule{Network: net1, Container: c, Proto: k.Proto, OutsidePort: k.SrcPort, Inside: k.Src, InsidePort: 80}); err == nil && r.Number == 0 {
					t.Fatal("a rule without a number")
				}
			case 8:
				_, _ = table.OneToOne(Rule{Network: net1, Container: c, Uplink: lan, Inside: k.Src, Outside: outside})
			case 9:
				table.Unpublish(uint32(x))
			case 10:
				table.FlushContainer(c)
			case 11:
				table.FlushAddress(lan, outside)
			case 12:
				if op&0x40 != 0 {
					k.Src = outside
					table.End(uplink, k)
					break
				}
				table.Recycle(int(x))
			case 13:
				now += int64(x) * second
			case 14:
				table.Expire(now, int(x))
			case 15:
				now += int64(x) << 32
			}
		}
		n := 0
		for range table.Flows {
			n++
		}
		if s := table.Stats(); n > s.Flows || s.Flows > 8 || s.Mappings > s.Flows {
			t.Fatalf("lists %d: %+v", n, s)
		}
		table.FlushAddress(net1, packet.Addr{})
		table.FlushAddress(lan, packet.Addr{})
		table.FlushAddress(lan2, packet.Addr{})
		if len(told) != keptFlows {
			t.Fatalf("told of the end of %d flows of %d", len(told), keptFlows)
		}
		if s := table.Stats(); s.Flows != 0 || s.Mappings != 0 || s.Created != s.Ended {
			t.Fatalf("after the end: %+v", s)
		}
		if at, ok := table.Due(); ok {
			t.Fatalf("something is due at %d", at)
		}
	})
}
