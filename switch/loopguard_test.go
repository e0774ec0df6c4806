package vswitch

import (
	"bytes"
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// looped is a rig with a loop guard, two ports that are joined by crossing, and one
// that is not.
type looped struct {
	*rig
	a, b, other *end
	found       []Loop
}

func newLooped(t *testing.T) *looped {
	l := &looped{}
	l.rig = newRig(t, func(c *Config) { c.LoopGuard, c.LoopFound = true, func(x Loop) { l.found = append(l.found, x) } })
	open := func(c *PortConfig) { c.Guard.Strict = false }
	l.a, l.b, l.other = l.add(2, open), l.add(3, open), l.add(4)
	return l
}

// storm has a broadcast of the other one go round for a tenth of a second at most
// and returns how often it did.
func (l *looped) storm() (rounds int) {
	l.send(l.other, packettest.ARPRequest(l.other.station, stationOf(9).IP))
	for ; rounds < 100; rounds++ {
		a, b := l.a.got(l.t), l.b.got(l.t)
		if len(a)+len(b) == 0 {
			return rounds
		}
		l.send(l.b, a...)
		l.send(l.a, b...)
		l.now += int64(time.Millisecond)
		l.other.got(l.t)
	}
	return rounds
}

// A storm ends as soon as a probe has gone round, and with one of the two ports the
// other goes on.
func TestLoopGuard(t *testing.T) {
	l := newLooped(t)
	if n := l.storm(); n > 40 || len(l.found) != 1 {
		t.Fatalf("%d rounds, found %v", n, l.found)
	}
	port := l.found[0].Port
	blocked, open := l.a, l.b
	if port == l.b.port {
		blocked, open = l.b, l.a
	}
	if left, from := port.Blocked(l.now); l.found[0].From != open.port || from != open.port.ID() || left <= 0 || left > firstBlock {
		t.Errorf("blocked for %v because of %v: %+v", left, from, l.found)
	}
	l.send(blocked, packettest.ARPRequest(blocked.station, l.other.IP))
	l.send(l.other, packettest.ARPRequest(l.other.station, open.IP))
	if got := l.other.got(t); len(got) != 0 || blocked.drops(packet.Loop) == 0 {
		t.Errorf("the blocked port got %d frames through, %d dropped", len(got), blocked.drops(packet.Loop))
	}
	if a, b := blocked.got(t), open.got(t); len(a) != 0 || len(b) != 1 {
		t.Errorf("of a broadcast the blocked port got %d, the open one %d", len(a), len(b))
	}
	l.send(open, ping(open.station, l.other.station))
	l.other.expect(t, ping(open.station, l.other.station))

	// The time doubles while the loop stays, up to a bound, and begins anew when it
	// was gone for as long.
	for want := 2 * firstBlock; ; want = min(2*want, longestBlock) {
		last := l.found[len(l.found)-1]
		l.now += int64(last.For) + 1
		if l.storm(); l.found[len(l.found)-1].Port != last.Port {
			continue // the other one this time
		}
		if got := l.found[len(l.found)-1].For; got != want {
			t.Fatalf("blocked for %v, want %v", got, want)
		}
		if last.For == longestBlock {
			break
		}
	}
	l.now += 2*int64(longestBlock) + 1
	if l.storm(); l.found[len(l.found)-1].For != firstBlock {
		t.Errorf("after a long while: %v", l.found[len(l.found)-1].For)
	}
}

// Who broadcasts, moves about or sends by many MACs is no loop, and neither is a
// bridge between two networks.
func TestLoopGuardBlocksNobodyElse(t *testing.T) {
	l := newLooped(t)
	for n := range 1000 {
		l.send(l.a, packettest.ARPRequest(stationOf(2+n%200), stationOf(9).IP))
		l.send(l.b, packettest.ARPRequest(stationOf(2+n%200), stationOf(9).IP))
		l.now += int64(time.Millisecond)
		for _, e := range l.ends {
			e.got(t)
		}
	}
	if len(l.found) != 0 {
		t.Errorf("found %v", l.found)
	}
	probes := l.a.port.Counts().Originated
	if probes < 5 || probes > 12 {
		t.Errorf("%d probes in a second of it, want ten", probes)
	}
	// A probe of another switch, or one that was made up, is a frame as any other.
	made := packettest.Ethernet(l.gw.MAC(), ctpGroup, etherTypeCTP, make([]byte, 46))
	l.send(l.b, made)
	if len(l.found) != 0 || l.b.drops(packet.Loop) != 0 {
		t.Errorf("a made-up probe: found %v", l.found)
	}
}

// probe has the port of an end broadcast until it is sent a probe, and returns that.
func (l *looped) probe(e *end) (probe []byte) {
	l.t.Helper()
	for range loopSigns {
		l.send(e, packettest.ARPRequest(e.station, stationOf(999).IP))
	}
	for _, b := range e.got(l.t) {
		f := packet.Frame{B: b}
		if packet.Parse(&f) == packet.OK && f.EtherType == etherTypeCTP {
			probe = b
		}
	}
	if probe == nil {
		l.t.Fatal("there was no probe")
	}
	return probe
}

// A probe is worth something for the port it was made for, in its VLAN, in its second
// and the next: out of one's own nobody makes another.
func TestProbesAreNotMadeUp(t *testing.T) {
	l := newLooped(t)
	probe := l.probe(l.a)
	refused := func(what string, b []byte) {
		t.Helper()
		before := l.b.drops(packet.SpoofedGateway)
		if l.send(l.b, b); len(l.found) != 0 || l.b.drops(packet.SpoofedGateway) != before+1 {
			t.Errorf("%s: found %v", what, l.found)
		}
	}
	const begin = packet.VNetLen + packet.EthernetLen + 6
	for i := range len(seal{}) {
		b := bytes.Clone(probe)
		b[begin+i] ^= 1
		refused("changed", b)
	}
	refused("cut short", probe[:len(probe)-1])
	l.now += 2 * probeTime
	refused("kept", probe)
	probe = l.probe(l.a)
	l.now += probeTime
	if l.send(l.b, probe); len(l.found) != 1 {
		t.Error("a probe of the last second is not known")
	}
}

// No station of a LAN has the LAN cut off for the others: not by sending a probe
// back, and where the LAN is joined to a container's port that one is blocked.
func TestLoopGuardAndLANs(t *testing.T) {
	shared := func(c *PortConfig) { c.Guard.Strict, c.Shared = false, true }
	for _, c := range []struct{ left, came, blocked string }{
		{"lan", "lan", ""},
		{"lan", "c", "c"}, {"c", "lan", "c"}, {"c", "c", "c"},
		{"lan", "lan2", "lan2"},
	} {
		l := newLooped(t)
		ports := map[string]*end{"lan": l.add(5, shared), "lan2": l.add(6, shared), "c": l.a}
		in := ports[c.came]
		l.send(in, l.probe(ports[c.left]))
		if n := in.drops(packet.Loop); n != 1 {
			t.Errorf("%v: %d frames were refused", c, n)
		}
		for name, e := range ports {
			if left, _ := e.port.Blocked(l.now); left > 0 != (name == c.blocked) {
				t.Errorf("%v: %s is blocked for %v", c, name, left)
			}
		}
		if want := len(c.blocked) > 0; (len(l.found) == 1) != want || want && l.found[0].Port != ports[c.blocked].port {
			t.Errorf("%v: found %v", c, l.found)
		}
	}
}

// To look whether a frame is a probe takes no memory.
func TestProbeZeroAllocations(t *testing.T) {
	l := newLooped(t)
	f := packet.Frame{B: l.probe(l.a), Time: l.now}
	if packet.Parse(&f) != packet.OK {
		t.Fatal("malformed")
	}
	if n := testing.AllocsPerRun(100, func() {
		if left, _ := l.sw.probeOf(&f); left == 0 {
			t.Fatal("it is not known")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
