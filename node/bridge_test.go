package node

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/test/lab"
)

func (r *rig) ports() []api.Port {
	r.t.Helper()
	var s []api.Switch
	if err := r.Get(r.ctx, "/v1/switches", &s); err != nil || len(s) != 1 {
		r.t.Fatalf("%v, %v", s, err)
	}
	return s[0].Ports
}

// fewerPorts waits until so many are left.
func (r *rig) fewerPorts(n int) {
	r.t.Helper()
	lab.Eventually(r.t.(lab.T), 10*time.Second, func() error {
		if p := r.ports(); len(p) != n {
			return fmt.Errorf("%d ports, want %d", len(p), n)
		}
		return nil
	})
}

// TestS08_ContainersOnTheDefaultNetwork: two TAPs that came as descriptors are
// ports, with carrier, and their containers reach each other and the gateway.
func TestS08_ContainersOnTheDefaultNetwork(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ping")
	r := serve(t)
	a, b := newGuest(t, "a"), newGuest(t, "b")
	web, webInit := r.runOn(a, api.CreateRequest{Name: "web"})
	db, _ := r.runOn(b, api.CreateRequest{Name: "db", Options: map[string]string{"isolated": "on"}})

	a.Run(t, "ping", "-c", "1", "-W", "5", netip.MustParsePrefix(db.Link.Address).Addr().String())
	b.Run(t, "ping", "-c", "1", "-W", "5", "172.17.0.1")
	ports := r.ports()
	if len(ports) != 2 {
		t.Fatalf("%+v", ports)
	}
	p := ports[0]
	if p.Container != "web" || p.ID != web.ID || p.Kind != "tap" || p.Interface != "eth0" || p.Index != 2 || p.Pid != webInit.cmd.Process.Pid ||
		p.Netns == 0 || !strings.HasPrefix(p.Offload, "csum") || !p.Guard || p.Isolated || p.Counts.Read == 0 || p.Counts.Written == 0 {
		t.Errorf("%+v", p)
	}
	if !ports[1].Isolated {
		t.Errorf("%+v", ports[1])
	}
	// The end of its init takes the port, and the TAP with the node's descriptor.
	_ = a.tap.Close()
	webInit.die()
	r.gone("web")
	r.fewerPorts(1)
	lab.Eventually(t, 10*time.Second, func() error {
		if _, err := a.Netlink.LinkByName("eth0"); err == nil {
			return errors.New("the interface is still there")
		}
		return nil
	})
	var check api.Check
	if err := r.Get(r.ctx, "/v1/check", &check); err != nil || len(check.Violations) != 0 {
		t.Errorf("%v, %v", check, err)
	}
}

