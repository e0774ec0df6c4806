package test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// A container that does nothing but harm: what it may not do is refused and counted
// under its reason, the node keeps its memory, and two others have a connection whose
// bytes arrive as they were sent, while it goes on. That frames add up afterwards is
// what every test ends with. How much the others keep is measured by
// `fairlead bench --only hostile-,write-time`.
func TestHostile_Floods(t *testing.T) {
	n := newNode(t)
	b := n.battlefield()
	me, victim := b.me, b.victim
	gateway := packettest.Station{MAC: packet.MACFromIPv4(gatewayIP), IP: gatewayIP}
	at := func(s packettest.Station, a netip.Addr) packettest.Station {
		return packettest.Station{MAC: s.MAC, IP: a}
	}

	b.refused("MAC flood", macFlood(victim, 20_000), "spoofed-mac")

	var asks, claims [][]byte
	for i := range 2000 {
		a := netip.AddrFrom4([4]byte{172, 17, 8 + byte(i>>8), byte(i)}) // nobody's
		asks = append(asks, packettest.ARPRequest(me, a))
		claims = append(claims, packettest.ARPRequest(at(me, a), victim.IP))
	}
	b.refused("ARP starvation", claims, "spoofed-address")

	b.refused("DHCP starvation", discovers(2000), "spoofed-mac")
	if got := n.leases(); len(got) > 0 {
		t.Errorf("%+v", got)
	}

	b.refused("spoofed gateway, neighbour, server and router", [][]byte{
		packettest.ARPReply(at(me, gateway.IP), victim),
		packettest.UDP(gateway, victim, 9, 9, nil),
		packettest.Discovery(me.IPv6(), victim.IPv6(), packet.ICMPv6NeighborAdvert, victim.MAC.LinkLocal(), me.MAC),
		packettest.UDP(me, packettest.Broadcast, 67, 68, make([]byte, 300)),
		packettest.Discovery(me.IPv6(), victim.IPv6(), packet.ICMPv6RouterAdvert, me.IPv6().IP, me.MAC),
		packettest.UDP(at(me, netip.AddrFrom4([4]byte{127, 0, 0, 1})), victim, 9, 9, nil), // what route_localnet lets out
	}, "spoofed-gateway", "spoofed-neighbour", "rogue-dhcp", "rogue-router", "loopback-address")

	b.under("ARP scan", asks)
	storm := [][]byte{packettest.UDP(me, packettest.Broadcast, 9, 9, nil)}
	if raced(t, n.bin) { // to read a frame takes longer than to write its copies, and has its own share
		b.under("broadcast storm", storm)
	} else {
		b.under("broadcast storm", storm, "flood-limit")
	}
}

// With guard=off any source may be used. Each table keeps its size, whoever fills it has
// his share of it and puts out his own, and others are served.
func TestHostile_Unguarded(t *testing.T) {
	lab.Need(t, "ip", "udhcpc")
	n := newNode(t, "--opt", "guard=off")
	dir := dhcpFiles(t)
	b := n.battlefield()

	stop := b.assault("attacker", macFlood(b.victim, 20_000))
	var macs []api.MAC
	var known map[string]int
	b.transferUntil(func() bool {
		macs, known = nil, map[string]int{}
		n.json(&macs, "show", "mac")
		for _, m := range macs {
			known[m.Container]++
		}
		return known["attacker"] >= 4096
	})
	stop()
	b.unharmed()
	// The gateway's is not one of the table's.
	if all := len(macs) - known[""]; all > 8192 || known["victim"] == 0 || known["other"] == 0 {
		t.Errorf("the MAC table has %d: %v", len(macs), known)
	}

	var starvation [][]byte
	for i := range 2000 {
		from := packettest.Station{MAC: b.me.MAC, IP: netip.AddrFrom4([4]byte{172, 17, 1 + byte(i>>8), byte(i)})}
		starvation = append(starvation, packettest.ARPRequest(from, gatewayIP))
	}
	b.under("ARP starvation", starvation)
	var neighbours []api.Neighbour
	n.json(&neighbours, "show", "arp")
	known = map[string]int{}
	for _, a := range neighbours {
		known[a.Container]++
	}
	if known["attacker"] == 0 || known["attacker"] > 16 {
		t.Errorf("of neighbours there are %v", known)
	}

	stop = b.assault("attacker", discovers(2000))
	defer stop()
	lab.Eventually(t, patience, func() error {
		if got := len(n.leases()); got < 64 {
			return fmt.Errorf("%d leases", got)
		}
		return nil
	})
	n.start("late")
	n.sh("late", "ip addr flush dev eth0; ip link set eth0 down address 02:00:00:00:00:07; ip link set eth0 up")
	// It hears the flood too, which is broadcast, and asks again as often as it has to.
	n.exec("late", "udhcpc", "-f", "-n", "-q", "-t", "20", "-T", "1", "-i", "eth0", "-s", dir+"/script", "-O", "mtu")
	known = map[string]int{}
	for _, l := range n.leases() {
		known[l.Container]++
	}
	if known["attacker"] != 64 || known["late"] != 1 {
		t.Errorf("of leases there are %v", known)
	}
	b.transfer()
	b.unharmed()
}

