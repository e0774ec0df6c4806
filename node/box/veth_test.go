package box

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/test/lab"
)

// cable is own with one end of a veth pair.
func cable(args ...string) *Spec {
	spec := own(args...)
	spec.Interface.Veth = true
	return spec
}

// needLink ends a test where this kernel makes no such interface.
func needLink(t *testing.T, l netlink.Link) {
	t.Helper()
	l.Attrs().Name = "a"
	err := inNursery(func() error { return netlink.LinkAdd(l) })
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		lab.NotRun(t, fmt.Sprintf("makes a %s: %v", l.Type(), err), "make test")
	} else if err != nil {
		t.Fatal(err)
	}
}

func needVeth(t *testing.T) { t.Helper(); needLink(t, &netlink.Veth{PeerName: "b"}) }

// A farEnd is what the namespace of a pair's other end shows of it.
type farEnd struct {
	index, peer int
	links       int // in that namespace
}

func lookAtFar(t *testing.T, socket int) (f farEnd) {
	t.Helper()
	ns, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	look := func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return err
		}
		all, err := netlink.LinkList()
		if err != nil {
			return err
		}
		l, err := netlink.LinkByName(portName)
		if err != nil {
			return err
		}
		f = farEnd{l.Attrs().Index, l.Attrs().ParentIndex, len(all)}
		return nil
	}
	if err := inNursery(look); err != nil {
		t.Fatal(err)
	}
	return f
}

// Which cable is whose: what `ip link` and `ethtool -S` say inside is what the
// node knows of the pair.
func TestS04_Cable(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ethtool")
	needVeth(t)
	r := start(t, cable(sh("ip -o -4 addr show eth0; ip -o link show eth0; ip route; echo; ethtool -S eth0; ethtool -k eth0; exec sleep 1000")...))
	r.until("tx-udp_tnl-segmentation: off\n")
	r.until("rx-all:")
	if r.far.links != 2 { // and lo
		t.Errorf("%d interfaces are in the other namespace", r.far.links)
	}
	if r.far.peer != r.Index {
		t.Errorf("the other end says its peer is %d; it is %d", r.far.peer, r.Index)
	}
	for _, want := range []string{
		`inet 172\.17\.0\.2/16 brd 172\.17\.255\.255 scope global eth0`,
		fmt.Sprintf(`%d: eth0@if%d: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 .* state UP .*link/ether 02:42:ac:11:00:02 brd ff:ff:ff:ff:ff:ff link-netnsid %d`, r.Index, r.far.index, r.PeerNetNS),
		`default via 172\.17\.0\.1 dev eth0 \n172\.17\.0\.0/16 dev eth0 proto kernel scope link src 172\.17\.0\.2 \n\n`,
		fmt.Sprintf(`peer_ifindex: %d\n`, r.far.index),
		`tx-gre-segmentation: off\n`, `tx-sctp-segmentation: off\n`, `tx-tcp-segmentation: on\n`, `tx-udp-segmentation: on\n`,
	} {
		if !regexp.MustCompile(want).MatchString(r.out.String()) {
			t.Errorf("no %q in:\n%s", want, r.out.String())
		}
	}
}

// The stack of the namespace where the other end lies says nothing, unasked or
// asked. All that the container's interface receives is what we write.
func TestVethQuiet(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ping")
	needVeth(t)
	r := start(t, cable(sh("for to in 172.17.0.1 224.0.0.1 172.17.255.255 ff02::1%eth0 fe80::1%eth0; do ping -b -c1 -W1 $to & done; wait; "+
		"echo; cat /sys/class/net/eth0/statistics/rx_packets; echo end; exec sleep 1000")...))
	r.until("end\n")
	if !strings.Contains(r.out.String(), "\n\n0\nend\n") {
		t.Errorf("somebody answers:\n%s", r.out.String())
	}
	if n := r.frames(packet.EtherTypeARP); n == 0 {
		t.Error("no ARP seen; nothing was tested")
	}
}

