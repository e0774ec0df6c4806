package node

import (
	"strings"
	"testing"

	"fairlead/node/api"
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
