package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	hosts "fairlead/test/lab"
)

// What attaching a port may cost on a node with a thousand. Each is held to it but one
// of twenty: that one shares the processors with whatever else runs on the machine and
// its host. Beside the bar stands the worst of all.
const (
	attachBar = 2.0  // ms: the node's part of `run`
	byPathBar = 25.0 // ms: `network connect NETWORK netns:PATH`, of which 15 are the kernel's for moving a TAP
)

// manyAttached is how many ports the node has when nobody watches forwarding any more.
// Before that comes a hundred while nothing else happens, and behind it another.
const manyAttached, aHundred = 1000, 100

// attach measures what it takes to hang containers on a node until it has a
// thousand, whether forwarding stands still meanwhile, and what memory they take.
//
// Of `run` it is the node's part: the request that reserves a name and an
// address, and the one that hands the descriptors over, as `run` makes them. The
// TAPs are real, and all in one namespace; the init is one process for all, which
// has said in advance that its link is in order.
func attach() *workload {
	w := &workload{name: "scale-attach", unit: "ms", less: true, what: "the node's part of `run` at 1,000 ports, a hundred more; the first hundred beside them, and those in between, which came while two others exchanged frames"}
	part := func(name, unit, what string) *workload {
		return &workload{name: w.name + "-" + name, unit: unit, less: true, what: what}
	}
	stall := part("stall", "ms", "longest pause of forwarding between two containers while nine hundred come, in each part of that time, beside the same time without")
	byPath := part("path", "ms", "`fairlead network connect` by the path of a namespace, the whole command, at 1,000 ports; peers as long as they take to start for one")
	memory := part("mem", "MB", "resident memory of the node at 1,000 ports")
	w.takes = func(o *options) time.Duration {
		return 40*time.Second + time.Duration(3*o.Pairs*o.Seconds)*time.Second + o.takeAttachPeers()
	}
	w.measure = func(l *lab, o *options, r *results) {
		n := startNode(l)
		self, err := os.Executable()
		l.check(err, "find this program")
		echo := n.container(l, "echo", "exec "+self+" echo")
		c := newCrowd(l, n)
		first, between, last := r.figure(w, "fairlead-first"), r.figure(w, "fairlead-between"), r.figure(w, "fairlead")
		c.attachMore(l, aHundred, first)
		quiet, busy, bare := r.figure(stall, "quiet"), r.figure(stall, "attaching"), r.figure(stall, "raw")
		relay, unwatched := layBare(l), map[*figure]int{}
		const windows = 4
		window := time.Duration(o.Seconds) * time.Second / windows
		for round := range o.Pairs {
			until := aHundred + (manyAttached-aHundred)*(round+1)/o.Pairs
			worst := func(of *figure, prober prober, more func() (have int)) float64 {
				have := 0
				pauses := prober(l, window, windows, func(int) {
					for end := time.Now().Add(window); time.Now().Before(end) && have < until; {
						have = more()
					}
				})
				for ; have < until; have = more() { // those for which there was no time
					unwatched[of]++
				}
				for i, p := range pauses {
					of.add(sample{Round: round*windows + i, Value: p})
				}
				return slices.Max(pauses)
			}
			still := worst(quiet, n.prober(echo.IP), func() int { return until })
			moving := worst(busy, n.prober(echo.IP), func() int { return c.attachUpTo(l, until) })
			worst(bare, relay.prober(), func() int { return relay.makeUpTo(l, until) })
			progress("%s  round %d of %d  %d ports, pauses of %.2f ms, of %.2f when quiet", w.name, round+1, o.Pairs, until, moving, still)
		}
		bare.Note = "what comes of making as many TAPs beside a relay that only reads and writes"
		if n := unwatched[busy]; n > 0 {
			busy.Note = fmt.Sprintf("%d of the ports came when nobody watched, because there was no time", n)
		}
		r.noLonger(busy, quiet)
		if unwatched[busy] > 0 {
			r.last().doubt(busy.Note)
		}
		for i, took := range c.took[aHundred:] {
			between.add(sample{Round: i, Value: took})
		}
		f := r.figure(memory, "fairlead")
		bytes, err := resident(n.pid(l))
		l.check(err, "ask for the node's memory")
		f.add(sample{Value: bytes / 1e6})
		c.attachMore(l, aHundred, last)
		r.eachAtMost(last, attachBar)

		f = r.figure(byPath, "fairlead")
		for i := range morePorts {
			name := fmt.Sprintf("path%d", i)
			run(l, "ip", "netns", "add", name)
			l.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
			start := time.Now()
			run(l, n.bin, "network", "connect", "--name", name, "default", "netns:/run/netns/"+name)
			f.add(sample{Round: i, Value: milliseconds(time.Since(start))})
		}
		moved := r.figure(byPath, "raw")
		moved.Note = "a TAP made in one namespace and moved into another, and nothing else"
		for i := range morePorts {
			moved.add(sample{Round: i, Value: c.move(l, fmt.Sprintf("moved%d", i))})
		}
		r.eachAtMost(f, byPathBar)
		attachPeers(l, o, r, byPath)
	}
	return w
}

