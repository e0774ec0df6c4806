package uplink

import (
	"sync"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// deaf is an Out and an Inbound nobody listens to, for one worker.
type deaf struct{ room []byte }

func (o *deaf) Room() []byte                                      { return o.room }
func (o *deaf) Originate(packet.Place, int)                       {}
func (o *deaf) Resume(uint64)                                     {}
func (o *deaf) Wake(packet.NetworkID, int64)                      {}
func (o *deaf) Prefetch([]packet.Frame)                           {}
func (o *deaf) Route(*packet.Frame, *packet.Decision)             {}
func (o *deaf) Apply(*packet.Frame, *packet.Decision, packet.Out) {}
func (o *deaf) frame(b []byte, now int64) *packet.Frame {
	f := &packet.Frame{B: b, Time: now, Port: port}
	_ = packet.Parse(f) // it is well formed
	return f
}

// TestAnyWorker has workers and a person use an uplink at once, while its lease
// comes and goes. The race detector is the judge.
func TestAnyWorker(t *testing.T) {
	for _, conf := range []Config{static, lending} {
		u, err := New(conf, &deaf{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for id := range 3 {
			wg.Go(func() {
				out := &deaf{room: make([]byte, packet.MaxFrame)}
				ask, from := packettest.ARPRequest(alice, us.IP), packettest.UDP(router, us, 67, 68, make([]byte, 240))
				for n := range 300 {
					now := second + int64(n)*second/10
					for _, b := range [][]byte{ask, packettest.ARPRequest(rival, alice.IP), from} {
						f := out.frame(b, now)
						d := lookedUp(f)
						u.Route(f, &d)
						u.Apply(f, &d, out)
					}
					f := &packet.Frame{Time: now, Container: packet.ContainerID(id)}
					d := packet.Decision{Verdict: packet.Gateway, NextHop: packet.AddrFrom4([4]byte{192, 0, 2, byte(n)})}
					u.Resolve(f, d.NextHop, &d)
					u.Ask(f, &d, out)
					_ = u.Owns(addrOf(us)) || u.Subnet().Contains(us.IP) || u.NextHop() == u.Addr() || u.MTU() == 0
					switch {
					case id == 0:
						u.Tick(now, out)
					case n%50 == 0:
						u.FlushPort(port)
						u.State(now)
					}
				}
			})
		}
		wg.Wait()
		if conf.DHCP {
			continue
		}
		select {
		case <-u.Ready():
		default:
			t.Error("its addresses are claimed, and nobody was told")
		}
	}
}
