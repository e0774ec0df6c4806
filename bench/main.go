// Command bench measures fairlead beside the kernel's bridge, the least a relay
// can be, what the books teach and other switches, all in the same run. It is
// built as fairlead-bench, and `fairlead bench` starts it:
//
//	fairlead bench
//	fairlead bench --quick --only tcp-1
//	fairlead bench --check --json bench.json
//
// It needs iperf3 and no rights: it makes a world of its own (test/world/maker),
// in which containers are network namespaces and nothing touches the machine.
// Other programs stand beside us where they are installed (packages.txt).
//
// # What is measured
//
// A workload is a kind of traffic, a path is what carries it between two
// containers; see workloads and paths. The paths of one workload take turns (A B
// A B …), because a machine is never twice the same: what counts is the ratio
// of two measurements that stand beside each other, a pair. A bar is met when
// the median of at least seven pairs reaches it and their lower quartile 0.93
// of it.
//
// Every path counts what it carries. A measurement that its path has not
// counted did not cross it, and is not reported.
//
// # What is fair
//
// Fairlead, the raw relay and the textbook relay are processes of this same
// program (child.go): the same Go runtime with the same number of processors,
// and CPU time that is nobody else's. Their TAPs are made by the same lines
// (link.CreateTAP, link.CreateWire) with the kernel's defaults, and so are the
// namespaces. The kernel's bridge has its defaults too, but for bridge-nf,
// which sends frames through iptables and is off. Its work is done by the
// sender's processor in softirq and is no process's time, so its CPU column is
// empty.
//
// Open vSwitch and VDE are Debian's, with their defaults, which is what their
// CPU times are of. They have links as they make them: veth pairs by packet sockets,
// whose ends on its side count for Open vSwitch, and TAPs without virtio-net headers.
// Of those only the best is measured as often as we are, but for requests: it alone
// bounds us.
//
// # The host's sockets
//
// The workloads that begin with host- stand beside what leads containers of
// plain users outside today, from Debian's packages: see leaders. Every one of
// them has a site of its own, three namespaces of one user: the container, the
// machine with the leader's process, and a host outside, which reaches the
// machine by a veth pair. So none is measured over lo, where some take
// short-cuts and no user's traffic comes from. A peer that is not installed, or
// does not start, is listed with the reason.
//
// Each has an MTU of 1500 in the container, which is what containers expect, and
// those whose figures hang on it a second one of 65520. Fairlead has 1500 only.
// Port forwarders that join two sockets make no packets, so they stand with
// those of the large MTU. A peer with less than 0.7 of its class's best is
// measured in every third round.
//
// Long and bad lines are made by a relay of the lab (lab.Relay), because
// namespaces of a plain user have no netem. There the machine itself is the
// other path, over the same relay.
//
// # Concurrency
//
// One measurement runs at a time, and all of it on the main goroutine.
//
// # Files
//
//	main.go       the world, what runs in which order
//	flags/        the command line, which `fairlead bench` knows too
//	choice.go     which workloads and paths are measured, and how long that takes
//	lab.go        how the lab's hosts are used by a program that is no test
//	paths.go      what carries traffic
//	child.go      paths that are processes
//	ways.go       paths: what was not taken
//	rps.go        paths: what is written, handed on to all processors
//	ovs.go        paths: Open vSwitch
//	vde.go        paths: VDE
//	backlog.go    paths: the kernel's bridge with a longer queue
//	turns.go      how paths are measured in turns
//	tcp.go        workload: bulk TCP
//	nat.go        workload: bulk TCP through NAT, and its paths
//	udp.go        workload: datagrams from one container to another
//	requests.go   workload: time of requests and answers, also beside bulk traffic
//	conns.go      workload: connections through NAT
//	http.go       workload: HTTP requests by wrk
//	parts.go      workloads with several figures, and what all with ends have in common
//	death.go      workload: how fast the dead are gone
//	stall.go      workload: whom that delays
//	hostileclient.go  workloads: the same beside hostile clients of the node's API
//	hostile.go    workloads: what two containers keep beside a hostile third
//	hostileproof.go  that it was hostile, and got no more than its share
//	attacker.go   what that does
//	host.go       what leads containers outside by sockets of the host
//	hostraw.go    what bounds their datagrams
//	hosttcp.go    workload: bulk TCP that way, beside peers
//	hostline.go   workload: the same over long and bad lines
//	hostudp.go    workload: datagrams, connections, requests
//	hostports.go  workload: ten thousand published ports
//	ends.go       the two ends of all but bulk TCP: processes that do jobs
//	endtcp.go     their clients and servers of TCP
//	enddatagram.go  their generator and sink of UDP
//	histogram.go  quantiles of durations
//	ports.go      workload: many ports
//	macs.go       workload: many MAC addresses
//	flows.go      workload: many flows through NAT
//	spray.go      the small frames of those three
//	attach.go     workload: time to attach a thousand ports
//	idle.go       workloads: containers that do nothing, memory
//	results.go    figures, ratios, bars
//	bars.go       what has to be reached
//	spent.go      what processors spent, and what the hypervisor took of them
//	resume.go     the JSON, and runs that go on
//	report.go     the table
//	markdown.go   the same in documents
//	svg.go        the same as charts
package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"fairlead/bench/flags"
	"fairlead/test/world/maker"
)

