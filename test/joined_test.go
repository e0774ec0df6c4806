package test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/test/lab"
)

// Datagrams of random sizes in 64 flows that come mixed, and TCP of small segments,
// arrive as they were sent, whether the switch joins them or not: in order, each
// with its boundaries, over IPv4 and IPv6, by whatever link, to sockets that know of
// trains (UDP_GRO) and that do not, while others use the switch too.
func TestJoined(t *testing.T) {
	lab.Need(t, "ethtool")
	n := newNode(t)
	seed := lab.Seed(t)
	n.start("others-sink", append([]string{"--"}, play(t, "sink", ":5001")...)...)
	n.start("others")
	n.logSays("others-sink", "listening")
	for _, kind := range []string{"link=tap", veth, wire} {
		n.testJoined(kind, seed)
	}
}

func (n *node) testJoined(kind string, seed uint64) {
	t := n.t
	n.start("client", "--opt", kind)
	n.start("server", append([]string{"--opt", kind, "--"}, play(t, "mixed")...)...)
	n.start("sink", append([]string{"--network", "container:server", "--"}, play(t, "sink", ":5001")...)...)
	n.logSays("server", "listening")
	n.logSays("sink", "listening")
	ip := n.containers()["server"].IP
	for _, c := range []struct {
		name           string
		join           string
		inA, inB       string // what ethtool is told
		datagrams, tcp joining
	}{
		{"joined", "on", "", "", always, maybe},
		{"join=off", "off", "", "", never, never},
		{"the receiver offloads nothing", "on", "", "rx off tx off tso off gso off gro off", always, maybe},
		{"the sender cuts segments", "on", "tso off gso off", "", always, always},
		{"the sender offloads nothing", "on", "tx off tso off gso off", "", never, never},
	} {
		if kind == wire {
			c.datagrams, c.tcp = never, never
		}
		if kind == wire && (c.inA != "" || c.inB != "") {
			continue // it has nothing to turn off
		}
		n.run("network", "set", "-o", "join="+c.join, "default")
		for name, words := range map[string]string{"client": c.inA, "server": c.inB} {
			if words != "" {
				n.exec(name, append([]string{"ethtool", "-K", "eth0"}, strings.Fields(words)...)...)
			}
		}
		noise := n.background(append([]string{"exec", "-i", "others"}, play(t, "transfers", n.containers()["others-sink"].IP+":5001", "10000000")...)...)
		for i, to := range []struct{ addr, most, gro string }{
			{ip, "1472", "0"}, {ip, "1472", "1"},
			{linkLocal(n, "server") + "%eth0", "1452", "0"}, {linkLocal(n, "server") + "%eth0", "1452", "1"},
		} {
			n.whetherJoined(kind+", "+c.name+", datagrams", c.datagrams, func() string {
				return n.exec("client", play(t, "mix", to.addr, to.most, to.gro, strconv.FormatUint(seed+uint64(i), 10))...)
			})
		}
		n.whetherJoined(kind+", "+c.name+", TCP", c.tcp, func() string {
			return n.exec("client", play(t, "transfer", ip+":5001", "4000000")...)
		})
		noise.in.Close()
		if code := noise.wait(); code != 0 {
			t.Error(noise.errors.String())
		}
		n.audit()
		for name, words := range map[string]string{"client": c.inA, "server": c.inB} {
			if words != "" {
				n.exec(name, append([]string{"ethtool", "-K", "eth0"}, strings.Fields(strings.ReplaceAll(words, "off", "on"))...)...)
			}
		}
	}
	for _, name := range []string{"client", "sink", "server"} {
		n.run("kill", name)
		n.gone(name)
	}
}

// joining says how much of some traffic is joined.
type joining int

const (
	never joining = iota
	maybe
	always
)

// whetherJoined has traffic cross, of which none may be joined, or some must: then it
// is done again until the switch found some together. Programs that are plain join
// nothing.
func (n *node) whetherJoined(name string, want joining, traffic func() string) {
	n.t.Helper()
	if loop.Plain {
		want = never
	}
	before := n.port("server").Counts
	for start := time.Now(); ; {
		said := traffic()
		c := n.port("server").Counts
		joined := c.Joined - before.Joined
		if want == never && joined > 0 {
			n.t.Errorf("%s: %d of %d packets were joined", name, joined, c.Written-before.Written)
		}
		if want != always || joined > 0 {
			n.t.Logf("%s: %d of %d packets were joined; %s", name, joined, c.Written-before.Written, strings.TrimSpace(said))
			return
		}
		if time.Since(start) > patience {
			n.t.Fatalf("%s: in %v nothing was joined of %d packets", name, patience, c.Written-before.Written)
		}
	}
}

// Traffic of the parts mix and mixed: flows of datagrams, and a TCP connection by
// which they agree on what was sent.
const (
	mixFlows   = 64
	mixPort    = 20000 // of the first flow
	mixControl = 19999
	mixWindow  = 64 // datagrams under way, few enough for every buffer there is
	mixHeader  = 8
	mixLeast   = 18
)

// mixContent is what datagram seq of a flow holds.
func mixContent(random []byte, flow, seq, size int) []byte {
	b := bytes.Clone(random[(flow*7919+seq*4099)%pieceLen:][:size])
	binary.BigEndian.PutUint16(b, uint16(flow))
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	binary.BigEndian.PutUint32(b[4:], uint32(seq))
	return b
}

