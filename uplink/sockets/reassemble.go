package sockets

import (
	"time"

	"fairlead/packet"
)

const (
	// fragmentTime is how long a datagram may take to arrive whole: as long as a
	// Linux receiver waits (RFC 791 section 3.2 wants 15 s at least).
	fragmentTime = int64(30 * time.Second)
	// pendingOfOne bounds the datagrams a container may have on the way, each of
	// up to 64 KB, and pendingOfAll those of all: 8 MB.
	pendingOfOne = 16
	pendingOfAll = 128
	// spareBuffers is how many are kept to be used again.
	spareBuffers = 4
	// fragmentTick is how often those are looked for whose time is up.
	fragmentTick = time.Second
)

// A reassembler puts the fragments of containers together, because a socket
// takes whole datagrams only. It is bounded in all and for each container: one
// that begins too many loses its own oldest, and when all together have too many
// the oldest goes.
//
// Fragments that overlap, or contradict each other in where the datagram ends,
// are no accident: such a datagram is lost with all that is still to come of it
// (RFC 5722, RFC 8200 section 4.5). A fragment that comes twice is let pass.
type reassembler struct {
	pending []*pending // oldest first
	spare   []*pending
	ticking bool

	// Datagrams that became whole, that did not in time or for lack of room, and
	// that were lost because their fragments overlapped.
	made                    uint64
	incomplete, overlapping packet.Tally

	whole packet.Frame // the one that add returned last
	from  *pending     // whose bytes it has
	one   [1]*packet.Frame
}

// A fragmentKey is what fragments of a datagram have in common (RFC 791 section
// 3.2). The flow is not: if a container uses an id again before its time, later
// fragments that come before the first one are still taken for those of the
// flow that had it.
type fragmentKey struct {
	src, dst packet.Addr
	proto    packet.Proto
	id       uint16
}

// A pending is a datagram that is not whole yet.
type pending struct {
	key       fragmentKey
	container packet.ContainerID
	flow      uint32 // of the first fragment
	deadline  int64
	buf       []byte // headers without options, and the payload as far as it is there
	covered   blocks
	begins    blocks // where the fragments begin
	got, size int    // bytes there are, and of all; 0 is not known yet
	spoiled   bool   // nothing will come of it
	congested bool   // a fragment was marked (RFC 3168 section 5.3)
}

// fragmentHeaders is what a buffer begins with.
const fragmentHeaders = headRoom + packet.IPv4MinLen

// add takes a parsed fragment. It returns the whole datagram, when this was the
// last one missing, as a parsed frame that is valid until the next add; else
// nil, and the reason if the fragment is lost.
func (r *reassembler) add(f *packet.Frame) (*packet.Frame, packet.Reason) {
	ip := packet.IPv4(f.Packet())
	r.expire(f.Time)
	p := r.find(f, fragmentKey{packet.AddrFrom4(ip.Src()), packet.AddrFrom4(ip.Dst()), f.Proto, ip.ID()})
	if p.spoiled {
		return nil, packet.FragmentOrphan
	}
	if ip.FragmentOffset() == 0 {
		p.flow = f.Flow
	}
	switch p.take(ip) {
	case fragmentLies:
		p.spoil()
		r.overlapping.Add(1, f.Time)
		return nil, packet.FragmentOrphan
	case fragmentKept:
		return nil, packet.OK
	}
	r.remove(p)
	r.release(r.from)
	r.from = p
	r.made++
	r.whole = *f
	r.whole.Flow, r.whole.B = p.flow, p.finish()
	if reason := packet.Parse(&r.whole); reason != packet.OK {
		return nil, reason
	}
	return &r.whole, packet.OK
}

type fragmentFate uint8

const (
	fragmentKept fragmentFate = iota
	fragmentLies
	fragmentLast // nothing is missing now
)

// take puts a fragment in its place.
func (p *pending) take(ip packet.IPv4) fragmentFate {
	payload, from := ip.Payload(), ip.FragmentOffset()
	to := from + len(payload)
	first, last := from/8, (to+7)/8
	switch {
	case p.size != 0 && (to > p.size || ip.MoreFragments() && to == p.size):
		return fragmentLies // behind the end
	case !ip.MoreFragments() && (p.size != 0 && p.size != to || p.covered.any(last, len(p.covered)*64)):
		return fragmentLies // another end
	case p.covered.any(first, last):
		if p.repeats(first, last) && (ip.MoreFragments() || p.size == to) {
			return fragmentKept
		}
		return fragmentLies
	}
	if !ip.MoreFragments() {
		p.size = to
	}
	p.covered.set(first, last)
	p.begins.set(first, first+1)
	p.got += len(payload)
	p.grow(fragmentHeaders + to)
	copy(p.buf[fragmentHeaders+from:], payload)
	p.congested = p.congested || ip.TOS()&3 == 3
	if from == 0 {
		copy(p.buf[headRoom:], ip[:packet.IPv4MinLen])
	}
	if p.size != 0 && p.got == p.size {
		return fragmentLast
	}
	return fragmentKept
}

// repeats reports whether these very blocks are those of one fragment.
func (p *pending) repeats(first, last int) bool {
	return p.covered.all(first, last) && p.begins.any(first, first+1) && !p.begins.any(first+1, last) &&
		(!p.covered.any(last, last+1) || p.begins.any(last, last+1))
}

