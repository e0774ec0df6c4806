package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// How long is waited for upstream servers. A C library gives up after five
// seconds and asks again; by then it has to have heard that there is nothing.
const (
	perTry = 2 * time.Second
	total  = 5 * time.Second

	// forSilent is what a server gets that did not answer the last time, if there
	// is another one to ask: the order of servers holds as long as they answer,
	// and a dead one does not cost two seconds with each query.
	forSilent = 300 * time.Millisecond
)

// A Config says what a Forwarder is.
type Config struct {
	// Containers bounds the queries one container has in flight, Total those of
	// all of them.
	Containers, Total int
	Seed              [32]byte // of query ids; nobody may know it

	// Closed, if set, reports whether a container may open connections to nobody
	// outside by a network it is on, the question's: if it may by none, nobody
	// outside is asked for it either.
	Closed func(q *Question) bool

	// Learn, if set, is told the addresses a container is about to hear for a name
	// it asked, and how long they hold, for each network it is on. Names that Wants
	// does not care for are not looked at.
	Wants func(q *Question, name string) bool
	Learn func(q *Question, name string, addrs []packet.Addr, ttl time.Duration)
}

// A Question is a query as it came.
type Question struct {
	Network   packet.NetworkID
	Container packet.ContainerID
	From      packet.Tuple // of its packet; the protocol says how the answer goes
	Payload   []byte       // the message; it is the Forwarder's
}

// A Step is what is to be done now.
type Step struct {
	Replies []Reply
	Ask     *Ask
}

// A Reply is an answer for one that asked. The message is To's; nil says that the
// query deserves none.
type Reply struct {
	To      func(message []byte)
	Message []byte
}

// An Ask is a question for an upstream server. Whoever asks comes back with each
// Answer, until one is taken, or with Failed, at the latest after Within. It has
// to be asked from a port nobody can guess.
type Ask struct {
	Try     uint64
	Server  netip.AddrPort
	TCP     bool
	Within  time.Duration
	Message []byte
}

// Stats counts queries by what became of them, and what went on with upstream
// servers.
type Stats struct {
	Queries   uint64 // all
	Malformed uint64 // no query, or one that is not understood
	Own       uint64 // for names of our own
	Kept      uint64 // for other names, of who has no way out: refused
	Refused   uint64 // beyond the bounds
	Joined    uint64 // to an identical one in flight
	Repeated  uint64 // by an asker that became impatient
	Forwarded uint64
	Failed    uint64 // of those: no server has answered

	Tries   uint64 // questions to servers
	Silent  uint64 // tries without an answer
	Ignored uint64 // answers to nothing that was asked
	Cut     uint64 // answers that were too long for the asker
}

// A Forwarder is the nameserver of all containers of a node.
type Forwarder struct {
	conf     Config
	rng      *rand.ChaCha8
	shuffle  func(n int, swap func(i, j int))
	networks map[packet.NetworkID]Network
	zone     *Zone
	servers  []*server
	options  Servers
	turn     int // of Servers.Rotate

	flights map[string]*flight // by the limit of the answer, which tells UDP from TCP, and the query without its id
	tries   map[uint64]*flight
	last    uint64 // try
	waiting map[packet.ContainerID]int
	total   int // of waiting
	stats   Stats
}

// A flight is a query that was sent upstream, for all who asked it.
type flight struct {
	key      string
	query    *dns.Msg
	message  []byte // it, with the id of the last try
	limit    int    // of the answer's length
	waiters  []waiter
	deadline int64

	servers []*server // those there were when it began, in the order they are asked
	max     int       // tries
	asked   int
	tcp     bool
	id      uint16 // of the last try
	began   int64  // when that did

	refusal []byte // the last answer that was none: another server may know better
	short   []byte // the truncated answer, while it is asked for by TCP
}

// A waiter is one who asked.
type waiter struct {
	q     Question // without its payload
	id    uint16
	reply func([]byte)
}

// New returns a Forwarder that knows no network and no server.
func New(conf Config) *Forwarder {
	rng := rand.NewChaCha8(conf.Seed)
	return &Forwarder{
		conf: conf, rng: rng, shuffle: rand.New(rng).Shuffle,
		networks: make(map[packet.NetworkID]Network), zone: NewZone(),
		flights: make(map[string]*flight), tries: make(map[uint64]*flight), waiting: make(map[packet.ContainerID]int),
	}
}

// SetNetwork says what a network is, RemoveNetwork that there is no such one.
func (f *Forwarder) SetNetwork(id packet.NetworkID, n Network) { f.networks[id] = n }
func (f *Forwarder) RemoveNetwork(id packet.NetworkID)         { delete(f.networks, id) }

// SetZone says which names there are from now on.
func (f *Forwarder) SetZone(z *Zone) { f.zone = z }

// SetServers says where queries go from now on.
func (f *Forwarder) SetServers(s Servers) {
	f.options, f.servers = s, nil
	for _, a := range s.Addrs {
		f.servers = append(f.servers, &server{addr: a})
	}
}

