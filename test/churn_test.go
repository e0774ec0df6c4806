package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// churned is how many containers come and go.
const churned = 200

// Two hundred short containers, some of them killed at any moment of their
// lives: no two have one address at the same time, and five seconds later the
// node's descriptors, the network namespaces, processes and files are as before.
func TestChurn(t *testing.T) {
	lab.Need(t, "flock")
	n := newNode(t)
	heart := n.beating("a", "b")
	n.run("run", "--", "true") // whatever a node opens but once is open now
	// The node outlives this part, and all else that is there before.
	t.Run("shorts", func(t *testing.T) {
		lab.NoLeaks(t)
		seed := lab.Seed(t)
		before := n.holdings()
		locks := t.TempDir()
		var clients sync.WaitGroup
		const parallel = 4
		ends := make(chan string, churned)
		start := time.Now()
		for i := range parallel {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			clients.Go(func() {
				for j := range churned / parallel {
					s := &short{n: n, t: t, rng: rng, name: fmt.Sprintf("c%d-%d", i, j), locks: locks}
					ends <- s.live()
				}
			})
		}
		clients.Wait()
		close(ends)
		fates := map[string]int{}
		for end := range ends {
			fates[end]++
		}
		t.Logf("%d containers in %v, by how they ended: %v", churned, time.Since(start), fates)
		lab.Eventually(t, 5*time.Second, func() error {
			if list := n.containers(); len(list) != 2 {
				return fmt.Errorf("%d containers are left, want a and b: %+v", len(list), list)
			}
			if left, _ := filepath.Glob(filepath.Join(n.dir, "containers", "*")); len(left) != 2 {
				return fmt.Errorf("files are left: %v", left)
			}
			return before.exceeded()
		})
	})
	heart.stop()
	n.run("run", "--", "fairlead", "probe", "ping", "-c", "1", n.containers()["b"].IP)
}

// Clients of exec are killed at any moment: what they started is hung up, and
// the container's init holds nothing of them.
func TestChurnOfExec(t *testing.T) {
	n := newNode(t)
	rng := newRNG(t)
	n.start("a", "--", "sleep", "1000")
	n.exec("a", "true")
	before := n.holdings()
	init := holdings{n.pid("a"), countDescriptors(n.pid("a"))}
	commands := []string{"sleep 1000", "exec cat", "sleep 0.01"}
	for i := range 60 {
		command := commands[i%len(commands)]
		if i%20 == 0 {
			command = "trap '' HUP; sleep 1000"
		}
		c := n.background("exec", "-i", "a", "sh", "-c", command)
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
		c.stop()
	}
	lab.Eventually(t, 5*time.Second, func() error { return errors.Join(before.exceeded(), init.exceeded()) })
	childOf(t, init.pid) // one
	if out := n.exec("a", "echo", "well"); out != "well\n" {
		t.Errorf("exec says %q", out)
	}
}

// Clients that connect a namespace somebody else made are killed at any moment:
// that leaves no interface in it and nothing on the node.
func TestChurnOfConnect(t *testing.T) {
	n := newNode(t)
	rng := newRNG(t)
	path, remove := namedNetns(t)
	defer remove()
	before := n.holdings()
	connected := 0
	leave := func() error { // there is room for one default route
		for name, c := range n.containers() {
			if c.Status == "created" {
				return fmt.Errorf("%s is still reserved", name)
			}
			connected++
			n.run("network", "disconnect", "default", name)
		}
		return nil
	}
	for i := range 40 {
		name := fmt.Sprintf("c%d", i)
		c := n.background("network", "connect", "--name", name, "--ifname", name, "default", "netns:"+path)
		select {
		case <-c.done:
		case <-time.After(time.Duration(rng.IntN(100)) * time.Millisecond):
		}
		c.stop()
		_ = leave()
	}
	lab.Eventually(t, 5*time.Second, leave)
	t.Logf("%d of 40 came to be connected", connected)
	hasNoInterface(t, openNetns(t, path))
	lab.Eventually(t, 5*time.Second, before.exceeded)
}

// A short is one container that does not live long.
type short struct {
	n     *node
	t     *testing.T
	rng   *rand.Rand
	name  string
	locks string
}

// clash is the exit status of a container whose address another one has.
const clash = 77

// live runs the container until its end and returns what that was.
func (s *short) live() string {
	// The lock on a file named by the address ends with the last process of the
	// container.
	const command = `while read -r first _; do addr=$first; done </etc/hosts # the last line's
		exec flock -n -E 77 "$0/$addr" sleep "$1"`
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	detached := s.rng.IntN(4) == 0
	args := []string{"run", "--name", s.name}
	if detached {
		args = append(args, "-d")
	}
	switch s.rng.IntN(8) {
	case 0:
		args = append(args, "--opt", wire)
	case 1:
		args = append(args, "--opt", veth)
	}
	lasts := fmt.Sprintf("%.3f", 0.02+0.05*s.rng.Float64())
	cmd := s.n.command(ctx, append(args, "--", "sh", "-c", command, s.locks, lasts)...)
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Errorf("%s: %v", s.name, err)
		return "not at all"
	}
	fate := s.end(cmd)
	_ = cmd.Wait()
	switch code := cmd.ProcessState.ExitCode(); {
	case code == clash:
		s.t.Errorf("%s got the address of a container that lives", s.name)
	case code != 0 && fate == "by itself" || strings.Contains(out.String(), "DATA RACE"):
		s.t.Errorf("%s ended with %d:\n%s", s.name, code, out.String())
	case detached:
		fate += ", detached"
	}
	return fate
}

// end ends the container at a moment of its own, or leaves that to it.
func (s *short) end(client *exec.Cmd) string {
	// Client and container take some 20 milliseconds to be there, under the race
	// detector and on a busy machine several times as many.
	moment := time.Duration(s.rng.IntN(100)) * time.Millisecond
	signal := func(sig syscall.Signal) { _ = client.Process.Signal(sig) } // it may have ended
	fate := s.rng.IntN(8)
	if fate < 5 {
		time.Sleep(moment)
	}
	switch fate {
	case 0:
		signal(syscall.SIGKILL)
		return "client killed"
	case 1:
		signal(syscall.SIGINT)
		return "client interrupted"
	case 2:
		signal(syscall.SIGTERM)
		signal(syscall.SIGINT)
		return "client terminated twice"
	case 3:
		if pid := s.pid(); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			return "init killed"
		}
		return "init to be killed was not there"
	case 4:
		ctx, cancel := contextWithPatience()
		defer cancel()
		if s.n.command(ctx, "kill", s.name).Run() == nil {
			return "fairlead kill"
		}
		return "fairlead kill too early or late"
	}
	return "by itself"
}

// pid is that of the container's init, 0 before and after it lives.
func (s *short) pid() int {
	var list []api.Container
	if err := s.n.ask("/v1/containers", &list); err != nil {
		s.t.Errorf("%s: %v", s.name, err)
	}
	for _, c := range list {
		if c.Name == s.name {
			return c.Pid
		}
	}
	return 0
}

// When run returns, its container has left: name, address and node are free for
// the next command.
func TestRunReturnsAfterTheEnd(t *testing.T) {
	n := newNodeDir(t)
	for range 10 {
		for _, mac := range []string{"02:00:00:00:00:01", "02:00:00:00:00:02"} {
			n.run("run", "--name", "same", "--ip", "172.17.0.9", "--mac", mac, "--", "true")
		}
		n.run("down")
	}
}
