package vswitch

import (
	"net/netip"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// newLinkLocal is the link-local address a packet of a guarded port is from, if that is
// none its MAC forms and none it has lately sent from, and whether it may have it.
func (p *modelPort) newLinkLocal(frame gopacket.Packet, now int64) (address string, r packet.Reason) {
	l, ok := network(frame).(*layers.IPv6)
	if !ok || !p.guarded {
		return "", packet.OK
	}
	src := netip.AddrFrom16([16]byte(l.SrcIP))
	if !src.IsLinkLocalUnicast() || src == p.MAC.LinkLocal() || slices.Contains(p.linkLocals, src.String()) {
		return "", packet.OK
	}
	if !p.addresses.allows(now) {
		return "", packet.AddressLimit
	}
	return src.String(), packet.OK
}

// sentFrom takes an address in, for the one that came first of eight.
func (p *modelPort) sentFrom(address string, now int64) {
	p.addresses.take(now)
	if p.linkLocals = append(p.linkLocals, address); len(p.linkLocals) > 8 {
		p.linkLocals = p.linkLocals[1:]
	}
}

// addresses has a port send from link-local addresses of its own making, old and new.
func (w *world) addresses() {
	in := w.anyEnd()
	for range 20 {
		own := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(w.rng.IntN(50))})
		w.exchange(in, packettest.UDP(station{MAC: in.MAC, IP: own}, w.anyEnd().IPv6(), 9, 9, nil), packet.OK)
	}
}
