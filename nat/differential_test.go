package nat

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/test/lab"
)

// TestNATAgainstModel does random things with a small table, in which everything
// is scarce, and asks the model whether what happened is right.
func TestNATAgainstModel(t *testing.T) {
	seed, operations := lab.Seed(t), 1_000_000
	full := !raceEnabled && !testing.Short()
	switch {
	case raceEnabled:
		operations /= 25
	case testing.Short():
		operations /= 10
	}
	d := newDifferential(t, seed)
	// What has to happen is frequent under some seeds and seldom under others: a
	// full run goes on until everything was seen enough.
	most := operations
	if full {
		most *= 20
	}
	i := 0
	for ; i < operations || i < most && (i%1000 != 0 || len(d.seldom()) > 0); i++ {
		if d.step(); t.Failed() {
			t.Fatalf("operation %d of seed %d", i, seed)
		}
	}
	d.report(i)
	if missing := d.seldom(); full && len(missing) > 0 {
		t.Errorf("less than 100 times: %v", missing)
	}
}

// A differential is a table and its model, told the same.
type differential struct {
	t     *testing.T
	rand  *rand.Rand
	table *Table
	model *model
	now   int64
	late  []Plan // to be committed after other things happened
	told  []uint32
	hits  map[string]int
}

const (
	modelContainers = 8
	modelShare      = 2
	modelCommon     = 6
	modelWaiting    = 8
)

var outsides = []packet.Addr{ours, oursToo, v6Of(ours)}

func newDifferential(t *testing.T, seed uint64) *differential {
	c := Config{Flows: 65, PerContainer: 12, MaxContainers: modelContainers, Seed: seed, Timeouts: Timeouts{TCPEstablished: 500 * time.Second}}
	d := &differential{t: t, rand: rand.New(rand.NewPCG(seed, 0)), table: New(c), now: 1000 * second, hits: map[string]int{}}
	d.table.SetOwner(modelOwner{&d.told})
	d.table.Keep(lan2, true)
	d.model = newModel(d.table.config)
	d.model.share, d.model.common = modelShare, modelCommon
	d.table.waiting = modelWaiting
	d.model.waiting = modelWaiting
	// That both buckets of a key are full is left to TestIndexChurn.
	d.table.index.init(1000)
	d.table.maps.index.init(1000)
	d.squeeze()
	for n := range packet.NetworkID(2) {
		d.model.rules = append(d.model.rules, d.table.Masquerade(net1+n, lan))
	}
	return d
}

// squeeze leaves a few ports in every pool.
func (d *differential) squeeze() {
	for _, uplink := range []packet.NetworkID{lan, lan2, net1} {
		for _, a := range outsides {
			for _, proto := range []packet.Proto{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6} {
				p := d.table.poolOf(poolKey{uplink, a, proto})
				p.share, p.common = modelShare, modelCommon
			}
		}
	}
}

func (d *differential) hit(format string, args ...any) { d.hits[fmt.Sprintf(format, args...)]++ }

func (d *differential) chance(n int) bool { return d.rand.IntN(n) == 0 }

func pick[T any](d *differential, list ...T) T { return list[d.rand.IntN(len(list))] }

// step does one random thing, a little later.
func (d *differential) step() {
	switch {
	case d.chance(3000):
		d.now += d.rand.Int64N(600 * second)
	case d.chance(100):
		d.now += d.rand.Int64N(20 * second)
	default:
		d.now += d.rand.Int64N(second / 20)
	}
	defer d.checkTold()
	switch n := d.rand.IntN(1000); {
	case n < 350:
		d.fromInside()
	case n < 600:
		d.fromOutside()
	case n < 850:
		d.known()
	case n < 940:
		d.expire()
	case n < 970:
		d.table.Recycle(d.table.Retired())
		clear(d.model.retired)
	case n < 985:
		d.changeRules()
	case n < 990:
		d.commitLate()
	case n < 994:
		d.flush()
	case n < 995:
		d.compareLists()
	case n < 998:
		d.end()
	default:
		d.track()
	}
}

func insideOf(c, family int) packet.Addr {
	a := packet.AddrFrom4([4]byte{172, 17, 0, byte(2 + c)})
	if family == 6 {
		return v6Of(a)
	}
	return a
}

func (d *differential) family() int { return pick(d, 4, 4, 4, 6) }

func (d *differential) remote(family int) packet.Addr {
	a := packet.AddrFrom4([4]byte{198, 51, 100, byte(d.rand.IntN(3))})
	if family == 6 {
		return v6Of(a)
	}
	return a
}