// A container whose own firewall holds each packet against 90,000 rules takes about a
// millisecond for each, inside our write. It gets its share of that time, and no more
// while others want it.
func TestHostile_SlowReceiver(t *testing.T) {
	lab.Need(t, "nft")
	n := newNode(t)
	b := n.battlefield()
	b.firewall("attacker", 300, 300)
	// It asks the victim for more, again and again.
	n.start("also-victim", append([]string{"--network", "container:victim", "--"}, play(t, "sink", ":5002")...)...)
	n.logSays("also-victim", "listening")
	ask := strings.Join(play(t, "transfer", b.victim.IP.String()+":5002", "2000000"), " ")
	asks := n.background("exec", "attacker", "sh", "-c", "while "+ask+"; do :; done")
	b.transferUntil(func() bool { return n.port("attacker").Counts.Failed["slow-receiver"] > 0 })
	asks.stop()
	b.unharmed()
}

// With eight million rules it is some hundred milliseconds, in which nobody else is
// carried: it gets few packets at once, and then none for long, as whoever asks is told.
func TestHostile_VerySlowReceiver(t *testing.T) {
	lab.Need(t, "nft")
	n := newNode(t)
	b := n.battlefield()
	b.firewall("attacker", 200, 200, 200)
	var asks [][]byte
	for i := range 64 { // each of which is answered by a reset
		asks = append(asks, packettest.TCP(b.me, b.victim, packettest.Segment{SrcPort: 20_000 + uint16(i), DstPort: 9, Flags: packet.TCPSyn}, nil))
	}
	stop := b.assault("attacker", asks)
	b.transferUntil(func() bool {
		p := n.port("attacker")
		return p.Counts.Failed["slow-receiver"] > 2*p.Counts.Written && p.SentNothing > 0
	})
	stop()
	b.unharmed()
}

// A container that opens connections by sockets of the host as fast as it can is read
// later while others want the worker.
func TestHostile_Openings(t *testing.T) {
	o := newHostOutside(t)
	b := o.battlefield()
	far := packettest.Station{MAC: packet.MACFromIPv4(gatewayIP), IP: netip.MustParseAddr(o.Router.FarHost)}
	var opens [][]byte
	for i := range uint16(20_000) {
		opens = append(opens,
			packettest.TCP(b.me, far, packettest.Segment{SrcPort: 20_000 + i, DstPort: 1 + i, Flags: packet.TCPSyn}, nil),
			packettest.UDP(b.me, far, 20_000+i, 1+i, nil))
	}
	stop := b.assault("attacker", opens)
	b.transferUntil(func() bool { return o.port("attacker").Counts.Paused > 0 })
	stop()
	b.unharmed()
}

// Whatever root inside does with its interface, others do not notice, and it has its
// connections back when it is done.
func TestHostile_Interface(t *testing.T) {
	lab.Need(t, "ip", "ethtool")
	n := newNode(t)
	b := n.battlefield()
	play := n.background("exec", "-i", "attacker", "sh", "-c", `
		exec 3<&0
		cat <&3 > /dev/null & # ends with our standard input
		i=0
		while kill -0 $! 2> /dev/null; do
			ip link set eth0 mtu 68; ip link set eth0 txqueuelen 1
			echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
			ethtool -K eth0 tx off tso off gso off gro off
			ip link set eth0 down; ip link set eth0 mtu 65521; ip link set eth0 up
			ethtool -K eth0 tx on tso on gso on gro on
			ip link set eth0 mtu 1500 txqueuelen 1000
			echo 0 > /proc/sys/net/ipv4/conf/eth0/route_localnet
			i=$((i+1)); test $i != 3 || echo begun
		done`)
	lab.Eventually(t, patience, func() error {
		if !strings.Contains(play.out.String(), "begun") {
			return fmt.Errorf("it has not begun: %s %s", play.out.String(), play.errors.String())
		}
		return nil
	})
	b.transfer()
	play.in.Close()
	<-play.done
	b.unharmed()
	n.sh("attacker", "ip link set eth0 up mtu 1500 txqueuelen 1000")
	n.exec("attacker", "ping", "-c", "1", "-W", "5", b.victim.IP.String())
}

