package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"fairlead/bench/relay"
	"fairlead/link"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/node/lockin"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// An end is what a path's process is told of one container's link, whose
// descriptor it inherits.
type end struct {
	Link linkKind
	MAC  packet.MAC
	Addr netip.Addr

	Flows int `json:",omitempty"` // of relay.Lookup
}

// crossed is what a path has carried so far.
type crossed struct {
	Frames, Bytes uint64
	spent         // of its process

	// What it has now, if it tells.
	Flows  int
	Memory float64 // bytes
}

// minus is what was carried since o.
func (c crossed) minus(o crossed) crossed {
	c.Frames, c.Bytes, c.spent = c.Frames-o.Frames, c.Bytes-o.Bytes, c.spent.minus(o.spent)
	return c
}

// A child is a running path, seen from outside.
type child struct {
	cmd    *exec.Cmd
	ask    io.WriteCloser
	answer *bufio.Reader
}

// startChild starts a path's process with the links of its ends.
func startChild(l *lab, kind string, ends []end, links []*os.File) *child {
	arg, err := json.Marshal(ends)
	l.check(err, "describe the ends of path %s", kind)
	cmd := exec.Command("/proc/self/exe", "path", kind, string(arg))
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, links
	c := &child{cmd: cmd}
	c.ask, err = cmd.StdinPipe()
	l.check(err, "start path %s", kind)
	out, err := cmd.StdoutPipe()
	l.check(err, "start path %s", kind)
	c.answer = bufio.NewReader(out)
	l.check(cmd.Start(), "start path %s", kind)
	l.Cleanup(func() {
		_ = c.ask.Close() // it ends then
		_ = cmd.Wait()
	})
	return c
}

// crossed asks the process what it has carried.
func (c *child) crossed() (n crossed, err error) {
	if _, err = fmt.Fprintln(c.ask); err != nil {
		return n, fmt.Errorf("its process is gone: %w", err)
	}
	line, err := c.answer.ReadBytes('\n')
	if err != nil {
		return n, fmt.Errorf("its process is gone: %w", err)
	}
	return n, json.Unmarshal(line, &n)
}

// carry is the path's process: it carries frames until its standard input ends
// and answers every line with its counters.
func carry(args []string) error {
	if len(args) != 2 {
		return errors.New("it is started by bench only")
	}
	var ends []end
	if err := json.Unmarshal([]byte(args[1]), &ends); err != nil {
		return err
	}
	// As the node has it, for all paths alike: one for the worker and two for
	// the rest.
	runtime.GOMAXPROCS(workers + 2)
	count, err := start(args[0], ends)
	if err == nil {
		err = lockIn(args[0])
	}
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		n := count()
		var memoryErr error
		n.spent, err = spentHere()
		n.Memory, memoryErr = resident(os.Getpid())
		if err = errors.Join(err, memoryErr); err != nil {
			return err
		}
		b, err := json.Marshal(n)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", b)
	}
	return nil
}