func (d *differential) oursOf(family int) packet.Addr {
	if family == 6 {
		return v6Of(ours)
	}
	return pick(d, ours, ours, oursToo)
}

// proto returns a protocol and, for TCP, flags of a segment.
func (d *differential) proto(family int) (packet.Proto, uint8) {
	switch d.rand.IntN(10) {
	case 0, 1, 2, 3:
		return packet.ProtoTCP, packet.TCPSyn
	case 4, 5, 6:
		return packet.ProtoUDP, 0
	case 7, 8:
		if family == 6 {
			return packet.ProtoICMPv6, 0
		}
		return packet.ProtoICMP, 0
	}
	return 47, 0 // GRE has no ports
}

// fromInside is a packet of a container that may begin something.
func (d *differential) fromInside() {
	c, family := d.rand.IntN(modelContainers), d.family()
	proto, flags := d.proto(family)
	q := question{direction: out, scope: net1 + packet.NetworkID(c%2), container: packet.ContainerID(1<<16 | c),
		uplink: pick(d, lan, lan, lan, lan2), outside: outsides[0]}
	if family == 6 {
		q.outside = outsides[2]
	}
	q.tuple = tuple(proto, insideOf(c, family), pick[uint16](d, 500, 5000, 5001, 8080, uint16(d.rand.UintN(1<<16))),
		d.remote(family), pick[uint16](d, 53, 80, 7000, 7001))
	switch {
	case d.chance(50):
		q.outside = packet.Addr{} // no lease
	case family == 4 && d.chance(8):
		q.direction, q.to, q.port = redirect, addr("127.0.0.1"), q.tuple.DstPort+1
	case d.chance(4): // an address of ours
		q.direction, q.tuple.Dst = hairpin, d.oursOf(family)
		q.tuple.DstPort = d.port(q.uplink, q.tuple.Dst, proto)
		if d.chance(4) {
			q.uplink = q.scope // the gateway's
		}
	}
	d.packet(portless(d, q), flags)
}

// fromOutside is a packet to an address of ours.
func (d *differential) fromOutside() {
	family := d.family()
	proto, flags := d.proto(family)
	q := question{direction: in, scope: pick(d, lan, lan, lan, lan2)}
	dst := d.oursOf(family)
	q.tuple = tuple(proto, d.remote(family), pick[uint16](d, 80, 7000, 7001), dst, d.port(q.scope, dst, proto))
	d.packet(portless(d, q), flags)
}

// port is likely one in use.
func (d *differential) port(uplink packet.NetworkID, a packet.Addr, proto packet.Proto) uint16 {
	var used []uint16
	for _, x := range d.model.maps {
		if x.uplink == uplink && x.outside == a && x.proto == proto {
			used = append(used, x.port)
		}
	}
	if len(used) > 0 && d.chance(3) {
		return pick(d, used...)
	}
	return pick[uint16](d, 80, 8080, 8081, 8082, 9999)
}

// portless takes the ports away that the protocol has not.
func portless(d *differential, q question) question {
	switch {
	case isICMP(q.tuple.Proto):
		if q.tuple.DstPort = 0; d.chance(30) { // an answer to nothing
			q.tuple.SrcPort, q.tuple.DstPort = 0, 77
		}
	case !hasPorts(q.tuple.Proto):
		q.tuple.SrcPort, q.tuple.DstPort = 0, 0
	}
	return q
}

func (d *differential) track() {
	c := d.rand.IntN(modelContainers)
	d.packet(question{direction: track, scope: net1, container: packet.ContainerID(1<<16 | c), uplink: net1,
		tuple: udp(insideOf(c, 4), 5000, insideOf(d.rand.IntN(modelContainers), 4), 5000)}, 0)
}

func (d *differential) ask(q question) (Plan, packet.Reason) {
	switch q.direction {
	case out:
		return d.table.PlanOut(q.scope, q.container, q.tuple, q.uplink, q.outside)
	case in:
		return d.table.PlanIn(q.scope, q.tuple)
	case hairpin:
		return d.table.PlanHairpin(q.scope, q.container, q.tuple, q.uplink, q.outside)
	}
	if q.direction == redirect {
		return d.table.PlanRedirect(q.scope, q.container, q.tuple, q.uplink, q.outside, q.to, q.port)
	}
	return d.table.PlanTrack(q.scope, q.container, q.tuple, q.uplink)
}

