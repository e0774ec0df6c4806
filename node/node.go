package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/lockin"
	"fairlead/node/network"
	vswitch "fairlead/switch"
)

// idleAfter is how long a node that was not asked to stay waits for another
// container before it ends. Commands in a row then share one node.
const idleAfter = 2 * time.Second

// Config says what a node is.
type Config struct {
	Dir     string // the node directory; see api.Dir
	Version string // of the program
	Stays   bool   // outlive the last container
	Up      api.UpRequest
	Replace bool // take the place of the node that runs

	takeover *takeover

	ResolvConf string // of this host; empty is /etc/resolv.conf

	// LockIn is what the process gives up; empty is nothing, for tests that share
	// theirs with the node.
	LockIn lockin.Mode
}

// A Node is the running process.
type Node struct {
	conf    Config
	started time.Time
	loop    *loop.Loop
	lanes   *vswitch.Lanes
	tracing tracing
	dns     *nameserver
	dhcp    *lenders

	lockedIn *lockin.Report // nil if it is not

	pace *pace // of clients' requests; see turns.go
	// Of requests that go on, of tables that are told, of published ports that are opened
	// and closed, of traces.
	goingOn, tables, moves, tracers *places

	mu         sync.Mutex // guards what follows
	stays      bool
	setup      setup
	router     *network.Router                       // changes with linking held, too
	lans       []*lan                                // the default one first, the others in the order they came
	containers map[string]*container                 // by id, and
	named      map[string]*container                 // by name; see enterLocked
	linked     map[string]map[*attachment]*container // whose attachments have links, by the names they lead to
	further    int                                   // attachments of containers beyond the first
	ids        idSpace
	ports      *portBook
	rules      []*rule // in the order they were added
	openings   uint32  // numbers of rules and links that were used
	uplinks    []*uplink
	hostWay    *network.Uplink // of the router
	listening  int             // sockets of published ports
	inherited  []inherited
	requests   int // that run
	lastUse    time.Time
	leaving    *os.File // start.lock, once the node is on its way out
	noted      bool     // what it is set up to is written down as it changes
	watching   int      // requests that go on until somebody ends them

	linking sync.Mutex // held before mu, while an uplink or the router comes or goes

	budget  budget
	closing atomic.Int64 // descriptors of what is gone, which wait to be closed
	host    *box.HostWatch

	home        *home
	listener    *controlListener
	server      *http.Server
	handed      *takeover  // while it begins in the place of another one, and may write nothing down; guarded by mu
	handing     sync.Mutex // held while another one takes its place, and at the end; guards failed
	failed      setback    // of the last that tried
	checking    sync.Mutex // held while somebody looks at what does not move; guards checked
	checked     setback    // what the last of them has cost
	replaced    atomic.Bool
	successorFD int // a pidfd of that one
	handTimes   handTimes
	down        chan struct{} // closed when the node is to end
	downOnce    sync.Once
}

// Serve runs a node until ctx ends, a signal comes, it is told to go down, or
// its last container and uplink have left and it need not stay. It returns when
// nothing of it is left.
func Serve(ctx context.Context, conf Config) error {
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup(1) has it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, ends...)
	defer stop()
	conf.ResolvConf = cmp.Or(conf.ResolvConf, "/etc/resolv.conf")
	n, err := begin(ctx, conf)
	if err != nil {
		return err
	}
	defer func() {
		if !n.replaced.Load() { // else nothing of it is ours
			n.close()
		}
	}()
	n.server = n.newServer()
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(n.listener) }()
	slog.Info("node is up", "dir", conf.Dir, "version", conf.Version, "pid", os.Getpid(),
		"workers", n.loop.NumWorkers(), "network", n.networks()[0].Config().Gateway.Masked().String())

	err = n.wait(ctx, served)
	n.handing.Lock() // who takes our place has it until that has come to something
	if n.replaced.Load() {
		n.passOn(ctx)
		return nil
	}
	slog.Info("node goes down", "containers", len(n.list()))
	n.leave()
	n.endAll()
	// Requests that wait for a container to end are answered by now.
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if n.server.Shutdown(grace) != nil {
		_ = n.server.Close()
	}
	return err
}