// Stats returns the counters, InFlight how many queries wait for an answer.
func (f *Forwarder) Stats() Stats  { return f.stats }
func (f *Forwarder) InFlight() int { return f.total }

// Query takes a query. There is one Reply to it, now or with a later Step.
func (f *Forwarder) Query(now int64, q Question, to func([]byte)) Step {
	f.stats.Queries++
	m, rcode := parse(q.Payload)
	if m == nil {
		f.stats.Malformed++
		return Step{Replies: []Reply{{to, nil}}}
	}
	say := func(r *dns.Msg) Step { return Step{Replies: []Reply{{to, pack(r)}}} }
	if rcode != dns.RcodeSuccess {
		f.stats.Malformed++
		return say(reply(m, rcode))
	}
	name := plain(m.Question[0].Name)
	if o, ours := f.own(&q, name); ours {
		f.stats.Own++
		f.learn(&q, name, o.addrs, ownTTL*time.Second)
		return say(f.ownAnswer(m, o, f.limit(&q, m)))
	}
	if rcode := f.wayOut(&q); rcode != dns.RcodeSuccess {
		f.stats.Kept++
		return say(reply(m, rcode))
	}
	limit := f.limit(&q, m)
	key := string(binary.BigEndian.AppendUint16(nil, uint16(limit))) + string(q.Payload[2:])
	w := waiter{q, m.Id, to}
	w.q.Payload = nil
	fl := f.flights[key]
	switch {
	case fl != nil && q.From.Proto != packet.ProtoTCP && fl.has(&w): // by TCP nothing is lost: each is answered
		f.stats.Repeated++
		return Step{Replies: []Reply{{to, nil}}}
	case f.waiting[q.Container] >= f.conf.Containers || f.total >= f.conf.Total:
		f.stats.Refused++
		return say(reply(m, dns.RcodeRefused))
	}
	f.waiting[q.Container]++
	f.total++
	if fl != nil {
		f.stats.Joined++
		fl.waiters = append(fl.waiters, w)
		return Step{}
	}
	f.stats.Forwarded++
	fl = &flight{
		key: key, query: m, message: q.Payload, limit: limit, waiters: []waiter{w},
		deadline: now + int64(total), tcp: q.From.Proto == packet.ProtoTCP,
		servers: f.order(), max: len(f.servers) * f.options.Attempts,
	}
	f.flights[fl.key] = fl
	return f.ask(now, fl)
}

// wayOut reports whether somebody outside may be asked: success, or the answer
// instead. A container needs one network that lets it. The host knows whom else to
// ask, and goes on to do so when it hears that we do not answer.
func (f *Forwarder) wayOut(q *Question) (rcode int) {
	if q.Network == HostNetwork {
		return dns.RcodeRefused
	}
	rcode = dns.RcodeServerFailure // as Docker: it may exist, and is not found from here
	for _, on := range f.zone.view(q) {
		n, known := f.networks[on.Network]
		if !known || n.Internal {
			continue
		}
		if by := q.by(on.Network); f.conf.Closed == nil || !f.conf.Closed(&by) {
			return dns.RcodeSuccess
		}
		rcode = dns.RcodeRefused
	}
	return rcode
}

// by is the question as if it came by another network the container is on.
func (q *Question) by(network packet.NetworkID) Question {
	by := *q
	by.Network = network
	return by
}

// wants reports whether a policy of the asker's is to hear of a name.
func (f *Forwarder) wants(q *Question, name string) bool {
	if f.conf.Learn == nil || q.Network == HostNetwork {
		return false
	}
	return slices.ContainsFunc(f.zone.view(q), func(on Attached) bool {
		by := q.by(on.Network)
		return f.conf.Wants(&by, name)
	})
}

// learn tells the policies of the asker's which addresses it is about to hear.
func (f *Forwarder) learn(q *Question, name string, addrs []packet.Addr, ttl time.Duration) {
	if len(addrs) == 0 || !f.wants(q, name) {
		return
	}
	for _, on := range f.zone.view(q) {
		if by := q.by(on.Network); f.conf.Wants(&by, name) {
			f.conf.Learn(&by, name, addrs, ttl)
		}
	}
}

// has reports whether a query is one that waits already.
func (fl *flight) has(w *waiter) bool {
	return slices.ContainsFunc(fl.waiters, func(x waiter) bool {
		return x.id == w.id && x.q.From == w.q.From && x.q.Container == w.q.Container
	})
}

// order are the servers in the order the next query asks them.
func (f *Forwarder) order() []*server {
	if !f.options.Rotate || len(f.servers) == 0 {
		return f.servers
	}
	f.turn = (f.turn + 1) % len(f.servers)
	return slices.Concat(f.servers[f.turn:], f.servers[:f.turn])
}

