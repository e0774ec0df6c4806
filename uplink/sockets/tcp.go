package sockets

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// A conn is a TCP connection of a container: this end of it, and one socket of
// the host.
//
// It is a translation and no stack. From the container, what is acknowledged is
// what the socket's send buffer has taken (tcpin.go). Towards it, data stays in
// the socket's receive buffer until the container has acknowledged it: it is
// peeked into the frames that carry it, peeked again if they are lost, and
// discarded then (tcpout.go). So a connection has no buffer of its own.
//
// No options but the segment size and the window scale are negotiated: between
// the container and this end is no wire that would reorder or stretch time.
type conn struct {
	base
	tuple     packet.Tuple // of the segments towards the container: Src is the host's peer
	flow      uint32       // NAT's number; see numbered
	container packet.ContainerID
	network   packet.NetworkID
	state     tcpState
	word      lastWord
	bits      connBits
	acks      uint8 // segments without data that are to be sent
	pingpong  uint8 // answers in a row that followed at once

	// From the container.

	rcvNxt    uint32 // the next byte expected
	rcvEdge   uint32 // behind the last byte the window offered lets in
	offeredAt uint32 // what rcvNxt was then
	ttl       uint8  // of its packets, and so of the socket's
	tos       uint8

	// Towards it. head ≤ una ≤ nxt ≤ max.

	head     uint32 // the byte the socket's receive buffer begins with
	una      uint32 // the first byte not acknowledged
	nxt      uint32 // the next byte to send
	max      uint32 // behind the last byte that was ever sent
	fin      uint32 // the sequence number of the FIN, with sawEnd
	wnd      uint32 // the container's window, from una on
	maxWnd   uint32 // the largest it has had
	wl1, wl2 uint32 // the segment that said so (RFC 9293 3.10.7.4)
	cwnd     uint32 // congestion window and its threshold (RFC 5681)
	ssthresh uint32
	recover  uint32 // recovering ends when this is acknowledged (RFC 6582)
	peeked   uint32 // where the socket's peek offset is
	mss      uint16 // of the container
	id       uint16 // of the next packet
	sndShift uint8  // window scale, of the container's window and of ours
	rcvShift uint8
	dups     uint8  // duplicate acknowledgements in a row
	retries  uint8  // time-outs in a row
	staleAck uint32 // with stale

	due   int64 // when expire has something to do; base.deadline is not later
	clock int64 // when the segment was sent that ends with timed
	timed uint32
	rto   retransmission

	heard    int64 // when the container's last segment came
	interval int64 // connecting: how long that was after the one before
	syn      *sent // the header of its first SYN, until that is answered
	errno    unix.Errno
}

// A tcpState is one of RFC 9293, 3.3.2, of our end of the connection with the
// container.
type tcpState uint8

const (
	closed tcpState = iota
	listen
	// connecting is LISTEN for the container, whose SYN is answered when the
	// host's socket is connected.
	connecting
	synSent
	synReceived
	established
	finWait1
	finWait2
	closing
	timeWait
	closeWait
	lastAck
)