// lockIn has a switch of ours give up what a node does: a filter stands in front of
// each of its system calls.
func lockIn(kind string) error {
	ours := strings.HasPrefix(kind, "fairlead") || strings.HasPrefix(kind, "nat-") || kind == "flows"
	if !ours || kind == unlocked {
		return nil
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-")
	if err != nil {
		return err
	}
	_, err = lockin.Apply(lockin.On, lockin.Paths{Dir: dir})
	return errors.Join(err, os.Remove(dir))
}

// unlocked is the path that does not.
const unlocked = "fairlead-unlocked"

// workers is how many a node has.
var workers = loop.Workers()

// firstLink is the first descriptor a process inherits beside its standard
// ones.
const firstLink = 3

// start begins to carry between the inherited links and returns how to count
// what was written to them.
func start(kind string, ends []end) (count func() crossed, err error) {
	var done relay.Crossed
	count = func() crossed { return crossed{Frames: done.Frames.Load(), Bytes: done.Bytes.Load()} }
	var taps []int
	for i := range ends {
		taps = append(taps, firstLink+i)
	}
	switch kind {
	case "raw":
		go func() { exit("path", relay.Raw(taps, &done)) }()
	case "raw-queues": // of the second queues another thread
		runtime.GOMAXPROCS(2 + 2)
		go func() { exit("path", relay.Raw(taps[:2], &done)) }()
		go func() { exit("path", relay.Raw([]int{firstLink + 2, firstLink + 3}, &done)) }()
	case "raw-uring":
		go func() { exit("path", relay.Uring([2]int{firstLink, firstLink + 1}, &done)) }()
	case "raw-veth":
		go func() { exit("path", relay.Veth([2]int{firstLink, firstLink + 1}, &done)) }()
	case "raw-ring":
		go func() { exit("path", relay.Ring([2]int{firstLink, firstLink + 1}, &done)) }()
	case "raw-awake":
		go func() { exit("path", relay.Awake(taps, &done)) }()
	case "raw-trains":
		go func() { exit("path", relay.Trains([2]int{firstLink, firstLink + 1}, &done)) }()
	case "lookup":
		n := ends[0].Flows
		go func() { exit("path", relay.Lookup([2]int{firstLink, firstLink + 1}, n, &done)) }()
		return func() crossed { return crossed{Frames: done.Frames.Load(), Bytes: done.Bytes.Load(), Flows: n} }, nil
	case "textbook":
		var wires []*water.Interface
		for i := range ends {
			// As package water leaves a file it has opened: non-blocking, so
			// that the Go runtime waits for it.
			if err := unix.SetNonblock(firstLink+i, true); err != nil {
				return nil, err
			}
			wires = append(wires, &water.Interface{ReadWriteCloser: os.NewFile(uintptr(firstLink+i), "tap")})
		}
		go func() { exit("path", relay.Textbook(wires, &done)) }()
	case "datagrams":
		go func() {
			exit("path", relay.Datagrams(firstLink, firstLink+1, firstLink+2, datagramHead(ends[0]), &done))
		}()
	case "fairlead", unlocked:
		return startFairlead(workers, ends, nil)
	case "fairlead-2":
		runtime.GOMAXPROCS(2 + 2)
		return startFairlead(2, ends, nil)
	case "fairlead-join-off":
		return startFairlead(workers, ends, map[string]string{"join": "off"})
	case "fairlead-open":
		return startFairlead(workers, ends, openOptions)
	case "flows":
		return startFlows(ends)
	case "nat-out", "nat-in":
		return direction(strings.TrimPrefix(kind, "nat-")).start(ends)
	default:
		return nil, fmt.Errorf("there is no path %q", kind)
	}
	return count, nil
}

// startFairlead begins to carry between the inherited links through a switch.
func startFairlead(workers int, ends []end, options map[string]string) (count func() crossed, err error) {
	_, _, n, err := newNetworkOf(workers, options, nat.Config{})
	if err != nil {
		return nil, err
	}
	for i, e := range ends {
		queue, err := adopt(firstLink+i, e.Link)
		if err != nil {
			return nil, err
		}
		if _, err := n.Attach(e.endpoint(i, queue)); err != nil {
			return nil, err
		}
	}
	return func() crossed { return written(n.Switch().Totals()) }, nil
}

// written is what a switch or a router has carried.
func written(t vswitch.Counts) crossed { return crossed{Frames: t.Written, Bytes: t.WrittenBytes} }

// newNetwork wires a network as a node does.
func newNetwork(workers int) (*loop.Loop, *network.Router, *network.Network, error) {
	return newNetworkOf(workers, nil, nat.Config{})
}

// newNetworkOf does so with options and bounds that are not the usual ones.
func newNetworkOf(workers int, pairs map[string]string, flows nat.Config) (*loop.Loop, *network.Router, *network.Network, error) {
	l, err := loop.New(workers)
	if err != nil {
		return nil, nil, nil, err
	}
	options, err := network.ParseOptions(pairs)
	if err != nil {
		return nil, nil, nil, err
	}
	router := network.NewRouter(vswitch.NewLanes(l), flows)
	n, err := network.New(network.Config{ID: networkID, Name: "bench", Gateway: gatewayAddr, Options: options}, router)
	return l, router, n, err
}

// networkID names the one network there is.
const networkID packet.NetworkID = 1

// endpoint is how end number i hangs on a network.
func (e end) endpoint(i int, queue vswitch.Queue) network.Endpoint {
	return network.Endpoint{
		Name: fmt.Sprintf("end%d", i+1), Container: packet.ContainerID(1<<16 | i + 1),
		MAC: e.MAC, Addr: e.Addr, Queue: queue,
	}
}

// A linkKind is how an end hangs on a path.
type linkKind string

const (
	tap    linkKind = "TAP"
	wire   linkKind = "textbook wire"
	veth   linkKind = "veth pair"     // by a packet socket on an end that nobody else hears
	socket linkKind = "packet socket" // on the near end of a veth pair, as an uplink's
)

func adopt(fd int, kind linkKind) (vswitch.Queue, error) {
	switch kind {
	case wire:
		return link.AdoptWire(fd)
	case socket, veth:
		return link.AdoptPacket(fd)
	}
	return link.AdoptTAP(fd)
}
