package network

import (
	"errors"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// TestSocketsAreAnUplink: host sockets have a segment, a route and counters as a
// raw uplink has, and go as one does.
func TestSocketsAreAnUplink(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 1)
	web := attach(t, n, 1<<16|1)
	u, err := n.router.AddSockets(SocketsConfig{Name: "host"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.router.Close)
	if u.Sockets() == nil || u.Config().Name != "host" {
		t.Errorf("%+v", u.Config())
	}
	if _, err := n.router.AddSockets(SocketsConfig{Name: "host"}); err == nil {
		t.Error("there are two of one name")
	}
	if err := n.SetUplinks("host"); err != nil {
		t.Fatal(err)
	}
	routes := n.Routes()
	if r := routes[len(routes)-1]; r.Prefix.Bits() != 0 || r.Via != (packet.Addr{}) || r.Name != "host" {
		t.Errorf("the last route is %+v", r)
	}

	// What becomes of a datagram is the host's business; that it got there is ours.
	far := packettest.Station{MAC: n.GatewayMAC(), IP: outsider.IP}
	web.send(t, packettest.UDP(web.Station, far, 40000, 9, []byte("hello")))
	lab.Eventually(t, 10*time.Second, func() error {
		c := u.Switch().Totals()
		failed := uint64(0)
		for _, f := range c.Failed {
			failed += f.N
		}
		if c.Written+failed == 0 {
			return errors.New("nothing came to the sockets")
		}
		return nil
	})
	check(t, n)
	if err := n.router.RemoveUplink("host"); err != nil {
		t.Error(err)
	}
	if len(n.Uplinks()) != 0 {
		t.Error("the network still has it")
	}
	check(t, n)
}

// An internal network leads nowhere, and one without masquerade not by sockets;
// both lead out again when they are so no more.
func TestWaysOut(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 1)
	if _, err := n.router.AddSockets(SocketsConfig{Name: "host"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.router.Close)
	if err := n.SetUplinks("host"); err != nil {
		t.Fatal(err)
	}
	leads := func(want bool, masquerades int) {
		t.Helper()
		var rules int
		n.router.Flows(func(table *nat.Table) {
			table.Rules(func(x nat.Rule) bool {
				if x.Kind == packet.NATMasquerade {
					rules++
				}
				return true
			})
		})
		if routes, ways := n.Routes(), n.Uplinks(); (len(routes) == 2) != want || (len(ways) == 1) != want || rules != masquerades {
			t.Errorf("routes %+v, %d ways out, %d rules", routes, len(ways), rules)
		}
	}
	leads(true, 1)
	n.SetInternal(true)
	leads(false, 0)
	n.SetMasquerade(false)
	n.SetInternal(false)
	leads(false, 0)
	n.SetMasquerade(true)
	leads(true, 1)
	n.SetInternal(true)
	if err := n.SetUplinks("host"); err != nil { // what is said meanwhile is for later
		t.Fatal(err)
	}
	leads(false, 0)
	n.SetInternal(false)
	leads(true, 1)
}
