package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairlead/node/api"
	hosts "fairlead/test/lab"
)

// What the dead may cost.
const (
	deaths     = 20
	goneBar    = 100.0  // ms, from the signal until no table knows the container
	goneByPath = 1000.0 // ms, from the deletion of a namespace, which the kernel takes its time to carry out
)

// gone measures how long the tables remember a container that was killed: its
// command, which its init has to notice, or its init itself. The time includes
// that of asking the node, some 2 ms.
func gone() *workload {
	w := &workload{name: "gone", unit: "ms", less: true, what: "kill -9 of a container until its port, MAC and ARP entry are gone"}
	w.measure = func(l *lab, _ *options, r *results) {
		n := startNode(l)
		for _, victim := range []string{"command", "init"} {
			f := r.figure(w, victim)
			for round := range deaths {
				c := n.container(l, "victim", "")
				pid := c.Pid
				if victim == "command" {
					pid = childOf(l, c.Pid)
				}
				start := time.Now()
				l.check(syscall.Kill(pid, syscall.SIGKILL), "kill the %s of a container", victim)
				n.waitGone(l, c)
				f.add(sample{Round: round, Value: milliseconds(time.Since(start))})
				progress("%s  %d of %d  %s %.1f %s", w.name, round+1, deaths, victim, f.Samples[round].Value, w.unit)
			}
			r.atMost(f, fmt.Sprintf("worst of %d", deaths), (*figure).worst, goneBar)
		}
		f := r.figure(w, "namespace")
		for round := range deaths {
			c := n.namespace(l, "victim")
			start := time.Now()
			run(l, "ip", "netns", "delete", "victim")
			n.waitGone(l, c)
			f.add(sample{Round: round, Value: milliseconds(time.Since(start))})
			progress("%s  %d of %d  namespace %.1f %s", w.name, round+1, deaths, f.Samples[round].Value, w.unit)
		}
		r.atMost(f, fmt.Sprintf("worst of %d", deaths), (*figure).worst, goneByPath)
	}
	return w
}

// A node is a node of the bench's own, reached as users and programs do.
type node struct {
	bin string
	api *api.Client
}

// startNode starts one that stays until the lab ends.
func startNode(l *lab, options ...string) *node {
	bin := hosts.Binary(l)
	dir, err := os.MkdirTemp("", "bench-node")
	l.check(err, "make a node directory")
	l.Cleanup(func() { os.RemoveAll(dir) })
	l.check(os.Setenv("FAIRLEAD_DIR", dir), "set FAIRLEAD_DIR") // of the commands below
	run(l, bin, append([]string{"up"}, options...)...)
	l.Cleanup(func() { _ = exec.Command(bin, "down", "--all").Run() }) // also after Ctrl-C, so without l
	return &node{bin: bin, api: api.NewClient(dir)}
}

// container starts a container that greets the gateway, so that every table
// knows it, and then runs a command, or sleeps if that is empty.
func (n *node) container(l *lab, name, command string) *api.Container {
	if command == "" {
		command = "sleep 1000"
	}
	run(l, n.bin, "run", "-d", "--name", name, "--", "sh", "-c", n.bin+" probe ping -c 1 172.17.0.1 && "+command)
	return n.known(l, name, allTables)
}

// namespace makes a network namespace as `ip netns` does and connects it.
func (n *node) namespace(l *lab, name string) *api.Container {
	run(l, "ip", "netns", "add", name)
	run(l, n.bin, "network", "connect", "--name", name, "default", "netns:/run/netns/"+name)
	run(l, "ip", "netns", "exec", name, n.bin, "probe", "ping", "-c", "1", "172.17.0.1")
	return n.known(l, name, allTables)
}

// allTables is how many tables where looks into.
const allTables = 3

// known waits until a container is there and so many tables know it.
func (n *node) known(l *lab, name string, tables int) *api.Container {
	var found *api.Container
	hosts.Eventually(l, 10*time.Second, func() error {
		var cs []api.Container
		if err := n.get(l, "/v1/containers", &cs); err != nil {
			return err
		}
		i := slices.IndexFunc(cs, func(c api.Container) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("there is no container %s", name)
		}
		found = &cs[i]
		if where := n.where(l, found); len(where) < tables {
			return fmt.Errorf("container %s is only in %v", name, where)
		}
		return nil
	})
	return found
}

// waitGone waits until no table knows a container.
func (n *node) waitGone(l *lab, c *api.Container) {
	for deadline := time.Now().Add(10 * time.Second); len(n.where(l, c)) > 0; {
		if time.Now().After(deadline) {
			l.Fatalf("10 s after its end container %s is still in %v", c.Name, n.where(l, c))
		}
	}
}

// where lists the tables that know a container.
func (n *node) where(l *lab, c *api.Container) (tables []string) {
	var switches []api.Switch
	var macs []api.MAC
	var arp []api.Neighbour
	l.check(n.get(l, "/v1/switches", &switches), "ask for the ports")
	l.check(n.get(l, "/v1/macs", &macs), "ask for the MAC table")
	l.check(n.get(l, "/v1/arp", &arp), "ask for the ARP table")
	if slices.ContainsFunc(switches, func(s api.Switch) bool {
		return slices.ContainsFunc(s.Ports, func(p api.Port) bool { return p.ID == c.ID })
	}) {
		tables = append(tables, "ports")
	}
	if slices.ContainsFunc(macs, func(m api.MAC) bool { return m.MAC == c.MAC }) {
		tables = append(tables, "MAC table")
	}
	if slices.ContainsFunc(arp, func(a api.Neighbour) bool { return a.IP == c.IP }) {
		tables = append(tables, "ARP table")
	}
	return tables
}

func (n *node) get(l *lab, path string, out any) error { return n.api.Get(l.ctx, path, out) }

// run runs a command to its end.
func run(l *lab, name string, args ...string) {
	var said bytes.Buffer
	cmd := exec.CommandContext(l.ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		l.check(fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes())), "%s", strings.Join(cmd.Args, " "))
	}
}

// childOf finds the process another one started.
func childOf(l *lab, parent int) int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	l.check(err, "list the processes")
	for _, file := range stats {
		// 7 (sh) S 1 …: pid, name, state, parent; a name may hold anything.
		stat, err := os.ReadFile(file)
		if end := bytes.LastIndexByte(stat, ')'); err == nil && end > 0 {
			if f := strings.Fields(string(stat[end+1:])); len(f) > 1 && f[1] == strconv.Itoa(parent) {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				l.check(err, "read %s", file)
				return pid
			}
		}
	}
	l.check(errors.New("it has none"), "find the child of process %d", parent)
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
