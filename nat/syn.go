package nat

import (
	"time"

	"fairlead/packet"
)

const (
	// synSilence is how long an unsolicited SYN gets no answer: an application
	// that opens from both sides at once has this long to send its own (RFC
	// 5382 REQ-4).
	synSilence = int64(6 * time.Second)

	// maxSYNs bounds those that wait, and synsPerSource those of one sender, so
	// that who scans ports is not told of more than he must be.
	maxSYNs       = 256
	synsPerSource = 16

	// maxSYN is the longest frame there is with a SYN and without data. One with
	// data gets no answer.
	maxSYN = packet.VNetLen + packet.EthernetLen + packet.MaxVLANTags*packet.VLANLen + packet.IPv4MaxLen + tcpMaxLen

	// tcpMaxLen is the length of a TCP header with as many options as fit.
	tcpMaxLen = 60
)

// SYNs holds the SYNs that came from outside to a port a container's connection
// uses, from whom it does not talk to, for six seconds. Then each is answered
// with an ICMP port unreachable, unless the container has sent a SYN of its own
// to there in the meantime (RFC 5382 REQ-4).
//
// It is bounded: 256 SYNs, 16 of one source, in 60 KB; what finds no room gets
// no answer at all, which the RFC leaves to the NAT's policy.
//
// The owner serialises all calls. Nothing is allocated.
type SYNs struct {
	ring         [maxSYNs]pendingSYN // all wait equally long: in the order they came
	first, count int
}

type pendingSYN struct {
	frame packet.Frame // its bytes are in the array below
	tuple packet.Tuple
	due   int64 // 0 when it was cancelled
	bytes [maxSYN]byte
}

// NewSYNs makes an empty table.
func NewSYNs() *SYNs { return new(SYNs) }

// Add takes a parsed SYN that came at time now; the frame's bytes are copied.
// One that is sent again does not wait longer.
func (s *SYNs) Add(f *packet.Frame, now int64) {
	if s.count == maxSYNs || len(f.B) > maxSYN {
		return
	}
	tuple, same := f.Tuple(), 0
	for i := range s.count {
		p := s.at(i)
		if p.due == 0 || p.frame.Network != f.Network || p.tuple.Src != tuple.Src {
			continue
		}
		same++
		if p.tuple == tuple || same == synsPerSource {
			return
		}
	}
	p := s.at(s.count)
	s.count++
	p.frame, p.tuple, p.due = f.Clone(p.bytes[:]), tuple, now+synSilence
}

// Cancel forgets the SYN of a connection that a SYN to the outside belongs to as
// well: with that tuple, as it leaves on network scope.
func (s *SYNs) Cancel(scope packet.NetworkID, outbound packet.Tuple) {
	for i := range s.count {
		if p := s.at(i); p.frame.Network == scope && p.tuple == outbound.Reverse() {
			p.due = 0
		}
	}
}

// Due calls answer with every SYN whose time has come, as it was read from its
// port. The frame is borrowed for the call.
func (s *SYNs) Due(now int64, answer func(f *packet.Frame)) {
	for ; s.count > 0; s.first, s.count = (s.first+1)%maxSYNs, s.count-1 {
		switch p := s.at(0); {
		case p.due > now:
			return
		case p.due != 0:
			answer(&p.frame)
		}
	}
}

// Next is when Due has something to do; 0 and false when nothing waits.
func (s *SYNs) Next() (at int64, ok bool) {
	for i := range s.count {
		if p := s.at(i); p.due != 0 {
			return p.due, true
		}
	}
	return 0, false
}

func (s *SYNs) at(i int) *pendingSYN { return &s.ring[(s.first+i)%maxSYNs] }