// ask asks the next server, or gives up.
func (f *Forwarder) ask(now int64, fl *flight) Step {
	left := time.Duration(fl.deadline - now)
	if fl.asked >= fl.max || left <= 0 {
		return f.giveUp(fl)
	}
	fl.asked++
	wait := min(f.options.Timeout, left)
	lively := slices.ContainsFunc(fl.servers, func(s *server) bool { return !s.silent })
	if fl.server().silent && lively && fl.asked <= len(fl.servers) {
		wait = min(wait, forSilent)
	}
	return f.try(now, fl, wait)
}

// server is the one that was asked last.
func (fl *flight) server() *server { return fl.servers[(fl.asked-1)%len(fl.servers)] }

// try asks a server, with an id nobody knows.
func (f *Forwarder) try(now int64, fl *flight, wait time.Duration) Step {
	f.stats.Tries++
	f.last++
	f.tries[f.last] = fl
	fl.id, fl.began = uint16(f.rng.Uint64()), now
	setID(fl.message, fl.id)
	return Step{Ask: &Ask{Try: f.last, Server: fl.server().addr, TCP: fl.tcp, Within: wait, Message: slices.Clone(fl.message)}}
}

// Answer takes what came as the answer to a try; b is the Forwarder's. It
// returns false when that was none, and more is to be waited for.
func (f *Forwarder) Answer(now int64, try uint64, b []byte) (Step, bool) {
	fl := f.tries[try]
	if fl == nil {
		return Step{}, true
	}
	r, ok := read(b, fl.id, &fl.query.Question[0])
	if !ok {
		f.stats.Ignored++
		return Step{}, false
	}
	delete(f.tries, try)
	fl.server().says(now)
	switch left := time.Duration(fl.deadline - now); {
	case !r.asked || r.rcode == dns.RcodeServerFailure || r.rcode == dns.RcodeNotImplemented || r.rcode == dns.RcodeRefused:
		fl.refusal = b
		if !r.asked {
			fl.refusal = pack(reply(fl.query, r.rcode))
		}
		return f.goOn(now, fl), true
	case r.truncated && !fl.tcp && fl.limit > leastUDP && left > 0 && len(b) <= fl.limit:
		// The server has its own idea of what UDP carries.
		fl.short, fl.tcp = b, true
		return f.try(now, fl, min(f.options.Timeout, left)), true
	case len(b) <= fl.limit:
		return f.finish(fl, b), true
	}
	f.stats.Cut++
	if fl.short != nil {
		return f.finish(fl, fl.short), true
	}
	cut := reply(fl.query, r.rcode)
	cut.Truncated = true
	return f.finish(fl, pack(cut)), true
}

// Failed tells that a try had no answer.
func (f *Forwarder) Failed(now int64, try uint64) Step {
	fl := f.tries[try]
	if fl == nil {
		return Step{}
	}
	delete(f.tries, try)
	f.stats.Silent++
	if fl.short == nil {
		fl.server().saysNothing(fl.began)
	}
	return f.goOn(now, fl)
}

// goOn is for a try that came to nothing.
func (f *Forwarder) goOn(now int64, fl *flight) Step {
	if fl.short != nil { // the asker may try TCP itself
		return f.finish(fl, fl.short)
	}
	return f.ask(now, fl)
}

// giveUp ends a query no server has answered.
func (f *Forwarder) giveUp(fl *flight) Step {
	f.stats.Failed++
	if fl.refusal != nil && len(fl.refusal) <= fl.limit {
		return f.finish(fl, fl.refusal)
	}
	return f.finish(fl, pack(reply(fl.query, dns.RcodeServerFailure)))
}

// finish gives b to all who wait for it.
func (f *Forwarder) finish(fl *flight, b []byte) (s Step) {
	name := plain(fl.query.Question[0].Name)
	wants := func(w waiter) bool { return f.wants(&w.q, name) }
	var addrs []packet.Addr
	var ttl time.Duration
	if slices.ContainsFunc(fl.waiters, wants) {
		addrs, ttl = addresses(b, name)
	}
	for i, w := range fl.waiters {
		f.total--
		if f.waiting[w.q.Container]--; f.waiting[w.q.Container] == 0 {
			delete(f.waiting, w.q.Container)
		}
		f.learn(&w.q, name, addrs, ttl)
		message := b
		if i > 0 {
			message = slices.Clone(b)
		}
		setID(message, w.id)
		s.Replies = append(s.Replies, Reply{w.reply, message})
	}
	delete(f.flights, fl.key) // at last: whoever waits is one of a flight until he is answered, see Abandon
	return s
}

// Abandon ends all queries in flight without an answer. It is for who owns a
// Forwarder of which a call has panicked, perhaps halfway: nobody knows what is true
// of them then, and who asked asks again.
func (f *Forwarder) Abandon() (s Step) {
	for _, fl := range f.flights {
		for _, w := range fl.waiters {
			s.Replies = append(s.Replies, Reply{w.reply, nil})
		}
	}
	clear(f.flights)
	clear(f.tries)
	clear(f.waiting)
	f.total = 0
	return s
}