// mix sends to mixed on a host: datagrams of mixLeast to some bytes, in runs of equal
// ones as programs send them, of all flows mixed.
func mix(args []string) error {
	most, err1 := strconv.Atoi(args[1])
	seed, err2 := strconv.ParseUint(args[3], 10, 64)
	control, err3 := net.Dial("tcp", net.JoinHostPort(args[0], strconv.Itoa(mixControl)))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer control.Close()
	answers := bufio.NewReader(control)
	agree := func(format string, args ...any) error {
		if err := control.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(control, format+"\n", args...); err != nil {
			return err
		}
		line, err := answers.ReadString('\n')
		if err == nil && line != "ok\n" {
			err = errors.New(strings.TrimSpace(line))
		}
		return err
	}
	if err := agree("gro %s", args[2]); err != nil {
		return err
	}
	type flow struct {
		conn            net.Conn
		size, left, seq int
		sum             hash.Hash
	}
	flows := make([]flow, mixFlows)
	for i := range flows {
		conn, err := net.Dial("udp", net.JoinHostPort(args[0], strconv.Itoa(mixPort+i)))
		if err != nil {
			return err
		}
		defer conn.Close()
		flows[i] = flow{conn: conn, sum: sha256.New()}
	}
	rng, random := rand.New(rand.NewPCG(seed, 0)), pool()
	last, sent := 0, 0
	for range 50 {
		for range mixWindow {
			if rng.IntN(3) == 0 {
				last = rng.IntN(mixFlows)
			}
			f := &flows[last]
			size := f.size
			if f.left == 0 {
				f.left = 1 + rng.IntN(12)
				f.size = mixLeast + rng.IntN(most-mixLeast+1)
				size = f.size
			} else if f.left == 1 && rng.IntN(2) == 0 {
				size = mixLeast + rng.IntN(f.size-mixLeast+1)
			}
			f.left--
			b := mixContent(random, last, f.seq, size)
			if _, err := f.conn.Write(b); err != nil {
				return err
			}
			_, _ = f.sum.Write(b)
			f.seq++
			sent++
		}
		if err := agree("sent %d", sent); err != nil {
			return err
		}
	}
	all := sha256.New()
	for i := range flows {
		_, _ = all.Write(flows[i].sum.Sum(nil))
	}
	if err := agree("hash %x", all.Sum(nil)); err != nil {
		return err
	}
	fmt.Printf("%d datagrams in %d flows\n", sent, mixFlows)
	return nil
}

// A mixer receives the flows of mix.
type mixer struct {
	random []byte
	conns  []*net.UDPConn

	mu    sync.Mutex
	more  *sync.Cond // something arrived
	seq   [mixFlows]int
	sums  [mixFlows]hash.Hash
	total int
	err   error // the first thing that was wrong
}

// mixed serves mix, one after the other.
func mixed([]string) error {
	m := &mixer{random: pool()}
	m.more = sync.NewCond(&m.mu)
	for i := range mixFlows {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: mixPort + i})
		if err != nil {
			return err
		}
		m.conns = append(m.conns, conn)
		go m.receive(i, conn)
	}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(mixControl))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		m.serve(conn)
	}
}

// serve answers one mix.
func (m *mixer) serve(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		word, value, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch word {
		case "gro":
			err = m.begin(value == "1")
		case "sent":
			err = m.wait(value)
		case "hash":
			m.mu.Lock()
			all := sha256.New()
			for _, s := range m.sums {
				_, _ = all.Write(s.Sum(nil))
			}
			if got := fmt.Sprintf("%x", all.Sum(nil)); got != value {
				err = fmt.Errorf("hash %s here, %s there", got, value)
			}
			m.mu.Unlock()
		}
		if err == nil {
			fmt.Fprintln(conn, "ok")
		} else {
			fmt.Fprintln(conn, err)
		}
	}
}

// begin forgets what came before.
func (m *mixer) begin(gro bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq, m.total, m.err = [mixFlows]int{}, 0, nil
	on := 0
	if gro {
		on = 1
	}
	for i, conn := range m.conns {
		m.sums[i] = sha256.New()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var serr error
		err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, on) })
		if err := errors.Join(err, serr); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until as many datagrams have come as were sent.
func (m *mixer) wait(sent string) error {
	want, err := strconv.Atoi(sent)
	if err != nil {
		return err
	}
	late := time.AfterFunc(10*time.Second, func() { m.wrong(os.ErrDeadlineExceeded) })
	defer late.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.total < want && m.err == nil {
		m.more.Wait()
	}
	if m.err != nil {
		return fmt.Errorf("after %d of %d: %w", m.total, want, m.err)
	}
	return nil
}

func (m *mixer) wrong(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
	}
	m.more.Broadcast()
}

// receive checks what comes in one flow.
func (m *mixer) receive(flow int, conn *net.UDPConn) {
	b, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, oobn, _, _, err := conn.ReadMsgUDP(b, oob)
		if err != nil {
			m.wrong(err)
			return
		}
		size := n
		if s, ok := segmentSize(oob[:oobn]); ok {
			size = s
		}
		for rest := b[:n]; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			m.datagram(flow, rest[:min(size, len(rest))])
		}
	}
}

// segmentSize is what the kernel says the datagrams are long that it has not taken
// apart (UDP_GRO).
func segmentSize(oob []byte) (int, bool) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, c := range list {
		if c.Header.Level == unix.SOL_UDP && c.Header.Type == unix.UDP_GRO && len(c.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(c.Data)), true
		}
	}
	return 0, false
}

// datagram checks the next of a flow.
func (m *mixer) datagram(flow int, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.more.Broadcast()
	seq := m.seq[flow]
	m.seq[flow]++
	m.total++
	if m.sums[flow] == nil || m.err != nil {
		return // nobody has begun
	}
	_, _ = m.sums[flow].Write(b)
	if len(b) < mixHeader || !bytes.Equal(b, mixContent(m.random, flow, seq, len(b))) {
		m.err = fmt.Errorf("flow %d: datagram %d is not what was sent: %d bytes that begin with % x", flow, seq, len(b), b[:min(len(b), mixHeader)])
	}
}
