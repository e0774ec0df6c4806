package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// Root inside can send what no kernel would. Every frame that is malformed is
// dropped and counted under the reason why, on every kind of link, and nobody
// else notices.
func TestMalformedFrames(t *testing.T) {
	n := newNode(t)
	heart := n.beating("a", "b")
	rng := newRNG(t)
	for name, options := range map[string][]string{"tap": nil, "wire": {"--opt", wire}, "veth": {"--opt", veth}} {
		n.start(name, options...)
		stations := []packettest.Station{n.station(name), n.station("a"), n.station("b")}
		var frames [][]byte
		var reasons []packet.Reason
		for _, r := range packettest.ParseReasons[1:] {
			for range 300 {
				frame := packettest.Broken(rng, r, stations...)
				if packet.VNet(frame).Valid() && packet.VNet(frame).IsZero() { // what is wrong is in the frame itself
					frames, reasons = append(frames, frame), append(reasons, r)
				}
			}
		}
		before := n.port(name).Counts.Dropped
		sent := map[packet.Reason]uint64{}
		for i, errno := range n.inject(name, "plain", frames) {
			if errno == 0 {
				if name != "veth" || !cutTag(frames[i]) {
					sent[reasons[i]]++
				}
			} else if len(frames[i]) >= packet.VNetLen+packet.EthernetLen {
				t.Errorf("%s: the kernel refused a frame of %d bytes: %v", name, len(frames[i]), errno)
			}
		}
		lab.Eventually(t, 10*time.Second, func() error {
			dropped := n.port(name).Counts.Dropped
			var wrong []error
			for _, r := range packettest.ParseReasons[1:] {
				if got := dropped[r.String()] - before[r.String()]; got != sent[r] {
					wrong = append(wrong, fmt.Errorf("%d dropped as %s, %d were sent", got, r.String(), sent[r]))
				}
			}
			return errors.Join(wrong...)
		})
		t.Logf("%s: %v", name, sent)
		for _, r := range packettest.ParseReasons[1:] {
			if sent[r] == 0 && r != packet.BadVNet { // a plain frame has no virtio-net header
				t.Errorf("%s: no frame was %v", name, r)
			}
		}
	}
	heart.stop()
	n.run("kill", "veth") // its kernel has counted what it threw away behind our back
	n.gone("veth")
}

// cutTag reports whether a frame ends within its VLAN tag and what is told behind
// it. Where it leaves a veth the kernel takes the tag off, and throws such a frame
// away (skb_vlan_untag).
func cutTag(frame []byte) bool {
	b := frame[packet.VNetLen:]
	t := packet.Ethernet(b).Type()
	return (t == packet.EtherTypeVLAN || t == packet.EtherTypeQinQ) && len(b) < packet.EthernetLen+packet.VLANLen+2
}

