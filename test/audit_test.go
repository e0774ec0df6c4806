package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// cleanup is what every test ends with: at rest all frames are accounted for,
// then the node goes down with all containers, and nothing of it is left. Its
// log, which goes with it, must not speak of trouble.
func (n *node) cleanup() {
	n.t.Helper()
	n.followLog()
	if n.t.Failed() {
		n.t.Logf("at the end:\n%s\n%s", n.show("show", "switch", "-v"), n.show("show", "drops"))
	} else if n.runs() {
		n.audit()
	}
	for _, c := range n.clients {
		c.stop()
	}
	n.dropNetworks()
	if out := n.show("down", "--all"); out != "" {
		n.t.Errorf("fairlead down --all: %s", out)
	}
	n.judgeLogs()
	n.left()
}

// dropNetworks removes networks that were made, which would outlast the node.
func (n *node) dropNetworks() {
	n.t.Helper()
	if !n.runs() || n.show("network", "ls", "-q", "--filter", "type=custom") == "" {
		return
	}
	if list := strings.Fields(n.show("ps", "-q")); len(list) > 0 {
		n.show(append([]string{"stop", "-t", "0"}, list...)...)
	}
	n.show("network", "prune", "-f")
}

// left waits until the node has gone, and its directory with it.
func (n *node) left() {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the node directory is still there, with %s", n.listing())
		}
		return nil
	})
}

// show is the output of a call in cleanup, where nothing may end the test.
func (n *node) show(args ...string) string {
	ctx, cancel := contextWithPatience()
	defer cancel()
	out, err := n.command(ctx, args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return string(out)
}

func contextWithPatience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// listing is what lies in the node directory.
func (n *node) listing() string {
	names, _ := filepath.Glob(n.dir + "/*")
	return strings.Join(names, " ")
}

// runs reports whether a node answers.
func (n *node) runs() bool {
	_, err := os.Stat(api.Socket(n.dir))
	return err == nil && n.ask("/v1/version", new(api.VersionInfo)) == nil
}

// ask asks the node itself.
func (n *node) ask(path string, into any) error {
	ctx, cancel := contextWithPatience()
	defer cancel()
	return api.NewClient(n.dir).Get(ctx, path, into)
}

// audit waits until nothing is in flight and holds the node's counters against
// the conservation law and against the kernel's inside every container. Counters
// that are once equal were read at rest; a frame that nobody counted keeps them
// apart for good.
func (n *node) audit() {
	n.t.Helper()
	lab.Eventually(n.t, patience, func() error {
		var check api.Check
		if err := n.ask("/v1/check", &check); err != nil {
			return err
		}
		if len(check.Violations) > 0 {
			return errors.New(strings.Join(check.Violations, "\n"))
		}
		return n.compareWithKernel()
	})
}

// compareWithKernel compares each port with the interface at its other end.
func (n *node) compareWithKernel() error {
	if n.restarted {
		return nil
	}
	var switches []api.Switch
	var containers []api.Container
	var uplinks []api.Uplink
	if err := errors.Join(n.ask("/v1/switches", &switches), n.ask("/v1/containers", &containers), n.ask("/v1/uplinks", &uplinks)); err != nil {
		return err
	}
	for _, u := range uplinks {
		if err := n.compareUplink(u); err != nil {
			return err
		}
	}
	pids := map[uint64]int{} // by network namespace: a port may outlive its first container
	foreign := map[string]bool{}
	for _, c := range containers {
		foreign[c.Name] = c.Foreign != ""
		if info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", c.Pid)); err == nil {
			pids[info.Sys().(*syscall.Stat_t).Ino] = c.Pid
		}
	}
	for _, s := range switches {
		for _, p := range s.Ports {
			if foreign[p.Container] || p.Container == api.HostPort {
				continue // whoever made that namespace looks into it
			}
			pid, ok := pids[p.Netns]
			if !ok {
				return fmt.Errorf("port %d (%s): no container lives in its network namespace %d", p.Port, p.Container, p.Netns)
			}
			inside, err := kernelCounts(strconv.Itoa(pid), p.Interface)
			if err != nil {
				return err
			}
			if n.blinks && p.Kind == "veth" {
				// An interface whose peer is down soon has the discipline noop
				// (linkwatch_do_dev, dev_deactivate), and has it until a moment
				// after the peer is up again. That drops and answers NET_XMIT_CN
				// (noop_enqueue in net/sched/sch_generic.c), which a packet socket
				// takes for sent (net_xmit_errno; packet_snd in
				// net/packet/af_packet.c).
				c := p.Counts
				inside.rx, inside.rxBytes = max(inside.rx, c.Written-c.Joined), max(inside.rxBytes, c.WrittenBytes-c.JoinedBytes)
			}
			if err := agree(p, inside); err != nil {
				return err
			}
		}
	}
	return nil
}

