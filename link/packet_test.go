package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/link/linktest"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// veth makes a pair of interfaces inside, both up.
func (ns *namespace) veth(a, b string) {
	ns.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	must(ns.t, ns.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}))
	ns.up(a)
	ns.up(b)
}

// buffer is more than what Depth frames of the contract and the kernel's memory
// about them take.
const buffer = 4096 * linktest.Depth

// socket opens a packet socket as those who hand one over do, and the caller
// closes it or gives it away.
func (ns *namespace) socket(name string, kind int, protocol uint16) int {
	ns.t.Helper()
	index := 0
	if name != "" {
		index = ns.link(name).Attrs().Index
	}
	var fd int
	ns.do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, kind, 0); err != nil {
			return err
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: index}))
	})
	return fd
}

// packet opens a queue on an interface, closed at the end of the test.
func (ns *namespace) packet(name string) *link.Packet {
	ns.t.Helper()
	q, err := link.AdoptPacket(ns.socket(name, unix.SOCK_RAW, unix.ETH_P_ALL))
	must(ns.t, err)
	ns.t.Cleanup(func() { _ = q.Close() })
	return q
}

// needBuffer ends a test where a socket cannot have it.
func needBuffer(t *testing.T) {
	t.Helper()
	ns := newNamespace(t)
	ns.veth("a", "b")
	fd := ns.socket("a", unix.SOCK_RAW, unix.ETH_P_ALL)
	defer func() { must(t, unix.Close(fd)) }()
	have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	must(t, err)
	if have < buffer {
		lab.NotRun(t, fmt.Sprintf("sockets may keep %d bytes here, and %d are needed", have, buffer), fmt.Sprintf("sudo sysctl -w net.core.rmem_max=%d", buffer))
	}
}

// TestPacketContract runs the contract on both ends of a cable, and with a TAP
// at the other side of a bridge.
func TestPacketContract(t *testing.T) {
	needTAP(t)
	needBuffer(t)
	for name, open := range map[string]func(ns *namespace) (a, b linktest.Queue){
		"veth": func(ns *namespace) (a, b linktest.Queue) {
			ns.veth("a", "b")
			return ns.packet("a"), ns.packet("b")
		},
		"to a TAP": func(ns *namespace) (a, b linktest.Queue) {
			ns.veth("a", "a-port")
			pkt, tap := ns.packet("a"), ns.tap("b")
			ns.bridged(pkt, tap, "a-port", "b")
			return pkt, tap
		},
		"from a TAP": func(ns *namespace) (a, b linktest.Queue) {
			ns.veth("b", "b-port")
			tap, pkt := ns.tap("a"), ns.packet("b")
			ns.bridged(tap, pkt, "a", "b-port")
			return tap, pkt
		},
	} {
		t.Run(name, func(t *testing.T) {
			linktest.Contract(t, func(t *testing.T) (_, _ linktest.Queue) { return open(newNamespace(t)) })
		})
	}
}

// TestAdoptPacket: a descriptor that was handed over is looked at before it is
// used, and stays the caller's if it is the wrong one.
func TestAdoptPacket(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer func() { must(t, null.Close()) }()
	near, _ := datagrams(t)
	ring := ns.socket("a", unix.SOCK_RAW, unix.ETH_P_ALL)
	must(t, unix.SetsockoptTpacketReq(ring, unix.SOL_PACKET, unix.PACKET_RX_RING,
		&unix.TpacketReq{Block_size: 1 << 16, Block_nr: 1, Frame_size: 1 << 11, Frame_nr: 1 << 5}))
	for _, test := range []struct {
		name, want string
		fd         int
	}{
		{"closed", "bad file descriptor", 1 << 20},
		{"no socket", "is no socket", int(null.Fd())},
		{"another socket", "domain 1 and type 2", near},
		{"without Ethernet headers", "domain 17 and type 2", ns.socket("a", unix.SOCK_DGRAM, unix.ETH_P_ALL)},
		{"on all interfaces", "bound to no interface", ns.socket("", unix.SOCK_RAW, unix.ETH_P_ALL)},
		{"one protocol", "bound to protocol 0x0800", ns.socket("a", unix.SOCK_RAW, unix.ETH_P_IP)},
		{"on the loopback", "is no Ethernet", ns.socket("lo", unix.SOCK_RAW, unix.ETH_P_ALL)},
		{"with a ring", "PACKET_VNET_HDR): device or resource busy", ring},
	} {
		before := descriptors(t)
		if _, err := link.AdoptPacket(test.fd); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
		if now := descriptors(t); now != before {
			t.Errorf("%s: %d descriptors before, %d after", test.name, before, now)
		}
		if test.fd != near && test.fd != int(null.Fd()) {
			_ = unix.Close(test.fd)
		}
	}
	before := descriptors(t)
	q := ns.packet("a")
	must(t, q.Close())
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors before a queue, %d after its end", before, now)
	}
}

