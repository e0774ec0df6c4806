package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/test/lab"
)

func (r *rig) network(req api.NetworkCreate) api.NetworkInspect {
	r.t.Helper()
	var made api.NetworkCreated
	if err := r.Post(r.ctx, "/v1/networks", req, &made); err != nil {
		r.t.Fatal(err)
	}
	return r.inspectNetwork(made.ID)
}

func (r *rig) inspectNetwork(ref string) (d api.NetworkInspect) {
	r.t.Helper()
	if err := r.Get(r.ctx, "/v1/networks/"+ref, &d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// Networks are made, listed, changed and removed.
func TestNetworks(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	a := r.network(api.NetworkCreate{Name: "a"})
	b := r.network(api.NetworkCreate{
		Name: "b", Subnet: "10.1.0.0/16", Gateway: "10.1.0.9", IPRange: "10.1.5.0/24", AuxAddresses: map[string]string{"router": "10.1.5.1"},
		Internal: true, Options: map[string]string{"mtu": "1400", "com.docker.network.bridge.enable_icc": "false"}, Labels: map[string]string{"stage": "test"},
	})
	if len(a.ID) != 64 || a.IPAM.Config[0].Subnet != "172.18.0.0/16" || a.IPAM.Config[0].Gateway != "172.18.0.1" || a.Internal || len(a.Options) != 0 {
		t.Errorf("%+v", a)
	}
	if c := b.IPAM.Config[0]; c.Subnet != "10.1.0.0/16" || c.Gateway != "10.1.0.9" || c.IPRange != "10.1.5.0/24" || c.AuxiliaryAddresses["router"] != "10.1.5.1" {
		t.Errorf("%+v", c)
	}
	if !b.Internal || len(b.Options) != 2 || b.Options["mtu"] != "1400" || b.Options["icc"] != "off" || b.Labels["stage"] != "test" {
		t.Errorf("%+v", b)
	}
	var list []api.NetworkInspect
	if err := r.Get(r.ctx, "/v1/networks", &list); err != nil || len(list) != 3 || list[0].Name != "default" || list[1].Name != "a" || list[2].Name != "b" {
		t.Errorf("%v, %+v", err, list)
	}
	c := r.create(api.CreateRequest{Name: "web", Network: "b"})
	if c.Link.Address != "10.1.5.0/16" {
		t.Errorf("%+v", c.Link)
	}
	refused(t, r.Delete(r.ctx, "/v1/networks/b", nil), `error while removing network: network b has active endpoints (name:"web" id:"`+c.ID[:12]+
		"\"); `fairlead network disconnect b web` takes one off")
	if err := r.Delete(r.ctx, "/v1/containers/web", nil); err != nil {
		t.Fatal(err)
	}
	internal := false
	change := api.NetworkRequest{Internal: &internal, Options: map[string]string{"icc": "on", "routed": "on", "masquerade": "off"}}
	if err := r.Post(r.ctx, "/v1/networks/"+b.ID[:10], change, nil); err != nil {
		t.Fatal(err)
	}
	if b = r.inspectNetwork("b"); b.Internal || b.Options["icc"] != "" || b.Options["routed"] != "on" || b.Options["masquerade"] != "off" {
		t.Errorf("%+v", b)
	}
	for _, name := range []string{"a", b.ID} {
		if err := r.Delete(r.ctx, "/v1/networks/"+name, nil); err != nil {
			t.Error(err)
		}
	}
	// The number, the name and the subnet are free again.
	if a = r.network(api.NetworkCreate{Name: "a"}); a.IPAM.Config[0].Subnet != "172.18.0.0/16" {
		t.Errorf("%+v", a)
	}
}

// TestNetworkOfSharers: a network whose only users share the namespace of a container
// that has ended is used, and what is said to take them off does.
func TestNetworkOfSharers(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	x := h.join(t, "x")
	g := newGuest(t, "g")
	h.answering(t, x, func(ask *box.Message) ([]*box.Message, []int) {
		if ask.Link == nil {
			return []*box.Message{{Done: true}}, nil
		}
		fd, err := unix.Dup(g.tap.Fd())
		if err != nil {
			t.Error(err)
		}
		return []*box.Message{{Ready: &box.Ready{Index: 7}}, {Linked: true}}, []int{fd}
	})
	if err := h.connect("x", api.EndpointRequest{Network: "alpha"}); err != nil {
		t.Fatal(err)
	}
	var sharers []*container
	for _, name := range []string{"shelly", "sherry"} {
		h.mu.Lock()
		x.pidfd = 0 // of a process that runs, as far as anybody asks
		h.mu.Unlock()
		c, err := h.create(api.CreateRequest{Name: name, Command: []string{"sh"}, Network: "container:x"})
		if err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		x.pidfd = -1
		c.running, c.owner = true, x.container
		x.members++
		h.mu.Unlock()
		sharers = append(sharers, c)
	}
	users := func() (names string) {
		for _, c := range get[api.NetworkInspect](t, h, "/v1/networks/alpha").Containers {
			names += c.Name + " " + c.IPv4Address
		}
		return names
	}
	ids := func(list ...*container) string {
		var all []string
		for _, c := range list {
			all = append(all, fmt.Sprintf("name:%q id:%q", c.name(), c.id[:12]))
		}
		return "error while removing network: network alpha has active endpoints (" + strings.Join(all, ", ") + "); "
	}
	if got := users(); got != "x 172.18.0.2/16" {
		t.Errorf("used by %s", got)
	}
	refused(t, h.removeNetwork("alpha"), ids(sharers[0], sharers[1], x.container)+"`fairlead network disconnect alpha x` takes one off")
	h.end(x.container)
	if got := users(); got != "shelly 172.18.0.2/16" {
		t.Errorf("used by %s", got)
	}
	refused(t, h.removeNetwork("alpha"), ids(sharers...)+"they have the networks of container x, which has ended; `fairlead stop shelly sherry` takes it off them")
	for _, c := range sharers {
		h.end(c)
	}
	if got := users(); got != "" {
		t.Errorf("used by %s", got)
	}
}

// TestNetworkIsSavedFirst: nobody can join a network that may not come to be.
func TestNetworkIsSavedFirst(t *testing.T) {
	h := newHandlers(t)
	path := filepath.Join(h.conf.Dir, stateFile+".new")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	disk, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	made := make(chan error, 1)
	go func() { // more than a pipe holds
		_, err := h.createNetwork(api.NetworkCreate{Name: "alpha", Labels: map[string]string{"a": strings.Repeat("b", 1<<20)}})
		made <- err
	}()
	lab.Eventually(t, patience, func() error {
		if n, err := disk.Read(make([]byte, 1)); n != 1 {
			return fmt.Errorf("nothing is saved: %w", err)
		}
		return nil
	})
	_, err = h.create(api.CreateRequest{Command: []string{"sh"}, Network: "alpha"})
	refused(t, err, "network alpha not found; `fairlead network ls` lists those there are")
	_ = disk.Close() // what is full
	if err := <-made; err == nil || !strings.Contains(err.Error(), "state.json.new cannot be written, nothing is changed: ") {
		t.Errorf("made: %v", err)
	}
	if list := h.listLans(); len(list) != 1 {
		t.Errorf("%d networks", len(list))
	}
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"}) // its name, number and subnet are free
}

// What is wrong is refused by name, and changes nothing.
func TestNetworksRefused(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	r.network(api.NetworkCreate{Name: "a", Subnet: "10.1.0.0/16"})
	for _, c := range []struct {
		req  api.NetworkCreate
		want string
	}{
		{api.NetworkCreate{}, "network name required: `fairlead network create NAME`"},
		{api.NetworkCreate{Name: "-x"}, "invalid network name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most"},
		{api.NetworkCreate{Name: "a"}, "network with name a already exists; `fairlead network rm a` removes it"},
		{api.NetworkCreate{Name: "b", Driver: "overlay"}, "network b: could not find plugin overlay in v1 plugin registry: plugin not found; the driver here is bridge"},
		{api.NetworkCreate{Name: "b", Subnet: "10.1.2.0/24"}, "network b: invalid pool request: Pool overlaps with other one on this address space: 10.1.2.0/24 and 10.1.0.0/16 of network a; --subnet 172.18.0.0/16 is free"},
		{api.NetworkCreate{Name: "b", Subnet: "172.0.0.0/8"}, "network b: invalid pool request: Pool overlaps with other one on this address space: 172.0.0.0/8 and 172.17.0.0/16 of network default; --subnet 172.18.0.0/16 is free"},
		{api.NetworkCreate{Name: "b", Subnet: "127.1.0.0/16"}, "network b: gateway 127.1.0.1/16 is not an address a station can have"},
		{api.NetworkCreate{Name: "b", Subnet: "x"}, `network b: invalid subnet "x": it is no IPv4 subnet, such as 172.30.0.0/16`},
		{api.NetworkCreate{Name: "b", Subnet: "2001:db8::/64"}, `network b: invalid subnet "2001:db8::/64": it is no IPv4 subnet, such as 172.30.0.0/16`},
		{api.NetworkCreate{Name: "b", Subnet: "10.2.0.1/16"}, "network b: invalid subnet 10.2.0.1/16: it should be 10.2.0.0/16"},
		{api.NetworkCreate{Name: "b", Gateway: "10.2.0.1"}, "network b: gateway 10.2.0.1: a network with a gateway of its own needs a subnet, --subnet"},
		{api.NetworkCreate{Name: "b", Subnet: "10.2.0.0/16", Gateway: "10.3.0.1"}, "network b: no matching subnet for gateway 10.3.0.1: it is not in 10.2.0.0/16"},
		{api.NetworkCreate{Name: "b", Subnet: "10.2.0.0/16", Gateway: "router"}, `network b: invalid gateway "router": it is no IPv4 address`},
		{api.NetworkCreate{Name: "b", Subnet: "10.2.0.0/16", IPRange: "10.3.0.0/24"}, "network b: no matching subnet for range 10.3.0.0/24: it is not in 10.2.0.0/16"},
		{api.NetworkCreate{Name: "b", Subnet: "10.2.0.0/16", AuxAddresses: map[string]string{"r": "10.2.0.1"}}, "network b: aux-address r: 10.2.0.1 is that of the gateway"},
		{api.NetworkCreate{Name: "b", Options: map[string]string{"mtu": "9"}}, `network b: option mtu: "9" is not a number from 576 to 65521`},
		{api.NetworkCreate{Name: "b", Egress: &api.Egress{Spec: "some"}}, "--egress"},
	} {
		err := r.Post(r.ctx, "/v1/networks", c.req, nil)
		if c.req.Egress != nil {
			if err == nil || !strings.Contains(err.Error(), "some") {
				t.Errorf("%v", err)
			}
			continue
		}
		refused(t, err, c.want)
	}
	for _, name := range []string{"default", "bridge", "host", "none"} {
		refused(t, r.Post(r.ctx, "/v1/networks", api.NetworkCreate{Name: name}, nil), "operation is not permitted on predefined "+name+" network; choose another name")
	}
	// Not b, with which the id of a may begin.
	refused(t, r.Delete(r.ctx, "/v1/networks/zz", nil), "network zz not found; `fairlead network ls` lists those there are")
	refused(t, r.Delete(r.ctx, "/v1/networks/bridge", nil), "bridge is a pre-defined network and cannot be removed; `fairlead up --bip` and --opt set it up otherwise")
	refused(t, r.Post(r.ctx, "/v1/networks/a", api.NetworkRequest{Options: map[string]string{"icc": "off", "mtu": "1400"}}, nil),
		"network a: option mtu cannot change while the network is there; "+lastOf(t, r)+" can, and `fairlead network create` makes another")
	if a := r.inspectNetwork("a"); len(a.Options) != 0 {
		t.Errorf("%+v", a)
	}
	var list []api.NetworkInspect
	if err := r.Get(r.ctx, "/v1/networks", &list); err != nil || len(list) != 2 {
		t.Errorf("%v, %d networks", err, len(list))
	}
}

// lastOf lists the options that may change, as the node says them.
func lastOf(t *testing.T, r *rig) string {
	t.Helper()
	err := r.Post(r.ctx, "/v1/networks/a", api.NetworkRequest{Options: map[string]string{"hub": "on"}}, nil)
	if err == nil {
		t.Fatal("the network became a hub")
	}
	_, rest, _ := strings.Cut(err.Error(), "is there; ")
	list, _, _ := strings.Cut(rest, " can, ")
	return list
}

// TestCheckChange: who only asks is told what would be refused, and changes nothing.
func TestCheckChange(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	yes := true
	_, err := h.changeNetwork("alpha", api.NetworkRequest{Check: true, Internal: &yes, Options: map[string]string{"icc": "maybe"}})
	refused(t, err, `network alpha: option icc: "maybe" is neither on nor off`)
	if _, err := h.changeNetwork("alpha", api.NetworkRequest{Check: true, Internal: &yes, Options: map[string]string{"icc": "off"}, Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if now := get[api.NetworkInspect](t, h, "/v1/networks/alpha"); now.Internal || len(now.Options) != 0 || len(now.Labels) != 0 {
		t.Errorf("changed: %+v", now)
	}
}
