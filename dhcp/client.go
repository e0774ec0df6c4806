package dhcp

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/packet"
)

// Ports of RFC 2131 4.1.
const (
	ServerPort = 67
	ClientPort = 68
)

const second = int64(time.Second)

// Times of a client. RFC 2131 4.1 has the first repetition after four seconds;
// here it is after one, because the other end of a new link is often a moment
// late.
const (
	firstRepeat  = second
	lastRepeat   = 64 * second
	maxRequests  = 4 // that one server leaves unanswered, before others are asked
	startAgain   = second
	declinePause = 10 * second // RFC 2131 3.1 step 5
	leastRepeat  = 60 * second // of a renewal, RFC 2131 4.4.5
)

// A State is one of RFC 2131 figure 5.
type State uint8

const (
	Stopped State = iota
	Init
	Selecting
	Requesting
	Bound
	Renewing
	Rebinding
)

var stateNames = [...]string{"STOPPED", "INIT", "SELECTING", "REQUESTING", "BOUND", "RENEWING", "REBINDING"}

func (s State) String() string {
	if int(s) >= len(stateNames) {
		return "?"
	}
	return stateNames[s]
}

// A Lease is what a server lent us. The zero Lease is none.
type Lease struct {
	Addr   netip.Prefix // with the subnet's length
	Router netip.Addr   // the zero Addr when there is none
	MTU    int          // zero when the server says nothing of it
	Server netip.Addr

	// Times of the clock the client is told; all zero when the lease is for good.
	Renew, Rebind, Expires int64
}

// A Config says who asks.
type Config struct {
	MAC  packet.MAC
	ID   []byte // client identifier (RFC 2132 9.14); nil: the MAC
	Host string // name the server may take down; empty: none
	Seed uint64 // of transaction numbers and jitter

	// Behalf is set when somebody else uses the address: everything is said and
	// answered by broadcast, because what is sent to the address goes to them. So the
	// lease is renewed by the request of one who has been restarted.
	Behalf bool
}

// A Client gets a lease and keeps it. Next says what to send, Receive takes
// what came. The state INIT-REBOOT is not used: a node remembers no lease.
type Client struct {
	conf  Config
	rng   *rand.Rand
	state State

	xid     dhcpv4.TransactionID
	began   int64 // when this transaction began
	asked   int64 // when the lease was asked for in this state the first time
	due     int64 // when Next has something to do; 0 is never
	repeat  int64 // the next interval of repetition
	sent    int   // requests in this state
	decline bool  // the lease is to be declined
	release bool  // the lease is to be given back

	offer Lease // in REQUESTING, and when a lease is declined or released
	lease Lease // from BOUND on
}

// NewClient returns a client that is stopped.
func NewClient(conf Config) *Client {
	if conf.ID == nil {
		conf.ID = append([]byte{1}, conf.MAC[:]...) // type 1: Ethernet
	}
	return &Client{conf: conf, rng: rand.New(rand.NewPCG(conf.Seed, 0))}
}

// State is where the client is.
func (c *Client) State() State { return c.state }

// Lease is the lease the client has; the zero Lease when it has none.
func (c *Client) Lease() Lease { return c.lease }

// Start begins to look for a lease.
func (c *Client) Start(now int64) {
	c.state, c.lease, c.due = Init, Lease{}, now
	c.decline, c.release = false, false
}

// Decline tells the server that its address is in use by somebody else. The
// lease is lost; after a pause the client begins again.
func (c *Client) Decline(now int64) {
	if c.lease == (Lease{}) {
		return
	}
	c.offer = c.lease
	c.Start(now)
	c.decline = true
}

// Stop gives the lease back, which the next call of Next does.
func (c *Client) Stop(now int64) {
	c.offer, c.release = c.lease, c.lease != Lease{}
	c.state, c.lease, c.due, c.decline = Stopped, Lease{}, 0, false
	if c.release {
		c.due = now
	}
}

