package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	hosts "fairlead/test/lab"
)

// voidDevice is a TAP of the attacker's that nobody reads.
const voidDevice = "void0"

// A theatre is what an attacker is told of where he is.
type theatre struct {
	Own, Victim, Gateway packettest.Station
	Rules                int // of his own firewall
	Processes            int // that he is
}

// startAttacker starts one where command has it started.
func startAttacker(l *lab, command func(name string, args ...string) *hosts.Cmd, t theatre) *endProcess {
	arg, err := json.Marshal(t)
	l.check(err, "describe the theatre")
	return startEnd(l, command, "attacker", string(arg))
}

// attacker does what a hostile root of a container does: floods of frames on an
// interface, connections, changes of an interface.
func attacker(args []string) error {
	t, err := readTheatre(args)
	if err != nil {
		return err
	}
	void, err := link.CreateTAP(link.TAPConfig{Name: voidDevice})
	if err != nil {
		return err
	}
	defer void.Close()
	if err := void.SetCarrier(true); err != nil {
		return err
	}
	dev, err := netlink.LinkByName(voidDevice)
	if err == nil {
		err = netlink.LinkSetUp(dev)
	}
	if err == nil && t.Rules > 0 {
		err = addRules(t.Rules)
	}
	if err != nil {
		return err
	}
	if t.Processes > 1 {
		return gang(t.Processes, args[0])
	}
	return t.attack()
}

func readTheatre(args []string) (t theatre, err error) {
	if len(args) != 1 {
		return t, errors.New("it is started by bench only")
	}
	return t, json.Unmarshal([]byte(args[0]), &t)
}

// attack does one job after another.
func (t *theatre) attack() error {
	sent := uint64(0) // so that no two frames of all floods are the same
	return endRole(func(j job) (outcome, error) {
		switch j.Do {
		case "count":
			return outcome{}, nil
		case "ask":
			o, _ := connects(j) // who asks for too much is not answered at times
			o.Count++
			return o, nil
		case "interface":
			return disturb(j)
		case "client":
			return hammer(j)
		}
		frames, change := t.frames(j.Do)
		if frames == nil {
			return outcome{}, fmt.Errorf("there is no attack %q", j.Do)
		}
		o, err := floodFrames(j, frames, func(b []byte, i uint64) { change(b, sent+i) })
		sent += o.Count
		return o, err
	})
}

// accomplice is one of a gang.
func accomplice(args []string) error {
	t, err := readTheatre(args)
	if err != nil {
		return err
	}
	return t.attack()
}

// gang has so many processes do each job together, on one processor: as much of the
// machine as one of them takes that does it alone.
func gang(size int, theatre string) error {
	runtime.LockOSThread() // whose processors they inherit
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for i := 0; one.Count() == 0; i++ {
		if all.IsSet(i) {
			one.Set(i)
		}
	}
	self, err := os.Executable()
	if err == nil {
		err = unix.SchedSetaffinity(0, &one)
	}
	if err != nil {
		return err
	}
	var members []*endProcess
	for range size {
		cmd := exec.Command(self, "accomplice", theatre)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe() // it ends when we do
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return err
		}
		members = append(members, &endProcess{in: json.NewEncoder(in), out: json.NewDecoder(out)})
	}
	return endRole(func(j job) (all outcome, err error) {
		for _, m := range members {
			err = errors.Join(err, m.begin(j))
		}
		for _, m := range members {
			o, failed := m.end()
			all.Count += o.Count
			all.Took = max(all.Took, o.Took)
			err = errors.Join(err, failed)
		}
		return all, err
	})
}

// addRules has each packet that comes held against so many rules. A user's netlink
// socket takes a thousand of them at a time.
func addRules(n int) error {
	const some = 1000
	script := "add table ip own\nadd chain ip own in { type filter hook prerouting priority 0; }\n"
	for done := 0; done < n; done += some {
		rules := strings.Builder{}
		rules.WriteString(script)
		for i := done; i < min(n, done+some); i++ {
			fmt.Fprintf(&rules, "add rule ip own in ip saddr 198.18.%d.%d drop\n", i>>8&0xff, i&0xff)
		}
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules.String())
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, said)
		}
		script = ""
	}
	return nil
}

// putStation puts the MAC of station number i, of more than anybody sends for.
func putStation(b []byte, i uint64) {
	var mac [8]byte
	binary.BigEndian.PutUint64(mac[:], 0x02<<56|i<<24>>8)
	copy(b[:6], mac[:6])
}