// How often ways to attach are measured, and what one takes at most.
const (
	morePorts, onePortMore = 20, 100 * time.Millisecond
	leadTimes, leads       = 3, time.Second
)

// attachLeaders are the leaders that stand beside `network connect`.
var attachLeaders = []string{"slirp-1500", "pasta-1500"}

// takeAttachPeers is how long the peers take.
func (o *options) takeAttachPeers() (d time.Duration) {
	d = time.Duration(o.installedSwitches()) * (laying + morePorts*onePortMore)
	for _, name := range attachLeaders {
		if o.measuresLeader(leaderNamed(name)) {
			d += leadTimes * leads
		}
	}
	return d
}

// attachPeers measures how long a peer takes until one container is led outside,
// and the kernel's bridge and other switches until they have one more port.
func attachPeers(l *lab, o *options, r *results, w *workload) {
	f := r.figure(w, "kernel")
	h, other := silentHost(l, "bridge"), silentHost(l, "container")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	br := &netlink.Bridge{LinkAttrs: attrs}
	l.check(h.Netlink.LinkAdd(br), "make a bridge")
	for i := range morePorts {
		start := time.Now()
		l.check(addPort(l, h, br, other, fmt.Sprintf("port%d", i)), "add a port to the bridge")
		f.add(sample{Round: i, Value: milliseconds(time.Since(start))})
	}
	for _, p := range paths {
		if len(p.programs) == 0 || !o.measures(p) {
			continue
		}
		f := r.figure(w, p.name)
		once := &lab{ctx: l.ctx, name: l.name, attempted: true}
		err := once.do(func() {
			c := layCable(once, p)
			for i := range morePorts {
				one := silentHost(once, fmt.Sprintf("%s-more%d", p.name, i))
				start := time.Now()
				c.more(once, one, fmt.Sprintf("more%d", i))
				f.add(sample{Round: i, Value: milliseconds(time.Since(start))})
			}
		})
		if err != nil {
			l.check(nil, "%s", p.name) // which ends here when it was interrupted
			r.notRun(w, p.name, err)
		}
	}
	for _, name := range attachLeaders {
		p := leaderNamed(name)
		if !o.measuresLeader(p) {
			continue
		}
		f := r.figure(w, name)
		for i := range leadTimes {
			once := &lab{ctx: l.ctx, name: l.name, attempted: true}
			err := once.do(func() {
				bare := *p
				var start time.Time
				bare.lay = func(s *site, l *lab) {
					start = time.Now()
					p.lay(s, l)
				}
				laySite(once, &bare, "", nil)
				f.add(sample{Round: i, Value: milliseconds(time.Since(start))})
			})
			if err != nil {
				r.notRun(w, name, err)
				break
			}
		}
	}
}

// pid is the node's process.
func (n *node) pid(l *lab) int {
	out, err := exec.CommandContext(l.ctx, n.bin, "version", "--json").Output()
	l.check(err, "ask for the node's process")
	var version struct{ Node struct{ Pid int } }
	l.check(json.Unmarshal(out, &version), "ask for the node's process")
	return version.Node.Pid
}

// Attached are containers that hang on a node, and how long that took it.
type attached struct {
	node *node
	host *hosts.Host
	init int       // a pidfd
	pid  int       // its process
	took []float64 // ms
}

// newCrowd makes a namespace for containers that have only a link.
func newCrowd(l *lab, n *node) *attached {
	c := &attached{node: n, host: silentHost(l, "containers")}
	c.pid = c.host.Serve(l, "sleep", "100000").Pid()
	var err error
	c.init, err = unix.PidfdOpen(c.pid, 0)
	l.check(err, "open a process")
	l.Cleanup(func() { unix.Close(c.init) })
	l.Cleanup(func() { deleteGroup(c.host, idleGroup) })
	return c
}

