package test

import (
	"testing"

	"fairlead/test/lab"
)

// A node that is given the address another node has on the same network is told
// so, by whose MAC it is, and the other one goes on.
func TestUplinkAddressOfAnotherNode(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	lab.Need(t, "ip")
	lan := lab.NewHost(t, "lan")
	lan.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	lan.Up(t, "br0")
	for _, tap := range []string{"up0", "up1"} {
		lan.AddTAP(t, tap)
		lan.Run(t, "ip", "link", "set", tap, "master", "br0")
	}
	first, second := newNode(t), newNode(t)
	set := func(n *node, tap string) (string, int) {
		return n.on(lan, "network", "set", "default", "--uplink", "tap:"+tap+",ip=192.0.2.2/24")
	}
	if out, status := set(first, "up0"); status != 0 {
		t.Fatal(out)
	}
	mac := first.uplink("up0").MAC
	out, status := set(second, "up1")
	if err := contains(out, "uplink up1: 192.0.2.2 is in use by "+mac+"; "); err != nil || status != 125 {
		t.Errorf("exit status %d, %v", status, err)
	}
	set(first, "up0")
	if up := first.uplink("up0"); up.State != "up" || up.MAC != mac {
		t.Errorf("%+v", up)
	}
}
