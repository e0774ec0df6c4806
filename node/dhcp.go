package node

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fairlead/dhcp"
	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
)

// Bounds of the messages that wait for the DHCP servers' goroutine, which takes
// them in order: nobody fills the queue alone.
const (
	dhcpPerContainer = 16
	maxDHCP          = 256
)

// lenders are the DHCP servers of a node's networks: dhcp.Server with a clock, the
// networks' addresses and a file. One goroutine has them.
type lenders struct {
	home    *home
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	messages *queue[message]
	heard    chan heard
	calls    chan func() // on the goroutine

	// The goroutine's.
	of        map[packet.NetworkID]*lender
	fixed     map[packet.ContainerID]map[packet.NetworkID]fixedStation
	borrowers map[borrowerKey]*borrower
	kept      map[string][]keptLease // by the network's name: what is in the file, and not restored yet
	there     map[string]bool        // the networks there were, by name
	timer     *time.Timer
	saved     uint64        // changes that are in the file
	writing   chan struct{} // closed when the file is written; nil while nobody does
	mute      bool          // the file is still that of the node whose place we take
	mishaps   mishaps
}

// A message is one that waits.
type message struct {
	gateway.Question
	reply func(gateway.Offer)
}

// A lender is the server of one network.
type lender struct {
	lending
	server *dhcp.Server
	full   time.Time // when it was last said that no address is left
	stats  dhcp.ServerStats
	probed map[netip.Addr]bool // of which it was asked who has them, since they are taken
}

// lending is what a lender is to be.
type lending struct {
	name string
	net  *network.Network
	conf dhcp.ServerConfig
}

// A fixedStation is a container on a network.
type fixedStation struct {
	mac      packet.MAC
	addr     netip.Addr
	name     string
	borrowed bool // the address is somebody else's server's
}