// options are what the flags say.
type options flags.Options

// roles are what this program does when it started itself, by the first
// argument.
var roles = map[string]func(args []string) error{"path": carry, "prober": probe, "echo": echo, "near": near, "far": far, "spin": spin, "attacker": attacker, "accomplice": accomplice}

// Exit statuses.
const (
	exitMissed      = 1   // with --check: a bar is not met. Always: something was not measured
	exitOpen        = 2   // with --check: no bar is missed, and of some nobody can tell
	exitFailure     = 125 // an error of ours
	exitInterrupted = 128 + int(syscall.SIGINT)
)

func main() {
	maker.Play()
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			exit(os.Args[1], role(os.Args[2:]))
		}
	}
	o, err := parse(os.Args[1:])
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "fairlead: bench: %v; see `fairlead bench --help`\n", err)
		os.Exit(exitFailure)
	case o.List:
		list(os.Stdout)
	case o.Show != "":
		os.Exit(o.show())
	case os.Getenv(worldVariable) == "":
		os.Exit(o.enterWorld())
	default:
		os.Exit(o.run())
	}
}

// parse reads the command line.
func parse(args []string) (*options, error) {
	set := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	set.Usage = func() {} // the error says it
	said := flags.Define(set)
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("accepts no arguments, and got %q", set.Arg(0))
	}
	if err := said.Complete(set.Changed); err != nil {
		return nil, err
	}
	o := (*options)(said)
	return o, o.validate()
}

// validate refuses what there is not.
func (o *options) validate() error {
	for _, word := range o.Only {
		if !slices.ContainsFunc(workloads, func(w *workload) bool { return strings.Contains(w.name, word) }) {
			return fmt.Errorf("--only %s: no workload's name holds that", word)
		}
	}
	for _, name := range o.Paths {
		if !isPath(name) {
			return fmt.Errorf("--paths %s: there is no such path", name)
		}
	}
	if o.Show != "" {
		return nil // outside of any world
	}
	_, err := o.folders()
	return err
}

