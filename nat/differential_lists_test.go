package nat

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"fairlead/packet"
)

// changeRules publishes, gives addresses, or takes back.
func (d *differential) changeRules() {
	m := d.model
	c, family := d.rand.IntN(modelContainers), d.family()
	r := Rule{Network: net1 + packet.NetworkID(c%2), Container: packet.ContainerID(1<<16 | c), Inside: insideOf(c, family)}
	switch {
	case len(m.rules) > 2 && d.chance(2):
		r := m.rules[2+d.rand.IntN(len(m.rules)-2)]
		if !d.table.Unpublish(r.Number) || d.table.Unpublish(r.Number) {
			d.t.Errorf("Unpublish %+v", r)
		}
		d.gone("unpublished", func(f *modelFlow) bool { return f.rule == r.Number })
		m.rules = slices.DeleteFunc(m.rules, func(x Rule) bool { return x.Number == r.Number })
	case d.chance(4):
		r.Uplink, r.Outside = pick(d, lan, lan2), d.oursOf(family)
		added, err := d.table.OneToOne(r)
		taken := slices.ContainsFunc(m.rules, func(x Rule) bool {
			return x.Kind == packet.NATOneToOne && (x.Outside == r.Outside && x.Uplink == r.Uplink ||
				x.Inside == r.Inside && x.Network == r.Network)
		})
		if d.rule(added, err, taken) {
			d.hit("one-to-one")
		}
	default:
		r.Proto, r.InsidePort = pick(d, packet.ProtoTCP, packet.ProtoUDP), pick[uint16](d, 80, 5000)
		r.Outside, r.OutsidePort = pick(d, anyOf(r.Inside), d.oursOf(family)), pick[uint16](d, 0, 80, 8080, 8081, 8082)
		wrong := r.OutsidePort == 0 || slices.ContainsFunc(m.rules, func(x Rule) bool {
			return x.Kind == packet.NATPublish && x.Proto == r.Proto && x.OutsidePort == r.OutsidePort &&
				(x.Outside == r.Outside || x.Outside == anyOf(r.Inside) || r.Outside == anyOf(x.Inside))
		})
		added, err := d.table.Publish(r)
		if d.rule(added, err, wrong) {
			d.hit("published")
		}
	}
}

func (d *differential) rule(added Rule, err error, conflict bool) bool {
	if (err != nil) != conflict {
		d.t.Errorf("%+v: %v, want a conflict: %v", added, err, conflict)
	}
	if err == nil {
		d.model.rules = append(d.model.rules, added)
	} else {
		d.hit("rule refused")
	}
	return err == nil
}

// compareLists compares everything there is.
func (d *differential) compareLists() {
	m := d.model
	n := 0
	for f := range d.table.Flows {
		x := m.flows[modelKey{f.From, f.Forward}]
		if x == nil || x.keys != [2]modelKey{{f.From, f.Forward}, {f.To, f.Reply}} || m.deadline(x) != f.Expires || m.expired(x, m.now) ||
			x.kind != f.Kind || x.rule != f.Rule || x.container != f.Container || x.packets != f.Packets || x.bytes != f.Bytes ||
			f.Unreplied == x.heard[1] || f.Inward != x.inward || f.Hidden != x.hidden || (f.Forward.Proto == packet.ProtoTCP) != (f.State != "") {
			d.t.Errorf("lists %+v, want %+v", f, x)
			return
		}
		if f.State != "" {
			d.hit("state %s", f.State)
			if f.State != x.tcpState() {
				d.t.Errorf("%+v is in state %s, want %s", x, f.State, x.tcpState())
			}
		}
		n++
	}
	for _, f := range m.list {
		if m.expired(f, m.now) {
			n++
		}
	}
	if s := d.table.Stats(); n != len(m.list) || s.Flows != n || s.Mappings != len(m.maps) || s.Retired != m.waits() ||
		s.Created != s.Ended+uint64(s.Flows) {
		d.t.Errorf("%d flows of %d, %d mappings: %+v", n, len(m.list), len(m.maps), s)
	}
	n = 0
	for x := range d.table.Mappings {
		want := m.mappingAt(x.Uplink, x.Outside, x.Proto, x.OutsidePort)
		if want == nil || want.addr != x.Inside || want.endpoint.port != x.InsidePort || want.container != x.Container ||
			want.network != x.Network || want.flows != x.Flows {
			d.t.Errorf("mapping %+v, want %+v", x, want)
		}
		n++
	}
	if n != len(m.maps) {
		d.t.Errorf("%d mappings of %d", n, len(m.maps))
	}
	for r := range d.table.Rules {
		if want := m.rule(r.Number); want == nil || *want != r {
			d.t.Errorf("rule %+v, want %+v", r, want)
		}
	}
}

// wanted is what has to have happened often enough.
var wanted = []string{"found, reply false", "found, reply true", "there already", "replaced",
	"evicted", "expired", "flow no more found", "container gone", "address gone", "unpublished", "published", "one-to-one",
	"rule refused", "port preserved", "port chosen", "second mapping", "source port changed", "from a published port",
	"made: none", "made: masquerade", "made: publish", "made: hairpin", "made: one-to-one", "made: redirect",
	"hidden: in-subnet", "hidden: no-default-route", "hidden: port-taken", "ended", "told",
	"state SYN_SENT", "state SYN_RECV", "state ESTABLISHED", "state FIN_WAIT", "state TIME_WAIT", "state CLOSE",
	"refused", "filtered", "no-flow", "not-translatable", "no-route", "flow-budget", "flow-table-full", "ports-exhausted"}

// seldom names what came up less than 100 times.
func (d *differential) seldom() (missing []string) {
	for _, what := range wanted {
		if d.hits[what] < 100 {
			missing = append(missing, what)
		}
	}
	return missing
}

// report prints how often what happened.
func (d *differential) report(operations int) {
	var lines []string
	for what, n := range d.hits {
		lines = append(lines, fmt.Sprintf("%9d %s", n, what))
	}
	sort.Slice(lines, func(i, j int) bool { return lines[i] > lines[j] })
	d.t.Logf("what happened in %d operations:\n%s", operations, strings.Join(lines, "\n"))
}
