package test

import (
	"strconv"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// Segments of 64 KB cross in one piece, out and in: each end sees the bytes the
// other one sent, and far fewer frames than segments are counted.
func TestS27_LargeSegments(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		sink := play(t, "sink", ":9000")
		s := o.Host.Serve(t, sink[0], sink[1:]...)
		o.says(s, "listening")
		o.start("a", append([]string{"-p", "9000:9000", "--"}, sink...)...)
		o.logSays("a", "listening")
		t.Log("out: ", o.exec("a", play(t, "transfer", o.Router.FarHost+":9000", "50000000")...))
		in := play(t, "transfer", o.reach+":9000", "50000000")
		t.Log("in: ", o.Host.Run(t, in[0], in[1:]...))
		if c := o.port("a").Counts; c.ReadSegments < 3*c.Read || c.WrittenSegments < 3*c.Written {
			t.Errorf("segments do not cross whole: %d in %d frames read, %d in %d written", c.ReadSegments, c.Read, c.WrittenSegments, c.Written)
		}
	})
}

// iperf3 both ways, with several streams.
func TestS27_Iperf(t *testing.T) {
	lab.Need(t, "iperf3")
	eachWay(t, iperfs)
}

func iperfs(t *testing.T, o *outside) {
	s := o.Host.Serve(t, "iperf3", "-s", "--forceflush")
	o.says(s, "Server listening")
	o.start("a")
	o.iperf3("a", "-c", o.Router.FarHost, "-n", "20M", "-P", "4")
	o.iperf3("a", "-c", o.Router.FarHost, "-n", "20M", "-R")
	o.iperf3("a", "-c", o.Router.FarHost, "-u", "-b", "100M", "-n", "2M")
}

// Datagrams of all sizes, in fragments where they are large, come back as they
// were sent, out and in; so do trains of them.
func TestS27_Datagrams(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serveUDP(o.Host, 7)
		o.start("a", "-p", "7:7/udp", "--", "fairlead", "probe", "udp-echo")
		o.logSays("a", "echoing on")
		t.Log(o.exec("a", play(t, "datagrams", o.Router.FarHost+":7", "30", "1")...))
		in := play(t, "datagrams", o.reach+":7", "30", "2")
		t.Log(o.Host.Run(t, in[0], in[1:]...))
	})
}

// Fragments come in any order, with and without a checksum.
func TestS27_FragmentsInAnyOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serveUDP(o.Host, 7)
		o.start("a", "-p", "7:7/udp", "--", "fairlead", "probe", "udp-echo")
		o.logSays("a", "echoing on")
		for _, options := range [][]string{nil, {"nosum"}} {
			o.exec("a", play(t, "pieces", append([]string{o.Router.FarHost + ":7"}, options...)...)...)
			in := play(t, "pieces", append([]string{o.reach + ":7"}, options...)...)
			o.Host.Run(t, in[0], in[1:]...)
		}
	})
}

// The way behind the router has a smaller MTU than both ends. Its ICMP errors find their way to
// the container that sent the large packet, by connections out and in.
func TestS27_SmallerMTUBehindTheRouter(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.Router.MTU(t, 1300)
		sink := play(t, "sink", ":9000")
		s := o.Host.Serve(t, sink[0], sink[1:]...)
		o.says(s, "listening")
		o.start("a", append([]string{"-p", "9000:9000", "--"}, sink...)...)
		o.logSays("a", "listening")
		far := o.Router.FarHost
		r := o.try("exec", "a", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1400", far)
		if err := contains(r.stdout+r.stderr, "From "+o.Router.Addr, "Frag needed and DF set (mtu = 1300)"); err != nil {
			t.Error(err)
		}
		o.start("b") // which has heard nothing yet
		o.exec("b", play(t, "transfer", far+":9000", "1000000")...)
		// A connection over sockets is the machine's towards the router: that learns
		// the MTU, and the container's segments fit as they are.
		learned := func(name string) error {
			if o.byHost() {
				return contains(o.Machine.Run(t, "ip", "route", "get", far), "mtu 1300")
			}
			return contains(o.exec(name, "ip", "route", "get", far), "mtu 1300")
		}
		if err := learned("b"); err != nil {
			t.Errorf("b has not learned the MTU: %v", err)
		}
		in := play(t, "transfer", o.reach+":9000", "1000000")
		o.Host.Run(t, in[0], in[1:]...)
		if err := learned("a"); err != nil {
			t.Errorf("a has not learned the MTU: %v", err)
		}
		// What may be cut is cut, by the router.
		o.exec("b", "ping", "-c", "1", "-W", "5", "-M", "dont", "-s", "4000", far)
	})
}