// giveUp gives up what the node does not need.
func giveUp(conf *Config) (*lockin.Report, error) {
	if conf.LockIn == "" {
		return nil, nil
	}
	r, err := lockin.Apply(conf.LockIn, lockin.Paths{Dir: conf.Dir, ResolvConf: conf.ResolvConf})
	if err != nil {
		return nil, fmt.Errorf("lock ourselves in: %w; without: `%s=off fairlead up`", err, lockin.Variable)
	}
	slog.Info("locked in", "mode", r.Mode, "calls", r.Calls, "landlock", r.Landlock, "capabilities", r.Capabilities, "lacks", r.Lacks)
	return &r, nil
}

// begin makes a node that has all there is for it, and is not served yet. After an
// error nothing is left of it but what was there before.
func begin(ctx context.Context, conf Config) (n *Node, err error) {
	if conf.Replace {
		return beginInPlace(ctx, conf)
	}
	home, err := claim(conf.Dir)
	if err != nil {
		return nil, err
	}
	socket, err := controlSocket()
	if err != nil {
		home.leave(nodeLock)
		return nil, err
	}
	defer socket.Close() // the listener has a copy
	back, err := home.reachAll()
	defer letGo(back)
	if err == nil {
		n, err = lockedNode(conf, home)
	}
	if err == nil {
		if n.listener, err = listen(socket, api.Socket(conf.Dir)); err != nil {
			n.release()
		}
	}
	if err != nil {
		home.leave(nodeLock)
		return nil, err
	}
	// From here on nothing may fail: what is adopted is this node's, and goes with it.
	n.adopt(back)
	n.writeDown()
	return n, nil
}

// lockedNode makes a node that has given up what it does not need.
func lockedNode(conf Config, home *home) (*Node, error) {
	locked, err := giveUp(&conf)
	if err != nil {
		return nil, err
	}
	n, err := newNode(conf, home)
	if err != nil {
		return nil, err
	}
	n.lockedIn = locked
	return n, nil
}

// beginInPlace makes one that takes the place of the one that runs. After an error that
// goes on, and the process has to end.
func beginInPlace(ctx context.Context, conf Config) (n *Node, err error) {
	t, home, err := takeOver(ctx, conf)
	if err != nil {
		return nil, err
	}
	conf.takeover = t
	if n, err = lockedNode(conf, home); err == nil {
		err = n.takePlace(t)
	}
	if err != nil {
		t.refuse(err)
		return nil, err
	}
	n.moveIn(t)
	return n, nil
}

// wait returns when the node has to end.
func (n *Node) wait(ctx context.Context, served <-chan error) error {
	tick := time.NewTicker(idleAfter / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.down:
			return nil
		case err := <-served:
			if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		case <-tick.C:
			if n.home.lost() {
				return fmt.Errorf("the node directory %s was removed, and no command finds the node any more", n.conf.Dir)
			}
			if err := n.home.turnLog(os.Stderr, mostNodeLog); err != nil {
				slog.Warn("begin a new log", "err", err)
			}
			if n.idle() {
				slog.Info("nothing left to do")
				return nil
			}
		}
	}
}

// idle decides whether the node may end by itself, and if so begins to leave.
func (n *Node) idle() bool {
	if !n.mu.TryLock() { // somebody is at work, who may be handing all over for good
		return false
	}
	defer n.mu.Unlock()
	if n.stays || len(n.containers) > 0 || n.linksLocked()+n.hostLinksLocked() > 0 || n.requests > 0 || time.Since(n.lastUse) < idleAfter {
		return false
	}
	// Somebody who is just starting or looking for a node has the lock.
	return !errors.Is(n.lockStartLocked(), syscall.EWOULDBLOCK)
}

// leaveWithin bounds how long a node that was told to end waits for somebody
// who is just looking for one.
const leaveWithin = 2 * time.Second

// leave refuses new containers, ends the traces, and keeps others from starting
// a node here before this one is gone.
func (n *Node) leave() {
	n.goDown()
	for deadline := time.Now().Add(leaveWithin); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		n.mu.Lock()
		err := n.lockStartLocked()
		n.mu.Unlock()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return // we have it, or the directory is gone, and with it all who could
		}
	}
}

// lockStartLocked takes start.lock, to keep it to the end, and refuses new
// containers.
func (n *Node) lockStartLocked() (err error) {
	if n.leaving != nil {
		return nil
	}
	if n.leaving, err = lockFile(n.home.Root, startLock, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		n.goDown()
	}
	return err
}

// isLeaving reports whether the node is on its way out.
func (n *Node) isLeaving() bool {
	select {
	case <-n.down:
		return true
	default:
		return false
	}
}