// A battlefield is two containers that have a connection, and one that attacks.
type battlefield struct {
	*node
	me, victim packettest.Station // the attacker, and one of the others
	memory     int                // the node's before, in KB
}

var gatewayIP = netip.MustParseAddr("172.17.0.1")

func (n *node) battlefield() *battlefield {
	n.t.Helper()
	n.start("attacker")
	n.start("victim", append([]string{"--"}, play(n.t, "sink", ":5001")...)...)
	n.start("other")
	n.logSays("victim", "listening")
	b := &battlefield{node: n, me: n.station("attacker"), victim: n.station("victim")}
	b.transfer()
	b.memory = residentKB(n.t, n.nodePid())
	return b
}

// transfer has the others send one another some megabytes, whose hashes are compared.
func (b *battlefield) transfer() {
	b.t.Helper()
	b.exec("other", play(b.t, "transfer", b.victim.IP.String()+":5001", "2000000")...)
}

// transferUntil has them do so until something is the case.
func (b *battlefield) transferUntil(is func() bool) {
	b.t.Helper()
	lab.Eventually(b.t, patience, func() error {
		b.transfer()
		if !is() {
			return errors.New(b.run("show", "switch", "-v"))
		}
		return nil
	})
}

// firewall has a container hold each packet that comes against as many rules as these
// numbers' product, none of which it matches.
func (b *battlefield) firewall(name string, rules ...int) {
	b.t.Helper()
	var text strings.Builder
	text.WriteString("add table ip own\n")
	for i := range rules {
		fmt.Fprintf(&text, "add chain ip own depth%d\n", i)
	}
	for i, count := range rules {
		for n := range count {
			rule := fmt.Sprintf("ip saddr 198.18.%d.%d drop", n>>8, n&0xff)
			if i > 0 {
				rule = fmt.Sprintf("jump depth%d", i-1)
			}
			fmt.Fprintf(&text, "add rule ip own depth%d %s\n", i, rule)
		}
	}
	fmt.Fprintf(&text, "add chain ip own in { type filter hook prerouting priority 0; }\nadd rule ip own in jump depth%d\n", len(rules)-1)
	if r := b.tryWith(strings.NewReader(text.String()), "exec", "-i", name, "nft", "-f", "-"); r.code != 0 {
		b.t.Fatal(r.stderr)
	}
}

// under has the others go on with their own while frames are sent as fast as they
// are taken, and wants reasons counted at the attacker, and that it is not read all the time.
func (b *battlefield) under(what string, frames [][]byte, reasons ...string) {
	b.t.Helper()
	before := b.port("attacker").Counts
	stop := b.assault("attacker", frames)
	defer stop()
	lab.Eventually(b.t, patience, func() error {
		b.transfer() // some reasons come up only while others want the worker
		switch now := b.port("attacker").Counts; {
		case now.Read == before.Read:
			return fmt.Errorf("%s: nothing was read", what)
		case now.Paused == before.Paused:
			return fmt.Errorf("%s: the attacker is read all the time", what)
		}
		for _, reason := range reasons {
			if b.dropped("attacker", reason) == before.Dropped[reason] {
				return fmt.Errorf("%s: nothing was dropped as %s:\n%s", what, reason, b.run("show", "drops"))
			}
		}
		return nil
	})
	b.transfer()
	b.unharmed()
}

