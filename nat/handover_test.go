package nat

import (
	"testing"

	"fairlead/packet"
)

// Flows go from one table to another, whose clock, rules and networks are others:
// packets of both directions find them again, translated as before, and idle times
// neither begin anew nor are over.
func TestSaveAndRestore(t *testing.T) {
	const minute = int64(60e9)
	old, fresh := New(Config{Flows: 1000, Seed: 1}), New(Config{Flows: 1000, Seed: 2})
	network, uplink := packet.NetworkID(1), packet.NetworkID(4097)
	inside, outside, far := addr("172.17.0.2"), addr("192.0.2.2"), addr("198.51.100.7")
	for _, table := range []*Table{old, fresh} {
		if table == fresh {
			network, uplink = 2, 4098 // as they are called there
		}
		table.Masquerade(network, uplink)
		if _, err := table.Publish(Rule{Network: network, Container: 1<<16 | 1, Proto: packet.ProtoTCP, OutsidePort: 80, Inside: inside, InsidePort: 8080}); err != nil {
			t.Fatal(err)
		}
	}
	network, uplink = 1, 4097
	now := 100 * minute
	syn := packet.Tuple{Src: inside, Dst: far, SrcPort: 40000, DstPort: 443, Proto: packet.ProtoTCP}
	in := packet.Tuple{Src: far, Dst: outside, SrcPort: 50000, DstPort: 80, Proto: packet.ProtoTCP}
	var outPort uint16
	for _, plan := range []func() (Plan, packet.Reason){
		func() (Plan, packet.Reason) { return old.PlanOut(network, 1<<16|1, syn, uplink, outside) },
		func() (Plan, packet.Reason) { return old.PlanIn(uplink, in) },
	} {
		p, reason := plan()
		if reason != packet.OK {
			t.Fatal(reason)
		}
		f, reason := old.Commit(p, now)
		if reason != packet.OK {
			t.Fatal(reason)
		}
		if outPort == 0 {
			outPort = p.After.SrcPort
		}
		for _, reply := range []bool{false, true} {
			old.Seen(FlowOf(f.Number(), reply), now, 1, 60, packet.TCPAck)
		}
	}
	var saved []Saved
	old.Save(now+minute, nil, func(s *Saved) bool { saved = append(saved, *s); return true })
	if len(saved) != 2 {
		t.Fatalf("%d flows are saved", len(saved))
	}
	yielded := 0
	if old.Save(now+minute, nil, func(*Saved) bool { yielded++; return false }); yielded != 1 {
		t.Errorf("%d flows are saved where one was wanted", yielded)
	}
	other := map[packet.NetworkID]packet.NetworkID{0: 0, network: 2, uplink: 4098}
	const begun = 10e9 // of the other clock
	restore := fresh.Restorer(begun)
	for i := range saved {
		s := &saved[i]
		for _, x := range []*packet.NetworkID{&s.From, &s.To, &s.Network, &s.Uplink, &s.Rule.Network, &s.Rule.Uplink} {
			*x = other[*x]
		}
		if restore.Restore(s) == 0 {
			t.Errorf("%+v does not go on", s)
		}
		if restore.Restore(s) != 0 {
			t.Errorf("%+v is there twice", s)
		}
	}
	for name, k := range map[string]struct {
		scope packet.NetworkID
		tuple packet.Tuple
	}{
		"out":      {2, syn},
		"back":     {4098, packet.Tuple{Src: far, Dst: outside, SrcPort: 443, DstPort: outPort, Proto: packet.ProtoTCP}},
		"in":       {4098, in},
		"answered": {2, packet.Tuple{Src: inside, Dst: far, SrcPort: 8080, DstPort: 50000, Proto: packet.ProtoTCP}},
	} {
		if _, ok := fresh.Find(k.scope, &k.tuple, begun+minute, packet.TCPAck); !ok {
			t.Errorf("%s: nothing is known of %v", name, k.tuple)
		}
	}
	for fresh.Expire(begun+minute, 1000) {
	}
	if n := fresh.Stats().Flows; n != 2 {
		t.Errorf("%d flows after a minute", n)
	}
	// The port outside is taken, as it was.
	p, reason := fresh.PlanOut(2, 2<<16|2, packet.Tuple{Src: addr("172.17.0.3"), Dst: far, SrcPort: outPort, DstPort: 443, Proto: packet.ProtoTCP}, 4098, outside)
	if reason != packet.OK || p.After.SrcPort == outPort {
		t.Errorf("another container gets port %d, %v", p.After.SrcPort, reason)
	}
}
