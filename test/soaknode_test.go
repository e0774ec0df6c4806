package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairlead/test/lab"
)

// What happens to the node itself in a soak.

// standStill stops the node for a moment, as a machine that swaps or a virtual one
// that is moved does: to it all clocks jump, and what was to happen in the
// meantime is due at once.
func (s *soak) standStill() bool {
	pid, moment := s.nodePid(), time.Duration(s.rng.IntN(1500))*time.Millisecond
	s.note(fmt.Sprintf("the node stands still for %v", moment))
	kill(s.t, pid, syscall.SIGSTOP)
	time.Sleep(moment)
	kill(s.t, pid, syscall.SIGCONT)
	return true
}

// mostJump is how far the clock of one node may be from that of the next.
const mostJump = 30 * 24 * time.Hour

// killTheNode has the next one adopt the containers. What they say to one another
// goes on. Half of the time the monotonic clock jumps, forward or back: the next
// node is in a time namespace of its own (time_namespaces(7)).
func (s *soak) killTheNode() bool {
	if !s.kills() {
		return false
	}
	jump := time.Duration(0)
	if s.rng.IntN(2) == 0 {
		jump = time.Duration(s.rng.Int64N(int64(mostJump)))
	}
	s.note(fmt.Sprintf("kill -9 of the node; the next one's clock is off by %v", jump.Truncate(time.Second)))
	s.judgeMemory()
	s.memory = nil
	s.begun()
	disturb(&s.ways)
	s.killNode()
	s.upIn("unshare", "-T", "--monotonic", strconv.Itoa(int(jump.Seconds())), "--fork")
	s.followLog()
	if !s.byHost() {
		s.uplinks(s.Router.Spec())
	}
	return true
}

// upIn starts a node where the one before was, by way of a command.
func (s *soak) upIn(command ...string) {
	s.t.Helper()
	args := append(command, s.bin, "up")
	if s.byHost() {
		args = append([]string{"FAIRLEAD_DIR=" + s.dir, "PATH=" + filepath.Dir(s.bin) + ":" + os.Getenv("PATH")}, args...)
		s.Machine.Run(s.t, "env", args...)
		return
	}
	cmd := s.command(s.t.Context())
	cmd.Path, cmd.Args = "/usr/bin/env", append([]string{"env"}, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// refusedReplace is how often a replacement has come to nothing, in the histogram.
const refusedReplace = "replace the node: refused, and tried again"

// replaceTheNode has another node take the place of the one that runs, in the midst
// of traffic. Of that nothing is lost but what is just beginning or ending by the sockets
// of the host. If it is refused, that one goes on. The clock of the other node is that of the host.
func (s *soak) replaceTheNode() bool {
	if !s.kills() {
		return false
	}
	s.note("fairlead up --replace")
	s.judgeMemory()
	s.memory = nil
	s.begun()
	if s.byHost() {
		disturb(&s.ways)
	}
	lab.Eventually(s.t, patience, func() error {
		err := s.tryReplace() // it may take too long on a busy machine
		if err != nil && !strings.Contains(err.Error(), "goes on") {
			s.t.Fatal(err)
		}
		if err != nil {
			s.done[refusedReplace]++
		}
		return err
	})
	return true
}
