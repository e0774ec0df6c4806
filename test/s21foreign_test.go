package test

import (
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// As pipework: a namespace somebody else made gets a further interface, with an
// address, a gateway, a MAC and a name of one's own; it is waited for; it goes
// again, and no other port notices.
func TestS21_Foreign(t *testing.T) {
	lab.Need(t, "ip", "ping", "unshare", "nsenter")
	for _, kind := range []string{"tap", "veth"} {
		t.Run(kind, func(t *testing.T) {
			n := newNode(t)
			n.run("network", "create", "--subnet", "10.21.0.0/24", "lab")
			n.start("router", "--network", "lab")
			beat := n.beating("from", "to")
			stranger := exec.Command("unshare", "-rn", "sh", "-c", "ip link set lo up; echo ready; exec cat")
			hold, err := stranger.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			said, err := stranger.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
			if line := make([]byte, 6); func() error { _, err := io.ReadFull(said, line); return err }() != nil {
				t.Fatalf("the stranger said %q", line)
			}
			pid := fmt.Sprint(stranger.Process.Pid)
			inside := func(command ...string) string {
				t.Helper()
				out, err := exec.Command("nsenter", append([]string{"-t", pid, "-U", "-n", "--preserve-credentials"}, command...)...).CombinedOutput()
				if err != nil {
					t.Errorf("%q: %v: %s", command, err, out)
				}
				return string(out)
			}
			waiting := n.background("network", "wait", "--ifname", "lab0", "pid:"+pid)
			if got := n.run("network", "connect", "--name", "there", "--ip", "10.21.0.77/24@10.21.0.1", "--ifname", "lab0", "--mac", "02:42:00:00:00:77",
				"--route", "10.99.0.0/16@10.21.0.2", "--opt", "link="+kind, "--wait", "10s", "lab", "netns:/proc/"+pid+"/ns/net"); got != "there\n" {
				t.Errorf("network connect said %q", got)
			}
			if code := waiting.wait(); code != 0 {
				t.Errorf("network wait ended with %d: %s", code, waiting.errors.String())
			}
			if err := contains(inside("ip", "-o", "addr", "show", "lab0")+inside("ip", "-o", "link", "show", "lab0"),
				"inet 10.21.0.77/24 brd 10.21.0.255", "fe80::42:ff:fe00:77/64", "link/ether 02:42:00:00:00:77", "UP,LOWER_UP"); err != nil {
				t.Error(err)
			}
			if err := contains(inside("ip", "route"), "default via 10.21.0.1 dev lab0", "10.99.0.0/16 via 10.21.0.2 dev lab0", "10.21.0.0/24 dev lab0"); err != nil {
				t.Error(err)
			}
			inside("ping", "-c", "1", "-W", "10", "10.21.0.2")
			inside("ping", "-c", "1", "-W", "10", "10.21.0.1")
			n.exec("router", "ping", "-c", "1", "-W", "10", "there")
			if p := n.port("there"); p.Kind != kind || p.Interface != "lab0" {
				t.Errorf("port %+v", p)
			}

			n.run("network", "disconnect", "lab", "there")
			lab.Eventually(t, patience, func() error {
				if out := inside("ip", "-o", "link"); strings.Contains(out, "lab0") {
					return fmt.Errorf("still there: %s", out)
				}
				return nil
			})
			// Again, and this time the namespace ends.
			n.run("network", "connect", "--name", "there", "--opt", "link="+kind, "lab", "pid:"+pid)
			_ = hold.Close()
			n.gone("there")
			beat.stop()
		})
	}
}

// Frames of a VLAN arrive with their tags, whatever the links are: of a veth the
// kernel has taken the outer one off, and says it beside the frame.
func TestS21_VLAN(t *testing.T) {
	n := newNode(t)
	kinds := map[string]string{"tap": "link=tap", "veth": veth, "wire": wire}
	for kind, opt := range kinds {
		n.ear("to-"+kind, "vlan", "--opt", opt)
	}
	vlan := uint16(100)
	for kind, opt := range kinds {
		name := "from-" + kind
		n.start(name, "--opt", opt)
		vlan++
		all := packettest.Station{MAC: packet.BroadcastMAC, IP: netip.MustParseAddr("172.17.255.255")}
		udp := packettest.UDP(n.station(name), all, 1000, 9, make([]byte, 100))
		for _, errno := range n.inject(name, "plain", [][]byte{packettest.Tagged(udp, vlan), packettest.Tagged(udp, vlan, 7)}) {
			if errno != 0 {
				t.Fatalf("%s: %v", name, errno)
			}
		}
		for to := range kinds {
			lab.Eventually(t, patience, func() error {
				return contains(n.run("logs", "to-"+to),
					fmt.Sprintf("vlan %d, p 0, ethertype IPv4", vlan), fmt.Sprintf("vlan %d, p 0, ethertype 802.1Q (0x8100), vlan 7, p 0, ethertype IPv4", vlan))
			})
		}
		if err := contains(n.run("show", "mac", "--json"), fmt.Sprintf(`"vlan": %d`, vlan)); err != nil {
			t.Error(err)
		}
	}
}