// TestPacketNeverBlocks: whoever has a copy of the descriptor can clear
// O_NONBLOCK, and reading still does not wait.
func TestPacketNeverBlocks(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	fd := ns.socket("a", unix.SOCK_RAW, unix.ETH_P_ALL)
	q, err := link.AdoptPacket(fd)
	must(t, err)
	defer func() { must(t, q.Close()) }()
	must(t, unix.SetNonblock(fd, false))
	if n, err := q.ReadBatch(packet.NewBatch()); n != 0 || err != nil {
		t.Errorf("ReadBatch: %d, %v", n, err)
	}
}

// TestPacketDown: an interface that goes down is not gone. It is not reported as
// an error of the descriptor, writing says it, and all works when it is back.
func TestPacketDown(t *testing.T) {
	needTAP(t)
	for _, first := range []string{"reader", "writer"} {
		t.Run(first+" is told", func(t *testing.T) {
			ns := newNamespace(t)
			ns.veth("a", "b")
			a, b := ns.packet("a"), ns.packet("b")
			batch := packet.NewBatch()
			must(t, ns.nl.LinkSetDown(ns.link("a")))
			if first == "writer" { // takes the socket's error away from the reader
				wantWrite(t, a, link.ErrDown)
			}
			for range 3 {
				if n, err := a.ReadBatch(batch); n != 0 || err != nil {
					t.Fatalf("ReadBatch: %d, %v, want 0, nil", n, err)
				}
				wantWrite(t, a, link.ErrDown)
			}
			if events := poll(a.Fd(), 2*time.Second); events != unix.POLLIN {
				t.Errorf("poll: events %#x: nobody looks whether the interface is gone", events)
			}
			if n, err := a.ReadBatch(batch); n != 0 || err != nil {
				t.Fatalf("ReadBatch: %d, %v, want 0, nil", n, err)
			}
			ns.up("a")
			settle(t, a, b)
			settle(t, b, a)
			if events := poll(a.Fd(), 1200*time.Millisecond); events != 0 {
				t.Errorf("poll: events %#x: the interface is up, and somebody looks whether it is gone", events)
			}
		})
	}
}

// TestPacketGone: when the interface is removed the descriptor becomes ready,
// whatever was read before, and reading and writing say that it is gone.
func TestPacketGone(t *testing.T) {
	needTAP(t)
	for name, remove := range map[string]func(ns *namespace){
		"up":   func(ns *namespace) {},
		"down": func(ns *namespace) { must(ns.t, ns.nl.LinkSetDown(ns.link("a"))) },
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			ns.veth("a", "b")
			q := ns.packet("a")
			batch := packet.NewBatch()
			remove(ns)
			if _, err := q.ReadBatch(batch); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { // of the other end: the pair goes together
				defer close(done)
				must(t, ns.nl.LinkDel(ns.link("b")))
			}()
			for deadline := time.Now().Add(3 * time.Second); ; {
				poll(q.Fd(), time.Second)
				n, err := q.ReadBatch(batch)
				if errors.Is(err, link.ErrGone) && n == 0 {
					break
				}
				if err != nil || time.Now().After(deadline) {
					t.Fatalf("ReadBatch: %d, %v, want %v", n, err, link.ErrGone)
				}
			}
			<-done
			wantWrite(t, q, link.ErrGone)
		})
	}
}

