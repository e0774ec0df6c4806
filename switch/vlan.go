package vswitch

import (
	"fairlead/packet"
	"fairlead/policy"
)

// vlanOf is the VLAN a parsed frame is in that came by a port, and whether the port
// carries it. An access port takes no tags; a trunk those of its VLANs, and what has
// none for its native one.
func (t *portTable) vlanOf(f *packet.Frame, in *Port) (vlan uint16, carried bool) {
	vlan = f.VID()
	switch v := &in.conf.VLANs; {
	case !v.Held:
		return vlan, !t.claimed.Has(vlan)
	case vlan == 0: // behind a priority tag, which is left then, there could be another one
		return v.Untagged, f.Tags == 0
	default:
		return vlan, v.Tagged.Has(vlan)
	}
}

// carries reports whether a port may be sent a frame of a VLAN. What has two tags never
// loses one: the inner would be taken for a VLAN the sender is not in.
func (t *portTable) carries(f *packet.Frame, vlan uint16, out *Port) bool {
	v := &out.conf.VLANs
	return t.isIn(vlan, v) && !(v.Held && vlan == v.Untagged && f.Tags > 1)
}

// isIn reports whether a port with these VLANs is in one.
func (t *portTable) isIn(vlan uint16, v *policy.VLANs) bool {
	if !v.Held {
		return !t.claimed.Has(vlan)
	}
	return vlan == v.Untagged || v.Tagged.Has(vlan)
}

// claim takes down which VLANs a port says it is in.
func (t *portTable) claim(v *policy.VLANs) {
	if !v.Held {
		return
	}
	if t.claimed == nil {
		t.claimed = new(policy.VLANSet)
	}
	t.claimed.AddAll(v.Tagged)
	if v.Untagged != 0 {
		t.claimed.Add(v.Untagged)
	}
}

// guardOf is the guard of a frame that came by the port: in the tagged VLANs of a
// trunk it holds the port to its MAC, and addresses are not ours to give.
func (p *Port) guardOf(f *packet.Frame) *policy.Guard {
	if p.conf.VLANs.Held && f.VID() != 0 {
		return &p.tagged
	}
	return &p.conf.Guard
}

// tags reports whether frames of a VLAN the port carries leave it with a tag.
func (p *Port) tags(vlan uint16) bool {
	return vlan != 0 && !(p.conf.VLANs.Held && vlan == p.conf.VLANs.Untagged)
}

// dress gives a frame of a VLAN its tag, or takes it off, in place. It reports whether
// that could be done: a frame that was not just read has no room for a tag.
func (ln *lane) dress(f *packet.Frame, vlan uint16, tagged bool) bool {
	switch has := f.VID() != 0; {
	case has == tagged:
		return true
	case has:
		f.PopTag()
		return true
	}
	return ln.batch.PushTag(f, vlan)
}

// send stages a frame for a port of its network, dressed as that wants it.
func (ln *lane) send(to *Port, f *packet.Frame, vlan uint16) {
	if ln.dress(f, vlan, to.tags(vlan)) {
		ln.stage(to, f)
	} else {
		to.n.fail(packet.EgressRefused, f.Time)
	}
}