// TestLinkRemovedInside: root in the container may remove the interface; its
// port goes and the container stays.
func TestLinkRemovedInside(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	g := newGuest(t, "a")
	r.runOn(g, api.CreateRequest{Name: "web"})
	eth0, err := g.Netlink.LinkByName("eth0")
	if err == nil {
		err = g.Netlink.LinkDel(eth0)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.fewerPorts(0)
	if got := r.inspect("web"); !got.State.Running {
		t.Error("the container is gone, too")
	} else if got.NetworkSettings.IPAddress != "" || len(got.NetworkSettings.Networks) != 0 || r.list()[0].IP != "" {
		t.Errorf("it is said to have an address still: %+v", got.NetworkSettings)
	}
	_, err = r.Stream(r.ctx, "/v1/trace?container=web")
	refused(t, err, "container web has no port any more: its interface was removed from inside")
}

// TestForeignNamespace: it has no init of ours and ends with its link.
func TestForeignNamespace(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	g := newGuest(t, "a")
	connect := func() {
		t.Helper()
		c := r.create(api.CreateRequest{Name: "ns", Foreign: "netns:/run/netns/a"})
		if c.Mode != "foreign" || c.Link == nil {
			t.Errorf("created %+v", c)
		}
		if err := r.Hand(r.ctx, "/v1/containers/ns/attach", api.Attach{Descriptors: []string{"tap"}, Pid: 7, Interface: "eth0", Netns: 9}, []int{g.tap.Fd()}); err != nil {
			t.Fatal(err)
		}
	}
	connect()
	if got := r.list()[0]; got.Foreign != "netns:/run/netns/a" || got.Pid != 7 || got.Status != "running" {
		t.Errorf("%+v", got)
	}
	refused(t, r.Post(r.ctx, "/v1/containers/ns/kill", api.SignalRequest{Signal: "HUP"}, nil), "kill ns: it has no process of ours")
	// What it was connected by takes it off, by the inode whatever that is called.
	off := func(target string, netns uint64) error {
		return r.Post(r.ctx, "/v1/networks/default/disconnect", api.DisconnectRequest{Container: target, Netns: netns}, nil)
	}
	refused(t, off("netns:/run/netns/b", 0), "netns:/run/netns/b is not connected to network default; `fairlead network inspect default` lists what is")
	refused(t, off("netns:/run/netns/a", 8), "netns:/run/netns/a is not connected to network default; `fairlead network inspect default` lists what is")
	for target, netns := range map[string]uint64{"netns:/run/netns/a": 0, "pid:9": 9} {
		if err := off(target, netns); err != nil {
			t.Error(err)
		}
		r.gone("ns")
		connect()
	}
	// It may be taken off its network, which leaves the namespace alone,
	if err := r.Delete(r.ctx, "/v1/containers/ns", nil); err != nil {
		t.Error(err)
	}
	r.gone("ns")
	r.fewerPorts(0)
	// and ends when the interface does.
	connect()
	eth0, err := g.Netlink.LinkByName("eth0")
	if err == nil {
		err = g.Netlink.LinkDel(eth0)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.gone("ns")
}

// TestTextbookWire: with offload=off the container's device has plain frames,
// and a device of the other kind is refused.
func TestTextbookWire(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ping")
	r := serve(t)
	tap := newGuest(t, "tap")
	off := api.CreateRequest{Name: "web", Options: map[string]string{"offload": "off"}}

	c, i := r.create(off), newInit(t)
	err := r.Hand(r.ctx, "/v1/containers/web/attach", api.Attach{Descriptors: []string{"tap", "init", "channel"}},
		[]int{tap.tap.Fd(), i.pidfd, i.channel})
	if err == nil || !strings.HasPrefix(err.Error(), "attach container web: link: adopt wire: interface eth0 has flags ") {
		t.Errorf("a TAP for a wire: %v", err)
	}
	r.gone(c.ID)

	h := lab.NewHost(t, "wire")
	wire := lab.In(t, h, func() (*link.Wire, error) { return link.CreateWire(link.WireConfig{Name: "eth0"}) })
	t.Cleanup(func() { _ = wire.Close() })
	c, i = r.create(off), newInit(t)
	if !c.Link.Textbook {
		t.Errorf("created %+v", c.Link)
	}
	if err := r.Hand(r.ctx, "/v1/containers/web/attach", api.Attach{Descriptors: []string{"tap", "init", "channel"}, Interface: "eth0"},
		[]int{wire.Fd(), i.pidfd, i.channel}); err != nil {
		t.Fatal(err)
	}
	h.Run(t, "ip", "link", "set", "eth0", "address", c.Link.MAC)
	h.Addr(t, "eth0", c.Link.Address)
	h.Up(t, "eth0")
	r.runOn(tap, api.CreateRequest{Name: "db"})
	h.Run(t, "ping", "-c", "1", "-W", "5", "172.17.0.3")
	if p := r.ports(); len(p) != 2 || p[0].Kind != "wire" || p[0].Offload != "none" || p[1].Kind != "tap" {
		t.Errorf("%+v", p)
	}
}

// TestSharedLink: who joins a container's namespace has its address, and the
// link stays until the last of them has ended, under the name of one who is
// there.
func TestSharedLink(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	g := newGuest(t, "x")
	x, xInit := r.runOn(g, api.CreateRequest{Name: "x"})
	_, cInit := r.run(api.CreateRequest{Name: "guest", Network: "container:x"})
	if got := r.inspect("guest"); got.NetworkSettings.IPAddress != "172.17.0.2" || got.NetworkSettings.MacAddress != x.Link.MAC {
		t.Errorf("%+v", got.NetworkSettings)
	}
	xInit.die()
	r.gone("x")
	if p := r.ports(); len(p) != 1 || p[0].Container != "guest" || p[0].IP != "172.17.0.2" {
		t.Errorf("%+v", p)
	}
	if next := r.create(api.CreateRequest{}); next.Link.Address != "172.17.0.3/16" {
		t.Errorf("the address was given to another: %+v", next.Link)
	}
	cInit.die()
	r.gone("guest")
	r.fewerPorts(0)
	if next := r.create(api.CreateRequest{}); next.Link.Address != "172.17.0.2/16" {
		t.Errorf("the address was not given back: %+v", next.Link)
	}
}

// TestManyComeAndGo has containers with TAPs start and die at random moments;
// nothing is left of them.
func TestManyComeAndGo(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	h := lab.NewHost(t, "many")
	lab.NeedTUN(t)
	done := make(chan error)
	const each, workers = 12, 3
	for w := range workers {
		go func() {
			done <- func() error {
				for n := range each {
					var tap *link.TAP
					if err := h.Do(func() (err error) {
						tap, err = link.CreateTAP(link.TAPConfig{})
						return err
					}); err != nil {
						return err
					}
					c, i := new(api.Created), newInit(t)
					err := r.Post(r.ctx, "/v1/containers", api.CreateRequest{Command: []string{"sh"}}, c)
					if err == nil {
						err = r.Hand(r.ctx, "/v1/containers/"+c.ID+"/attach",
							api.Attach{Descriptors: []string{"tap", "init", "channel"}}, []int{tap.Fd(), i.pidfd, i.channel})
					}
					_ = tap.Close()
					if err != nil {
						return err
					}
					if n%2 == 0 {
						i.die()
					} else if err := r.Post(r.ctx, "/v1/containers/"+c.ID+"/kill", api.SignalRequest{}, nil); err != nil {
						return err
					}
					time.Sleep(time.Duration(w*n) * time.Millisecond)
				}
				return nil
			}()
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	r.fewerPorts(0)
	lab.Eventually(t, 10*time.Second, func() error {
		if links, err := h.Netlink.LinkList(); err != nil || len(links) > 1 {
			return fmt.Errorf("%d interfaces are left, %w", len(links), err)
		}
		return nil
	})
	lab.Eventually(t, 10*time.Second, func() error {
		if list := r.list(); len(list) != 0 {
			return fmt.Errorf("left: %+v", list)
		}
		return nil
	})
}