// TestPacketGoneUnread: frames that came before the end do not hide it.
func TestPacketGoneUnread(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	q, far := ns.packet("a"), ns.packet("b")
	const waiting = 2*packet.BatchFrames + 5 // more than the first look finds
	for range waiting {
		wantWrite(t, far, nil)
	}
	for deadline := time.Now().Add(10 * time.Second); ns.link("a").Attrs().Statistics.RxPackets < waiting; {
		if time.Now().After(deadline) {
			t.Fatal("the frames do not arrive")
		}
		time.Sleep(time.Millisecond)
	}
	must(t, ns.nl.LinkDel(ns.link("b")))
	batch := packet.NewBatch()
	for deadline := time.Now().Add(10 * time.Second); ; {
		batch.Reset()
		n, err := q.ReadBatch(batch)
		if errors.Is(err, link.ErrGone) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("ReadBatch: %d, %v, want %v", n, err, link.ErrGone)
		}
		poll(q.Fd(), time.Second)
	}
}

// TestPacketFull: the kernel has no room at the moment, and says so.
func TestPacketFull(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	fd := ns.socket("a", unix.SOCK_RAW, unix.ETH_P_ALL)
	q, err := link.AdoptPacket(fd)
	must(t, err)
	defer func() { must(t, q.Close()) }()
	// A queue that lets next to nothing out keeps what is sent.
	must(t, ns.nl.QdiscAdd(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ns.link("a").Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       100, Buffer: netlink.Xmittime(100, 2000), Limit: 1 << 30}))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 20000))
	for range 1000 {
		if _, err := q.WriteBatch([]*packet.Frame{aFrame()}); err != nil {
			if !errors.Is(err, link.ErrFull) {
				t.Errorf("WriteBatch: %v, want %v", err, link.ErrFull)
			}
			return
		}
	}
	t.Error("1,000 frames that the interface keeps were taken")
}

// TestPacketTooLarge: an interface takes what its MTU allows, unlike a TAP. A
// segment train is taken whole, whatever its length.
func TestPacketTooLarge(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	q := ns.packet("a")
	large := &packet.Frame{B: packettest.UDP(alice, bob, 1, 2, make([]byte, 1501-28))}
	train := &packet.Frame{B: packettest.GSO(packettest.TCP(alice, bob, packettest.Segment{}, make([]byte, 20000)), 1448)}
	if n, err := q.WriteBatch([]*packet.Frame{aFrame(), train, large, aFrame()}); n != 2 || !errors.Is(err, link.ErrTooLarge) {
		t.Errorf("WriteBatch: %d, %v, want 2, %v", n, err, link.ErrTooLarge)
	}
}

// TestPacketRefuses: what is malformed the kernel refuses, and takes the next.
func TestPacketRefuses(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	q := ns.packet("a")
	bad := aFrame()
	bad.VNet().SetHdrLen(1000)
	if n, err := q.WriteBatch([]*packet.Frame{aFrame(), bad, aFrame()}); n != 1 || !errors.Is(err, link.ErrRefused) {
		t.Errorf("WriteBatch: %d, %v, want 1, %v", n, err, link.ErrRefused)
	}
	wantWrite(t, q, nil)
}

// TestPacketTakesAll: what the switch takes for well-formed, the kernel does too.
func TestPacketTakesAll(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	must(t, ns.nl.LinkSetMTU(ns.link("a"), 9000))
	q := ns.packet("a")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	full := 0
	for i := 0; i < 5000; {
		b := packettest.Good(rng, alice, bob)
		switch n, err := q.WriteBatch([]*packet.Frame{{B: b}}); {
		case err == nil:
			i++
		case errors.Is(err, link.ErrFull) && full < 1000:
			full++ // the other end is slow
			time.Sleep(time.Millisecond)
		default:
			t.Fatalf("WriteBatch: %d, %v: %x", n, err, b[:min(len(b), 100)])
		}
	}
}