var tcpStateNames = [...]string{"CLOSED", "LISTEN", "CONNECTING", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED",
	"FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "TIME-WAIT", "CLOSE-WAIT", "LAST-ACK"}

func (s tcpState) String() string { return tcpStateNames[s] }

// A lastWord is what a closed connection has left to say to the container.
type lastWord uint8

const (
	nothing lastWord = iota
	sayReset
	sayError // what is in the socket's queue of errors, or errno
)

type connBits uint32

const (
	// Of the host's socket.
	readable  connBits = 1 << iota // peeking may find more
	hungUp                         // the peer's FIN is there, perhaps behind data
	sawEnd                         // and was read
	broken                         // it has an error; data may be left
	urgent                         // urgent data may end a peek early
	fullSend                       // the send buffer is full; an event tells when it is not
	untaken                        // and did not take all that came
	keepAlive                      // SO_KEEPALIVE is set

	gone       // the flow has ended, and what is left is to be closed
	over       // nothing is left
	numbered   // flow is valid
	reopen     // the window is to be offered anew
	recovering // from a loss
	probing    // una is to be asked for: the window is closed
	timing     // clock and timed are valid
	inbound    // the host's peer began it
	stale      // an acknowledgement that is not of this connection is to be reset
	trains     // the container's frames are segment trains
	asked      // data came since data was sent
	owes       // an acknowledgement waits for the answer
	listed     // in tcp.soon
)

func (b connBits) has(x connBits) bool { return b&x != 0 }

// tcp is what the connections of a Sockets have together.
type tcp struct {
	// unnumbered are connections the host began, until NAT's number of their flow
	// is known; the key is the tuple of the container's segments.
	unnumbered map[packet.Tuple]*conn
	// inside are the sockets connected to the host's loopback.
	inside map[netip.AddrPort]*conn
	// listeners are of published ports, by the address that was asked for.
	listeners map[netip.AddrPort]*listener
	spare     int      // a descriptor to refuse a client with when there is no other
	secret    [16]byte // of initial sequence numbers
	io        tcpIO

	soon    []*conn // connections to be looked at
	looking bool    // they will be, in a moment
	look    func()  // has that done
}

func (t *tcp) init(noPeekOffset bool) {
	t.unnumbered = make(map[packet.Tuple]*conn)
	t.inside = make(map[netip.AddrPort]*conn)
	t.listeners = make(map[netip.AddrPort]*listener)
	t.spare = openSpare()
	_, _ = rand.Read(t.secret[:]) // it does not fail
	t.io.init(noPeekOffset)
}

// close closes what is no connection.
func (t *tcp) close() {
	for at, l := range t.listeners {
		delete(t.listeners, at)
		l.close()
	}
	for _, c := range t.unnumbered {
		c.close()
	}
	if t.spare >= 0 {
		closeFd(t.spare)
		t.spare = -1
	}
}

const (
	// synSilence is how long a container may be silent while the host connects.
	// Its SYNs come at intervals of 1, 2, 4, … s (RFC 6298), so it has given up
	// when nothing came for two and a half of the last one.
	synSilence = int64(3 * time.Second)
	// synRetries is how often a SYN of ours is sent: at 0, 1, 3 and 7 s, and
	// after 15 s that is all.
	synRetries = 4
	synTimeout = int64(time.Second)
	// lingering is how long an ended connection answers FINs sent again.
	lingering = int64(time.Second)
)

// newConn returns the connection that a SYN begins, or that one from outside
// has become.
func (s *Sockets) newConn(f *packet.Frame, k packet.Tuple) (endpoint, packet.Reason) {
	if c := s.tcp.unnumbered[k]; c != nil {
		return c.number(f, k)
	}
	if !beginsTCP(f) {
		s.ended = append(s.ended, k) // of an endpoint that is no more
		return nil, packet.OK
	}
	if !s.intact(f) {
		return nil, packet.BadTransport
	}
	s.spare(k)
	c := &conn{tuple: k.Reverse(), flow: f.Flow, container: f.Container, network: f.Network, bits: numbered, state: listen}
	c.s, c.self, c.fd, c.unanswered = s, c, -1, true
	s.flows.set(f.Flow, k, c)
	c.greeted(f)
	if !s.charge(f.Container, c) {
		c.abort(sayReset)
	}
	return c, packet.OK
}

// beginsTCP reports whether a packet is a SYN that begins a connection.
func beginsTCP(f *packet.Frame) bool {
	const of = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin
	return f.L4 != 0 && packet.TCP(f.Transport()).Flags()&of == packet.TCPSyn
}

// spare takes a flow off the list of those to be ended: it has begun anew.
func (s *Sockets) spare(k packet.Tuple) {
	back := k.Reverse()
	for i := range s.ended {
		if s.ended[i] == k || s.ended[i] == back {
			s.ended[i] = packet.Tuple{}
		}
	}
}

// number gives a connection from outside its flow, when the first segment of its
// container comes.
func (c *conn) number(f *packet.Frame, k packet.Tuple) (endpoint, packet.Reason) {
	s := c.s
	delete(s.tcp.unnumbered, k)
	c.flow, c.container, c.network = f.Flow, f.Container, f.Network
	c.bits |= numbered
	s.flows.set(f.Flow, k, c)
	c.discharge()
	if !s.charge(f.Container, c) {
		s.stats.Unaccepted.Add(1, f.Time)
		c.abort(sayReset)
	}
	return c, packet.OK
}

// greeted takes a container's first SYN.
func (c *conn) greeted(f *packet.Frame) {
	ip := packet.IPv4(f.Packet())
	c.peer(packet.TCP(f.Transport()))
	c.ttl, c.tos = ip.TTL(), ip.TOS()
	c.bits &= numbered
	c.syn = new(sent)
	*c.syn = headerOf(f)
}

// begin connects the host's socket.
func (c *conn) begin(now int64) {
	c.state, c.heard, c.interval = connecting, now, 0
	c.dial()
}

// peer takes from a SYN what it says of the container.
func (c *conn) peer(t packet.TCP) {
	c.rcvNxt = t.Seq() + 1
	c.rcvEdge = c.rcvNxt
	c.wnd, c.maxWnd, c.wl1, c.wl2 = uint32(t.Window()), uint32(t.Window()), t.Seq(), t.Ack()
	c.mss = defaultMSS
	if mss, ok := t.MSS(); ok {
		c.mss = min(max(mss, minMSS), maxMSS)
	}
	c.sndShift, c.rcvShift = 0, 0
	if v := t.Option(optionScale); len(v) == 1 {
		c.sndShift, c.rcvShift = min(v[0], 14), windowShift // RFC 7323 2.3
	}
	c.cwnd, c.ssthresh = maxWindow, maxWindow
	c.rto = retransmission{}
}

// dial begins the connection of the host's socket.
func (c *conn) dial() {
	fd, errno := newSocket(unix.AF_INET, unix.SOCK_STREAM, 0)
	for (errno == unix.EMFILE || errno == unix.ENFILE) && c.holder != nil && c.s.evict(c.holder) {
		fd, errno = newSocket(unix.AF_INET, unix.SOCK_STREAM, 0) // descriptors are short in spite of the budgets
	}
	if errno != 0 {
		c.abort(sayReset)
		return
	}
	c.fd = fd
	setInt(fd, unix.SOL_IP, unix.IP_TTL, int(c.ttl))
	if c.tos != 0 {
		setInt(fd, unix.SOL_IP, unix.IP_TOS, int(c.tos))
	}
	setInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	c.options()
	addr := sockaddr4([4]byte(c.tuple.Src[12:]), c.tuple.SrcPort)
	if errno := connect(fd, &addr); errno != 0 && errno != unix.EINPROGRESS {
		c.unreachable(errno)
		return
	}
	if c.s.register(c, fd, connEvents) != nil {
		c.abort(sayReset)
		return
	}
	if c.tuple.Src.Netip().IsLoopback() {
		c.s.tcp.inside[sockname(fd)] = c
	}
	c.alarm(c.heard + synSilence)
}

// connEvents are what a connection is told of.
const connEvents = loop.In | loop.Out | rdhup | unix.EPOLLPRI | loop.Edge

// options sets what every socket of a connection has.
func (c *conn) options() {
	// The container's Nagle has decided (RFC 1122 4.2.3.4); urgent data is sent
	// where it is.
	setInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setInt(c.fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
}

// connected answers the container's SYN.
func (c *conn) connected() {
	fd := c.fd
	// From here on an ICMP error would be one of the connection's.
	setInt(fd, unix.SOL_IP, unix.IP_RECVERR, 0)
	if at := sockname(fd); at == netip.AddrPortFrom(c.tuple.Src.Netip(), c.tuple.SrcPort) {
		c.reset() // it has met itself: nobody listens on a port the host took for us
		return
	}
	c.answered()
	c.syn = nil
	c.s.tcp.io.usePeekOffset(fd)
	c.state = synReceived
	c.initialSequence()
	c.due = 0
}

// initialSequence chooses where our sequence numbers begin: nobody else can know,
// but behind those of an earlier connection between the same two, so that one who
// remembers it takes the SYN (RFC 6528, RFC 9293 3.10.7.8). They grow as Linux's,
// by one in 64 ns.
func (c *conn) initialSequence() {
	var b [16 + 36]byte
	copy(b[:], c.s.tcp.secret[:])
	copy(b[16:], c.tuple.Src[:])
	copy(b[32:], c.tuple.Dst[:])
	binary.BigEndian.PutUint16(b[48:], c.tuple.SrcPort)
	binary.BigEndian.PutUint16(b[50:], c.tuple.DstPort)
	h := sha256.Sum256(b[:])
	c.una = binary.BigEndian.Uint32(h[:]) + uint32(loop.Clock()>>6)
	c.nxt, c.max, c.head = c.una, c.una, c.una+1
	c.peeked, c.id = 0, uint16(c.una)
	c.retries = 0
}

// unreachable ends a connection that could not be made.
func (c *conn) unreachable(errno unix.Errno) {
	e := localError(errno, 0)
	if _, _, _, ok := e.icmp(); errno == unix.ECONNREFUSED || !ok {
		c.abort(sayReset)
		return
	}
	c.errno = errno
	c.word, c.state = sayError, closed
	c.wake()
}

// reset ends the connection by RST on both sides.
func (c *conn) reset() { c.abort(sayReset) }

// abort ends the connection: the host's peer gets a RST, the container w.
func (c *conn) abort(w lastWord) {
	c.word, c.state = w, closed
	if c.fd >= 0 {
		lingerNot(c.fd)
	}
	c.hangUp()
	c.wake()
}

// hangUp closes the host's socket.
func (c *conn) hangUp() {
	if c.fd >= 0 && c.tuple.Src.Netip().IsLoopback() && !c.bits.has(inbound) {
		delete(c.s.tcp.inside, sockname(c.fd))
	}
	c.shut()
	c.discharge()
	c.due = 0
}

// done closes the host's socket when both sides have closed theirs. What was
// acknowledged has to be out of its buffer: else the kernel takes it for lost
// and sends a RST (RFC 2525 2.17).
func (c *conn) done() {
	c.discardAcked()
	c.hangUp()
	c.wake()
}

// end ends the flow.
func (c *conn) end() {
	if c.bits.has(over) {
		return
	}
	c.bits |= over
	c.state = closed
	c.hangUp()
	k := c.tuple.Reverse()
	if c.bits.has(numbered) {
		if c.s.flows.find(c.flow, &k) == c.self {
			c.s.flows.forget(c.flow)
		}
	} else if c.s.tcp.unnumbered[k] == c {
		delete(c.s.tcp.unnumbered, k)
	}
	// The client's next connection from the same port has the same flow.
	if !c.bits.has(gone) && c.s.tcp.unnumbered[k] == nil {
		c.s.ended = append(c.s.ended, k)
	}
}

// flowEnded notes that the container has gone. See endpoint.
func (c *conn) flowEnded(uint32) { c.bits |= gone }

// close closes the socket and ends the flow. See endpoint.
func (c *conn) close() {
	if c.fd >= 0 {
		lingerNot(c.fd)
	}
	c.end()
}

// alarm has expire called at a time, or a little later.
func (c *conn) alarm(at int64) {
	c.due = at
	if c.place == 0 || at < c.deadline {
		c.at(at)
	}
}

// expire does what is due. See endpoint.
func (c *conn) expire(now int64) {
	switch {
	case c.due == 0:
		return
	case now < c.due:
		c.at(c.due)
		return
	}
	c.due = 0
	switch c.state {
	case connecting:
		c.abort(nothing) // the container has given up
	case synSent, synReceived:
		if c.retries++; c.retries >= synRetries {
			c.reset()
			return
		}
		c.nxt = c.una
	case timeWait:
		c.end()
	case closed, listen:
	default:
		c.timeout(now)
	}
	c.wake()
}

// Owner returns whose connection to a service on the host's loopback has a local
// address. It is false when it is none of a container's.
func (s *Sockets) Owner(local netip.AddrPort) (packet.ContainerID, packet.NetworkID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.tcp.inside[local]
	if c == nil {
		return 0, 0, false
	}
	return c.container, c.network, true
}
