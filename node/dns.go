package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"fairlead/dns"
	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/packet"
)

// Bounds of the nameserver. A query in flight has one socket, so all of them may
// have an eighth of the node's descriptors.
const (
	queriesPerContainer = 64
	maxQueries          = 1024

	// Queries that wait for the nameserver's goroutine, which takes them in order:
	// nobody fills the queue alone.
	queuedPerContainer = 32
	maxQueued          = 512
)

// resolvConfEvery is how often /etc/resolv.conf is looked at, while somebody asks.
const resolvConfEvery = time.Second

// nameserverConfig says what a nameserver is.
type nameserverConfig struct {
	ResolvConf  string // path of the host's
	Descriptors int    // that the node may have
}

// An egress is what the policies of a network's containers have to do with names.
// A nameserver's goroutine calls it. See gateway.Gateway.
type egress interface {
	Closed(c packet.ContainerID) bool
	WantsName(c packet.ContainerID, name string) bool
	LearnName(c packet.ContainerID, name string, a packet.Addr, until int64)
}

// A nameserver answers what containers ask their gateways: dns.Forwarder with
// sockets, a clock and the host's resolv.conf. One goroutine has the Forwarder;
// each question to an upstream server has one that waits.
type nameserver struct {
	conf    nameserverConfig
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	tcp     *net.TCPListener

	queries *queue[query]
	calls   chan func() // on the goroutine

	fw      *dns.Forwarder // the goroutine's, and what follows
	checked int64          // when resolv.conf was looked at
	file    os.FileInfo    // it, as it was read; nil before
	mishaps mishaps
	asks    context.Context // of the questions to upstream servers
	forget  context.CancelFunc

	names  sync.Mutex // held while the Forwarder takes a step; guards its networks and what follows
	zone   *dns.Zone
	egress map[packet.NetworkID]egress

	mu     sync.Mutex // guards what follows
	owner  ownerFunc
	conns  map[packet.ContainerID]int
	open   int
	counts dnsCounts
	host   *stub // where this host asks; nil is nowhere
}

// An ownerFunc says whose connection to our port on the loopback it is, by the
// address it comes from. See sockets.Sockets.Owner.
type ownerFunc = func(local netip.AddrPort) (packet.ContainerID, packet.NetworkID, bool)

// dnsCounts counts what did not get to the Forwarder.
type dnsCounts struct {
	Dropped   uint64 // queries: too many were waiting
	Strangers uint64 // connections that are no container's
	Surplus   uint64 // connections beyond the bounds
	Mishaps   uint64 // steps of the Forwarder's that panicked
}

// A query is one that waits.
type query struct {
	dns.Question
	reply func([]byte)
}

// newNameserver starts a nameserver, which knows no network yet.
func newNameserver(conf nameserverConfig) (*nameserver, error) {
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("DNS over TCP: %w", err)
	}
	d := &nameserver{
		conf: conf, tcp: tcp, zone: dns.NewZone(), egress: make(map[packet.NetworkID]egress),
		queries: newQueue[query](maxQueued, queuedPerContainer), calls: make(chan func()),
		conns: make(map[packet.ContainerID]int), mishaps: mishaps{of: "the queries for names in flight"},
	}
	forwarder := dns.Config{
		Containers: queriesPerContainer, Total: max(1, min(maxQueries, conf.Descriptors/8)),
		Closed: func(q *dns.Question) bool { return d.egress[q.Network].Closed(q.Container) },
		Wants: func(q *dns.Question, name string) bool {
			e := d.egress[q.Network]
			return e != nil && e.WantsName(q.Container, name)
		},
		Learn: d.learn,
	}
	_, _ = rand.Read(forwarder.Seed[:]) // it does not return without
	d.fw = dns.New(forwarder)
	d.fw.SetZone(d.zone)
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.asks, d.forget = context.WithCancel(d.ctx)
	d.fw.SetServers(dns.ParseResolvConf(""))
	d.running.Go(d.run)
	d.running.Go(func() { d.accept(d.tcp, d.admit) })
	return d, nil
}