// A tap is the other end of an uplink's cable: an interface of the lab, which
// may have counted before.
type tap struct {
	host   *lab.Host
	before kernel
}

// newTap looks at a TAP whose other end becomes an uplink.
func newTap(t *testing.T, host *lab.Host, name string) tap {
	t.Helper()
	return tap{host, lab.In(t, host, func() (kernel, error) { return kernelCounts("thread-self", name) })}
}

// compareUplink compares an uplink with its TAP in the lab.
func (n *node) compareUplink(u api.Uplink) error {
	other, ok := n.taps[u.Name]
	if !ok || u.State == "down" {
		return nil // an interface others use, too, or none any more
	}
	var there kernel
	err := other.host.Do(func() (err error) {
		there, err = kernelCounts("thread-self", u.Name)
		return err
	})
	c := u.Counts
	us := kernel{c.Written - c.Joined + other.before.rx, c.WrittenBytes - c.JoinedBytes + other.before.rxBytes, c.Read + other.before.tx, c.ReadBytes + other.before.txBytes}
	if err == nil && us != there {
		err = fmt.Errorf("uplink %s counted %+v, after %+v, the kernel at the other end %+v", u.Name, c, other.before, there)
	}
	return err
}

// agree holds a port's counters against the kernel's at the other end of its
// cable, which has to agree exactly. What was joined the kernel has seen as one. A
// textbook wire is the exception: we count
// what we read, it got every segment as a frame with headers of its own. And of
// a veth the kernel may have lost what nobody had read yet; it says how many.
func agree(p api.Port, inside kernel) error {
	c := p.Counts
	us := kernel{c.Written - c.Joined, c.WrittenBytes - c.JoinedBytes, c.Read, c.ReadBytes}
	if cut := c.WrittenSegments - c.Written; p.Kind == "wire" && cut > 0 {
		us.rx = c.WrittenSegments
		headers := inside.rxBytes - us.rxBytes
		if inside.rxBytes > us.rxBytes && headers >= cut*leastHeaders && headers <= cut*mostHeaders {
			us.rxBytes = inside.rxBytes
		}
	}
	if p.Lost > 0 && p.Kind == "veth" {
		us.tx += p.Lost
		us.txBytes = max(us.txBytes, inside.txBytes)
	}
	if us != inside {
		return fmt.Errorf("port %d (%s): the switch counted %+v, the kernel inside %+v", p.Port, p.Container, us, inside)
	}
	return nil
}

// Headers of a segment: Ethernet, IPv4 and UDP; Ethernet, IPv4 or IPv6 and TCP,
// both with all their options.
const leastHeaders, mostHeaders = 14 + 20 + 8, 14 + 60 + 60

// kernel is what the kernel counts on an interface: frames and bytes, received
// and sent, as seen from inside.
type kernel struct{ rx, rxBytes, tx, txBytes uint64 }

// kernelCounts reads them for the network namespace of a process or thread.
func kernelCounts(process, device string) (k kernel, err error) {
	text, err := os.ReadFile("/proc/" + process + "/net/dev")
	if err != nil {
		return k, err
	}
	for line := range strings.Lines(string(text)) {
		name, numbers, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != device {
			continue
		}
		var skip uint64 // errs drop fifo frame compressed multicast
		_, err := fmt.Sscan(numbers, &k.rxBytes, &k.rx, &skip, &skip, &skip, &skip, &skip, &skip, &k.txBytes, &k.tx)
		return k, err
	}
	return k, fmt.Errorf("process %s has no interface %s", process, device)
}

// followLog keeps the log of the node that runs open, because the node removes
// it when it ends.
func (n *node) followLog() {
	f, err := os.Open(filepath.Join(n.dir, "node.log"))
	if err != nil {
		return // there is no node
	}
	if n.log != nil {
		old, err1 := n.log.Stat()
		now, err2 := f.Stat()
		if err1 == nil && err2 == nil && os.SameFile(old, now) {
			f.Close()
			return
		}
		n.keepLog()
	}
	n.log = f
}

// keepLog takes what the last node has written.
func (n *node) keepLog() {
	text, err := io.ReadAll(n.log)
	if err != nil {
		n.t.Errorf("read the node's log: %v", err)
	}
	n.logs = append(n.logs, string(text))
	n.log.Close()
	n.log = nil
}

// trouble is what a healthy node does not write.
var trouble = regexp.MustCompile(`(?m)^panic:|^fatal error:|DATA RACE|^SIG[A-Z]+:| ERROR `)

func (n *node) judgeLogs() {
	n.t.Helper()
	if n.log != nil {
		n.keepLog()
	}
	for _, text := range n.logs {
		if m := trouble.FindString(text); m != "" {
			n.t.Errorf("the node's log holds %q:\n%s", m, text)
		} else if n.t.Failed() {
			n.t.Logf("the node's log:\n%s", text)
		}
	}
}
