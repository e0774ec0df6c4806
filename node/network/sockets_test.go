package network

import (
	"errors"
	"testing"
	"time"

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
