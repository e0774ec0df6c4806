package node

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/uplink/sockets"
)

// uplinkBefore is that of the flows that withFlows makes.
const uplinkBefore = packet.NetworkID(5000)

// withFlows is a node that has this many flows.
func withFlows(t testing.TB, count int) *handlers {
	t.Helper()
	h := newHandlers(t)
	h.router.Flows(func(table *nat.Table) {
		table.Masquerade(defaultID, uplinkBefore)
		to := packet.AddrFrom4([4]byte{198, 51, 100, 7})
		for i := range count {
			c := 1 + i/25_000
			q := packet.Tuple{
				Src: packet.AddrFrom4([4]byte{172, 17, 1, byte(c)}), Dst: to, SrcPort: uint16(10_000 + i%25_000), DstPort: 443,
				Proto: packet.ProtoTCP,
			}
			from := packet.AddrFrom4([4]byte{192, 0, 2, byte(c)})
			p, reason := table.PlanOut(defaultID, packet.ContainerID(1<<16|c), q, uplinkBefore, from)
			if reason == packet.OK {
				_, reason = table.Commit(p, 1)
			}
			if reason != packet.OK {
				t.Error(i, reason)
				return
			}
		}
	})
	return h
}

// The time there is grows with the flows that were taken: the largest table takes longer
// than all that is no flow may.
func TestHandFlowsHasTime(t *testing.T) {
	const flows = 300
	old := withFlows(t, flows)
	ours, theirs := conns(t)
	end := time.Now().Add(workMost)
	s := &sender{conn: &controlConn{UnixConn: theirs}, ack: workMost, end: end}
	read := make(chan int)
	go func() {
		count := 0
		if err := readFlows(ours, func(*nat.Saved) { count++ }); err != nil {
			t.Error(err)
		}
		read <- count
	}()
	old.handFlows(s, nil)
	if count := <-read; s.err != nil || count != flows || s.end != end.Add(flows*flowEach) {
		t.Errorf("%d flows read, %v; %v more than for none", count, s.err, s.end.Sub(end))
	}
}

// A node that goes on after all says why, also amid its flows.
func TestHandFlowsEnd(t *testing.T) {
	ours, theirs := conns(t)
	ends := func(before []byte) {
		_, err := theirs.Write(before)
		if err = errors.Join(err, api.SendMessage(theirs, api.Handed{Error: "the new node takes nothing"}, nil), theirs.CloseWrite()); err != nil {
			t.Fatal(err)
		}
	}
	lot := make([]byte, 4+flowBytes)
	lot[0] = 1
	ends(lot)
	refused(t, readFlows(ours, func(*nat.Saved) {}), "the node that runs: the new node takes nothing")

	for _, before := range []string{"", "[", `[{"flow":1},{"fl`} { // of a text, of which the length is known
		for _, size := range []int{4, 1000} {
			ours, theirs = conns(t)
			ends([]byte(before))
			taking := &takeover{conn: ours, text: len(before) + size}
			err := taking.described(func(text []byte) error { return json.Unmarshal(text, new([]sockets.Moving)) })
			refused(t, err, "the node that runs: the new node takes nothing")
		}
	}
}

// BenchmarkHandFlows is for how long all stands still for the sake of a hundred thousand
// flows.
func BenchmarkHandFlows(b *testing.B) {
	old := withFlows(b, 100_000)
	for range b.N {
		b.StopTimer()
		next := newHandlers(b)
		ours, theirs := conns(b)
		next.router.Flows(func(t *nat.Table) { t.Masquerade(defaultID, next.hostWay.Network()) })
		taking := &takeover{conn: ours, handing: handing{Networks: map[string]packet.NetworkID{next.lans[0].id: defaultID, api.HostUplink: uplinkBefore}}}
		b.StartTimer()
		go func() {
			s := &sender{conn: &controlConn{UnixConn: theirs}, ack: ackWithin, end: time.Now().Add(stillWithin)}
			old.handFlows(s, nil)
		}()
		if err := next.restoreFlows(taking); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		next.router.Flows(func(t *nat.Table) { b.ReportMetric(float64(t.Stats().Flows), "flows") })
	}
}

// Flows are read as they were written, and what is no flow is an error.
func FuzzReadFlows(f *testing.F) {
	lot := func(flows ...nat.Saved) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(flows)))
		b, _ = binary.Append(b, binary.LittleEndian, flows)
		return b
	}
	saved := nat.Saved{Container: 1<<16 | 1, From: 1, To: 2, Forward: packet.Tuple{SrcPort: 1}, Mapped: true, Age: [2]int64{1, 2}}
	f.Add(append(lot(saved, saved), 0, 0, 0, 0))
	f.Add(lot(saved))
	f.Add([]byte{255, 255, 255, 255})
	f.Add([]byte(`{"error":"no"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		from := bytes.NewReader(b)
		var flows []nat.Saved
		err := readFlows(from, func(f *nat.Saved) { flows = append(flows, *f) })
		if have := len(flows) * flowBytes; have > len(b) {
			t.Fatalf("%d flows in %d bytes, %v", len(flows), len(b), err)
		}
		if err != nil || len(flows) > flowsAtOnce {
			return
		}
		var again []nat.Saved
		err = readFlows(io.MultiReader(bytes.NewReader(lot(flows...)), bytes.NewReader(make([]byte, 4))), func(f *nat.Saved) { again = append(again, *f) })
		if err != nil || len(again) != len(flows) {
			t.Errorf("%d flows are read again as %d, %v", len(flows), len(again), err)
		}
		for i := range again {
			if again[i] != flows[i] {
				t.Errorf("%+v is read again as %+v", flows[i], again[i])
			}
		}
	})
}