func newNode(conf Config, home *home) (*Node, error) {
	// The control plane gets two processors beside the workers.
	workers := loop.Workers()
	runtime.GOMAXPROCS(workers + 2)
	l, err := loop.New(workers)
	if err != nil {
		return nil, fmt.Errorf("start the workers: %w", err)
	}
	_, connections, _ := share()
	n := &Node{
		conf: conf, home: home, started: time.Now(), loop: l, lanes: vswitch.NewLanes(l),
		stays: conf.Stays, lastUse: time.Now(),
		containers: make(map[string]*container), named: make(map[string]*container),
		linked: make(map[string]map[*attachment]*container),
		ports:  newPortBook(), pace: newPace(),
		tables: newPlaces(maxTables), moves: newPlaces(maxMoves), tracers: newPlaces(maxWatchers), goingOn: newPlaces(connections / 2),
		down:   make(chan struct{}),
		budget: readBudget(), handed: conf.takeover,
	}
	n.handTimes = handTimes{ackWithin, workWithin, stillWithin}
	n.ports.listen, n.ports.unlisten = n.listenLocked, n.unlistenLocked
	n.host = box.WatchHost(n.hostChanged)
	first := newLan(newID(), defaultName, n.started)
	n.lans = []*lan{first}
	before, err := (*running)(nil), error(nil)
	if conf.takeover != nil {
		before = conf.takeover.Running
	} else {
		before, err = home.readRunning()
	}
	var saved *state
	if err == nil {
		saved, err = home.readState()
	}
	var leases map[string][]keptLease
	if err == nil {
		leases, err = home.readLeases()
	}
	var want setup
	if err == nil {
		want, err = readSetup(conf.Up)
	}
	if err == nil && before != nil && conf.Up.BIP == "" && len(conf.Up.Options) == 0 {
		want, err = before.setup(first)
		n.stays = n.stays || before.Stays
		if conf.takeover == nil { // else the sockets are handed over, too
			conf.Up.Names = cmp.Or(conf.Up.Names, before.Names)
		}
	}
	if err == nil {
		first.reach, err = first.reach.changed(api.NetworkRequest{Egress: conf.Up.Egress, HostLoopback: conf.Up.HostLoopback})
	}
	if err == nil {
		err = n.startDNS()
	}
	if err == nil {
		n.startDHCP(leases)
		err = n.useNames(conf.Up.Names)
	}
	if err == nil {
		n.mu.Lock() // this host's addresses may be changing already
		if !want.net.Gateway.IsValid() {
			err = n.placeDefaultLocked(&want, saved.taken())
		}
		if err == nil {
			_, err = n.setUpLocked(want)
		}
		if err == nil && before != nil {
			saved.Networks = append(saved.Networks, before.Default)
		}
		if err == nil {
			err = n.restoreLocked(saved)
		}
		if err == nil && before != nil {
			n.restoreRunningLocked(before)
			err = n.setWaysLocked()
		}
		n.mu.Unlock()
	}
	if err != nil {
		n.host.Close()
		if n.dns != nil {
			n.dns.close()
		}
		if n.dhcp != nil {
			n.dhcp.close()
		}
		_ = l.Close()
		return nil, err
	}
	n.tracing.node = n
	return n, nil
}

// close ends what newNode began, takes the node's files away and gives its
// locks up: start.lock last, so that whoever waits for it finds nothing of us.
func (n *Node) close() {
	n.release()
	files := []string{"control.sock", nodeLog, nodeLogBefore, nodeLogNext, "containers", runningFile, nodeLock}
	if n.leaving != nil { // else it is somebody's who is just starting
		files = append(files, startLock)
	}
	n.home.leave(files...)
	_ = n.leaving.Close()
}

// release ends what newNode began.
func (n *Node) release() {
	n.host.Close()
	n.dropInherited()
	n.dns.close()
	n.dhcp.close()
	for _, net := range n.networks() {
		net.Close()
	}
	n.router.Close()
	if err := n.loop.Close(); err != nil {
		slog.Error("close the workers", "err", err)
	}
}

// endAll kills all containers and waits until they are gone.
func (n *Node) endAll() {
	list := n.list()
	for _, c := range list {
		go n.kill(c) // one that is just starting is waited for
	}
	deadline := time.After(5 * time.Second)
	for _, c := range list {
		select {
		case <-c.done:
		case <-deadline:
			slog.Error("container did not end", "container", c.name())
			return
		}
	}
}

// goDown makes Serve return.
func (n *Node) goDown() { n.downOnce.Do(func() { close(n.down) }) }
