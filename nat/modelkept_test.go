package nat

import (
	"slices"

	"fairlead/packet"
)

// What model and test know of uplinks that keep flows.

// planPublished is for datagrams from a port that is published.
func (m *model) planPublished(p *modelPlan, q question) bool {
	for _, r := range m.rules {
		if q.direction == redirect || q.tuple.Proto != packet.ProtoUDP || r.Kind != packet.NATPublish || r.Proto != packet.ProtoUDP ||
			r.Network != q.scope || r.Inside != q.tuple.Src || r.InsidePort != q.tuple.SrcPort {
			continue
		}
		from := r.Outside
		if from == anyOf(from) {
			from = q.outside
		} else if !(modelOwner{}).Owns(q.uplink, from) {
			continue
		}
		if from == (packet.Addr{}) {
			continue
		}
		planned := *p
		planned.After.Src, planned.After.SrcPort = from, r.OutsidePort
		if planned.Kind, planned.Rule = packet.NATPublish, r.Number; !m.taken(&planned, q) {
			*p = planned
			return true
		}
	}
	return false
}

// A modelOwner hides a few clients and owns a few addresses.
type modelOwner struct{ told *[]uint32 }

func (o modelOwner) Ended(uplink packet.NetworkID, number uint32) {
	if uplink == lan2 {
		*o.told = append(*o.told, number)
	}
}

func (modelOwner) Hide(n packet.NetworkID, c packet.ContainerID, client packet.Addr) (packet.Addr, packet.Hidden) {
	switch as := addr("172.17.0.1"); {
	case client == addr("198.51.100.2"):
		return as, packet.HiddenInSubnet
	case client.Is4() && n == net2 && c == 1<<16|1:
		return as, packet.HiddenNoDefaultRoute
	}
	return packet.Addr{}, packet.HiddenNot
}

func (modelOwner) Owns(uplink packet.NetworkID, a packet.Addr) bool {
	return uplink == lan && a == ours
}

// end ends a flow by a tuple, as an uplink does.
func (d *differential) end() {
	if len(d.model.list) == 0 {
		return
	}
	f := pick(d, d.model.list...)
	k := f.keys[d.rand.IntN(2)]
	if d.chance(2) {
		k.tuple = k.tuple.Reverse()
	}
	want := d.model.flows[modelKey{k.scope, k.tuple.Reverse()}]
	if want == nil {
		want = d.model.flows[k]
	}
	if d.table.End(k.scope, k.tuple) != (want != nil) {
		d.t.Errorf("End %v, want %+v", k, want)
	}
	if want != nil {
		d.model.end(want)
		d.hit("ended")
	}
}

// checkTold wants the uplink told of the flows that have ended.
func (d *differential) checkTold() {
	slices.Sort(d.told)
	slices.Sort(d.model.told)
	if !slices.Equal(d.told, d.model.told) {
		d.t.Errorf("told of the end of %v, want %v", d.told, d.model.told)
	}
	if len(d.told) > 0 {
		d.hit("told")
	}
	d.told, d.model.told = d.told[:0], d.model.told[:0]
}