// A running container gets one on request, and it goes.
func TestS21_FurtherCable(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	needVeth(t)
	r := start(t, own("sleep", "1000"))
	i := further("eth1", "172.18.0.2/16")
	i.Veth = true
	l, q := r.link(i)
	out := r.inside("ip -o link show eth1; ip -o -4 addr show eth1")
	for _, want := range []string{
		fmt.Sprintf("%d: eth1@if%d: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 ", l.Index, r.far.index),
		fmt.Sprintf("link-netnsid %d\n", l.PeerNetNS), "inet 172.18.0.2/16 brd 172.18.255.255",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if _, err := RequestLink(r.node, i, patience); err == nil || !strings.Contains(err.Error(), "there is an interface eth1 already") {
		t.Errorf("a second eth1: %v", err)
	}
	if err := RequestUnlink(r.node, l.Index, patience); err != nil {
		t.Error(err)
	}
	unplugged(t, q)
	if out := r.inside("echo /sys/class/net/*"); out != "/sys/class/net/eth0 /sys/class/net/lo\n" {
		t.Errorf("left behind: %s", out)
	}
}

// unplugged waits for a packet socket to say that its interface is gone.
func unplugged(t *testing.T, q queue) {
	t.Helper()
	batch := packet.NewBatch()
	lab.Eventually(t, patience, func() error {
		batch.Reset()
		n, err := q.ReadBatch(batch)
		if !errors.Is(err, link.ErrGone) {
			return fmt.Errorf("read %d frames, %w", n, err)
		}
		return nil
	})
}

// In somebody else's namespace, too, which nothing of it pins: its end is the
// link's end.
func TestVethForeign(t *testing.T) {
	lab.NoLeaks(t)
	needVeth(t)
	s := newStranger(t, unix.CLONE_NEWNET)
	i := eth1()
	i.Veth = true
	target := Target{PID: s.cmd.Process.Pid}
	for range 2 {
		f, err := AttachForeign(target, i)
		if err != nil {
			t.Fatal(err)
		}
		out := s.ask(t, "ip -o link show eth1; ip -o -4 addr show eth1")
		for _, want := range []string{fmt.Sprintf("%d: eth1@if", f.Index), ",UP,LOWER_UP> mtu 1400 ", fmt.Sprintf("link-netnsid %d\n", f.PeerNetNS), "inet 172.17.0.9/16"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if _, err := AttachForeign(target, i); err == nil || !strings.Contains(err.Error(), "there is an interface eth1 already: name this one by --ifname") {
			t.Errorf("a second eth1: %v", err)
		}
		f.Close()
		lab.Eventually(t, patience, func() error {
			if out := s.ask(t, "ip -o link"); strings.Contains(out, "eth") {
				return errors.New(out)
			}
			return nil
		})
	}
	f, err := AttachForeign(target, i)
	if err != nil {
		t.Fatal(err)
	}
	q := adopt(t, i, f.TAP)
	defer q.Close()
	f.TAP = -1
	s.kill()
	unplugged(t, q)
}

// What the node writes to a pair as soon as it has it arrives: a port joins its
// network at once, and gets what is flooded there.
func TestVethFirstFrame(t *testing.T) {
	lab.NoLeaks(t)
	needVeth(t)
	frame := make([]byte, packet.VNetLen+60)
	copy(frame[packet.VNetLen:], packet.BroadcastMAC[:])
	arrives := func(i *Interface, fd, pid int) {
		t.Helper()
		q := adopt(t, i, fd)
		t.Cleanup(func() { q.Close() })
		if _, err := q.WriteBatch([]*packet.Frame{{B: frame}}); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(i.Name + `: +60 +1 `).Match(text) {
			t.Errorf("the frame for %s was lost:\n%s", i.Name, text)
		}
	}
	const times = 20
	s := newStranger(t, unix.CLONE_NEWNET)
	for n := range times {
		i := eth1()
		i.Veth, i.Name, i.Addresses = true, fmt.Sprint("foreign", n), nil
		f, err := AttachForeign(Target{PID: s.cmd.Process.Pid}, i)
		if err != nil {
			t.Fatal(err)
		}
		arrives(i, f.TAP, s.cmd.Process.Pid)
	}
	spec := cable("sleep", "1000")
	spec.Interface.Veth = false
	r := start(t, spec)
	for n := range times {
		i := further(fmt.Sprint("further", n), "172.18.0.2/16")
		i.Veth = true
		l, err := RequestLink(r.node, i, patience)
		if err != nil {
			t.Fatal(err)
		}
		arrives(i, l.FD, r.PID)
		l.Take()
		l.Close()
	}
	for range times / 4 {
		spec := cable("true")
		b, err := Start(spec, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		arrives(spec.Interface, b.TAP, b.PID)
		b.TAP = -1
		b.Close()
		_, _ = b.Wait()
	}
}

// carry carries frames both ways until the returned function is called.
func carry(t *testing.T, a, b queue) (stop func()) {
	var end atomic.Bool
	var wg sync.WaitGroup
	for _, q := range [][2]queue{{a, b}, {b, a}} {
		wg.Go(func() {
			batch := packet.NewBatch()
			poll := []unix.PollFd{{Fd: int32(q[0].(interface{ Fd() int }).Fd()), Events: unix.POLLIN}}
			for !end.Load() {
				_, _ = unix.Poll(poll, 20)
				batch.Reset()
				if _, err := q[0].ReadBatch(batch); err != nil {
					t.Error(err)
					return
				}
				for i := range batch.Frames {
					_, _ = q[1].WriteBatch([]*packet.Frame{&batch.Frames[i]}) // a full one loses it, as cables do
				}
			}
		})
	}
	return func() { end.Store(true); wg.Wait() }
}

// Tunnels inside a container make segments that a packet socket cannot describe;
// the kernel cuts them before, so that they arrive.
func TestVethTunnel(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	needVeth(t)
	needLink(t, &netlink.Vxlan{VxlanId: 7, Port: 4789})
	tunnel := func(own, other int) string {
		return fmt.Sprintf("ip link add vx0 type vxlan id 7 remote 172.17.0.%d dstport 4789 dev eth0 && ip addr add 10.7.0.%d/24 dev vx0 && ip link set vx0 up && ", other, own)
	}
	const bytes = 8 << 20
	a := start(t, cable(sh(tunnel(2, 3)+strings.Join(self("serve", "10.7.0.2:7000"), " "))...))
	a.until("serving")
	spec := cable(sh(tunnel(3, 2) + strings.Join(self("send", "10.7.0.2:7000", strconv.Itoa(bytes)), " "))...)
	addr := netip.MustParsePrefix("172.17.0.3/16")
	spec.Interface.Addresses, spec.Interface.MAC = []netip.Prefix{addr}, packet.MACFromIPv4(addr.Addr())
	b := start(t, spec)
	stop := carry(t, a.tap, b.tap)
	defer stop()
	b.wait(0)
	a.wait(0)
	if want := fmt.Sprintf("serving\n%d bytes came\n", bytes); a.out.String() != want {
		t.Errorf("got %q, want %q", a.out.String(), want)
	}
}
