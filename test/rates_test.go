package test

import (
	"testing"
	"time"

	"fairlead/test/lab"
)

// mbit is the rate of these tests in bytes a second, and rateBurst what may come
// beside it: what a container may receive at once, and a large frame.
const (
	mbit      = 1_000_000 / 8
	rateBurst = 20*mbit*3/10 + 1<<18
)

// A container sends and receives as much as it may, and that may change while it
// runs. Held against it are the bytes its port has counted.
func TestRates(t *testing.T) {
	lab.Need(t, "iperf3")
	n := newNode(t)
	n.start("server", "--rate-in", "20mbit", "--", "iperf3", "-s", "--forceflush")
	n.logSays("server", "Server listening")
	n.start("client")
	received := func() uint64 { return n.port("server").Counts.WrittenBytes }
	sent := func() uint64 { return n.port("client").Counts.ReadBytes }
	for _, c := range []struct {
		name    string
		set     []string
		options []string // of iperf3
		bytes   func() uint64
		rate    int // of bytes; 0 is none
		drops   bool
	}{
		{"in", nil, nil, received, 20 * mbit, true},
		{"in, UDP", nil, []string{"-u", "-b", "50M"}, received, 20 * mbit, true},
		{"in, changed", []string{"--rate-in", "10mbit", "server"}, nil, received, 10 * mbit, true},
		{"out", []string{"--rate-in", "none", "--rate-out", "20mbit", "client", "server"}, nil, sent, 20 * mbit, false},
		{"out, changed", []string{"--rate-out", "8mbit", "client"}, nil, sent, 8 * mbit, false},
		{"none", []string{"--rate-out", "none", "client", "server"}, nil, sent, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.set != nil {
				n.run(append([]string{"update"}, c.set...)...)
			}
			refused, before, begin := n.port("server").Counts.Failed["rate-limit"], c.bytes(), time.Now()
			n.iperf3("client", append([]string{"-c", "172.17.0.2", "-t", "1"}, c.options...)...)
			bytes, took := c.bytes()-before, time.Since(begin)
			t.Logf("%d bytes in %v", bytes, took)
			most := uint64(took.Seconds()*float64(c.rate)) + rateBurst
			// Of the second iperf3 sends, this machine may be busy with something else.
			if least := uint64(c.rate / 2); c.rate > 0 && (bytes < least || bytes > most) {
				t.Errorf("%d bytes, want from %d to %d", bytes, least, most)
			}
			if c.rate == 0 && bytes < most {
				t.Errorf("%d bytes, as if there were a rate", bytes)
			}
			if dropped := n.port("server").Counts.Failed["rate-limit"] > refused; dropped != c.drops {
				t.Errorf("dropped for its rate: %v\n%s", dropped, n.run("show", "drops"))
			}
		})
	}
	n.run("update", "--rate-in", "1.5gbit", "--rate-out", "500kbit", "client")
	if p := n.port("client"); p.RateIn != "1.5gbit" || p.RateOut != "500kbit" {
		t.Errorf("show switch says %s and %s", p.RateIn, p.RateOut)
	}
	if err := contains(n.run("show", "switch", "-v"), "rates    in 1.5gbit, out 500kbit"); err != nil {
		t.Error(err)
	}
	if out := n.run("inspect", "client", "--format", "{{.HostConfig.RateIn}} {{.HostConfig.RateOut}}"); out != "1.5gbit 500kbit\n" {
		t.Errorf("inspect says %q", out)
	}
}

// A namespace somebody else made is held to rates as well.
func TestRatesOfForeignNamespaces(t *testing.T) {
	n := newNode(t)
	path, remove := namedNetns(t)
	defer remove()
	n.run("network", "connect", "--name", "blue", "--rate-in", "2mbit", "default", "netns:"+path)
	if p := n.port("blue"); p.RateIn != "2mbit" || p.RateOut != "" {
		t.Errorf("show switch says %q and %q", p.RateIn, p.RateOut)
	}
	n.run("update", "--rate-out", "3mbit", "blue")
	if p := n.port("blue"); p.RateIn != "2mbit" || p.RateOut != "3mbit" {
		t.Errorf("show switch says %q and %q", p.RateIn, p.RateOut)
	}
	n.run("network", "disconnect", "default", "blue")
}
