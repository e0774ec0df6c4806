package main

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	hosts "fairlead/test/lab"
)

// No peer by the host's sockets may be ahead with CUBIC, none by more than a tenth
// with BBR, and the container's TAP drops nothing.
func TestHostTCPBars(t *testing.T) {
	w := &workload{name: "host-out-1", unit: "Gb/s"}
	for cc, want := range map[string][]bool{"cubic": {true, false, false}, "bbr": {true, true, false}} {
		m := &sites{w: w, r: &results{}}
		for name, value := range map[string]float64{"fairlead": 10, "pasta-1500": 2, "pasta-65520": 10.5, "slirp-65520": 9} {
			e := &measured{site: &site{leader: leaderNamed(name)}, figure: m.r.figure(w, name)}
			for round := range minPairs {
				s := sample{Round: round, Value: value}
				if e.ours() && round == 0 {
					s.Dropped = 1
				}
				e.figure.add(s)
			}
			m.list = append(m.list, e)
		}
		m.holdTCP(cc)
		var met []bool
		for _, b := range m.r.Bars {
			met = append(met, b.Met)
		}
		if !slices.Equal(met, want) || !strings.Contains(m.r.Bars[1].Name, "pasta-65520") {
			t.Errorf("%s: %+v", cc, m.r.Bars)
		}
	}
}

// Whose sockets are on the machine has its congestion control, and says so where that
// is not the one that was asked for.
func TestCongestionControlNote(t *testing.T) {
	hosts.NoLeaks(t)
	defer func(all []*leader) { leaders = all }(leaders)
	leaders = []*leader{{name: "peer", program: "sh", lay: func(*site, *lab) {}}}
	l := &lab{ctx: t.Context(), name: t.Name()}
	var r results
	err := l.do(func() {
		prepare := func(*lab, *site) func(int) (sample, error) { return nil }
		(&workload{name: "x"}).sites(l, &options{}, &r, in, "none", everyLeader, prepare)
	})
	if err != nil || len(r.Figures) != 1 || !strings.HasPrefix(r.Figures[0].Note, "the machine's sockets have ") {
		t.Errorf("%v; not run: %v; figures: %+v", err, r.NotRun, r.Figures)
	}
}

// A note that several paths have is there once.
func TestNotes(t *testing.T) {
	got := notes([]*figure{{Path: "a", Note: "x"}, {Path: "b"}, {Path: "c", Note: "y"}, {Path: "d", Note: "x"}})
	if want := []remark{{"a, d", "x"}, {"c", "y"}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A sample by the host's sockets has what the container's TAP dropped, here because
// nobody reads it.
func TestSiteCountsDrops(t *testing.T) {
	hosts.NoLeaks(t)
	hosts.NeedTUN(t)
	l := &lab{ctx: t.Context(), name: t.Name()}
	err := l.do(func() {
		s := &site{leader: leaderNamed("fairlead"), container: hosts.NewHost(l, "full")}
		tap := makeLink(l, s.container, "TAP")
		defer tap.Close()
		s.container.Addr(l, "eth0", slirpInside+"/24")
		s.container.Up(l, "eth0")
		s.container.Run(l, "ip", "neigh", "add", "10.0.2.2", "lladdr", rawGateway.String(), "dev", "eth0")
		s.inside = s.container.Serve(l, "sleep", "100000").Pid()
		conn := hosts.In(l, s.container, func() (net.Conn, error) { return net.Dial("udp4", "10.0.2.2:9") })
		defer conn.Close()
		q, err := s.across(func() (float64, error) {
			before, err := s.carried()
			l.check(err, "count")
			hosts.Eventually(l, 10*time.Second, func() error {
				for range 1000 {
					_, _ = conn.Write([]byte("hello")) // some find no room
				}
				now, err := s.carried()
				if err == nil && now.dropped == before.dropped {
					err = errors.New("nothing was dropped")
				}
				return err
			})
			return 0, nil
		})
		if err != nil || q.Dropped == 0 {
			t.Errorf("%+v, %v", q, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