// The uplink itself has a smaller MTU: our gateway says so, or cuts.
func TestS27_SmallerMTUOfTheUplink(t *testing.T) {
	o := newOutside(t, "mtu=1400")
	sink := play(t, "sink", ":9000")
	s := o.Host.Serve(t, sink[0], sink[1:]...)
	o.says(s, "listening")
	o.start("a")
	far := o.Router.FarHost
	r := o.try("exec", "a", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1400", far)
	if err := contains(r.stdout+r.stderr, "From 172.17.0.1", "Frag needed and DF set (mtu = 1400)"); err != nil {
		t.Error(err)
	}
	o.start("b")
	o.exec("b", play(t, "transfer", far+":9000", "1000000")...)
	if err := contains(o.exec("b", "ip", "route", "get", far), "mtu 1400"); err != nil {
		t.Errorf("b has not learned the MTU: %v", err)
	}
	o.start("c")
	for _, size := range []int{1372, 1373, 1472, 1473, 4000, 60000} {
		o.exec("c", "ping", "-c", "1", "-W", "5", "-M", "dont", "-s", strconv.Itoa(size), far)
	}
}

// Datagrams without a checksum and packets with IP options pass, out and in.
func TestS27_NoChecksumAndOptions(t *testing.T) { eachWay(t, noChecksumAndOptions) }

func noChecksumAndOptions(t *testing.T, o *outside) {
	o.serveUDP(o.Host, 7)
	o.start("a", "-p", "7:7/udp", "--", "fairlead", "probe", "udp-echo")
	o.logSays("a", "echoing on")
	for _, oddity := range [][]string{{"nosum"}, {"options"}, {"nosum", "options"}} {
		out := o.exec("a", play(t, "ask", append([]string{"40000", o.Router.FarHost + ":7", "2"}, oddity...)...)...)
		in := play(t, "ask", append([]string{"40000", o.Router.Uplink + ":7", "2"}, oddity...)...)
		for way, answer := range map[string]string{"out": out, "in": o.Host.Run(t, in[0], in[1:]...)} {
			if answer != "0 1\n" {
				t.Errorf("%s with %v: %q", way, oddity, answer)
			}
		}
	}
	if out := o.exec("a", "ping", "-c", "1", "-W", "5", "-R", o.Router.FarHost); !strings.Contains(out, "1 received") {
		t.Errorf("ping -R:\n%s", out)
	}
	// What a socket cannot send is counted.
	if o.byHost() {
		if err := contains(o.run("show", "drops"), "ip-options ", "udp-checksum-0 "); err != nil {
			t.Error(err)
		}
	}
}

// Connections half of which is closed, resets from either end and windows of
// zero, out and in.
func TestS27_OddTCP(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		server := play(t, "oddities", ":9000")
		s := o.Host.Serve(t, server[0], server[1:]...)
		o.says(s, "listening")
		o.start("a", append([]string{"-p", "9000:9000", "--"}, server...)...)
		o.logSays("a", "listening")
		in := play(t, "odd", o.reach+":9000")
		out := o.background(append([]string{"exec", "a"}, play(t, "odd", o.Router.FarHost+":9000")...)...)
		o.Host.Run(t, in[0], in[1:]...)
		if code := out.wait(); code != 0 {
			t.Errorf("out: %s", out.errors.String())
		}
	})
}

// A client that is done sending waits for the answer: socat on both ends.
func TestS27_HalfClosed(t *testing.T) {
	lab.Need(t, "socat")
	eachWay(t, halfCloses)
}

func halfCloses(t *testing.T, o *outside) {
	o.Host.Serve(t, "socat", "TCP-LISTEN:9000,fork,reuseaddr", "SYSTEM:wc -c")
	o.Host.Listens(t, 9000)
	o.start("a", "-p", "9000:9000", "--", "socat", "TCP-LISTEN:9000,fork,reuseaddr", "SYSTEM:wc -c")
	script := "head -c 300000 /dev/zero | socat -t 5 - TCP:%s:9000,retry=50,interval=0.1"
	for way, answer := range map[string]string{
		"out": o.sh("a", strings.Replace(script, "%s", o.Router.FarHost, 1)),
		"in":  o.Host.Run(t, "sh", "-c", strings.Replace(script, "%s", o.Router.Uplink, 1)),
	} {
		if strings.TrimSpace(answer) != "300000" {
			t.Errorf("%s: %q", way, answer)
		}
	}
}
