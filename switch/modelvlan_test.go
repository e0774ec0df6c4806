package vswitch

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// What the model knows of VLANs, and of the loop guard.

// outerTag is the VLAN of a packet's outer tag, 0 without one.
func outerTag(p gopacket.Packet) uint16 {
	if ts := tags(p); len(ts) > 0 {
		return ts[0].VLANIdentifier
	}
	return 0
}

// vlanOf is the VLAN a frame is in that came by a port.
func (m *model) vlanOf(in *modelPort, p gopacket.Packet) (uint16, packet.Reason) {
	tag := outerTag(p)
	switch {
	case !in.inVLAN && m.claimed(tag), in.inVLAN && tag != 0 && !slices.Contains(in.trunk, tag), in.inVLAN && tag == 0 && len(tags(p)) > 0:
		return 0, packet.WrongVLAN
	case in.inVLAN && tag == 0:
		return in.vlan, packet.OK
	}
	return tag, packet.OK
}

// claimed reports whether some port says it is in a VLAN.
func (m *model) claimed(vlan uint16) bool {
	for _, p := range m.ports {
		if vlan != 0 && p.inVLAN && (p.vlan == vlan || slices.Contains(p.trunk, vlan)) {
			return true
		}
	}
	return false
}

// carries reports whether a port may be sent a frame of a VLAN.
func (m *model) carries(p gopacket.Packet, vlan uint16, out *modelPort) bool {
	switch {
	case !out.inVLAN:
		return !m.claimed(vlan)
	case vlan == out.vlan:
		return len(tags(p)) < 2
	}
	return slices.Contains(out.trunk, vlan)
}

// isIn reports whether a port is in a VLAN.
func (m *model) isIn(vlan uint16, p *modelPort) bool {
	if !p.inVLAN {
		return !m.claimed(vlan)
	}
	return vlan == p.vlan || slices.Contains(p.trunk, vlan)
}

// dressed is a frame as it leaves by a port that came by another.
func (m *model) dressed(b []byte, in, out *modelPort) []byte {
	b, p := prioritized(b)
	vlan, _ := m.vlanOf(in, p)
	switch tag, want := outerTag(p), vlan != 0 && (!out.inVLAN || vlan != out.vlan); {
	case want && tag == 0:
		return packettest.Tagged(b, vlan)
	case !want && tag != 0:
		return untagged(b)
	}
	return b
}

// prioritized decodes a frame, without its tag if that says a priority and no VLAN.
func prioritized(b []byte) ([]byte, gopacket.Packet) {
	p := gopacket.NewPacket(b[packet.VNetLen:], layers.LayerTypeEthernet, gopacket.NoCopy)
	if len(tags(p)) == 1 && outerTag(p) == 0 {
		return prioritized(untagged(b))
	}
	return b, p
}

// untagged is a frame without its outer tag.
func untagged(b []byte) []byte {
	const at = packet.VNetLen + 12
	b = slices.Concat(b[:at], b[at+4:])
	for _, field := range []int{2, 6} { // of the virtio-net header: hdr_len, csum_start
		if x := binary.LittleEndian.Uint16(b[field:]); x != 0 {
			binary.LittleEndian.PutUint16(b[field:], x-4)
		}
	}
	return b
}

// signed counts a sign of a loop, and reports whether it is time for a probe.
func (p *modelPort) signed(now int64) bool {
	if now-p.since >= 1e8 {
		p.since, p.signs = now, 0
	}
	p.signs++
	return p.signs == 32
}

// block closes a port by which a probe came back, or if many share that the one it had
// left by, unless one of the two is closed already.
func (m *model) block(in, left packet.PortID, now int64) {
	p, from := m.ports[in], m.ports[left]
	if from == nil || now < from.blockedUntil || now-m.blocked < 1e8 {
		return
	}
	if shared := func(p *modelPort) bool { return p.outside || p.host }; shared(p) {
		if in == left {
			return
		}
		if !shared(from) {
			in, p = left, from
		}
	}
	m.blocked = now
	if now-p.blockedUntil < p.blockFor {
		p.blockFor = min(2*p.blockFor, 300e9)
	} else {
		p.blockFor = 2e9
	}
	p.blockedUntil = now + p.blockFor
	maps.DeleteFunc(m.macs, func(_ string, e modelEntry) bool { return e.port == in && !e.static })
}
