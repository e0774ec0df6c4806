package test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A thousand connections, out and in, that open, close, half-close and reset at
// random at both ends leave no flow, no socket and no descriptor.
func TestThousandConnections(t *testing.T) {
	o := newHostOutside(t)
	server := play(t, "swarmed", ":9000")
	o.says(o.Host.Serve(t, server[0], server[1:]...), "listening")
	o.start("a", append([]string{"-p", "9000:9000", "--"}, server...)...)
	o.logSays("a", "listening")
	// A reset that finds the interface's queue full is lost and never sent again: the
	// other end would be there until it gives up by itself.
	o.run("exec", "a", "ip", "link", "set", "dev", "eth0", "txqueuelen", "20000")
	before := o.holdings()
	in := play(t, "swarm", o.reach+":9000", "500", "1")
	out := o.background(append([]string{"exec", "a"}, play(t, "swarm", o.Router.FarHost+":9000", "500", "2")...)...)
	t.Log("in: ", o.Host.Run(t, in[0], in[1:]...))
	if code := out.wait(); code != 0 {
		t.Error(out.errors.String())
	}
	t.Log("out: ", out.out.String())
	last := time.Now()
	o.noConnections()
	o.noSockets()
	lab.Eventually(t, 10*time.Second, before.exceeded)
	t.Logf("all gone %v after the last close", time.Since(last))
}

// noSockets waits until no container has a socket.
func (n *node) noSockets() {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		if s := n.sockets(); s.Used > 0 {
			return fmt.Errorf("there are sockets: %+v", s)
		}
		return nil
	})
}

// sockets is how many there are, and may be.
func (n *node) sockets() api.Sockets {
	n.t.Helper()
	var v api.VersionInfo
	if err := n.ask("/v1/version", &v); err != nil {
		n.t.Fatal(err)
	}
	return v.Sockets
}

// atOnce is how many connections of a swarm there are at a time.
const atOnce = 100

