package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/test/lab"
)

// portsOf is GET …/ports.
func (r *rig) portsOf(ref string) *api.Ports {
	r.t.Helper()
	p := new(api.Ports)
	if err := r.Get(r.ctx, "/v1/containers/"+ref+"/ports", p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) publish(ref string, req api.PublishRequest) error {
	return r.Post(r.ctx, "/v1/containers/"+ref+"/ports", req, nil)
}

func (r *rig) unpublish(ref, query string) error {
	return r.Delete(r.ctx, "/v1/containers/"+ref+"/ports?"+query, nil)
}

// text writes published ports in one line.
func text(p *api.Ports) string {
	var words []string
	for _, x := range p.Published {
		words = append(words, fmt.Sprintf("%s:%d->%d/%s%v", x.HostIP, x.HostPort, x.Port, x.Proto, x.Reached))
	}
	return strings.Join(append(words, p.Addresses...), " ")
}

// What cannot be published is refused before anything is made, and a
// reservation that fails or is given back leaves nothing.
func TestPublishReserved(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	r.create(api.CreateRequest{Name: "web", Publish: []string{"8080:80"}})
	r.run(api.CreateRequest{Name: "lone"})
	for _, c := range []struct {
		req  api.CreateRequest
		want string
	}{
		{api.CreateRequest{Publish: []string{"8080:81"}},
			"Bind for 0.0.0.0:8080 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 8080:80/tcp`"},
		{api.CreateRequest{Publish: []string{"8081:80", "x"}},
			"Invalid containerPort: x; -p takes [ADDRESS:][PORT:]CONTAINERPORT[/udp], such as 8080:80"},
		{api.CreateRequest{Expose: []string{"80:80"}},
			"invalid port format for --expose: 80:80; it takes PORT[-PORT][/PROTOCOL], such as 80/tcp, and -p 8080:80 publishes one"},
		{api.CreateRequest{Expose: []string{"1-40000"}}, "a container can have 32768 ports exposed, and 1-40000 are more"},
		{api.CreateRequest{Publish: []string{"192.0.2.2:8081:80"}},
			"Bind for 192.0.2.2:8081 failed: cannot assign requested address: no uplink has it; `fairlead network ls` lists what they have"},
		{api.CreateRequest{Network: "none", Publish: []string{"8081:80"}},
			"conflicting options: port publishing and the network mode; leave out -p, or --network none"},
		{api.CreateRequest{Network: "host", PublishAll: true},
			"conflicting options: port publishing and the network mode; leave out -p, or --network host"},
		{api.CreateRequest{Network: "container:lone", Publish: []string{"8081:80"}},
			"conflicting options: port publishing and the container type network mode; leave out -p: the ports of lone reach both"},
		{api.CreateRequest{Network: "container:lone", Expose: []string{"80"}},
			"conflicting options: port exposing and the container type network mode; leave out --expose: the ports of lone reach both"},
	} {
		c.req.Command = []string{"sleep"}
		refused(t, r.Post(r.ctx, "/v1/containers", c.req, nil), c.want)
	}
	refused(t, r.publish("web", api.PublishRequest{Publish: []string{"8081:80"}}), "Container web is not running, or its interface was removed from inside")
	refused(t, r.publish("lone", api.PublishRequest{Publish: []string{"8081:80"}}), "container lone has no port on a network: its network is none")
	// The address of those that were refused is free, and so is the port of one
	// that is gone.
	if err := r.Delete(r.ctx, "/v1/containers/web", nil); err != nil {
		t.Fatal(err)
	}
	if c := r.create(api.CreateRequest{Publish: []string{"8080:80", "8081:80"}}); c.Link.Address != "172.17.0.2/16" {
		t.Errorf("it has %s", c.Link.Address)
	}
}

// A container's ports are published while it runs, as it begins and later.
func TestPublishWhileRunning(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	g := newGuest(t, "web")
	_, web := r.runOn(g, api.CreateRequest{Name: "web", Publish: []string{"8080:80", "127.0.0.1:53:53/udp"}, Expose: []string{"443", "80"}, PublishAll: true})
	if got := text(r.portsOf("web")); got != "127.0.0.1:53->53/udp[] 0.0.0.0:8080->80/tcp[] 0.0.0.0:32768->443/tcp[]" {
		t.Error(got)
	}
	if p := r.portsOf("web"); !p.ListenersKnown || fmt.Sprint(p.Exposed) != "[443/tcp 80/tcp]" {
		t.Errorf("%+v", p)
	}
	i := r.inspect("web")
	for what, want := range map[string]string{
		toJSON(i.NetworkSettings.Ports): `{"443/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"}],"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}`,
		toJSON(i.HostConfig):            `{"NetworkMode":"default","AutoRemove":true,"PortBindings":{"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"PublishAllPorts":true}`,
		toJSON(i.Config.ExposedPorts):   `{"443/tcp":{},"53/udp":{},"80/tcp":{}}`,
	} {
		if what != want {
			t.Errorf("got  %s\nwant %s", what, want)
		}
	}
	if got := fmt.Sprint(r.list()[0].Ports); got != "[0.0.0.0:8080->80/tcp 0.0.0.0:32768->443/tcp 127.0.0.1:53->53/udp]" {
		t.Errorf("ps: %s", got)
	}

	if err := r.publish("web", api.PublishRequest{Publish: []string{"9000-9001:90-91"}}); err != nil {
		t.Error(err)
	}
	refused(t, r.publish("web", api.PublishRequest{Publish: []string{"9002:90", "9001:92"}}),
		"Bind for 0.0.0.0:9001 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 9001:91/tcp`")
	refused(t, r.publish("web", api.PublishRequest{}), "there is neither a port nor an address; say one, such as 8080:80")
	refused(t, r.publish("web", api.PublishRequest{Address: "::1"}), "invalid IPv4 address: ::1")
	refused(t, r.publish("web", api.PublishRequest{Publish: []string{"9002:90"}, Address: "192.0.2.50"}),
		"Bind for 192.0.2.50 failed: cannot assign requested address: no uplink has it as a further address (addr=192.0.2.50); `fairlead network ls` lists what they have")
	refused(t, r.unpublish("web", "port=80&port=81"), "No public port '81' published for web; `fairlead port web` lists those that are")
	refused(t, r.unpublish("web", "address=192.0.2.50"), "No address 192.0.2.50 published for web; `fairlead port web` lists those that are")
	if err := r.unpublish("web", "port=80&port=9001:91&port=443&port=53/udp"); err != nil {
		t.Error(err)
	}
	if got := text(r.portsOf("web")); got != "0.0.0.0:9000->90/tcp[]" {
		t.Error(got)
	}
	// It has its ports to its end, and then another can have them.
	web.die()
	r.gone("web")
	r.create(api.CreateRequest{Publish: []string{"8080:80", "9000:90"}})
}

func toJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// hand hands an uplink over.
func (r *rig) hand(tap *link.TAP, spec string) error {
	return r.Hand(r.ctx, "/v1/uplinks", api.UplinkRequest{Spec: spec, MAC: "02:42:c0:00:02:02", MTU: 1500}, []int{tap.Fd()})
}

func (r *rig) uplinks() (list []api.Uplink) {
	r.t.Helper()
	if err := r.Get(r.ctx, "/v1/uplinks", &list); err != nil {
		r.t.Fatal(err)
	}
	return list
}

// An uplink comes as a descriptor; its addresses are those ports are reached at.
func TestUplinks(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	out := newGuest(t, "out")
	for spec, want := range map[string]string{
		"tap:eth0":                       "uplink \"tap:eth0\": it has no address: say ip=ADDRESS/LENGTH or dhcp, such as tap:up0,ip=192.0.2.2/24,gw=192.0.2.1",
		"tap:eth0,ip=172.17.5.5/24":      "uplink eth0: ip=172.17.5.5/24 is in the subnet of network default; set that up elsewhere: `fairlead up --bip 10.88.0.1/16`",
		"tap:eth0,dhcp,mtu=9000":         "uplink eth0: mtu=9000 is more than the device takes: it has 1500",
		"tap:eth0,dhcp,addr=172.17.0.99": "uplink eth0: addr=172.17.0.99 is in the subnet of network default",
	} {
		refused(t, r.hand(out.tap, spec), want)
	}
	refused(t, r.Hand(r.ctx, "/v1/uplinks", api.UplinkRequest{Spec: "tap:eth0,dhcp", MAC: "01:00:00:00:00:00"}, []int{out.tap.Fd()}),
		`uplink eth0: invalid MAC address "01:00:00:00:00:00": six bytes such as 02:42:c0:00:02:02, the first one even`)
	refused(t, r.Hand(r.ctx, "/v1/uplinks", api.UplinkRequest{Spec: "tap:eth0,dhcp", MAC: "02:00:00:00:00:01"}, nil), "uplink eth0: it takes one descriptor; 0 came")
	refused(t, r.Hand(r.ctx, "/v1/uplinks", api.UplinkRequest{Spec: "tap:eth0,dhcp", MAC: "02:00:00:00:00:01", Network: "backend"}, []int{out.tap.Fd()}),
		"network backend not found; `fairlead network ls` lists those there are")
	if list := r.uplinks(); len(list) != 0 || list == nil {
		t.Errorf("after all that: %+v", list)
	}

	if err := r.hand(out.tap, "tap:eth0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.50"); err != nil {
		t.Fatal(err)
	}
	refused(t, r.hand(out.tap, "tap:eth0,ip=192.0.3.2/24"),
		"uplink eth0 is there already, as tap:eth0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.50; `fairlead network set default --uplink …` replaces it")
	refused(t, r.hand(out.tap, "tap:eth1,ip=192.0.2.3/25"), "uplink eth1: ip=192.0.2.3/25 is in the subnet of uplink eth0, 192.0.2.0/24")
	refused(t, r.Post(r.ctx, "/v1/up", api.UpRequest{BIP: "10.1.0.1/16"}, nil),
		"network default has 1 uplink, so it stays as it is; remove them first: `fairlead network set default --uplink none`")
	list := r.uplinks()
	if len(list) != 1 || list[0].Since.IsZero() {
		t.Fatalf("%+v", list)
	}
	list[0].Since, list[0].Counts = list[0].Since.UTC(), api.Counts{}
	if got, want := fmt.Sprintf("%+v", list[0]), fmt.Sprintf("%+v", api.Uplink{Name: "eth0", Network: "default", Kind: "tap",
		Spec: "tap:eth0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.50", Address: "192.0.2.2/24", Gateway: "192.0.2.1",
		MAC: "02:42:c0:00:02:02", MTU: 1500, Addresses: []string{"192.0.2.50"}, State: "up", Since: list[0].Since}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	// Ports are reached at its addresses, and one of them can be a container's own.
	web, db := newGuest(t, "web"), newGuest(t, "db")
	r.runOn(web, api.CreateRequest{Name: "web", Publish: []string{"8080:80", "192.0.2.2:81:81"}})
	r.runOn(db, api.CreateRequest{Name: "db"})
	if got := text(r.portsOf("web")); got != "0.0.0.0:8080->80/tcp[192.0.2.2 192.0.2.50] 192.0.2.2:81->81/tcp[192.0.2.2]" {
		t.Error(got)
	}
	if err := r.publish("db", api.PublishRequest{Address: "192.0.2.50"}); err != nil {
		t.Error(err)
	}
	refused(t, r.publish("web", api.PublishRequest{Address: "192.0.2.50"}),
		"Bind for 192.0.2.50 failed: address is already allocated: container db has it; `fairlead unpublish --address 192.0.2.50 db` frees it")
	if got := text(r.portsOf("db")); got != "192.0.2.50" {
		t.Error(got)
	}
	if got := text(r.portsOf("web")); got != "0.0.0.0:8080->80/tcp[192.0.2.2] 192.0.2.2:81->81/tcp[192.0.2.2]" {
		t.Errorf("the address of another one's: %s", got)
	}
	refused(t, r.publish("web", api.PublishRequest{Publish: []string{"192.0.2.50:90:90"}}),
		"Bind for 192.0.2.50:90 failed: address is already allocated: container db has it; `fairlead unpublish --address 192.0.2.50 db` frees it")
	if err := r.publish("db", api.PublishRequest{Publish: []string{"192.0.2.50:90:91"}}); err != nil {
		t.Error(err)
	}
	if err := r.unpublish("db", "port=91"); err != nil {
		t.Error(err)
	}
	if err := r.unpublish("db", "address=192.0.2.50"); err != nil {
		t.Error(err)
	}
	if err := r.publish("web", api.PublishRequest{Publish: []string{"192.0.2.50:90:90"}}); err != nil {
		t.Error(err)
	}
	refused(t, r.publish("db", api.PublishRequest{Address: "192.0.2.50"}), "Bind for 192.0.2.50 failed: its port 90 is already allocated: container web has it")
	if err := r.unpublish("web", "port=90"); err != nil {
		t.Error(err)
	}
	if err := r.publish("db", api.PublishRequest{Address: "192.0.2.50"}); err != nil {
		t.Error(err)
	}

	// Removed, it leads nowhere; what was published stays so.
	if err := r.Delete(r.ctx, "/v1/uplinks/eth0", nil); err != nil {
		t.Fatal(err)
	}
	refused(t, r.Delete(r.ctx, "/v1/uplinks/eth0", nil), "No such uplink: eth0; `fairlead network ls` lists those there are")
	if got := text(r.portsOf("db")) + text(r.portsOf("web")); got != "192.0.2.500.0.0.0:8080->80/tcp[] 192.0.2.2:81->81/tcp[]" {
		t.Error(got)
	}
	if lost := r.portsOf("db").Lost; !slices.Equal(lost, []string{"192.0.2.50"}) || len(rulesOfContainer(t, r, "db")) != 0 {
		t.Errorf("lost are %v", lost)
	}
	// Another one that has the address gives it back.
	if err := r.hand(newGuest(t, "out2").tap, "tap:eth1,ip=192.0.2.3/24,addr=192.0.2.50"); err != nil {
		t.Fatal(err)
	}
	if lost, rules := r.portsOf("db").Lost, rulesOfContainer(t, r, "db"); len(lost) != 0 || !slices.Equal(rules, []string{"one-to-one"}) {
		t.Errorf("lost are %v, and the rules are %v", lost, rules)
	}
	if err := r.unpublish("db", "address=192.0.2.50"); err != nil {
		t.Error(err)
	}
}

// What a set of uplinks would do is said beforehand, and nothing is changed.
func TestUplinksCheck(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	out, web := newGuest(t, "out"), newGuest(t, "web")
	const have = "tap:eth0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.50"
	if err := r.hand(out.tap, have); err != nil {
		t.Fatal(err)
	}
	r.runOn(web, api.CreateRequest{Name: "web"})
	if err := r.publish("web", api.PublishRequest{Address: "192.0.2.50"}); err != nil {
		t.Fatal(err)
	}
	out.Addr(t, "eth0", "192.0.2.1/24")
	out.Addr(t, "eth0", "192.0.2.77/32")
	out.Up(t, "eth0")
	mac := func() string {
		l, err := out.Netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().HardwareAddr.String()
	}()
	check := func(network string, only bool, specs ...string) (string, error) {
		var checked api.UplinksChecked
		err := r.Post(r.ctx, "/v1/uplinks/check", api.UplinksCheck{Network: network, Specs: specs, Only: only}, &checked)
		return fmt.Sprint(checked.Lost), err
	}
	const lost = "[{web 192.0.2.50}]"
	for _, c := range []struct {
		only  bool
		specs string
		lost  string
	}{
		{true, have, "[]"},
		{true, "", lost},
		{false, "", "[]"},
		{true, have + ",route=10.0.0.0/8", "[]"},
		{true, "tap:eth0,ip=192.0.2.3/24", lost},
		{true, "tap:eth1,ip=192.0.2.2/24,addr=192.0.2.50", "[]"},
		{false, "tap:eth1,ip=192.0.3.2/24", "[]"},
	} {
		if got, err := check("", c.only, strings.Fields(c.specs)...); err != nil || got != c.lost {
			t.Errorf("%s: %s, %v; want %s", c.specs, got, err, c.lost)
		}
	}
	for _, c := range []struct {
		only        bool
		specs, want string
	}{
		{true, "tap:eth0", `uplink "tap:eth0": it has no address: say ip=ADDRESS/LENGTH or dhcp, such as tap:up0,ip=192.0.2.2/24,gw=192.0.2.1`},
		{true, "tap:eth0,ip=172.17.5.5/24", "uplink eth0: ip=172.17.5.5/24 is in the subnet of network default; set that up elsewhere: `fairlead up --bip 10.88.0.1/16`"},
		{true, "tap:eth0,ip=10.0.0.2/8 tap:eth1,ip=10.1.0.2/16", "uplink eth1: ip=10.1.0.2/16 is in the subnet of uplink eth0, 10.0.0.0/8"},
		{false, "tap:eth1,ip=192.0.2.3/25", "uplink eth1: ip=192.0.2.3/25 is in the subnet of uplink eth0, 192.0.2.0/24"},
		{true, "tap:eth0,dhcp,mtu=9000", "uplink eth0: mtu=9000 is more than the device takes: it has 1500"},
		{true, "tap:eth0,ip=192.0.2.77/24", "uplink eth0: 192.0.2.77 is in use by " + mac + "; take it off there, or give the uplink another address: ip=ADDRESS/LENGTH"},
		{true, have + ",addr=192.0.2.77", "uplink eth0: 192.0.2.77 is in use by " + mac + "; take it off there, or give the uplink another address: ip=ADDRESS/LENGTH"},
	} {
		_, err := check("", c.only, strings.Fields(c.specs)...)
		refused(t, err, c.want)
	}
	_, err := check("backend", true)
	refused(t, err, "network backend not found; `fairlead network ls` lists those there are")
	if list := r.uplinks(); len(list) != 1 || list[0].Spec != have || list[0].State != "up" || list[0].Why != "" {
		t.Errorf("%+v", list)
	}
}

// An uplink whose device goes is listed as down, until another comes.
func TestUplinkLost(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	out := newGuest(t, "out")
	spec := "tap:eth0,ip=192.0.2.2/24,gw=192.0.2.1"
	if err := r.hand(out.tap, spec); err != nil {
		t.Fatal(err)
	}
	out.Run(t, "ip", "link", "del", "eth0")
	lab.Eventually(t, 10*time.Second, func() error {
		if list := r.uplinks(); len(list) != 1 || list[0].State != "down" || list[0].Why == "" || list[0].Address != "" {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	other := newGuest(t, "other")
	if err := r.hand(other.tap, spec); err != nil {
		t.Fatal(err)
	}
	if list := r.uplinks(); len(list) != 1 || list[0].State != "up" {
		t.Errorf("%+v", list)
	}
}

// Nobody is let in before what comes in is answered; then the start goes on.
func TestPublishedOnceLinked(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	web, i := newGuest(t, "web"), newMuteInit(t)
	c := r.create(api.CreateRequest{Name: "web", Publish: []string{"8080:80"}})
	attached := make(chan error, 1)
	go func() {
		attached <- r.Hand(r.ctx, "/v1/containers/"+c.ID+"/attach", api.Attach{Descriptors: []string{"tap", "init", "channel"}, Interface: "eth0", Index: 2},
			[]int{web.tap.Fd(), i.pidfd, i.channel})
	}()
	web.Up(t, "eth0")
	lab.Eventually(t, 10*time.Second, func() error { // the node reads the link
		l, err := web.Netlink.LinkByName("eth0")
		if err == nil && l.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
			err = errors.New("there is no carrier")
		}
		return err
	})
	if got := rulesOfContainer(t, r, "web"); len(got) > 0 {
		t.Errorf("rules %v, and the container's end was not seen to run", got)
	}
	i.linked(t)
	if err := <-attached; err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(rulesOfContainer(t, r, "web")); got != "[publish]" {
		t.Errorf("rules %s", got)
	}
}

// rulesOfContainer are the kinds of NAT's rules that lead to a container.
func rulesOfContainer(t *testing.T, r *rig, name string) (kinds []string) {
	t.Helper()
	var list []api.NATRule
	if err := r.Get(r.ctx, "/v1/nat", &list); err != nil {
		t.Fatal(err)
	}
	for _, rule := range list {
		if rule.Container == name {
			kinds = append(kinds, rule.Kind)
		}
	}
	return kinds
}

// A container whose root removed the interface keeps its ports, but nothing
// leads to them, and in the end they are free.
func TestPublishedWithoutInterface(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	out, web := newGuest(t, "out"), newGuest(t, "web")
	if err := r.hand(out.tap, "tap:eth0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.50"); err != nil {
		t.Fatal(err)
	}
	_, i := r.runOn(web, api.CreateRequest{Name: "web", Publish: []string{"8080:80"}})
	if err := r.publish("web", api.PublishRequest{Address: "192.0.2.50"}); err != nil {
		t.Fatal(err)
	}
	rules := func() []string { return rulesOfContainer(t, r, "web") }
	if got := fmt.Sprint(rules()); got != "[publish one-to-one]" {
		t.Errorf("rules %s", got)
	}
	web.Run(t, "ip", "link", "del", "eth0")
	lab.Eventually(t, 10*time.Second, func() error {
		if got := rules(); len(got) > 0 {
			return fmt.Errorf("rules %v", got)
		}
		return nil
	})
	if got := text(r.portsOf("web")); got != "0.0.0.0:8080->80/tcp[]" {
		t.Error(got)
	}
	refused(t, r.publish("web", api.PublishRequest{Publish: []string{"9000:90"}}), "Container web is not running, or its interface was removed from inside")
	if err := r.unpublish("web", "port=80"); err != nil {
		t.Error(err)
	}
	i.die()
	r.gone("web")
	r.create(api.CreateRequest{Publish: []string{"8080:80"}})
}