// TestPacketLost: what the socket had no room for, and what does not arrive
// whole, is counted and not delivered.
func TestPacketLost(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	a := ns.packet("a")
	fd := ns.socket("b", unix.SOCK_RAW, unix.ETH_P_ALL)
	short := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 40}}
	must(t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &short[0]}))
	b, err := link.AdoptPacket(fd)
	must(t, err)
	defer func() { must(t, b.Close()) }()
	wantWrite(t, a, nil)
	batch := packet.NewBatch()
	if n, err := b.ReadBatch(batch); n != 0 || err != nil || b.Lost() != 1 {
		t.Errorf("a frame the filter cut off: %d read, %v, %d lost, want 0 and 1", n, err, b.Lost())
	}
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096))
	for range 100 {
		wantWrite(t, a, nil)
	}
	n, err := b.ReadBatch(batch)
	must(t, err)
	if n == 0 || n == 100 || b.Lost() != uint64(101-n) || b.Lost() != uint64(101-n) {
		t.Errorf("%d of 100 frames read from a small socket, %d lost", n, b.Lost()-1)
	}
}

// TestPacketVLAN: a tagged frame arrives as it was sent, though the kernel takes
// the tag off before a packet socket sees the frame.
func TestPacketVLAN(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.veth("a", "b")
	a, b := ns.packet("a"), ns.packet("b")
	data := make([]byte, 300)
	for name, sent := range map[string][]byte{
		"one tag":    packettest.Tagged(packettest.UDP(alice, bob, 1, 2, data), 0x6007),
		"two tags":   packettest.Tagged(packettest.UDP(alice, bob, 1, 2, data), 0x2007, 9),
		"unfinished": packettest.Tagged(packettest.Partial(packettest.TCP(alice, bob, packettest.Segment{}, data)), 7),
		"a train":    packettest.Tagged(packettest.GSO(packettest.TCP(alice, bob, packettest.Segment{}, make([]byte, 5000)), 1000), 7),
		"datagrams":  packettest.Tagged(packettest.GSO(packettest.UDP(alice.IPv6(), bob.IPv6(), 1, 2, make([]byte, 5000)), 1000), 7, 8),
	} {
		t.Run(name, func(t *testing.T) {
			wantWriteOf(t, a, sent, nil)
			batch := packet.NewBatch()
			n, err := b.ReadBatch(batch)
			if n != 1 || err != nil {
				t.Fatalf("ReadBatch: %d, %v", n, err)
			}
			got, want := &batch.Frames[0], packet.Frame{B: sent}
			if r := packet.Parse(got); r != packet.OK {
				t.Fatal(r)
			}
			if r := packet.Parse(&want); r != packet.OK {
				t.Fatal(r)
			}
			if got.Tags != want.Tags || got.VLAN != want.VLAN || got.Flags != want.Flags || got.Segments() != want.Segments() {
				t.Errorf("got %d tags %x, flags %b, %d segments; want %d, %x, %b, %d",
					got.Tags, got.VLAN, got.Flags, got.Segments(), want.Tags, want.VLAN, want.Flags, want.Segments())
			}
			if !bytes.Equal(got.Ether(), want.Ether()) {
				t.Errorf("\n got %x\nwant %x", got.Ether(), want.Ether())
			}
		})
	}
}