// frames are those of a flood, and how frame number i differs from the ones before.
func (t *theatre) frames(kind string) (frames [][]byte, change func(b []byte, i uint64)) {
	stay := func([]byte, uint64) {}
	me := t.Own
	switch kind {
	case "macs":
		b := packettest.UDP(me, packettest.Station{MAC: packet.MAC{6}, IP: t.Victim.IP}, 9, 9, make([]byte, 18))
		return [][]byte{b}, func(b []byte, i uint64) {
			binary.BigEndian.PutUint32(b[2:], uint32(i*2654435761)) // of the destination
			putStation(b[6:], i)
		}
	case "arp":
		return [][]byte{packettest.ARPRequest(me, t.Victim.IP), packettest.ARPReply(me, t.Gateway)}, func(b []byte, i uint64) {
			at := 38 // who is asked for
			if b[21] == packet.ARPReply {
				at = 28 // who claims to be
			}
			binary.BigEndian.PutUint16(b[at+2:], uint16(i))
		}
	case "dhcp":
		m := make([]byte, 300)
		m[0], m[1], m[2] = 1, 1, 6
		copy(m[236:], []byte{99, 130, 83, 99, 53, 1, 1, 255}) // magic, DISCOVER, end
		nobody := packettest.Station{MAC: me.MAC, IP: netip.IPv4Unspecified()}
		b := packettest.UDP(nobody, packettest.Broadcast, 68, 67, m)
		return [][]byte{b}, func(b []byte, i uint64) {
			const header = packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen
			binary.BigEndian.PutUint16(b[header-2:], 0)         // no checksum
			binary.BigEndian.PutUint32(b[header+4:], uint32(i)) // transaction
			putStation(b[header+28:], i)                        // who asks: it is heard only if the frame is its own
			putStation(b[6:], i)
		}
	case "spoof":
		as := func(s packettest.Station, mac packet.MAC) packettest.Station {
			return packettest.Station{MAC: mac, IP: s.IP}
		}
		return [][]byte{
			packettest.ARPReply(as(t.Gateway, me.MAC), t.Victim),
			packettest.UDP(t.Gateway, t.Victim, 9, 9, make([]byte, 18)),
			packettest.Discovery(me.IPv6(), t.Victim.IPv6(), packet.ICMPv6NeighborAdvert, t.Gateway.MAC.LinkLocal().Next(), me.MAC, t.Victim.MAC),
			packettest.UDP(me, packettest.Broadcast, 67, 68, make([]byte, 300)),
			packettest.Discovery(me.IPv6(), t.Victim.IPv6(), packet.ICMPv6RouterAdvert, me.MAC.LinkLocal(), me.MAC),
			packettest.UDP(packettest.Station{MAC: me.MAC, IP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}, t.Victim, 9, 9, make([]byte, 18)),
		}, stay
	case "storm":
		return [][]byte{packettest.UDP(me, packettest.Broadcast, 9, 9, make([]byte, 18))}, stay
	}
	return nil, nil
}

// floodFrames sends frames in turn out of an interface, as many as it takes.
func floodFrames(j job, frames [][]byte, change func(b []byte, i uint64)) (o outcome, err error) {
	dev, err := net.InterfaceByName(j.Dev)
	if err != nil {
		return o, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return o, fmt.Errorf("make a packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}); err != nil {
		return o, fmt.Errorf("bind a packet socket to %s: %w", j.Dev, err)
	}
	var messages [64]struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	var iovecs [64]unix.Iovec
	var rooms [64][]byte
	for i := range messages {
		b := frames[i%len(frames)][packet.VNetLen:]
		rooms[i] = append(make([]byte, 0, len(b)), b...)
		iovecs[i].Base = &rooms[i][0]
		iovecs[i].SetLen(len(b))
		messages[i].header.Iov = &iovecs[i]
		messages[i].header.SetIovlen(1)
	}
	start := time.Now()
	for time.Since(start) < j.For {
		for i := range rooms {
			change(rooms[i], o.Count+uint64(i))
		}
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages)), uintptr(len(messages)), 0, 0, 0)
		switch errno {
		case 0:
			o.Count += uint64(sent)
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR: // it has no room; who cares
		default:
			return o, fmt.Errorf("send frames by %s: %w", j.Dev, errno)
		}
	}
	o.Took = time.Since(start)
	return o, nil
}

// disturb changes all that root inside may change of an interface, and puts it back.
func disturb(j job) (o outcome, err error) {
	dev, err := netlink.LinkByName(j.Dev)
	if err != nil {
		return o, err
	}
	addrs, err := netlink.AddrList(dev, netlink.FAMILY_V4)
	if err != nil {
		return o, err
	}
	mtu, queue := dev.Attrs().MTU, dev.Attrs().TxQLen
	localnet := func(on string) error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+j.Dev+"/route_localnet", []byte(on), 0)
	}
	offload := func(on string) func() error {
		return func() error { return exec.Command("ethtool", "-K", j.Dev, "tx", on, "tso", on).Run() }
	}
	start := time.Now()
	for time.Since(start) < j.For {
		for _, do := range []func() error{
			offload("off"),
			func() error { return netlink.LinkSetMTU(dev, 68) },
			func() error { return netlink.LinkSetTxQLen(dev, 1) },
			func() error { return localnet("1") },
			func() error { return netlink.LinkSetDown(dev) },
			func() error { return netlink.LinkSetMTU(dev, 65521) },
			func() error { return netlink.LinkSetUp(dev) },
			func() error { return netlink.LinkSetMTU(dev, mtu) },
			func() error { return netlink.LinkSetTxQLen(dev, queue) },
			func() error { return localnet("0") },
			offload("on"),
		} {
			if err := do(); err != nil {
				return o, fmt.Errorf("change %s: %w", j.Dev, err)
			}
			o.Count++
		}
	}
	for i := range addrs { // a small MTU takes IPv6 away, and nothing else
		_ = netlink.AddrReplace(dev, &addrs[i])
	}
	o.Took = time.Since(start)
	return o, nil
}