// swarm makes connections to a swarmed and says how many:
//
//	ADDRESS:PORT COUNT SEED
func swarm(args []string) error {
	count, err1 := strconv.Atoi(args[1])
	seed, err2 := strconv.ParseUint(args[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var wg sync.WaitGroup
	places, failed := make(chan struct{}, atOnce), make(chan error, count)
	for i := range count {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			conn, err := net.DialTimeout("tcp4", args[0], 20*time.Second)
			if err != nil {
				failed <- err
				return
			}
			misbehave(conn.(*net.TCPConn), rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		// Who is reset as soon as he is accepted hears it while he still connects;
		// over sockets that is a refusal.
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
	fmt.Println(count, "connections")
	return nil
}

// swarmed is the other end of a swarm:
//
//	ADDRESS:PORT
func swarmed(args []string) error {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for i := uint64(0); ; i++ {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go misbehave(conn.(*net.TCPConn), rand.New(rand.NewPCG(3, i)))
	}
}

// misbehave does at random what one can do to a connection, and ends it.
func misbehave(conn *net.TCPConn, rng *rand.Rand) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	for range rng.IntN(4) {
		switch rng.IntN(6) {
		case 0:
			_ = conn.SetLinger(0) // the close will be a reset
			return
		case 1:
			return
		case 2:
			// The other end may be reading until it hears the end, too: then both
			// have closed.
			if conn.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
			return
		case 3:
			_ = conn.SetReadDeadline(time.Now().Add(time.Duration(rng.IntN(20)) * time.Millisecond))
			_, _ = io.CopyN(io.Discard, conn, int64(rng.IntN(100000)))
		default:
			if _, err := conn.Write(pool()[:1+rng.IntN(100000)]); err != nil {
				return
			}
		}
	}
}

// A container that opens connections without end has as many as it may, and is
// refused the next one at once, by a reset that is counted; the others do not
// notice. What it has had is all there again when it lets go.
func TestConnectionsWithoutEnd(t *testing.T) {
	lab.Need(t, "prlimit")
	o := newHostMachine(t)
	const limit = 2400
	if out, status := o.Machine.Try(t, "env", "FAIRLEAD_DIR="+o.dir, "prlimit", fmt.Sprintf("--nofile=%d:%[1]d", limit), o.bin, "up"); status != 0 {
		t.Fatal(out)
	}
	o.serveHTTP(o.Host, 80)
	o.serve("other", "-p", "8080:80")
	before := o.holdings()
	o.start("greedy")
	most := o.sockets().MostEach
	if most != limit/8 {
		t.Fatalf("%+v, want %d for each container", o.sockets(), limit/8)
	}
	hoarder := o.background(append([]string{"exec", "-i", "greedy"}, play(t, "hoard", o.Router.FarHost+":80")...)...)
	hoarder.says("connection refused")
	if want := fmt.Sprintf("%d connections", most); !strings.Contains(hoarder.out.String(), want) {
		t.Errorf("the hoarder says %q, want %s", hoarder.out.String(), want)
	}
	if o.dropped("greedy", "socket-budget") == 0 || o.sockets().Refused == 0 {
		t.Errorf("nothing counts the refusals: %+v", o.sockets())
	}
	for range 3 {
		greeted(t, o.exec("other", "curl", "-sS", "--max-time", "5", "http://"+o.Router.FarHost+"/"), o.seen)
		greeted(t, curl(t, o.Host, "http://"+o.reach+":8080/"), o.Router.FarHost)
	}
	hoarder.in.Close()
	hoarder.wait()
	lab.Eventually(t, patience, func() error { // once the node has seen that they are closed
		if r := o.try("exec", "greedy", "curl", "-sS", "--max-time", "5", "http://"+o.Router.FarHost+"/"); r.code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	o.run("stop", "-t", "0", "greedy")
	o.gone("greedy")
	o.noConnections()
	o.noSockets()
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// hoard opens connections until there are no more, says so, and holds them until
// its standard input ends:
//
//	ADDRESS:PORT
func hoard(args []string) error {
	var conns []net.Conn
	for {
		conn, err := net.DialTimeout("tcp4", args[0], 20*time.Second)
		if err != nil {
			fmt.Printf("%d connections: %v\n", len(conns), err)
			break
		}
		conns = append(conns, conn)
	}
	waitForInput()
	for _, c := range conns {
		c.Close()
	}
	return nil
}

// What the node needs grows with its connections, not with what they carry, nor
// with what waits because somebody does not read.
func TestMemoryIsBoundedByFlows(t *testing.T) {
	t.Setenv("GOGC", "25") // the node's: what is resident is mostly what is in use then
	o := newHostOutside(t)
	sink := play(t, "sink", ":9000")
	o.says(o.Host.Serve(t, sink[0], sink[1:]...), "listening")
	o.start("a", append([]string{"-p", "9000:9000", "--"}, sink...)...)
	o.logSays("a", "listening")
	out := play(t, "transfer", o.Router.FarHost+":9000", "20000000")
	in := play(t, "transfer", o.reach+":9000", "20000000")
	o.exec("a", out...)
	o.Host.Run(t, in[0], in[1:]...)
	pid := o.nodePid()
	warm := residentKB(t, pid)
	for range 3 {
		o.exec("a", out...)
		o.Host.Run(t, in[0], in[1:]...)
	}
	// And now nobody reads.
	deaf := play(t, "deaf", ":9001")
	o.says(o.Host.Serve(t, deaf[0], deaf[1:]...), "listening")
	stuffer := o.background(append([]string{"exec", "-i", "a"}, play(t, "stuff", o.Router.FarHost+":9001", "50")...)...)
	stuffer.says("stuffed")
	grown := residentKB(t, pid) - warm
	t.Logf("the node grew by %d KiB, %s", grown, stuffer.out.String())
	if grown > 24<<10 {
		t.Errorf("the node grew by %d KiB", grown)
	}
	stuffer.in.Close()
	stuffer.wait()
}

// deaf accepts connections and never reads from them:
//
//	ADDRESS:PORT
func deaf(args []string) error {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	var conns []net.Conn
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("after %d connections: %w", len(conns), err)
		}
		conns = append(conns, conn)
	}
}

// stuff fills connections until nothing goes in any more, says how much that was,
// and holds them until its standard input ends:
//
//	ADDRESS:PORT COUNT
func stuff(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	total := 0
	for range count {
		conn, err := net.Dial("tcp4", args[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
		for {
			_ = conn.SetWriteDeadline(time.Now().Add(30 * time.Millisecond))
			n, err := conn.Write(pool()[:64<<10])
			if total += n; err != nil {
				break
			}
		}
	}
	fmt.Printf("stuffed %d bytes into %d connections\n", total, count)
	waitForInput()
	return nil
}