// Next does what is due: it changes state by the clock, and returns a message to
// be sent, or nil. It is to be called again at due; zero is never.
func (c *Client) Next(now int64) (m *Message, due int64) {
	if c.due == 0 || now < c.due {
		return nil, c.due
	}
	switch {
	case c.release:
		c.release, c.due = false, 0
		m = c.message(now, dhcpv4.MessageTypeRelease)
	case c.decline:
		c.decline, c.due = false, now+declinePause
		m = c.message(now, dhcpv4.MessageTypeDecline)
	case c.lease.Expires != 0 && now >= c.lease.Expires:
		c.Start(now)
		return c.Next(now)
	default:
		m = c.step(now)
	}
	return m, c.due
}

// step is Next for the states of figure 5.
func (c *Client) step(now int64) *Message {
	switch c.state {
	case Init:
		c.enter(now, Selecting)
	case Requesting:
		if c.sent == maxRequests {
			c.enter(now, Selecting)
		}
	case Bound:
		c.enter(now, Renewing)
	}
	if c.state == Renewing && now >= c.lease.Rebind {
		c.state, c.sent = Rebinding, 0
	}
	if c.sent == 0 {
		c.asked = now
	}
	c.sent++
	switch c.state {
	case Selecting:
		c.due, c.repeat = now+c.jitter(c.repeat), min(2*c.repeat, lastRepeat)
		return c.message(now, dhcpv4.MessageTypeDiscover)
	case Renewing: // RFC 2131 4.4.5: half of what is left, but no less than a minute
		c.due = min(now+max((c.lease.Rebind-now)/2, leastRepeat), c.lease.Rebind)
	case Rebinding:
		c.due = min(now+max((c.lease.Expires-now)/2, leastRepeat), c.lease.Expires)
	default:
		c.due, c.repeat = now+c.jitter(c.repeat), min(2*c.repeat, lastRepeat)
	}
	return c.message(now, dhcpv4.MessageTypeRequest)
}

// enter begins a state that talks, with a transaction of its own but for
// REQUESTING, which goes on with that of the offer.
func (c *Client) enter(now int64, s State) {
	c.state, c.sent, c.repeat, c.due = s, 0, firstRepeat, now
	if s != Requesting {
		c.began = now
		for i := range c.xid {
			c.xid[i] = byte(c.rng.Uint32())
		}
	}
}

// jitter spreads an interval by a quarter of a second at most, or else all
// clients of a segment speak at once after a failure (RFC 2131 4.1).
func (c *Client) jitter(d int64) int64 { return d + c.rng.Int64N(second/2) - second/4 }

// Receive takes what a server sent: the payload of a datagram to ClientPort,
// borrowed for the call. It reports whether state or lease are others now; then
// Next has to be called.
func (c *Client) Receive(now int64, b []byte) bool {
	if c.state < Selecting || c.state == Bound {
		return false // nothing was asked
	}
	kind, lease, ok := c.parse(b)
	if !ok {
		return false
	}
	switch {
	case kind == dhcpv4.MessageTypeOffer && c.state == Selecting:
		c.offer = lease
		c.enter(now, Requesting)
	case c.state == Selecting:
		return false
	case c.state == Requesting && lease.Server != c.offer.Server:
		return false
	case kind == dhcpv4.MessageTypeAck && lease.Addr.IsValid():
		c.bind(lease)
	case kind == dhcpv4.MessageTypeNak:
		c.Start(now + startAgain)
	default:
		return false
	}
	return true
}

// bind takes a lease. Its times were parsed as lengths, which count from when we
// asked for it and not from when it came (RFC 2131 4.4.1).
func (c *Client) bind(lease Lease) {
	if lease.Expires != 0 {
		lease.Renew += c.asked
		lease.Rebind += c.asked
		lease.Expires += c.asked
	}
	c.lease, c.state, c.due = lease, Bound, lease.Renew
}
