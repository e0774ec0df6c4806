package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// looped is a node with two honest containers, a and b, and one, j, that has two
// ports, j's and k's, and joins them by a bridge of the kernel's.
func looped(t *testing.T, upArgs ...string) *node {
	t.Helper()
	lab.Need(t, "ip", "ping")
	n := newNode(t, upArgs...)
	n.start("a", quiet)
	n.start("b", quiet)
	n.start("j", quiet)
	n.run("network", "connect", "--name", "k", "--ifname", "eth1", "default", fmt.Sprintf("pid:%d", n.pid("j")))
	n.sh("j", `echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
		ip link add br0 type bridge
		ip addr flush dev eth0; ip addr flush dev eth1
		ip link set eth0 master br0; ip link set eth1 master br0
		ip link set br0 address 02:42:ac:11:00:04; ip addr add 172.17.0.4/16 dev br0; ip link set br0 up`)
	return n
}

// round has j ask for somebody who is not there: without a loop guard that question
// goes round for ever, under guard, too, because the bridge has j's own MAC.
func (n *node) round() { n.sh("j", "! ping -c 1 -W 0.2 172.17.0.200") }

// stormFrames bounds what is flooded until a port is blocked. The guard looks after 32
// floods and its probe waits behind what goes round by then, so it is some dozen; a
// second of a storm is tens of thousands.
const stormFrames = 2000

// Two ports that are joined behind our back are found, and one of them is blocked,
// whatever guard is on: the storm is over, an event names the port, the others talk.
// All of that is so while the ports are still joined, as long as one is blocked: where
// that time is up before all was looked at, there is another round.
func TestS38_Loop(t *testing.T) {
	for _, guard := range []string{"on", "off"} {
		t.Run("guard="+guard, func(t *testing.T) {
			n := looped(t, "--opt", "guard="+guard)
			lab.Eventually(t, patience, func() error {
				n.round()
				blocked := n.blockedPort()
				if blocked == nil {
					return errors.New("no port is blocked:\n" + n.run("show", "switch", "-v"))
				}
				n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.3")
				n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
				n.over()
				if still := n.blockedPort(); still == nil || still.Blocked > blocked.Blocked {
					return errors.New("it has been open meanwhile")
				}
				other := map[string]string{"j": "k", "k": "j"}[blocked.Container]
				if other == "" || blocked.BlockedFrom != n.port(other).Port {
					t.Fatalf("blocked is %s, because of port %d", blocked.Container, blocked.BlockedFrom)
				}
				return contains(n.nodeLog(), "two ports are joined, one is blocked", "container="+blocked.Container, "joined_container="+other)
			})
			storms := strings.Count(n.nodeLog(), "two ports are joined, one is blocked")
			if flooded := n.theSwitch().Totals.Flooded; flooded > uint64(storms*stormFrames) {
				t.Errorf("%d frames flooded until a port was blocked, %d times", flooded, storms)
			} else {
				t.Logf("%d frames flooded, and a port blocked %d times", flooded, storms)
			}
			if err := contains(n.run("show", "drops"), "loop  ", "leads back to this switch by another one"); err != nil {
				t.Error(err)
			}
			n.ruled("guard", "loop")
			n.run("network", "disconnect", "default", "k") // the loop is gone for good, and with it the storm
			n.over()
		})
	}
}

// blockedPort is the one the loop guard blocks now, nil if there is none.
func (n *node) blockedPort() *api.Port {
	n.t.Helper()
	for _, p := range n.theSwitch().Ports {
		if p.Blocked > 0 {
			return &p
		}
	}
	return nil
}

// nodeLog is what the node has written.
func (n *node) nodeLog() string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "node.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// over waits until nothing is flooded any more.
func (n *node) over() {
	n.t.Helper()
	before := ^uint64(0)
	lab.Eventually(n.t, patience, func() error {
		was, now := before, n.theSwitch().Totals.Flooded
		if before = now; now != was {
			return fmt.Errorf("%d frames flooded, %d a moment ago", now, was)
		}
		return nil
	})
}

// With the loop guard off the loop stays, for who wants to see one.
func TestS38_LoopGuardOff(t *testing.T) {
	n := looped(t, "--opt", "guard=off", "--opt", "loop-guard=off")
	n.round()
	lab.Eventually(t, patience, func() error {
		if flooded := n.theSwitch().Totals.Flooded; flooded < 2000 {
			return fmt.Errorf("%d frames flooded", flooded)
		}
		return nil
	})
	if words := n.run("show", "switch", "-v"); !strings.Contains(words, "loop guard no") || strings.Contains(words, "blocked") {
		t.Errorf("show switch -v:\n%s", words)
	}
	n.run("network", "disconnect", "default", "k")
	n.over()
}