// attachUpTo hangs one more container on the node, if it has not so many, and returns
// how many it has.
func (c *attached) attachUpTo(l *lab, most int) int {
	if len(c.took) < most {
		c.attach(l)
	}
	return len(c.took)
}

// attachMore hangs so many more on the node while nothing else happens, and notes how
// long each took.
func (c *attached) attachMore(l *lab, more int, f *figure) {
	for i := range more {
		c.attach(l)
		f.add(sample{Round: i, Value: c.took[len(c.took)-1]})
	}
}

// idleTAP makes a TAP on a host, up and silent, that goes with all of its group.
func idleTAP(l *lab, h *hosts.Host, name string) (fd, index int) {
	fd = hosts.In(l, h, func() (int, error) {
		f, err := createTAP(name)
		if err != nil {
			return -1, err
		}
		defer f.Close()
		return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	})
	link, err := h.Netlink.LinkByName(name)
	l.check(err, "find a TAP")
	l.check(h.Netlink.LinkSetGroup(link, idleGroup), "put a TAP into a group")
	l.check(h.Netlink.LinkSetUp(link), "set a TAP up")
	return fd, link.Attrs().Index
}

// move makes a TAP and moves it to the containers, and returns how long that took in
// milliseconds: the kernel's part of `network connect` by a path.
func (c *attached) move(l *lab, name string) float64 {
	nursery := silentHost(l, "nursery")
	start := time.Now()
	tap := hosts.In(l, nursery, func() (*os.File, error) { return createTAP(name) })
	defer tap.Close()
	link, err := nursery.Netlink.LinkByName(name)
	l.check(err, "find a TAP")
	l.check(nursery.Netlink.LinkSetNsPid(link, c.pid), "move a TAP")
	return milliseconds(time.Since(start))
}

// Bare is a relay that only reads and writes, while TAPs are made beside it.
type bare struct {
	*cable
	host *hosts.Host
	taps []int
}

func layBare(l *lab) *bare {
	i := slices.IndexFunc(paths, func(p *path) bool { return p.name == "raw" })
	b := &bare{cable: layCable(l, paths[i]), host: silentHost(l, "bare")}
	self, err := os.Executable()
	l.check(err, "find this program")
	b.ends[1].Serve(l, self, "echo")
	l.Cleanup(func() {
		deleteGroup(b.host, idleGroup)
		for _, fd := range b.taps {
			unix.Close(fd)
		}
	})
	return b
}

// prober looks for pauses of the relay.
func (b *bare) prober() prober {
	return proberIn(b.server.Addr().String(), func(l *lab, name string, args ...string) probing {
		cmd := b.ends[0].Command(l.ctx, name, args...)
		cmd.Stderr = os.Stderr
		return cmd
	})
}

// makeUpTo makes one more TAP, if there are not so many, and returns how many there are.
func (b *bare) makeUpTo(l *lab, most int) int {
	if len(b.taps) < most {
		fd, _ := idleTAP(l, b.host, "tap"+strconv.Itoa(len(b.taps)))
		b.taps = append(b.taps, fd)
	}
	return len(b.taps)
}

// attach hangs one more container on the node.
func (c *attached) attach(l *lab) {
	i := len(c.took)
	tap, index := idleTAP(l, c.host, "tap"+strconv.Itoa(i))
	defer unix.Close(tap)
	ours, theirs, err := box.Pair()
	l.check(err, "make a channel")
	defer unix.Close(theirs)
	channel, err := box.NewChannel(ours)
	l.check(err, "make a channel")
	l.Cleanup(func() { channel.Close() })
	l.check(channel.Send(&box.Message{Linked: true}), "speak for init")

	start := time.Now()
	var created api.Created
	l.check(c.node.api.Post(l.ctx, "/v1/containers", &api.CreateRequest{Name: fmt.Sprintf("crowd%d", i), Command: []string{"sleep"}}, &created), "create a container")
	l.check(c.node.api.Hand(l.ctx, "/v1/containers/"+created.ID+"/attach", &api.Attach{
		Descriptors: []string{"init", "channel", "tap"}, Pid: c.pid, Interface: "eth0", Index: index, PeerNetns: -1,
	}, []int{c.init, theirs, tap}), "attach a container")
	c.took = append(c.took, milliseconds(time.Since(start)))
}