// packet is a packet that may belong to a flow or begin one.
func (d *differential) packet(q question, flags uint8) {
	if d.find(modelKey{q.scope, q.tuple}, flags) {
		return
	}
	plan, reason := d.ask(q)
	want, wantReason := d.model.plan(q)
	if again, r := d.ask(q); again != plan || r != reason {
		d.t.Errorf("asked twice: %+v %v, %+v %v", plan, reason, again, r)
	}
	if reason != wantReason {
		d.t.Errorf("%+v: planned %v, want %v", q, reason, wantReason)
		return
	}
	if reason != packet.OK {
		d.hit("%v", reason)
		return
	}
	d.checkPlan(plan.Translation, want, q)
	if d.chance(20) {
		d.late = append(d.late, plan)
		return
	}
	d.commit(plan, flags)
}

// find compares Find, and has the flow see the packet.
func (d *differential) find(k modelKey, flags uint8) bool {
	if d.chance(2) {
		var p Prefetch // which changes nothing
		d.table.Expect(&p, k.scope, &k.tuple)
		d.table.Prefetch(&p)
	}
	f, ok := d.table.Find(k.scope, &k.tuple, d.now, flags)
	want, dir := d.model.find(k, d.now, flags)
	if ok != (want != nil) || ok && (f.dir() != dir) {
		d.t.Errorf("Find %v: %v %v, want %+v", k, f, ok, want)
		return true
	}
	if !ok {
		return false
	}
	got := d.table.Translation(f)
	w := packet.Translation{Kind: want.kind, Reply: dir == 1, ToMapping: want.toMapping, Hidden: want.hidden, Flow: f.Number(), Rule: want.rule, Container: want.container,
		In: k.scope, Out: want.keys[1-dir].scope, Before: k.tuple, After: want.keys[1-dir].tuple.Reverse()}
	if got != w {
		d.t.Errorf("Translation\n got %+v\nwant %+v", got, w)
	}
	d.hit("found, reply %v", f.Reply())
	packets, bytes := 1+d.rand.IntN(2)*d.rand.IntN(64), d.rand.IntN(1500)
	d.table.Seen(f, d.now, packets, bytes, flags)
	d.model.seen(want, dir, d.now, packets, bytes, flags)
	return true
}

// checkPlan compares what the table plans or has made.
func (d *differential) checkPlan(got packet.Translation, want modelPlan, q question) {
	w := want.Translation
	if want.anyPort {
		w.After.SrcPort = got.After.SrcPort
	}
	if got != w {
		d.t.Errorf("plan of %+v\n got %+v\nwant %+v", q, got, w)
		return
	}
	if !want.anyPort {
		return
	}
	port, p := got.After.SrcPort, want
	p.After.SrcPort = port
	switch {
	case want.source == nil:
		if port < 1024 || d.model.taken(&p, q) {
			d.t.Errorf("source port %d for %+v", port, q)
		}
		d.hit("source port changed")
	case want.port != 0 && port != want.port:
		d.t.Errorf("port %d instead of %d for %+v", port, want.port, q)
	case !d.model.usable(&p, q, port):
		d.t.Errorf("port %d is not free for %+v", port, q)
	case port == want.port:
		d.hit("port preserved")
	default:
		d.hit("port chosen")
	}
}

// commit makes a flow in both.
func (d *differential) commit(plan Plan, flags uint8) {
	q, m := plan.question, d.model
	f, reason := d.table.Commit(plan, d.now)
	m.now = max(m.now, d.now)
	key := modelKey{q.scope, q.tuple}
	if old := m.flows[key]; old != nil && !m.replaceable(old, key) {
		if reason != packet.OK || d.table.Translation(f).Before != q.tuple {
			d.t.Errorf("Commit of what is there: %v", reason)
		}
		d.hit("there already")
		return
	}
	first, wantReason := m.plan(q)
	if wantReason == packet.OK {
		d.evicted(q, first, f)
		// With the last flow of its mapping a container may lose its port, if
		// that was published meanwhile.
		if _, wantReason = m.plan(q); wantReason == packet.OK && m.full(&first) {
			d.t.Errorf("container %d has %d flows, all %d", first.Container, m.count(first.Container, false), len(m.list))
		}
	}
	if reason != wantReason {
		d.t.Errorf("Commit of %+v: %v, want %v", q, reason, wantReason)
		return
	}
	if reason != packet.OK {
		d.hit("Commit: %v", reason)
		return
	}
	want, _ := m.plan(q)
	got := d.table.Translation(f)
	planned := got
	planned.New, planned.Flow = true, 0
	if d.checkPlan(planned, want, q); d.t.Failed() {
		return
	}
	if want.source != nil && m.primary(*want.source) != nil {
		d.hit("second mapping")
	}
	made := m.make(want, q, got.After)
	made.number = f.Number()
	d.hit("made: %v", made.kind)
	if made.hidden != packet.HiddenNot {
		d.hit("hidden: %v", made.hidden)
	}
	if made.kind == packet.NATPublish && !made.inward {
		d.hit("from a published port")
	}
	d.table.Seen(f, d.now, 1, 100, flags)
	m.seen(made, 0, d.now, 1, 100, flags)
}

