package test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// statistics are the counters `ip -s -j link` prints of a container's eth0.
func (n *node) statistics(name string) kernel {
	n.t.Helper()
	var list []struct {
		Stats64 struct {
			RX, TX struct{ Bytes, Packets uint64 }
		}
	}
	out := n.exec(name, "ip", "-s", "-j", "link", "show", "eth0")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		n.t.Fatalf("ip -s -j link: %v\n%s", err, out)
	}
	s := list[0].Stats64
	return kernel{s.RX.Packets, s.RX.Bytes, s.TX.Packets, s.TX.Bytes}
}

// sameInside waits until a port has counted what its container has, and returns
// the port's counters.
func (n *node) sameInside(name string) (c api.Counts) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		inside := n.statistics(name)
		p := n.port(name)
		c = p.Counts
		return agree(p, inside)
	})
	return c
}

// After any traffic both ends of a cable have counted the same, and a segment of
// 64 KB is one frame of many segments.
func TestS32_BothEndsCountTheSame(t *testing.T) {
	lab.Need(t, "ip", "ping", "iperf3")
	n := newNode(t)
	names := []string{"server", "wire", "veth"}
	for i, kind := range []string{"link=tap", wire, veth} {
		n.start(names[i], "--opt", kind, "--", "iperf3", "-s", "--forceflush")
		n.logSays(names[i], "Server listening")
	}
	n.start("client")
	names = append(names, "client")
	check := func(after string) map[string]api.Counts {
		t.Helper()
		counts := map[string]api.Counts{}
		for _, name := range names {
			counts[name] = n.sameInside(name)
		}
		t.Logf("after %s: %+v", after, counts)
		return counts
	}
	check("nothing")

	for _, to := range []string{"172.17.0.2", "172.17.0.3", "172.17.0.4", "172.17.0.1"} {
		n.exec("client", "ping", "-c", "5", "-i", "0.01", "-s", "1400", "-W", "5", to)
		n.exec("client", "ping", "-c", "2", "-i", "0.01", "-s", "9000", "-W", "5", to) // in fragments
	}
	pinged := check("ping")
	for name, c := range pinged {
		if c.ReadSegments != c.Read || c.WrittenSegments != c.Written {
			t.Errorf("%s: ping makes no large frames: %+v", name, c)
		}
	}

	const traffic = 32 << 20
	n.iperf3("client", "-c", "172.17.0.2", "-n", fmt.Sprint(traffic))
	bulk := check("TCP")
	in, out := sub(bulk["client"], pinged["client"]), sub(bulk["server"], pinged["server"])
	// iperf3 stops counting at its socket, and what is still in there at the end
	// may be thrown away.
	if least := uint64(traffic / 2); in.ReadBytes < least || out.WrittenBytes < least {
		t.Errorf("%d bytes were sent, the ports counted %d in and %d out", traffic, in.ReadBytes, out.WrittenBytes)
	}
	// No segment carries more than 1448 bytes.
	if most := in.ReadSegments * 1448; in.ReadBytes-in.Read*66 > most || out.WrittenBytes-out.Written*66 > out.WrittenSegments*1448 {
		t.Errorf("too few segments: %+v in, %+v out", in, out)
	}
	if in.Read > in.ReadSegments/4 || out.Written > out.WrittenSegments/4 {
		t.Errorf("the client's %d frames have %d segments, the server got %d of %d: large frames do not cross whole",
			in.Read, in.ReadSegments, out.Written, out.WrittenSegments)
	}
	lab.Eventually(t, 10*time.Second, func() error { // a kernel may speak between two looks
		p := n.port("client").Counts
		return contains(n.run("show", "switch", "-v"), fmt.Sprintf("in       %d frames of %d segments, ", p.Read, p.ReadSegments))
	})

	n.iperf3("client", "-c", "172.17.0.2", "-n", "8M", "-R")
	n.iperf3("client", "-c", "172.17.0.2", "-u", "-b", "0", "-n", "8M")
	check("TCP the other way, and UDP")

	// A textbook wire gets every segment by itself, with headers of its own:
	// 66 bytes of Ethernet, IPv4, and TCP with timestamps.
	n.iperf3("client", "-c", "172.17.0.3", "-n", fmt.Sprint(traffic/4))
	n.iperf3("client", "-c", "172.17.0.3", "-n", fmt.Sprint(traffic/4), "-R")
	plain := check("TCP over a textbook wire")["wire"]
	if plain.Read != plain.ReadSegments || plain.Written == plain.WrittenSegments {
		t.Errorf("a textbook wire sent %d frames of %d segments and got %d of %d",
			plain.Read, plain.ReadSegments, plain.Written, plain.WrittenSegments)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		c, inside := n.port("wire").Counts, n.statistics("wire")
		if want := c.WrittenBytes + 66*(c.WrittenSegments-c.Written); inside.rxBytes != want {
			return fmt.Errorf("the wire got %d bytes, want %d: %d in %d frames of %d segments",
				inside.rxBytes, want, c.WrittenBytes, c.Written, c.WrittenSegments)
		}
		return nil
	})

	// A veth pair carries large frames both ways.
	n.iperf3("client", "-c", "172.17.0.4", "-n", fmt.Sprint(traffic/4))
	n.iperf3("client", "-c", "172.17.0.4", "-n", fmt.Sprint(traffic/4), "-R")
	pair := check("TCP over a veth pair")["veth"]
	if pair.Read > pair.ReadSegments/4 || pair.Written > pair.WrittenSegments/4 {
		t.Errorf("a veth pair sent %d frames of %d segments and got %d of %d: large frames do not cross whole",
			pair.Read, pair.ReadSegments, pair.Written, pair.WrittenSegments)
	}
}

// sub is what was counted between two moments.
func sub(a, b api.Counts) api.Counts {
	return api.Counts{
		Read: a.Read - b.Read, ReadBytes: a.ReadBytes - b.ReadBytes, ReadSegments: a.ReadSegments - b.ReadSegments,
		Written: a.Written - b.Written, WrittenBytes: a.WrittenBytes - b.WrittenBytes, WrittenSegments: a.WrittenSegments - b.WrittenSegments,
	}
}