// A program inside may also say how its frames are to be cut and summed
// (PACKET_VNET_HDR). The kernel passes some lies on: those that reach the switch
// are dropped, or do the receiver no harm.
func TestLyingHeaders(t *testing.T) {
	n := newNode(t)
	heart := n.beating("a", "b")
	rng := newRNG(t)
	n.start("victim")
	n.start("wire", "--opt", wire)
	n.start("veth", "--opt", veth)
	n.start("liar")
	trace := n.background("trace", "--words") // which takes all of them apart
	stations := []packettest.Station{n.station("liar"), n.station("victim"), n.station("wire"), n.station("veth")}
	var frames [][]byte
	for range 3000 {
		frame := packettest.Random(rng, stations...)
		if rng.IntN(2) == 0 { // any header on any frame
			_, _ = rngReader{rng}.Read(frame[:min(rng.IntN(packet.VNetLen+1), len(frame))])
		}
		// From the liar itself, else the guard drops most of them.
		if len(frame) >= packet.VNetLen+packet.EthernetLen {
			packet.Ethernet(frame[packet.VNetLen:]).SetSrc(stations[0].MAC)
		}
		frames = append(frames, frame)
	}
	taken := 0
	for _, errno := range n.inject("liar", "vnet", frames) {
		if errno == 0 {
			taken++
		}
	}
	heart.stop() // frames on their way are in one count and not yet in the other
	n.audit()
	trace.says("bad-vnet-header")
	trace.signal(os.Interrupt)
	if code := trace.wait(); code != 0 {
		t.Errorf("trace ended with %d: %s", code, trace.errors.String())
	}
	c := n.port("liar").Counts
	t.Logf("the kernel took %d of %d frames and passed on %d; dropped: %v; failed: %v", taken, len(frames), c.Read, c.Dropped, n.failed())
	if c.Dropped[packet.BadVNet.String()] == 0 {
		t.Errorf("no lie of a virtio-net header got through: %v", c.Dropped)
	}
	// What passed the parser, every kernel must take.
	if failed := n.failed(); len(failed) > 0 {
		t.Errorf("copies failed: %v", failed)
	}
	for _, name := range []string{"victim", "wire", "veth", "liar"} {
		n.exec(name, "fairlead", "probe", "ping", "-c", "1", "172.17.0.1")
	}
}

// failed counts what was written to ports and not taken, by port and reason.
func (n *node) failed() map[string]uint64 {
	n.t.Helper()
	m := map[string]uint64{}
	for _, p := range n.theSwitch().Ports {
		for reason, count := range p.Counts.Failed {
			m[p.Container+" "+reason] = count
		}
	}
	return m
}

func newRNG(t *testing.T) *rand.Rand { return rand.New(rand.NewPCG(lab.Seed(t), 0)) }

type rngReader struct{ *rand.Rand }

func (r rngReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return len(b), nil
}

// station is a container as others address it.
func (n *node) station(name string) packettest.Station {
	n.t.Helper()
	c := n.containers()[name]
	mac, err1 := packet.ParseMAC(c.MAC)
	ip, err2 := netip.ParseAddr(c.IP)
	if err := errors.Join(err1, err2); err != nil {
		n.t.Fatalf("container %s: %v", name, err)
	}
	return packettest.Station{MAC: mac, IP: ip}
}

// inject sends frames out of a container's eth0 and returns what its kernel
// said to each. mode is "vnet" when it is to take their virtio-net headers.
func (n *node) inject(name, mode string, frames [][]byte) []syscall.Errno {
	n.t.Helper()
	var in bytes.Buffer
	for _, f := range frames {
		in.Write(binary.BigEndian.AppendUint32(nil, uint32(len(f))))
		in.Write(f)
	}
	r := n.tryWith(&in, append([]string{"exec", "-i", name}, play(n.t, "inject", mode)...)...)
	words := strings.Fields(r.stdout)
	if r.code != 0 || len(words) != len(frames) {
		n.t.Fatalf("inject %d frames: %d answers, %s", len(frames), len(words), r.stderr)
	}
	errnos := make([]syscall.Errno, len(words))
	for i, w := range words {
		number, _ := strconv.Atoi(w)
		errnos[i] = syscall.Errno(number)
	}
	return errnos
}

// inject reads frames, each behind its length, and sends them out of eth0.
func inject(args []string) error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	skip := packet.VNetLen
	if args[0] == "vnet" {
		skip = 0
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
	}
	var answers []string
	for {
		var length uint32
		if err := binary.Read(os.Stdin, binary.BigEndian, &length); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		frame := make([]byte, length)
		if _, err := io.ReadFull(os.Stdin, frame); err != nil {
			return err
		}
		err := unix.Sendto(fd, frame[min(skip, len(frame)):], 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			return err
		}
		answers = append(answers, strconv.Itoa(int(errno)))
		if len(answers)%16 == 0 {
			time.Sleep(200 * time.Microsecond) // a device's queue holds 1000 frames
		}
	}
	fmt.Println(strings.Join(answers, " "))
	return nil
}