// startDHCP starts the DHCP servers, which have no networks yet. The leases of before
// are theirs from now on.
func (n *Node) startDHCP(leases map[string][]keptLease) {
	d := &lenders{
		home: n.home, kept: leases, mute: n.handed != nil,
		messages: newQueue[message](maxDHCP, dhcpPerContainer), heard: make(chan heard, maxDHCP), calls: make(chan func()),
		borrowers: make(map[borrowerKey]*borrower),
		of:        make(map[packet.NetworkID]*lender),
		fixed:     make(map[packet.ContainerID]map[packet.NetworkID]fixedStation),
		timer:     time.NewTimer(time.Hour),
		mishaps:   mishaps{of: "a DHCP message, or what was due about one"},
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.running.Go(d.run)
	n.dhcp = d
}

// close ends the servers, and leaves the file as it has to be.
func (d *lenders) close() {
	d.stop()
	d.running.Wait()
	if !d.mute {
		d.save(d.snapshot())
	}
}

// write has the file be as it has to be.
func (d *lenders) write() {
	d.call(func() {
		d.awaitWrite()
		d.save(d.snapshot())
	})
}

// rest has the servers do nothing more until resume is called, and the file be as it has
// to be: after write there is a disk to wait for only if an address was lent meanwhile.
func (d *lenders) rest() (resume func()) {
	rests, awake := make(chan struct{}), make(chan struct{})
	go d.call(func() {
		d.awaitWrite()
		if d.changes() != d.saved {
			d.save(d.snapshot())
		}
		close(rests)
		<-awake
	})
	<-rests
	return func() { close(awake) }
}

// awaitWrite waits until nobody writes the file.
func (d *lenders) awaitWrite() {
	if d.writing != nil {
		<-d.writing
	}
}

// speak has the file be ours from now on.
func (d *lenders) speak() { d.call(func() { d.mute = false }) }

// publishLendersLocked has there be the DHCP servers that the networks are to have.
func (n *Node) publishLendersLocked() {
	all := make(map[packet.NetworkID]lending, len(n.lans))
	there := make(map[string]bool, len(n.lans))
	for _, l := range n.lans {
		there[l.name] = true
		options := l.conf.Options.DHCP
		if l.net == nil || !n.lendsLocked(l) {
			continue
		}
		domain := ""
		if l != n.defaultLocked() && network.IsDomain(l.name) {
			domain = l.name
		}
		conf := l.net.Config()
		to := lending{name: l.name, net: l.net}
		var err error
		if to.conf, err = options.Lending(conf.Gateway, conf.Options.MTU, domain, l.conf.Internal); err != nil {
			slog.Error("no addresses are lent", "network", l.name, "err", err)
			continue
		}
		all[l.number()] = to
	}
	n.dhcp.call(func() { n.dhcp.follow(all, there) })
}

// Message takes a message to a DHCP server. See gateway.DHCP.
func (d *lenders) Message(q gateway.Question, reply func(gateway.Offer)) bool {
	return d.messages.put(q.Container, message{q, reply})
}

// run is the goroutine that has the servers.
func (d *lenders) run() {
	var writes <-chan time.Time
	for {
		select {
		case <-d.ctx.Done():
			d.awaitWrite()
			return
		case fn := <-d.calls:
			fn()
		case m := <-d.messages.items:
			d.messages.took(m.Container)
			d.mishaps.outlive(func() { d.receive(m) })
		case h := <-d.heard:
			d.mishaps.outlive(func() { d.answer(h) })
		case <-d.timer.C:
		case <-writes:
			file, done := d.snapshot(), make(chan struct{})
			writes, d.writing = nil, done
			go func() { // who waits for this goroutine waits for no disk
				d.save(file)
				close(done)
			}()
		case <-d.writing:
			d.writing = nil
		}
		d.tick()
		if writes == nil && d.writing == nil && !d.mute && d.changes() != d.saved {
			writes = time.After(leasesEvery)
		}
	}
}

// call runs fn on that goroutine, and returns when it has run; not after close.
func (d *lenders) call(fn func()) {
	done := make(chan struct{})
	select {
	case d.calls <- func() { fn(); close(done) }:
		<-done
	case <-d.ctx.Done():
	}
}

// follow makes the servers what they are to be. The leases of one that ends are
// kept as long as there is a network of its name.
func (d *lenders) follow(all map[packet.NetworkID]lending, there map[string]bool) {
	for id, have := range d.of {
		if to, ok := all[id]; !ok || to.net != have.net {
			have.net.SetDHCP(nil)
			if list := have.leases(); len(list) > 0 && there[have.name] {
				d.kept[have.name] = list
			}
			have.server.Close()
			delete(d.of, id)
		}
	}
	for name := range d.there { // else they would be those of the next one of that name
		if !there[name] {
			delete(d.kept, name)
		}
	}
	d.there = there
	for id, to := range all {
		have := d.of[id]
		if have == nil {
			have = &lender{lending: to, probed: make(map[netip.Addr]bool)}
			have.server = dhcp.NewServer(to.conf, have)
			d.of[id] = have
			have.configure()
			d.restore(have)
			to.net.SetDHCP(d)
			continue
		}
		changed := !same(&have.conf, &to.conf)
		if have.lending = to; changed {
			have.configure()
		}
	}
}

// fix says what a container has on networks from now on. Leases behind it, and
// addresses that were borrowed for it, last as long as that.
func (d *lenders) fix(c packet.ContainerID, now map[packet.NetworkID]fixedStation) {
	for id, was := range d.fixed[c] {
		is := now[id]
		moved := is.addr != was.addr || is.mac != was.mac
		if l := d.of[id]; l != nil && moved {
			l.server.Forget(c)
		}
		if was.borrowed && (moved || !is.borrowed) {
			d.drop(borrowerKey{id, was.mac})
		}
	}
	for id, is := range now {
		if b := d.borrowers[borrowerKey{id, is.mac}]; b != nil && is.borrowed {
			b.kept = true
		}
	}
	if d.fixed[c] = now; len(now) == 0 {
		delete(d.fixed, c)
	}
}

// same reports whether two servers lend and tell the same.
func same(a, b *dhcp.ServerConfig) bool {
	return a.Server == b.Server && a.Router == b.Router && a.Domain == b.Domain && a.MTU == b.MTU && a.Lease == b.Lease &&
		a.First == b.First && a.Last == b.Last && slices.Equal(a.DNS, b.DNS) && slices.Equal(a.Search, b.Search) &&
		slices.Equal(a.Routes, b.Routes) && slices.Equal(a.Hosts, b.Hosts)
}

// configure has the server lend what it is to.
func (l *lender) configure() {
	for _, h := range l.server.Configure(l.conf) {
		slog.Warn("an address is not reserved, somebody has it", "network", l.name, "address", h.Addr)
	}
}

// receive passes a message on to the server of its network.
func (d *lenders) receive(m message) {
	l := d.of[m.Network]
	if l == nil {
		return
	}
	from := dhcp.Station{MAC: m.MAC, Addr: m.From.Src.Netip()}
	if c, ok := d.fixed[m.Container][m.Network]; ok {
		from.Container = m.Container
		if c.mac == m.MAC {
			from.Fixed, from.Name = c.addr, c.name
		}
	}
	l.server.Receive(loop.Clock(), from, m.Payload, func(r dhcp.Reply) {
		m.reply(gateway.Offer{Payload: r.Payload, MAC: r.MAC, Addr: r.Addr})
	})
	now := l.server.Stats()
	if now.Exhausted > l.stats.Exhausted && time.Since(l.full) > time.Minute {
		l.full = time.Now()
		slog.Warn("no address is left to be lent", "network", l.name, "mac", m.MAC)
	}
	l.stats = now
}

// tick does what is due.
func (d *lenders) tick() {
	now, next := loop.Clock(), int64(0)
	sooner := func(due int64) {
		if due != 0 && (next == 0 || due < next) {
			next = due
		}
	}
	for _, l := range d.of {
		d.mishaps.outlive(func() { sooner(l.server.Tick(now)) })
	}
	for key, b := range d.borrowers {
		d.mishaps.outlive(func() { sooner(b.next(key, now)) })
	}
	if next == 0 {
		d.timer.Reset(time.Hour)
	} else {
		d.timer.Reset(max(time.Duration(next-now), time.Millisecond))
	}
}

// Take, Give, Probe and Holder are dhcp.Segment.
func (l *lender) Take(a netip.Addr) bool {
	delete(l.probed, a)
	_, err := l.net.Reserve(a)
	return err == nil
}

func (l *lender) Give(a netip.Addr) {
	delete(l.probed, a)
	l.net.Release(a)
}

func (l *lender) Probe(a netip.Addr) {
	l.probed[a] = true
	l.net.Probe(a)
}

func (l *lender) Holder(a netip.Addr) (packet.MAC, bool) {
	if !l.probed[a] {
		return packet.MAC{}, false // known of before, which is no answer
	}
	return l.net.Holder(a)
}

// getLeases lists the leases there are.
func (n *Node) getLeases(http.ResponseWriter, *http.Request) (any, error) {
	at, list := n.residents(), []api.Lease{}
	n.dhcp.call(func() {
		for _, l := range n.dhcp.of {
			for _, b := range l.server.Bindings() {
				x := api.Lease{Network: l.name, IP: b.Addr.String(), ClientID: b.ID, Hostname: b.Name, State: b.State, Kind: "dynamic"}
				if b.Until != 0 {
					until := wallClock(b.Until)
					x.Expires = &until
				}
				if !b.MAC.IsZero() {
					x.MAC = b.MAC.String()
				}
				switch {
				case b.Fixed:
					x.Kind = "container"
				case b.Reserved:
					x.Kind = "reserved"
				}
				if c := at[b.Container]; c != nil && b.Container != 0 {
					x.Container = c.name()
				}
				list = append(list, x)
			}
		}
	})
	slices.SortStableFunc(list, func(a, b api.Lease) int {
		return compareNetworks(a.Network, b.Network)
	})
	return list, nil
}

// compareNetworks has the default network first.
func compareNetworks(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == defaultName || b != defaultName && a < b:
		return -1
	}
	return 1
}