// finish makes the headers those of the whole datagram.
func (p *pending) finish() []byte {
	b := p.buf[:fragmentHeaders+p.size]
	clear(b[:packet.VNetLen])
	ether := packet.Ethernet(b[packet.VNetLen:])
	ether.SetDst(outsideMAC)
	ether.SetSrc(routerMAC)
	ether.SetType(packet.EtherTypeIPv4)
	ip := packet.IPv4(b[headRoom:])
	if p.congested && ip.TOS()&3 != 0 {
		ip.SetTOS(ip.TOS() | 3)
	}
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTotalLen(packet.IPv4MinLen + p.size)
	ip.SetFragment(ip.DontFragment(), false, 0)
	ip.UpdateChecksum()
	return b
}

func (p *pending) grow(n int) {
	if n > cap(p.buf) {
		b := make([]byte, n, max(n, min(2*cap(p.buf), packet.MaxFrame)))
		copy(b, p.buf)
		p.buf = b
	}
	if n > len(p.buf) {
		p.buf = p.buf[:n]
	}
}

// spoil keeps the place, so that what is still to come begins nothing new, and
// gives back the memory.
func (p *pending) spoil() { p.spoiled, p.buf = true, nil }

// find returns the datagram of a fragment, a new one if need be.
func (r *reassembler) find(f *packet.Frame, key fragmentKey) *pending {
	own, oldest := 0, (*pending)(nil)
	for _, p := range r.pending {
		if p.container != f.Container {
			continue
		}
		if p.key == key {
			return p
		}
		if own++; oldest == nil {
			oldest = p
		}
	}
	switch {
	case own >= pendingOfOne:
		r.giveUp(oldest, f.Time)
	case len(r.pending) >= pendingOfAll:
		r.giveUp(r.pending[0], f.Time)
	}
	p := r.fresh()
	*p = pending{key: key, container: f.Container, deadline: f.Time + fragmentTime, buf: p.buf[:0]}
	r.pending = append(r.pending, p)
	return p
}

func (r *reassembler) fresh() *pending {
	n := len(r.spare)
	if n == 0 {
		return new(pending)
	}
	p := r.spare[n-1]
	r.spare = r.spare[:n-1]
	return p
}

// expire gives up those whose time is over.
func (r *reassembler) expire(now int64) {
	for len(r.pending) > 0 && r.pending[0].deadline <= now {
		r.giveUp(r.pending[0], now)
	}
}

func (r *reassembler) giveUp(p *pending, now int64) {
	if !p.spoiled {
		r.incomplete.Add(1, now)
	}
	r.remove(p)
	r.release(p)
}

func (r *reassembler) remove(p *pending) {
	for i, x := range r.pending {
		if x == p {
			n := copy(r.pending[i:], r.pending[i+1:])
			r.pending[i+n] = nil
			r.pending = r.pending[:i+n]
			return
		}
	}
}

func (r *reassembler) release(p *pending) {
	if p != nil && len(r.spare) < spareBuffers {
		r.spare = append(r.spare, p)
	}
}

// blocks is a set of the eight-byte blocks of a datagram.
type blocks [65536 / 8 / 64]uint64

// words calls fn with each word that has some of the blocks from i up to j, and
// which bits they are, until it returns false.
func words(i, j int, fn func(word int, mask uint64) bool) bool {
	for i < j {
		n := min(64-i%64, j-i)
		if !fn(i/64, ^uint64(0)>>(64-n)<<(i%64)) {
			return false
		}
		i += n
	}
	return true
}

func (b *blocks) set(i, j int) {
	words(i, min(j, len(b)*64), func(w int, mask uint64) bool { b[w] |= mask; return true })
}

// any reports whether one of the blocks is there, all whether none is missing.
func (b *blocks) any(i, j int) bool {
	return !words(i, min(j, len(b)*64), func(w int, mask uint64) bool { return b[w]&mask == 0 })
}

func (b *blocks) all(i, j int) bool {
	return words(i, min(j, len(b)*64), func(w int, mask uint64) bool { return b[w]&mask == mask })
}

// writeFragment takes a fragment; the last one of a datagram brings all of it to
// its endpoint.
func (s *Sockets) writeFragment(f *packet.Frame) packet.Reason {
	whole, reason := s.fragments.add(f)
	s.watchFragments()
	if whole == nil {
		return reason
	}
	e, reason := s.endpoint(whole)
	if e == nil {
		return reason
	}
	s.fragments.one[0] = whole
	_, reason = e.write(s.fragments.one[:], f.Time)
	return reason
}

// watchFragments has the worker look for datagrams that stay incomplete.
func (s *Sockets) watchFragments() {
	if len(s.fragments.pending) == 0 || s.fragments.ticking {
		return
	}
	s.fragments.ticking = true
	w := s.conf.Worker
	w.Post(func() { w.AfterFunc(fragmentTick, s.tickFragments) })
}

func (s *Sockets) tickFragments(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fragments.expire(now)
	if s.fragments.ticking = len(s.fragments.pending) > 0 && !s.closed; s.fragments.ticking {
		s.conf.Worker.AfterFunc(fragmentTick, s.tickFragments)
	}
}
