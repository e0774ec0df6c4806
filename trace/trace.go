// Package trace records what the forwarding path decided and puts it into
// words.
//
// A Recorder is handed to a switch while somebody watches and is nil
// otherwise; the path it records is the real one. Its ring is bounded: when the
// watcher is slow the oldest records go, and the watcher is told how many.
//
// A Recorder may be used by all workers and one reader at once.
package trace

import (
	"slices"
	"sync"
	"time"

	"fairlead/packet"
)

const (
	headLen   = 192 // enough for all headers
	maxEgress = 8   // egress ports named one by one; more are counted
	ringLen   = 4096
)

// A Record is one frame and the decision on it. It holds copies only.
type Record struct {
	Wall      time.Time
	Network   packet.NetworkID
	Port      packet.PortID
	Container packet.ContainerID

	Decision packet.Decision
	Egress   [maxEgress]packet.PortID
	Copies   int // how many there are on its own network, named or not

	Withheld int           // copies of a flooded frame that other ports may not have
	Why      packet.Reason // the last of them

	Len, Segments int
	packetLen     int          // of a routed packet: what the MTU is compared with
	frame         packet.Frame // what Parse has found; without the bytes
	head          [headLen]byte
	headLen       int
}

// NewRecord takes down a frame and its decision. f's bytes are copied, as far
// as the words need them.
func NewRecord(f *packet.Frame, d *packet.Decision) Record {
	r := Record{
		Wall: time.Now(), Network: f.Network, Port: f.Port, Container: f.Container,
		Decision: *d, Len: max(0, f.Len()), Segments: 1, frame: *f,
	}
	r.frame.B = nil // borrowed
	if r.Len > 0 {
		r.headLen = copy(r.head[:], f.Ether())
	}
	if d.Verdict != packet.Drop {
		r.Segments = f.Segments()
	}
	if d.Routed {
		r.packetLen = f.PacketLen()
	}
	return r
}

// AddEgress notes one more port that gets a copy.
func (r *Record) AddEgress(p packet.PortID) {
	if r.Copies < maxEgress {
		r.Egress[r.Copies] = p
	}
	r.Copies++
}

// Withhold notes one more port that may not have a copy, and why.
func (r *Record) Withhold(why packet.Reason) {
	r.Withheld++
	r.Why = why
}

// Named returns the ports of the record's network that are named. Of a routed
// unicast the one port is on another network, see Out.
func (r *Record) Named() []packet.PortID { return r.Egress[:min(r.Copies, maxEgress)] }

// Out returns where copies of the frame go, as far as they are named, and how
// many there are beside them.
func (r *Record) Out() (named []packet.Place, more int) {
	d := &r.Decision
	if d.Verdict != packet.Unicast {
		for _, p := range r.Named() {
			named = append(named, packet.Place{Network: r.Network, Port: p})
		}
		more = r.Copies - len(named)
	}
	if d.Verdict == packet.Unicast || d.Verdict == packet.Flood && d.Routed {
		named = append(named, d.Egress)
	}
	return named, more
}

// FromUplink reports whether the frame came from outside.
func (r *Record) FromUplink() bool { return r.Container == 0 }

// A Recorder is a bounded ring of records between the workers and one reader.
type Recorder struct {
	mu   sync.Mutex
	ring ring
	lost uint64
	wake chan struct{} // holds one token while there is something to read

	read ring // the reader's: changes places with ring in Take
}

// A ring holds the last records of many.
type ring struct {
	records  []Record
	first, n int
}

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder {
	return &Recorder{
		ring: ring{records: make([]Record, ringLen)},
		read: ring{records: make([]Record, ringLen)},
		wake: make(chan struct{}, 1),
	}
}

// Add appends a record; the oldest one goes when the ring is full.
func (t *Recorder) Add(r Record) {
	t.mu.Lock()
	q := &t.ring
	if q.n == ringLen {
		q.first = (q.first + 1) % ringLen
		q.n--
		t.lost++
	}
	q.records[(q.first+q.n)%ringLen] = r
	q.n++
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default: // the reader has not taken the last token yet
	}
}

// Wake returns a channel that delivers when there is something to Take.
func (t *Recorder) Wake() <-chan struct{} { return t.wake }

// Take moves waiting records to the end of dst and says how many went lost
// since the last Take. Workers wait for it no longer than it takes to exchange
// two rings.
func (t *Recorder) Take(dst []Record) (records []Record, lost uint64) {
	q := &t.read
	t.mu.Lock()
	t.ring, t.read = t.read, t.ring
	lost, t.lost = t.lost, 0
	t.mu.Unlock()
	dst = slices.Grow(dst, q.n)
	for ; q.n > 0; q.n-- {
		dst = append(dst, q.records[q.first])
		q.first = (q.first + 1) % ringLen
	}
	q.first = 0
	return dst, lost
}
