package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A tag that is pushed or popped leaves a frame that parses as one that was made so,
// segmentation offload and unfinished checksums included, and nothing beside it.
func TestTags(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[string]int{}
	for range 20_000 {
		plain := packettest.Good(rng, alice, bob)
		if f := (packet.Frame{B: plain}); packet.Parse(&f) != packet.OK || f.Tags > 0 {
			continue
		}
		tagged := packettest.Tagged(plain, 10)
		batch := packet.NewBatch()
		for _, b := range [][]byte{plain, tagged, plain, tagged} {
			if batch.Full() {
				break
			}
			batch.Add(copy(batch.Room(), b))
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			if r := packet.Parse(f); r != packet.OK {
				t.Fatalf("%v\n% x", r, f.B)
			}
			want := tagged
			if f.VID() == 10 {
				want = plain
				f.PopTag()
			} else if !batch.PushTag(f, 10) {
				t.Fatal("there is no headroom")
			}
			again := packet.Frame{B: bytes.Clone(f.B)}
			if r := packet.Parse(&again); r != packet.OK || !bytes.Equal(f.B, want) {
				t.Fatalf("%v\n got % x\nwant % x", r, f.B[:60], want[:60])
			}
			again.B = f.B
			if !sameRecord(again, *f) {
				t.Fatalf("parsed again %+v\nhas the record %+v", again, *f)
			}
			switch {
			case f.Flags.Has(packet.GSO):
				seen["gso"]++
			case f.Flags.Has(packet.NeedsChecksum):
				seen["csum"]++
			}
		}
	}
	if seen["gso"] < 100 || seen["csum"] < 100 {
		t.Errorf("seen %v", seen)
	}
}

func sameRecord(a, b packet.Frame) bool {
	a.B, b.B = nil, nil
	return a.L3 == b.L3 && a.L4 == b.L4 && a.Tags == b.Tags && a.VLAN == b.VLAN && a.EtherType == b.EtherType &&
		a.Proto == b.Proto && a.Flags == b.Flags && a.SrcPort == b.SrcPort && a.DstPort == b.DstPort
}

// A frame that is not the batch's has no room for a tag.
func TestPushTagWithoutRoom(t *testing.T) {
	f := packet.Frame{B: packettest.ARPRequest(alice, bob.IP)}
	if packet.Parse(&f) != packet.OK || packet.NewBatch().PushTag(&f, 10) || f.Tags != 0 {
		t.Error("a tag was pushed into nothing")
	}
}