// refused is under frames that are refused one and all, as those of all attacks before: else
// nothing is read of the attacker meanwhile but what its own kernel says now and then.
func (b *battlefield) refused(what string, frames [][]byte, reasons ...string) {
	b.t.Helper()
	const own = 64
	before := b.port("attacker").Counts
	b.under(what, frames, reasons...)
	after := b.port("attacker").Counts
	read, refused := after.Read-before.Read, uint64(0)
	for reason, n := range after.Dropped { // of any, for some may be of the attack before
		refused += n - before.Dropped[reason]
	}
	if read > refused+own {
		b.t.Errorf("%s: of %d frames %d were refused", what, read, refused)
	}
}

// moreMemory is what a node may need more than before: none of its tables is larger, and
// neither is what it was asked to list.
const moreMemory = 32 << 10 // KB

// unharmed looks at what may have become of the others. Writing to them costs a node
// with the race detector so much that it may take them for slow.
func (b *battlefield) unharmed() {
	b.t.Helper()
	for _, name := range []string{"victim", "other"} {
		if c := b.port(name).Counts; c.Failed["slow-receiver"] > 0 && !raced(b.t, b.bin) || len(c.Dropped) > 0 {
			b.t.Errorf("of %s %v were dropped, to it %v failed", name, c.Dropped, c.Failed)
		}
	}
	b.grewAtMost(residentKB(b.t, b.nodePid())-b.memory, moreMemory)
}

// macFlood are frames of so many source MACs to as many destinations.
func macFlood(victim packettest.Station, count int) (frames [][]byte) {
	for i := range count {
		from := packettest.Station{MAC: packet.MAC{2, 0xee, 0, byte(i >> 16), byte(i >> 8), byte(i)}, IP: victim.IP}
		to := packettest.Station{MAC: packet.MAC{2, 0xdd, 0, byte(i >> 16), byte(i >> 8), byte(i)}, IP: victim.IP}
		frames = append(frames, packettest.UDP(from, to, 9, 9, nil))
	}
	return frames
}

// discovers are DHCP discovers of so many stations. Each asks for itself: a server hears
// no other.
func discovers(count int) (frames [][]byte) {
	for i := range uint32(count) {
		mac := packet.MAC{2, 0xcc}
		binary.BigEndian.PutUint32(mac[2:], i)
		m := make([]byte, 300)
		m[0], m[1], m[2] = 1, 1, 6 // a request, Ethernet
		binary.BigEndian.PutUint32(m[4:], i)
		copy(m[28:], mac[:])
		copy(m[236:], []byte{99, 130, 83, 99, 53, 1, 1, 255}) // magic, DISCOVER, end (RFC 2132)
		frames = append(frames, packettest.UDP(packettest.Station{MAC: mac, IP: netip.IPv4Unspecified()}, packettest.Broadcast, 68, 67, m))
	}
	return frames
}

// assault has a container send frames in turn, as fast as they are taken, until the
// function it returns is called.
func (n *node) assault(name string, frames [][]byte) (stop func()) {
	n.t.Helper()
	c := n.startAssault(name, frames)
	return func() {
		c.in.Close()
		<-c.done
		if code := c.cmd.ProcessState.ExitCode(); code != 0 {
			n.t.Errorf("the assault ended with %d: %s", code, c.errors.String())
		}
	}
}

// startAssault is assault that goes on until the client's standard input is closed.
func (n *node) startAssault(name string, frames [][]byte) *client {
	n.t.Helper()
	c := n.background(append([]string{"exec", "-i", name}, play(n.t, "assault")...)...)
	var in []byte
	for _, f := range frames {
		in = binary.BigEndian.AppendUint32(in, uint32(len(f)))
		in = append(in, f...)
	}
	if _, err := c.in.Write(binary.BigEndian.AppendUint32(in, 0)); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// assault reads frames, each behind its length, as far as one of none, and sends them
// out of eth0 in turn until its standard input ends. It says when it begins.
func assault([]string) error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	var frames [][]byte
	for {
		var length uint32
		if err := binary.Read(os.Stdin, binary.BigEndian, &length); err != nil {
			return err
		}
		if length == 0 {
			break
		}
		frame := make([]byte, length)
		if _, err := io.ReadFull(os.Stdin, frame); err != nil {
			return err
		}
		frames = append(frames, frame[packet.VNetLen:])
	}
	fmt.Println("begun")
	over := make(chan struct{})
	go func() {
		waitForInput()
		close(over)
	}()
	for i := 0; ; i++ {
		if i%64 == 0 {
			select {
			case <-over:
				return nil
			default:
			}
		}
		err := unix.Sendto(fd, frames[i%len(frames)], 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
}