// folders are where files are written. They have to be seen in the world, which
// begins with an empty /tmp and /run and ends with them.
func (o *options) folders() (dirs []string, err error) {
	for name, files := range map[string][]string{"json": {o.JSON}, "resume": {o.Resume}, "svg": {o.SVG}, "fill": o.Fill} {
		for _, file := range files {
			if file == "" {
				continue
			}
			dir, err := filepath.Abs(filepath.Dir(file))
			if err != nil {
				return nil, err
			}
			if _, err := os.Stat(dir); err != nil {
				return nil, fmt.Errorf("--%s %s: %w", name, file, err)
			}
			if slices.Contains(maker.Fresh, dir) {
				return nil, fmt.Errorf("--%s %s: the measurement has a %s of its own, which is gone at the end; name one in another folder", name, file, dir)
			}
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// worldVariable says that we are in a world, and whether root made it or a plain
// user.
const worldVariable = "FAIRLEAD_WORLD"

// enterWorld runs this program again in a world of its own, and ends as it does.
func (o *options) enterWorld() int {
	self, err := os.Executable()
	var w maker.World
	if err == nil {
		w.Keep, err = o.folders()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fairlead: bench: %v\n", err)
		return exitFailure
	}
	bin := os.Getenv(binaryVariable)
	if bin == "" {
		bin = filepath.Join(filepath.Dir(self), "fairlead")
	}
	w.Keep, w.Env = append(w.Keep, bin), append(w.Env, binaryVariable+"="+bin)
	restore := takeBacklog(&w)
	defer restore()
	defer lendSpreading(&w)()
	return w.Run(append([]string{self}, os.Args[1:]...)...)
}

// binaryVariable names the program whose nodes and containers are measured, for
// package lab. It lies beside this one.
const binaryVariable = "FAIRLEAD_BIN"

// exit ends a role.
func exit(role string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", role, err)
		os.Exit(exitFailure)
	}
	os.Exit(0)
}

// run measures what was chosen, prints the table and returns the exit status.
// An interrupted run prints what it has.
func (o *options) run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	inheritBacklog()
	inheritSpreading()
	res, err := newResults(o), error(nil)
	if o.Resume != "" {
		err = res.resume(o.Resume)
	}
	if err == nil {
		err = o.measure(ctx, res)
	}
	endProgress()
	if err == nil || len(res.Figures) > 0 { // also those that could not be written
		res.print(os.Stdout)
	}
	if err == nil && ctx.Err() == nil { // a part would take the whole's place
		err = o.publish(res)
	}
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "fairlead: bench: %v\n", err)
		return exitFailure
	case ctx.Err() != nil:
		return exitInterrupted
	case len(res.Failures) > 0:
		return exitMissed
	case o.Check:
		return res.check(os.Stderr)
	}
	return 0
}

// show prints what was measured some other time, and returns the exit status.
func (o *options) show() int {
	res, err := readResults(o.Show)
	if err == nil {
		res.print(os.Stdout)
		err = o.publish(res)
	}
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "fairlead: bench: %v\n", err)
		return exitFailure
	case o.Check:
		return res.check(os.Stderr)
	}
	return 0
}

// measure measures the chosen workloads that are not complete. What there is is
// written after each, so that whatever ends us costs one workload.
func (o *options) measure(ctx context.Context, res *results) error {
	ws := slices.DeleteFunc(o.chosen(), func(w *workload) bool { return res.has(w.name) })
	res.skipPaths(o)
	left := o.expected(ws)
	fmt.Fprintf(os.Stderr, "%s, about %s.\n", counted(len(ws), "workload"), about(left))
	for i, w := range ws {
		progress("%s  %d of %d, about %s to go", w.name, i+1, len(ws), about(left))
		l := &lab{ctx: ctx, name: w.name}
		since, start := watchTheft(), time.Now()
		res.running = w.name
		err := l.do(func() { w.measure(l, o, res) })
		res.Took[w.name] = math.Round(time.Since(start).Seconds())
		res.end(w, since.until(watchTheft()), err)
		if file := cmp.Or(o.Resume, o.JSON); file != "" {
			if err := res.writeJSON(file); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			break
		}
		left -= w.expected(o)
	}
	return nil
}

// publish draws the charts and fills the documents.
func (o *options) publish(res *results) error {
	if o.SVG != "" {
		if err := res.writeSVG(o.SVG); err != nil {
			return err
		}
	}
	return res.fillFiles(o.Fill)
}

// about is a time as people say it who do not know exactly.
func about(d time.Duration) string {
	if d < 90*time.Second {
		return counted(int(d.Round(10*time.Second)/time.Second), "second")
	}
	return counted(int((d+30*time.Second)/time.Minute), "minute")
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