// evicted finds out which flows had to go for a new one.
func (d *differential) evicted(q question, p modelPlan, f Flow) {
	m := d.model
	before, key := m.full(&p), modelKey{q.scope, q.tuple}
	for _, x := range slices.Clone(m.list) {
		switch ref, _ := d.table.lookup(x.keys[0].scope, &x.keys[0].tuple); {
		case ref != 0 && ref != f.ref:
			continue
		case m.flows[key] == x:
			d.hit("replaced")
		case before && x.container == p.Container && m.mayGo(x, &p):
			d.hit("evicted")
		case !m.counts(x) && slices.ContainsFunc(x.keys[:], func(k modelKey) bool { return k.scope == p.Out && k.tuple.Src == p.After.Dst }):
			d.hit("answers replaced")
		default:
			d.t.Errorf("%+v is gone for %+v, full %v", x, q, before)
		}
		m.end(x)
	}
}

func (d *differential) commitLate() {
	for _, p := range d.late {
		d.commit(p, packet.TCPSyn)
	}
	d.late = nil
}

// known is a packet of one of the flows there are, in either direction.
func (d *differential) known() {
	if len(d.model.list) == 0 {
		return
	}
	f := pick(d, d.model.list...)
	flags := pick[uint8](d, packet.TCPSyn|packet.TCPAck, packet.TCPAck, packet.TCPAck, packet.TCPAck|packet.TCPPsh,
		packet.TCPAck|packet.TCPFin, packet.TCPAck|packet.TCPFin, packet.TCPRst, packet.TCPSyn)
	if !d.find(f.keys[d.rand.IntN(2)], flags) {
		d.hit("flow no more found")
	}
}

func (d *differential) expire() {
	m := d.model
	most := pick(d, 1, 3, 1000)
	more := d.table.Expire(d.now, most)
	m.now = max(m.now, d.now)
	for _, f := range slices.Clone(m.list) {
		if ref, _ := d.table.lookup(f.keys[0].scope, &f.keys[0].tuple); ref == 0 {
			if !m.expired(f, d.now) {
				d.t.Errorf("%+v ended too early", f)
			}
			d.hit("expired")
			m.end(f)
		} else if m.deadline(f) < d.now-40*second && !more {
			d.t.Errorf("%+v ended too late", f)
		}
	}
	if at, ok := d.table.Due(); ok != (len(m.list) > 0) || more && at > d.now {
		d.t.Errorf("due at %d, %v; more %v with %d flows", at, ok, more, len(m.list))
	}
}

func (d *differential) flush() {
	if c := packet.ContainerID(1<<16 | d.rand.IntN(modelContainers)); d.chance(2) {
		d.table.FlushContainer(c)
		d.gone("container gone", func(f *modelFlow) bool {
			r := d.model.rule(f.rule)
			return f.container == c || r != nil && r.Container == c
		})
		return
	}
	n, a := pick(d, net1, net2, lan), pick(d, insideOf(d.rand.IntN(modelContainers), 4), ours, v6Of(ours))
	d.table.FlushAddress(n, a)
	d.gone("address gone", func(f *modelFlow) bool {
		for _, k := range f.keys {
			if k.scope == n && (k.tuple.Src == a || k.tuple.Dst == a) {
				return true
			}
		}
		return f.mapping != nil && f.mapping.uplink == n && f.mapping.outside == a
	})
	d.squeeze()
}

// gone ends flows in the model.
func (d *differential) gone(why string, gone func(f *modelFlow) bool) {
	for _, f := range slices.Clone(d.model.list) {
		if gone(f) {
			d.model.end(f)
			d.hit("%s", why)
		}
	}
}