// close ends the nameserver. Queries in flight are not answered.
func (d *nameserver) close() {
	d.stop()
	_ = d.tcp.Close()
	d.answerHost(nil)
	d.running.Wait()
}

// startDNS starts the nameserver of the node's networks.
func (n *Node) startDNS() (err error) {
	n.dns, err = newNameserver(nameserverConfig{ResolvConf: n.conf.ResolvConf, Descriptors: n.budget.Limit})
	return err
}

// serveDNSLocked has the nameserver answer the containers of a network.
func (n *Node) serveDNSLocked(l *lan) {
	n.dns.setOwner(n.hostWay.Sockets().Owner)
	l.net.SetDNS(n.dns)
	n.router.SetServices(n.dns.port())
}

// port is that on the loopback where DNS over TCP is answered.
func (d *nameserver) port() uint16 { return d.tcp.Addr().(*net.TCPAddr).AddrPort().Port() }

// Query takes a query. See gateway.DNS.
func (d *nameserver) Query(q gateway.Question, reply func([]byte)) bool {
	asked := dns.Question{Network: q.Network, Container: q.Container, From: q.From, Payload: q.Payload}
	return d.enqueue(query{asked, func(b []byte) {
		if b != nil {
			reply(b)
		}
	}})
}

// enqueue has a query taken; its reply is called in every case then, but not
// after close.
func (d *nameserver) enqueue(q query) bool {
	if d.queries.put(q.Container, q) {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.Dropped++
	return false
}

// run is the goroutine that has the Forwarder.
func (d *nameserver) run() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case fn := <-d.calls:
			fn()
		case q := <-d.queries.items:
			d.queries.took(q.Container)
			now, reply := loop.Clock(), once(q.reply)
			d.follow(now)
			if !d.do(func() dns.Step { return d.fw.Query(now, q.Question, reply) }) {
				reply(nil)
			}
		}
	}
}

// once passes on the first reply. It is called by that goroutine alone.
func once(reply func([]byte)) func([]byte) {
	said := false
	return func(b []byte) {
		if !said {
			said = true
			reply(b)
		}
	}
}

// call runs fn on that goroutine, and returns when it has run; not after close.
func (d *nameserver) call(fn func()) {
	done := make(chan struct{})
	select {
	case d.calls <- func() { fn(); close(done) }:
		<-done
	case <-d.ctx.Done():
	}
}

// setNetworks says which networks there are from now on, and setStation what there
// is of a container.
func (d *nameserver) setNetworks(list []known) {
	d.names.Lock()
	defer d.names.Unlock()
	for id := range d.egress {
		d.fw.RemoveNetwork(id)
	}
	clear(d.egress)
	called := make([]dns.NetworkName, len(list))
	for i, k := range list {
		called[i] = k.NetworkName
		d.fw.SetNetwork(called[i].Network, k.Network)
		d.egress[called[i].Network] = k.policies
	}
	d.zone.SetNetworks(called)
}

func (d *nameserver) setStation(c packet.ContainerID, s *dns.Station) {
	d.names.Lock()
	defer d.names.Unlock()
	d.zone.Set(c, s)
}

// setOwner says who knows whose connections are whose.
func (d *nameserver) setOwner(fn ownerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owner = fn
}

// learn tells the policies what a container is about to hear.
func (d *nameserver) learn(q *dns.Question, name string, addrs []packet.Addr, ttl time.Duration) {
	until := loop.Clock() + int64(ttl)
	for _, a := range addrs {
		d.egress[q.Network].LearnName(q.Container, name, a, until)
	}
}

// stats returns the counters, and how many queries are in flight.
func (d *nameserver) stats() (s dns.Stats, c dnsCounts, flying int) {
	var lost uint64
	d.call(func() { s, flying, lost = d.fw.Stats(), d.fw.InFlight(), d.mishaps.count })
	d.mu.Lock()
	defer d.mu.Unlock()
	c = d.counts
	c.Mishaps = lost
	return s, c, flying
}

