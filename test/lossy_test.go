package test

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fairlead/test/lab"
)

// lossy is what the lines of these tests do to packets.
func lossy(seed uint64) lab.Line {
	return lab.Line{
		Delay: 200 * time.Microsecond, Loss: 0.005, Reorder: 0.01, Late: 2 * time.Millisecond, Shrink: 0.02, Seed: seed,
	}
}

// Between the machine whose sockets lead outside and the host there, packets get
// lost, come late and out of order, and windows shrink. What a container sends
// out and gets back is what arrives, and so is what comes in by a published port.
func TestLossyOutside(t *testing.T) {
	lab.NoLeaks(t)
	machine, host := lab.NewHost(t, "machine"), lab.NewHost(t, "outside")
	line := lab.NewRelay(t, lab.NewRelayTAP(t, machine, "eth0"), lab.NewRelayTAP(t, host, "eth0"), lossy(lab.Seed(t)))
	const ours, theirs = "192.0.2.2", "192.0.2.1"
	machine.Addr(t, "eth0", ours+"/24")
	host.Addr(t, "eth0", theirs+"/24")
	n := newNodeDir(t)
	if out, status := n.on(machine, "up"); status != 0 {
		t.Fatalf("fairlead up: exit status %d\n%s", status, out)
	}
	sink := play(t, "sink", ":9000")
	s := host.Serve(t, sink[0], sink[1:]...)
	n.says(s, "listening")
	n.start("server", append([]string{"-p", "9000:9000", "--"}, sink...)...)
	n.logSays("server", "listening")
	n.start("client")

	t.Log("out:", n.exec("client", lossyTransfer(t, theirs+":9000", 4<<20)...))
	in := lossyTransfer(t, ours+":9000", 4<<20)
	t.Log("in:", host.Run(t, in[0], in[1:]...))
	happened(t, line)
}

// The same between a container and the node: there our own side of each
// connection has to bear it. The container's namespace hands its frames to a
// bad line, at whose other end a host has its address. Data that comes in the
// wrong order is not kept on this side, so it is little.
func TestLossyInside(t *testing.T) {
	lab.NoLeaks(t)
	machine, host := lab.NewHost(t, "machine"), lab.NewHost(t, "outside")
	lab.Join(t, machine, "eth0", host, "eth0")
	const ours, theirs = "192.0.2.2", "192.0.2.1"
	machine.Addr(t, "eth0", ours+"/24")
	host.Addr(t, "eth0", theirs+"/24")
	n := newNodeDir(t)
	if out, status := n.on(machine, "up"); status != 0 {
		t.Fatalf("fairlead up: exit status %d\n%s", status, out)
	}
	near, container := lab.NewHost(t, "near"), lab.NewHost(t, "container")
	sleep := near.Serve(t, "sleep", "1000")
	n.run("network", "connect", "--name", "c", "default", "pid:"+strconv.Itoa(sleep.Pid()))
	n.run("publish", "c", "9000:9000")
	line := moveContainer(t, near, container, lossy(lab.Seed(t)))

	sink := play(t, "sink", ":9000")
	for _, h := range []*lab.Host{host, container} {
		n.says(h.Serve(t, sink[0], sink[1:]...), "listening")
	}
	out := lossyTransfer(t, theirs+":9000", 256<<10)
	t.Log("out:", container.Run(t, out[0], out[1:]...))
	in := lossyTransfer(t, ours+":9000", 256<<10)
	t.Log("in:", host.Run(t, in[0], in[1:]...))
	happened(t, line)
}

// moveContainer has a host take the place of another that the node has connected:
// its addresses, at the other end of a bad line.
func moveContainer(t *testing.T, from, to *lab.Host, line lab.Line) *lab.Relay {
	t.Helper()
	eth0, err := from.Netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := from.Netlink.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 {
		t.Fatalf("the container's addresses: %v, %v", addrs, err)
	}
	prefix, err := netip.ParsePrefix(addrs[0].IPNet.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Netlink.AddrDel(eth0, &addrs[0]); err != nil {
		t.Fatal(err)
	}
	relay := lab.NewRelay(t, lab.NewRelayPort(t, from, "eth0"), lab.NewRelayTAP(t, to, "eth0"), line)
	far, err := to.Netlink.LinkByName("eth0")
	if err == nil {
		err = to.Netlink.LinkSetHardwareAddr(far, eth0.Attrs().HardwareAddr)
	}
	if err != nil {
		t.Fatal(err)
	}
	to.Addr(t, "eth0", prefix.String())
	to.Route(t, "default", prefix.Masked().Addr().Next().String())
	return relay
}

// lossyTransfer is the command that sends some data to a sink and has it come back.
func lossyTransfer(t *testing.T, to string, bytes int) []string {
	t.Helper()
	return play(t, "transfer", to, strconv.Itoa(bytes))
}

// happened is an error unless the line was bad: of a thousand packets a good
// ten are lost or late.
func happened(t *testing.T, line *lab.Relay) {
	t.Helper()
	s := line.Stats()
	t.Logf("%+v", s)
	if s.Lost+s.Reordered == 0 || s.Shrunk == 0 {
		t.Errorf("nothing happened on the line: %+v", s)
	}
}