// TestRestoreSCTP: the CRC a kernel left unfinished is finished.
func TestRestoreSCTP(t *testing.T) {
	const at = packet.VNetLen + packet.EthernetLen + packet.IPv4MinLen
	chunk := append([]byte("\x00\x07\x00\x09\x00\x00\x00\x2a\xff\xff\xff\xff"), "INIT, or whatever"...)
	frame := packettest.IP(alice, bob, 132, chunk)
	v := packet.VNet(frame)
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(at - packet.VNetLen)
	v.SetCSumOffset(8)
	for _, tagged := range []bool{false, true} {
		room := make([]byte, packet.MaxFrame)
		aux := unix.TpacketAuxdata{}
		offset := at
		if tagged {
			aux.Status, offset = unix.TP_STATUS_VLAN_VALID, at+packet.VLANLen
		}
		n := link.Restore(room, copy(room, frame), &aux)
		if !packet.VNet(room).IsZero() || n != len(frame)+offset-at {
			t.Fatalf("header %x, %d bytes", room[:packet.VNetLen], n)
		}
		clear(chunk[8:12])
		want := crc32.Checksum(chunk, crc32.MakeTable(crc32.Castagnoli))
		if got := binary.LittleEndian.Uint32(room[offset+8:]); got != want {
			t.Errorf("CRC %#x, want %#x", got, want)
		}
	}
}

// FuzzRestore: whatever a kernel says of a frame, its bytes stay where they are
// but for what restore has to change.
func FuzzRestore(f *testing.F) {
	plain := packettest.UDP(alice, bob, 1, 2, make([]byte, 100))
	f.Add(plain, uint32(0), uint16(0), uint16(0))
	f.Add(packettest.Partial(plain), uint32(unix.TP_STATUS_VLAN_VALID), uint16(7), uint16(0x88a8))
	f.Add(packettest.GSO(plain, 10), uint32(unix.TP_STATUS_VLAN_VALID|unix.TP_STATUS_VLAN_TPID_VALID), uint16(7), uint16(0x88a8))
	sctp := packettest.IP(alice, bob, 132, make([]byte, 20))
	packet.VNet(sctp).SetFlags(packet.VNetNeedsCSum)
	packet.VNet(sctp).SetCSumStart(34)
	packet.VNet(sctp).SetCSumOffset(8)
	f.Add(sctp, uint32(0), uint16(0), uint16(0))
	room := make([]byte, packet.MaxFrame)
	f.Fuzz(func(t *testing.T, b []byte, status uint32, tci, tpid uint16) {
		const macs = packet.VNetLen + 12
		if len(b) < packet.VNetLen+packet.EthernetLen || len(b) > packet.MaxFrame-packet.VLANLen {
			return // such a frame is lost before
		}
		v := packet.VNet(b)
		if v.Flags()&packet.VNetNeedsCSum != 0 && v.CSumOffset() == 8 {
			// TestRestoreSCTP has these; here they must only not break.
			link.Restore(room, copy(room, b), &unix.TpacketAuxdata{Status: status, Vlan_tci: tci, Vlan_tpid: tpid})
			return
		}
		size := copy(room, b)
		n := link.Restore(room, size, &unix.TpacketAuxdata{Status: status, Vlan_tci: tci, Vlan_tpid: tpid})
		if n != size && n != size+packet.VLANLen {
			t.Fatalf("%d bytes became %d", size, n)
		}
		if !bytes.Equal(room[packet.VNetLen:macs], b[packet.VNetLen:macs]) || !bytes.Equal(room[macs+n-size:n], b[macs:]) {
			t.Error("the frame's own bytes changed")
		}
	})
}

// wantWrite writes a frame any interface takes.
func wantWrite(t *testing.T, q linktest.Queue, want error) {
	t.Helper()
	wantWriteOf(t, q, aFrame().B, want)
}

func wantWriteOf(t *testing.T, q linktest.Queue, b []byte, want error) {
	t.Helper()
	n, err := q.WriteBatch([]*packet.Frame{{B: b}})
	if !errors.Is(err, want) || (n == 1) != (want == nil) {
		t.Errorf("WriteBatch: %d, %v, want %v", n, err, want)
	}
}

// poll waits for a descriptor and returns what it is ready for.
func poll(fd int, timeout time.Duration) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(timeout); ; {
		if _, err := unix.Poll(fds, int(max(0, time.Until(deadline).Milliseconds()))); !errors.Is(err, unix.EINTR) {
			return fds[0].Revents
		}
	}
}
