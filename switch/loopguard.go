package vswitch

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"fairlead/packet"
)

// A loopGuard finds ports of one switch that are joined behind its back, by a bridge
// inside a container or a cable outside, and blocks one of them: else one broadcast
// goes round as fast as the machine can.
//
// What makes it look are floods and moves: a storm makes thousands a second of
// them at each port it goes through. A port that has loopSigns of them within
// loopWindow is sent a probe, a frame of ours that no station answers. Only if
// that comes back by a port of the same switch there is a loop. So a station that
// moves (VRRP, a virtual machine), one that broadcasts a lot, and one that lies
// about its MAC block nobody; and as the port is blocked where a probe comes in, who
// sends one back by hand blocks himself.
//
// A blocked port is not read from and not written to: its frames are dropped, and
// copies for it fail, as packet.Loop. It is open again after a time that doubles,
// from firstBlock to longestBlock, when the loop is still there.
type loopGuard struct {
	secret uint64 // in every probe
	found  func(Loop)

	mu sync.Mutex // of blocking a port, which is rare
}

// A Loop is one that was found: what left by From came back by Port, which is
// blocked for a time.
type Loop struct {
	Port, From *Port
	For        time.Duration
}

const (
	// loopSigns floods and moves in loopWindow are a tenth of what a storm makes on a
	// slow machine, and more than stations need to find one another.
	loopSigns  = 32
	loopWindow = int64(100 * time.Millisecond)

	firstBlock   = 2 * time.Second
	longestBlock = 5 * time.Minute
)

func newLoopGuard(conf *Config) *loopGuard {
	if !conf.LoopGuard {
		return nil
	}
	return &loopGuard{secret: rand.Uint64(), found: conf.LoopFound}
}

// A probe is a frame of the Configuration Testing Protocol (Ethernet 2.0, 8.0; what
// other switches send as keep-alives, too) to its group, with the gateway's MAC as
// its source. No station sends by that, so it is nobody else's.
//
// A probe is in the VLAN of what made the switch look, and counts only in that: a
// container that joins two VLANs makes no loop. Behind the header, tag included:
//
//	0          2       4         6        14     18     20
//	| skip = 0 | reply | receipt | secret | port | VLAN | padding
var ctpGroup = packet.MAC{0xcf}

const (
	etherTypeCTP = packet.EtherType(0x9000)
	ctpReply     = 1
	ctpLen       = 46
)

// probe sends one to a port.
func (s *Switch) probe(ln *lane, to *Port, vlan uint16, now int64) {
	room := ln.Room()
	ether := packet.Ethernet(room[packet.VNetLen:])
	clear(room[:packet.VNetLen+packet.EthernetLen+packet.VLANLen+ctpLen])
	ether.SetDst(ctpGroup)
	ether.SetSrc(s.gateway.MAC())
	ether.SetType(etherTypeCTP)
	b := ether[packet.EthernetLen:]
	if to.tags(vlan) {
		ether.SetType(packet.EtherTypeVLAN)
		binary.BigEndian.PutUint16(b, vlan)
		binary.BigEndian.PutUint16(b[2:], uint16(etherTypeCTP))
		b = b[packet.VLANLen:]
	}
	binary.LittleEndian.PutUint16(b[2:], ctpReply)
	binary.LittleEndian.PutUint64(b[6:], s.loops.secret)
	binary.LittleEndian.PutUint32(b[14:], uint32(to.id))
	binary.LittleEndian.PutUint16(b[18:], vlan)
	ln.counted, ln.now = &to.n, now
	ln.Originate(packet.Place{Network: s.conf.ID, Port: to.id}, len(room)-len(b)+ctpLen)
}

// probeOf is the port a frame left by if it is a probe of this switch in a VLAN, else
// 0.
func (s *Switch) probeOf(f *packet.Frame, vlan uint16) packet.PortID {
	if f.EtherType != etherTypeCTP || s.loops == nil {
		return 0
	}
	b := f.Ether()[f.L3:]
	if len(b) < ctpLen || packet.Ethernet(f.Ether()).Src() != s.gateway.MAC() ||
		binary.LittleEndian.Uint64(b[6:]) != s.loops.secret || binary.LittleEndian.Uint16(b[18:]) != vlan {
		return 0
	}
	return packet.PortID(binary.LittleEndian.Uint32(b[14:]))
}

// sign counts one more sign of a loop at a port, on its worker.
func (s *Switch) sign(ln *lane, p *Port, vlan uint16, now int64) {
	if s.loops == nil {
		return
	}
	if now-p.signsSince >= loopWindow {
		p.signsSince, p.signs = now, 0
	}
	if p.signs++; p.signs == loopSigns {
		s.probe(ln, p, vlan, now)
	}
}

// isBlocked reports whether a port is, by the loop guard.
func (p *Port) isBlocked(now int64) bool { return now < p.blocked.Load() }

// Blocked is how long a port will be blocked, because what left by which one came
// back by it; zero is not at all.
func (p *Port) Blocked(now int64) (left time.Duration, from packet.PortID) {
	if left = time.Duration(p.blocked.Load() - now); left <= 0 {
		return 0, 0
	}
	return left, packet.PortID(p.loopFrom.Load())
}

// block blocks a port by which a probe came back. One of two joined ports is
// enough: a probe of the other one, that was on its way, blocks nothing more.
func (s *Switch) block(p *Port, left packet.PortID, now int64) {
	s.loops.mu.Lock()
	defer s.loops.mu.Unlock()
	from := s.ports.Load().find(left)
	if from == nil || from.isBlocked(now) || p.isBlocked(now) {
		return
	}
	if now-p.blocked.Load() < int64(p.blockFor) {
		p.blockFor = min(2*p.blockFor, longestBlock)
	} else {
		p.blockFor = firstBlock
	}
	p.loopFrom.Store(uint32(left))
	p.blocked.Store(now + int64(p.blockFor))
	// Who was heard by it is behind the other one as well.
	s.macs.clear(func(_ uint64, h hop, seen int64) bool { return h.port == p.id && seen != static })
	if s.loops.found != nil {
		s.loops.found(Loop{Port: p, From: from, For: p.blockFor})
	}
}