// do takes a step of the Forwarder's and carries it out. It reports whether the step
// came to its end; else no query is in flight any more.
func (d *nameserver) do(step func() dns.Step) (whole bool) {
	var s dns.Step
	d.names.Lock()
	if whole = d.mishaps.outlive(func() { s = step() }); !whole {
		s = d.fw.Abandon()
		d.forget()
		d.asks, d.forget = context.WithCancel(d.ctx)
	}
	d.names.Unlock()
	for _, r := range s.Replies {
		r.To(r.Message)
	}
	if ask := s.Ask; ask != nil {
		asks := d.asks
		d.running.Go(func() { d.ask(asks, ask) })
	}
	return whole
}

// maxResolvConf bounds how much of resolv.conf is read.
const maxResolvConf = 64 << 10

// follow reads resolv.conf if it is another one than before: changed in place,
// replaced, or what a link leads to. A file that is not there changes nothing; a
// new one is perhaps just being put there.
func (d *nameserver) follow(now int64) {
	if d.file != nil && now-d.checked < int64(resolvConfEvery) {
		return
	}
	d.checked = now
	info, err := os.Stat(d.conf.ResolvConf)
	if err != nil || d.file != nil && os.SameFile(info, d.file) && info.ModTime().Equal(d.file.ModTime()) && info.Size() == d.file.Size() {
		return
	}
	f, err := os.Open(d.conf.ResolvConf)
	if err != nil {
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return
	}
	d.file = info
	servers := dns.ParseResolvConf(string(text))
	d.fw.SetServers(servers)
	slog.Info("nameservers", "file", d.conf.ResolvConf, "servers", servers.Addrs)
}

// ask asks an upstream server and gives the Forwarder what it says.
func (d *nameserver) ask(asks context.Context, a *dns.Ask) {
	ctx, cancel := context.WithTimeout(asks, a.Within)
	defer cancel()
	exchange := d.askUDP
	if a.TCP {
		exchange = d.askTCP
	}
	if exchange(ctx, a) != nil && asks.Err() == nil {
		d.call(func() { d.do(func() dns.Step { return d.fw.Failed(loop.Clock(), a.Try) }) })
	}
}

// askUDP asks from a socket of its own: the kernel has chosen its port at
// random, and has it hear nobody but the server (RFC 5452 section 9.2).
func (d *nameserver) askUDP(ctx context.Context, a *dns.Ask) error {
	conn, err := dial(ctx, "udp", a)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(a.Message); err != nil {
		return err
	}
	b := make([]byte, dns.MaxUDP+1) // one more than is taken, to see what is too long
	for {
		n, err := conn.Read(b)
		if err != nil {
			return err
		}
		if d.answer(a, append([]byte(nil), b[:n]...)) {
			return nil
		}
	}
}

// askTCP asks by a connection of its own (RFC 1035 4.2.2). What is not the answer
// ends it.
func (d *nameserver) askTCP(ctx context.Context, a *dns.Ask) error {
	conn, err := dial(ctx, "tcp", a)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(framed(a.Message)); err != nil {
		return err
	}
	b, err := readFramed(conn, dns.MaxTCP)
	if err != nil {
		return err
	}
	if !d.answer(a, b) {
		return errors.New("an answer to something else")
	}
	return nil
}

// dial connects to the server of a; the connection fails when ctx ends.
func dial(ctx context.Context, network string, a *dns.Ask) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, a.Server.String())
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // long past
	return conn, nil
}

// answer gives the Forwarder an answer, which is its from now on. It returns
// false when it is none.
func (d *nameserver) answer(a *dns.Ask, b []byte) (taken bool) {
	d.call(func() {
		d.do(func() (s dns.Step) {
			s, taken = d.fw.Answer(loop.Clock(), a.Try, b)
			return s
		})
	})
	return taken
}
