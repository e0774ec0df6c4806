// Command bench measures fairlead beside the kernel's bridge, the least a relay
// can be and what the books teach, all in the same run:
//
//	go run ./bench
//	go run ./bench -quick -only tcp-1
//	go run ./bench -check -json bench.json
//
// It needs iperf3 and no rights: it makes a world of its own (test/world), in
// which containers are network namespaces and nothing touches the machine.
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
//	main.go       flags, the world, what runs in which order
//	lab.go        how the lab's hosts are used by a program that is no test
//	paths.go      what carries traffic
//	child.go      paths that are processes
//	tcp.go        workload: bulk TCP
//	nat.go        workload: bulk TCP through NAT, and its paths
//	death.go      workload: how fast the dead are gone
//	stall.go      workload: whom that delays
//	host.go       what leads containers outside by sockets of the host
//	hosttcp.go    workload: bulk TCP that way, beside peers
//	hostline.go   workload: the same over long and bad lines
//	hostudp.go    workload: datagrams, connections, requests
//	hostports.go  workload: ten thousand published ports
//	ends.go       the two ends of those: small clients and servers
//	results.go    figures, ratios, bars
//	report.go     the table and the JSON
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// options are what the flags say.
type options struct {
	only    string
	paths   string
	pairs   int
	seconds int
	quick   bool
	check   bool
	json    string
}

// roles are what this program does when it started itself, by the first
// argument.
var roles = map[string]func(args []string) error{"path": carry, "prober": prober, "echo": echo, "near": near, "far": far}

func main() {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			exit(os.Args[1], role(os.Args[2:]))
		}
	}
	var o options
	flag.StringVar(&o.only, "only", "", "measure only workloads whose name holds one of these `WORDS`, comma between them")
	flag.StringVar(&o.paths, "paths", "", "measure only these `PATHS`, comma between them, also those that are not measured unasked")
	flag.IntVar(&o.pairs, "pairs", minPairs, "how often each path is measured; bars need seven")
	flag.IntVar(&o.seconds, "seconds", 3, "how long one measurement of throughput takes")
	flag.BoolVar(&o.quick, "quick", false, "one second each, and of the paths only fairlead, the raw relay and the kernel")
	flag.BoolVar(&o.check, "check", false, "end with status 1 when a bar is not met")
	flag.StringVar(&o.json, "json", "", "write all figures to `FILE`")
	flag.Usage = usage
	flag.Parse()
	if err := o.validate(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if os.Getenv("FAIRLEAD_WORLD") == "" {
		enterWorld() // does not return
	}
	os.Exit(o.run())
}

func usage() {
	fmt.Fprintf(os.Stderr, "Usage: go run ./bench [OPTIONS]\n\nWorkloads:\n")
	for _, w := range workloads {
		fmt.Fprintf(os.Stderr, "  %-14s %s\n", w.name, w.what)
	}
	for _, list := range []struct {
		of    string
		paths []*path
	}{{"of bulk traffic", paths}, {"through NAT", natPaths(out)}} {
		fmt.Fprintf(os.Stderr, "\nPaths %s:\n", list.of)
		for _, p := range list.paths {
			what := p.what
			if p.asked {
				what += " (only with -paths)"
			}
			fmt.Fprintf(os.Stderr, "  %-14s %s\n", p.name, what)
		}
	}
	fmt.Fprintf(os.Stderr, "\nPaths by the host's sockets:\n")
	for _, p := range leaders {
		fmt.Fprintf(os.Stderr, "  %-14s %s\n", p.name, p.what)
	}
	fmt.Fprintf(os.Stderr, "\nOptions:\n")
	flag.PrintDefaults()
}

func (o *options) validate() error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("%q is no option; see -help", flag.Arg(0))
	case o.pairs < 1 || o.seconds < 1:
		return errors.New("-pairs and -seconds are at least 1")
	case o.check && o.pairs < minPairs:
		return fmt.Errorf("-check needs at least %d pairs, else a bar cannot be met", minPairs)
	case len(o.chosen()) == 0:
		return fmt.Errorf("-only %s: no workload's name holds that; see -help", o.only)
	}
	for _, name := range split(o.paths) {
		if !slices.ContainsFunc(slices.Concat(paths, natPaths(out)), func(p *path) bool { return p.name == name }) &&
			!slices.ContainsFunc(leaders, func(p *leader) bool { return p.name == name }) {
			return fmt.Errorf("-paths: there is no path %q; see -help", name)
		}
	}
	if o.json == "" {
		return nil
	}
	var err error
	if o.json, err = filepath.Abs(o.json); err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	// The world begins with an empty /tmp and ends with it.
	for _, dir := range []string{"/tmp/", "/run/"} {
		if strings.HasPrefix(o.json, dir) && !strings.HasPrefix(o.json, wd+"/") {
			return fmt.Errorf("-json %s: bench has a %s of its own, which is gone at the end; name a file in the checkout, such as -json bench.json", o.json, dir)
		}
	}
	return nil
}

// chosen are the workloads -only names.
func (o *options) chosen() []*workload {
	var ws []*workload
	for _, w := range workloads {
		if slices.ContainsFunc(strings.Split(o.only, ","), func(word string) bool { return strings.Contains(w.name, word) }) {
			ws = append(ws, w)
		}
	}
	return ws
}

// measuresLeader reports whether a leader is measured.
func (o *options) measuresLeader(p *leader) bool {
	return o.paths == "" || slices.Contains(split(o.paths), p.name)
}

// measures reports whether a path of bulk traffic is measured.
func (o *options) measures(p *path) bool {
	if o.paths != "" {
		return slices.Contains(split(o.paths), p.name)
	}
	return !p.asked && (p.quick || !o.quick)
}

// split takes a list with commas apart.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// enterWorld starts this program again in a world of its own. `go run` builds
// both, so it is there.
func enterWorld() {
	self, err := os.Executable()
	if err == nil {
		var path string
		if path, err = exec.LookPath("go"); err == nil {
			err = syscall.Exec(path, append([]string{"go", "run", module + "/test/world", self}, os.Args[1:]...), os.Environ())
		}
	}
	fmt.Fprintln(os.Stderr, "bench: make a world of its own:", err)
	os.Exit(125)
}

// exit ends a role.
func exit(role string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", role, err)
		os.Exit(125)
	}
	os.Exit(0)
}

// module is the name in go.mod.
const module = "fairlead"

// run measures what was chosen, prints the table and returns the exit status.
// An interrupted run prints what it has.
func (o *options) run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	res := newResults(o)
	for _, w := range o.chosen() {
		l := &lab{ctx: ctx, name: w.name}
		if err := l.do(func() { w.measure(l, o, res) }); err != nil {
			res.fail(w, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	endProgress()
	res.print(os.Stdout)
	if o.json != "" {
		if err := res.writeJSON(o.json); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 125
		}
	}
	switch {
	case ctx.Err() != nil:
		return 130
	case len(res.Failures) > 0, o.check && !res.barsMet():
		return 1
	}
	return 0
}
