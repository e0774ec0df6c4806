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

// What attaching a port may cost on a node with a thousand.
const (
	attachBar = 2.0  // ms: the node's part of `run`
	byPathBar = 25.0 // ms: `network connect NETWORK netns:PATH`, of which 16 are the kernel's for moving a TAP
)

// manyAttached is how many ports the node has in the end.
const manyAttached = 1000

// attach measures what it takes to hang containers on a node until it has a
// thousand, whether forwarding stands still meanwhile, and what memory they take.
//
// Of `run` it is the node's part: the request that reserves a name and an
// address, and the one that hands the descriptors over, as `run` makes them. The
// TAPs are real, and all in one namespace; the init is one process for all, which
// has said in advance that its link is in order.
func attach() *workload {
	w := &workload{name: "scale-attach", unit: "ms", less: true, what: "the node's part of `run`, the last hundred of 1,000 ports; the first hundred beside them"}
	part := func(name, unit, what string) *workload {
		return &workload{name: w.name + "-" + name, unit: unit, less: true, what: what}
	}
	stall := part("stall", "ms", "longest pause of forwarding between two containers while the thousand come, beside the same time without")
	byPath := part("path", "ms", "`fairlead network connect` by the path of a namespace, the whole command, at 1,000 ports; peers as long as they take to start for one")
	memory := part("mem", "MB", "resident memory of the node at 1,000 ports")
	w.takes = func(o *options) time.Duration { return 40*time.Second + time.Duration(2*o.Pairs*o.Seconds)*time.Second }
	w.measure = func(l *lab, o *options, r *results) {
		n := startNode(l)
		self, err := os.Executable()
		l.check(err, "find this program")
		echo := n.container(l, "echo", "exec "+self+" echo")
		c := newCrowd(l, n)
		first, last := r.figure(w, "fairlead-first"), r.figure(w, "fairlead")
		quiet, busy, more := r.figure(stall, "quiet"), r.figure(stall, "attaching"), r.figure(stall, "difference")
		const windows = 4
		window := time.Duration(o.Seconds) * time.Second / windows
		for round := range o.Pairs {
			still := slices.Max(n.pauses(l, echo.IP, window, windows, func(int) {}))
			until := manyAttached * (round + 1) / o.Pairs
			moving := slices.Max(n.pauses(l, echo.IP, window, windows, func(i int) {
				for end := time.Now().Add(window); time.Now().Before(end) && len(c.took) < until; {
					c.attach(l)
				}
			}))
			for len(c.took) < until {
				c.attach(l)
			}
			quiet.add(sample{Round: round, Value: still})
			busy.add(sample{Round: round, Value: moving})
			more.add(sample{Round: round, Value: moving - still})
			progress("%s  round %d of %d  %d ports, pauses of %.2f ms, of %.2f when quiet", w.name, round+1, o.Pairs, until, moving, still)
		}
		more.Note = "worst of a round with attaching less worst without: no finer than the pauses of quiet"
		r.atMost(more, "median", more.Value.Median, stallBar)
		for i := range 100 {
			first.add(sample{Round: i, Value: c.took[i]})
			last.add(sample{Round: i, Value: c.took[len(c.took)-100+i]})
		}
		r.atMost(last, "median of the last hundred", last.Value.Median, attachBar)
		f := r.figure(memory, "fairlead")
		bytes, err := resident(n.pid(l))
		l.check(err, "ask for the node's memory")
		f.add(sample{Value: bytes / 1e6})

		f = r.figure(byPath, "fairlead")
		for i := range 20 {
			name := fmt.Sprintf("path%d", i)
			run(l, "ip", "netns", "add", name)
			l.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
			start := time.Now()
			run(l, n.bin, "network", "connect", "--name", name, "default", "netns:/run/netns/"+name)
			f.add(sample{Round: i, Value: milliseconds(time.Since(start))})
		}
		r.atMost(f, "median", f.Value.Median, byPathBar)
		attachPeers(l, o, r, byPath)
	}
	return w
}

// attachPeers measures how long a peer takes until one container is led outside,
// and the kernel until its bridge has one more port.
func attachPeers(l *lab, o *options, r *results, w *workload) {
	f := r.figure(w, "kernel")
	h, other := silentHost(l, "bridge"), silentHost(l, "container")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	br := &netlink.Bridge{LinkAttrs: attrs}
	l.check(h.Netlink.LinkAdd(br), "make a bridge")
	for i := range 20 {
		start := time.Now()
		l.check(addPort(l, h, br, other, fmt.Sprintf("port%d", i)), "add a port to the bridge")
		f.add(sample{Round: i, Value: milliseconds(time.Since(start))})
	}
	for _, name := range []string{"slirp-1500", "pasta-1500"} {
		p := leaderNamed(name)
		if !o.measuresLeader(p) {
			continue
		}
		f := r.figure(w, name)
		for i := range 3 {
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

// attach hangs one more container on the node.
func (c *attached) attach(l *lab) {
	i := len(c.took)
	tap := hosts.In(l, c.host, func() (int, error) {
		f, err := createTAP("tap" + strconv.Itoa(i))
		if err != nil {
			return -1, err
		}
		defer f.Close()
		return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	})
	defer unix.Close(tap)
	link, err := c.host.Netlink.LinkByName("tap" + strconv.Itoa(i))
	l.check(err, "find a TAP")
	l.check(c.host.Netlink.LinkSetGroup(link, idleGroup), "put a TAP into a group")
	l.check(c.host.Netlink.LinkSetUp(link), "set a TAP up")
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
		Descriptors: []string{"init", "channel", "tap"}, Pid: c.pid, Interface: "eth0", Index: link.Attrs().Index, PeerNetns: -1,
	}, []int{c.init, theirs, tap}), "attach a container")
	c.took = append(c.took, milliseconds(time.Since(start)))
}
