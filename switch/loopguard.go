package vswitch

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
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
// about its MAC block nobody.
//
// The port is blocked where a probe comes in, so who sends one back by hand blocks
// himself. Only behind a shared port (PortConfig.Shared) he would block others: if it is
// joined to a container's that one is blocked instead, and what comes back by the very
// shared port it left by blocks nobody. It went round in the LAN, or a station there
// sent it back, and as to frames of ours those are the same.
//
// A blocked port is not read from and not written to: its frames are dropped, and
// copies for it fail, as packet.Loop. It is open again after a time that doubles,
// from firstBlock to longestBlock, when the loop is still there.
type loopGuard struct {
	secret [16]byte // of the hash in every probe
	found  func(Loop)

	mu   sync.Mutex // of blocking a port, which is rare
	last int64      // when one was
}

// A Loop is one that was found: what left by one of the two ports came back by the other,
// or by the same, and Port is blocked for a time.
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
	g := &loopGuard{found: conf.LoopFound}
	_, _ = rand.Read(g.secret[:]) // never fails
	return g
}

// A probe is a frame of the Configuration Testing Protocol (Ethernet 2.0, 8.0; what
// other switches send as keep-alives, too) to its group, with the gateway's MAC as
// its source. No station sends by that, so it is nobody else's.
//
// A probe is in the VLAN of what made the switch look, and counts only in that. One that
// comes back in another is passed on there: a container that joins two VLANs makes no
// loop, two that join the same two do, and by the second it comes into its own again.
//
// It is worth something for what it says and when: in it is a hash, of a secret of the
// switch, with its port, VLAN and second. So nobody makes one of another's port out of
// his own, and one that was kept is of no use after a second or two. Behind the header,
// tag included:
//
//	0          2       4         6      10     12       16     32
//	| skip = 0 | reply | receipt | port | VLAN | second | hash | padding
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
	s.loops.seal((*seal)(b[6:]), to.id, vlan, uint32(now/probeTime))
	ln.counted, ln.now = &to.n, now
	ln.Originate(packet.Place{Network: s.conf.ID, Port: to.id}, len(room)-len(b)+ctpLen)
}

// A seal is what says that a probe is ours: port, VLAN, second, hash.
type seal [26]byte

// probeTime is how long a second is.
const probeTime = int64(time.Second)

// seal fills one in.
func (g *loopGuard) seal(b *seal, port packet.PortID, vlan uint16, second uint32) {
	binary.LittleEndian.PutUint32(b[:], uint32(port))
	binary.LittleEndian.PutUint16(b[4:], vlan)
	binary.LittleEndian.PutUint32(b[6:], second)
	var secret [len(g.secret) + 10]byte
	copy(secret[copy(secret[:], g.secret[:]):], b[:10])
	hash := sha256.Sum256(secret[:])
	copy(b[10:], hash[:])
}

// probeOf is the port and the VLAN a frame left by and in if it is a probe of this
// switch, else port 0.
func (s *Switch) probeOf(f *packet.Frame) (left packet.PortID, vlan uint16) {
	if f.EtherType != etherTypeCTP || s.loops == nil {
		return 0, 0
	}
	return s.readProbe(f)
}

func (s *Switch) readProbe(f *packet.Frame) (left packet.PortID, vlan uint16) {
	b := f.Ether()[f.L3:]
	if len(b) < ctpLen || packet.Ethernet(f.Ether()).Src() != s.gateway.MAC() {
		return 0, 0
	}
	got := (*seal)(b[6:])
	left, vlan = packet.PortID(binary.LittleEndian.Uint32(got[:])), binary.LittleEndian.Uint16(got[4:])
	second := binary.LittleEndian.Uint32(got[6:])
	if uint32(f.Time/probeTime)-second > 1 { // of this or the last one
		return 0, 0
	}
	var want seal
	if s.loops.seal(&want, left, vlan, second); want != *got {
		return 0, 0
	}
	return left, vlan
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

// isShared reports whether there are many behind a port.
func (p *Port) isShared() bool { return p.conf.Shared || p.conf.Host }

// block blocks one of two joined ports, a probe of which came in by the other, or a
// port by which its own one did: the one it came in by, unless that is shared. One is
// enough: probes of others of the loop, that were on their way, block nothing more.
func (s *Switch) block(in *Port, left packet.PortID, now int64) {
	s.loops.mu.Lock()
	defer s.loops.mu.Unlock()
	from := s.ports.Load().find(left)
	if from == nil || from.isBlocked(now) || in.isBlocked(now) || from == in && in.isShared() || now-s.loops.last < loopWindow {
		return
	}
	s.loops.last = now
	p, other := in, from
	if in.isShared() && !from.isShared() {
		p, other = from, in
	}
	if now-p.blocked.Load() < int64(p.blockFor) {
		p.blockFor = min(2*p.blockFor, longestBlock)
	} else {
		p.blockFor = firstBlock
	}
	p.loopFrom.Store(uint32(other.id))
	p.blocked.Store(now + int64(p.blockFor))
	// Who was heard by it is behind the other one as well.
	s.macs.clear(func(_ uint64, h hop, seen int64) bool { return h.port == p.id && seen != static })
	if s.loops.found != nil {
		s.loops.found(Loop{Port: p, From: other, For: p.blockFor})
	}
}
