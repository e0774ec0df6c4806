package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"fairlead/dns"
	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/test/lab"
)

// An inside is the far end of a node channel: a test that plays a container's
// init.
type inside struct {
	*box.Channel
	asked chan string // what it was asked for
}

// answering gives a container an init that answers what fn says: the messages of
// each session, and a descriptor with the first.
func (h *handlers) answering(t testing.TB, m *member, fn func(ask *box.Message) ([]*box.Message, []int)) *inside {
	t.Helper()
	near, far, err := box.Pair()
	if err != nil {
		t.Fatal(err)
	}
	node, err := box.NewChannel(near)
	if err != nil {
		t.Fatal(err)
	}
	i := &inside{asked: make(chan string, 64)}
	if i.Channel, err = box.NewChannel(far); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	h.mu.Lock()
	m.channel = node
	m.route = m.attachments[0]
	h.mu.Unlock()
	go func() {
		for {
			ask, fds, err := i.Recv()
			if err != nil {
				return
			}
			switch {
			case ask.Link != nil:
				i.asked <- fmt.Sprintf("link %s %v", ask.Link.Name, ask.Link.Addresses)
			case ask.Default != nil:
				word := "default"
				if ask.Default.Missing {
					word = "default if missing"
				}
				i.asked <- fmt.Sprintf("%s %v %d", word, ask.Default.Via, ask.Default.Index)
			case ask.Unlink != 0:
				i.asked <- fmt.Sprintf("unlink %d", ask.Unlink)
			}
			session, err := box.NewChannel(fds[0])
			if err != nil {
				continue
			}
			answers, with := fn(ask)
			for _, a := range answers {
				_ = session.Send(a, with...)
				with = nil
			}
			_ = session.Close()
		}
	}()
	return i
}

func (i *inside) was(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-i.asked; got != w {
			t.Errorf("asked for %q, want %q", got, w)
		}
	}
	if len(i.asked) > 0 {
		t.Errorf("asked for %q too", <-i.asked)
	}
}

func (h *handlers) makeNetwork(t *testing.T, req api.NetworkCreate) {
	t.Helper()
	if _, err := h.createNetwork(req); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range h.list() {
			h.end(c)
		}
		if err := h.removeNetwork(req.Name); err != nil {
			t.Error(err)
		}
	})
}

// where is what a container is on, as inspect says it.
func (h *handlers) where(t *testing.T, ref string) string {
	t.Helper()
	i := get[api.Inspect](t, h, "/v1/containers/"+ref)
	var list []string
	for _, name := range []string{"default", "alpha", "omega"} {
		if net, on := i.NetworkSettings.Networks[name]; on {
			list = append(list, name+" "+net.IPAddress)
		}
	}
	return strings.Join(list, ", ")
}

func failure(text string) ([]*box.Message, []int) {
	return []*box.Message{{Failure: &box.Failure{Code: 125, Text: text}}}, nil
}

// TestConnect: a running container gets an interface, the default route goes where
// Docker would have it, published ports go with it, and all of it goes back.
func TestConnect(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	g := newGuest(t, "g")
	web := h.join(t, "web")
	i := h.answering(t, web, func(ask *box.Message) ([]*box.Message, []int) {
		if ask.Link != nil {
			fd, err := unix.Dup(g.tap.Fd())
			if err != nil {
				t.Error(err)
			}
			return []*box.Message{{Ready: &box.Ready{Index: 7}}, {Linked: true}}, []int{fd}
		}
		return []*box.Message{{Done: true}}, nil
	})
	if _, _, err := h.publish(web.container, api.PublishRequest{Publish: []string{"8080:80"}}); err == nil {
		t.Error("published before it was open")
	}
	if err := h.openPorts(web.container); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.publish(web.container, api.PublishRequest{Publish: []string{"8080:80"}}); err != nil {
		t.Fatal(err)
	}
	published := func() string {
		for _, r := range get[[]api.NATRule](t, h, "/v1/nat") {
			if r.Kind == "publish" {
				return fmt.Sprintf("%s %s:%d", r.Network, r.To, r.ToPort)
			}
		}
		return ""
	}
	if err := h.connect("web", api.EndpointRequest{Network: "alpha", Aliases: []string{"www"}}); err != nil {
		t.Fatal(err)
	}
	i.was(t, "link eth1 [172.18.0.2/16]", "default 172.18.0.1 7") // alpha before default
	if got := h.where(t, "web"); got != "default 172.17.0.2, alpha 172.18.0.2" {
		t.Errorf("web is on %s", got)
	}
	if got := published(); got != "alpha 172.18.0.2:80" {
		t.Errorf("published is %s", got)
	}
	refused(t, h.connect("web", api.EndpointRequest{Network: "alpha"}), "endpoint with name web already exists in network alpha")
	l, err := h.lan("alpha")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.disconnect(l, "web", false); err != nil {
		t.Fatal(err)
	}
	i.was(t, "default 172.17.0.1 2", "unlink 7", "default if missing 172.17.0.1 2")
	if got := h.where(t, "web") + " " + published(); got != "default 172.17.0.2 default 172.17.0.2:80" {
		t.Errorf("web is on %s", got)
	}
	if ports := l.net.Switch().Ports(); len(ports) != 0 {
		t.Errorf("%d ports are left", len(ports))
	}
	refused(t, h.disconnect(l, "web", false), "container web is not connected to network alpha; `fairlead inspect web` says where it is")
}

// TestConnectFails: whatever goes wrong inside, a container is where it was.
func TestConnectFails(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(file) })
	before := openDescriptors(t)
	for _, c := range []struct {
		name   string
		answer func(*box.Message) ([]*box.Message, []int)
		want   string
	}{
		{"refuses", func(*box.Message) ([]*box.Message, []int) { return failure("no") }, "container web: make interface eth1: no"},
		{"says nothing", func(*box.Message) ([]*box.Message, []int) { return nil, nil }, "container web: make interface eth1: the container has ended, or its init does not know how"},
		{"says something else", func(*box.Message) ([]*box.Message, []int) { return []*box.Message{{Linked: true}}, nil }, "container web: make interface eth1: the container's init answers something else"},
		{"a file", func(*box.Message) ([]*box.Message, []int) {
			return []*box.Message{{Ready: &box.Ready{Index: 7}}}, []int{file}
		}, "container web: make interface eth1: the container's init answers something else"},
	} {
		t.Run(c.name, func(t *testing.T) {
			web := h.join(t, "web")
			h.answering(t, web, c.answer)
			refused(t, h.connect("web", api.EndpointRequest{Network: "alpha"}), c.want)
			if got := h.where(t, "web"); got != "default 172.17.0.2" {
				t.Errorf("web is on %s", got)
			}
			other, err := h.create(api.CreateRequest{Command: []string{"sh"}, Network: "alpha"})
			if err != nil || other.attachments[0].addr.String() != "172.18.0.2/16" {
				t.Errorf("the next one on alpha is %+v, %v", other, err)
			} else {
				h.end(other)
			}
			h.end(web.container)
		})
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if now := openDescriptors(t); now > before {
			return fmt.Errorf("%d descriptors are open, there were %d", now, before)
		}
		return nil
	})
}

// TestConnectRefuses: what cannot be connected is said in Docker's words.
func TestConnectRefuses(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	x := h.join(t, "x")
	for _, c := range []struct {
		req  api.CreateRequest
		want string
	}{
		{api.CreateRequest{Network: "none"}, "container cannot be connected to multiple networks with one of the networks in private (none) mode"},
		{api.CreateRequest{Network: "host"}, "container cannot be disconnected from host network or connected to host network"},
		{api.CreateRequest{}, "Container c is not running"},
		{api.CreateRequest{Foreign: "pid:1"}, "c is a namespace of somebody else, who has the right to it: `fairlead network connect NETWORK pid:1`"},
	} {
		c.req.Name, c.req.Command = "c", []string{"sh"}
		made, err := h.create(c.req)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, h.connect("c", api.EndpointRequest{Network: "alpha"}), c.want)
		h.end(made)
	}
	h.answering(t, x, func(*box.Message) ([]*box.Message, []int) { return nil, nil })
	refused(t, h.connect("nobody", api.EndpointRequest{Network: "alpha"}), "No such container: nobody; `fairlead ps` lists those that run")
	refused(t, h.connect("x", api.EndpointRequest{Network: "beta"}), "network beta not found; `fairlead network ls` lists those there are")
	code, text := h.call("POST", "/v1/networks/alpha/connect", `{"container":"x","endpoint":{"ip":"10.0.0.1"}}`)
	if code != 409 || text != `{"error":"network alpha: address 10.0.0.1 is not in the subnet 172.18.0.0/16"}` {
		t.Errorf("%d %s", code, text)
	}
	code, text = h.call("POST", "/v1/networks/beta/disconnect", `{"container":"x"}`)
	if code != 404 || text != "{\"error\":\"network beta not found; `fairlead network ls` lists those there are\"}" {
		t.Errorf("%d %s", code, text)
	}
}

// mayAsk reports whether the nameserver passes on what a container asks, as it does
// for one that has a network with a way out. Each name may be asked for once.
func (h *handlers) mayAsk(c *container, name string) (passed bool) {
	question, _ := asks(name, mdns.TypeA).Pack()
	h.dns.call(func() {
		h.dns.names.Lock()
		defer h.dns.names.Unlock()
		s := h.dns.fw.Query(loop.Clock(), dns.Question{Network: defaultID, Container: c.number, Payload: question}, func([]byte) {})
		passed = s.Ask != nil
	})
	return passed
}

// TestDisconnectForced: an init that does not do what it is asked keeps the
// container where it is, unless that is forced.
func TestDisconnectForced(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	web := h.join(t, "web")
	h.answering(t, web, func(*box.Message) ([]*box.Message, []int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.publishLocked(web.container) // as somebody else may, meanwhile
		return failure("no")
	})
	l := h.lans[0]
	if !h.mayAsk(web.container, "before.example.") {
		t.Error("it may not ask outside")
	}
	refused(t, h.disconnect(l, "web", false), "container web: set the default route: no")
	if got := h.where(t, "web"); got != "default 172.17.0.2" {
		t.Errorf("web is on %s", got)
	}
	if !h.mayAsk(web.container, "after.example.") {
		t.Error("it may not ask outside any more")
	}
	if err := h.disconnect(l, "web", true); err != nil {
		t.Error(err)
	}
	if got := h.where(t, "web"); got != "" {
		t.Errorf("web is on %s", got)
	}
	if d := get[[]api.Container](t, h, "/v1/containers")[0]; d.IP != "" || d.Network != "" {
		t.Errorf("listed %+v", d)
	}
	h.end(web.container)
}

// TestDisconnectSilent: an init that does not answer is not waited for when that is
// forced.
func TestDisconnectSilent(t *testing.T) {
	h := newHandlers(t)
	web := h.join(t, "web")
	release := make(chan struct{})
	h.answering(t, web, func(*box.Message) ([]*box.Message, []int) {
		<-release
		return nil, nil
	})
	start := time.Now()
	if err := h.disconnect(h.lans[0], "web", true); err != nil {
		t.Error(err)
	}
	close(release)
	if d := time.Since(start); d >= wireWithin {
		t.Errorf("it took %v", d)
	}
	h.end(web.container)
}

// TestChangeSilent: a container whose init does not answer keeps nobody from making
// another network, and is named to who has changed his.
func TestChangeSilent(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	g := newGuest(t, "g")
	web := h.join(t, "web")
	changing, release := make(chan struct{}), make(chan struct{})
	h.answering(t, web, func(ask *box.Message) ([]*box.Message, []int) {
		switch {
		case ask.Link != nil:
			fd, err := unix.Dup(g.tap.Fd())
			if err != nil {
				t.Error(err)
			}
			return []*box.Message{{Ready: &box.Ready{Index: 7}}, {Linked: true}}, []int{fd}
		case ask.Default != nil && ask.Default.Index == 2: // away from alpha
			close(changing)
			<-release
			return failure("no")
		}
		return []*box.Message{{Done: true}}, nil
	})
	if err := h.connect("web", api.EndpointRequest{Network: "alpha"}); err != nil {
		t.Fatal(err)
	}
	yes := true
	warned := make(chan []string, 1)
	go func() {
		warnings, err := h.changeNetwork("alpha", api.NetworkRequest{Internal: &yes})
		if err != nil {
			t.Error(err)
		}
		warned <- warnings
	}()
	<-changing
	h.makeNetwork(t, api.NetworkCreate{Name: "omega"})
	if len(warned) > 0 {
		t.Error("omega was made after alpha was changed")
	}
	close(release)
	want := "[container web: set the default route: no; it has the default route of before: `fairlead network set --internal=true alpha` asks it again]"
	if got := fmt.Sprint(<-warned); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestElection: the default route is that of the highest priority, then of the
// first name, and never of an internal network.
func TestElection(t *testing.T) {
	h := newHandlers(t)
	for _, req := range []api.NetworkCreate{{Name: "alpha"}, {Name: "omega"}, {Name: "aa", Internal: true}} {
		h.makeNetwork(t, req)
	}
	for _, c := range []struct {
		want     string
		networks []api.EndpointRequest
	}{
		{"alpha", []api.EndpointRequest{{Network: "default"}, {Network: "alpha"}, {Network: "omega"}, {Network: "aa"}}},
		{"default", []api.EndpointRequest{{Network: "omega"}, {Network: "default"}}},
		{"omega", []api.EndpointRequest{{Network: "alpha"}, {Network: "omega", Priority: 1}, {Network: "default"}}},
		{"alpha", []api.EndpointRequest{{Network: "alpha"}, {Network: "omega", Priority: -1}}},
		{"", []api.EndpointRequest{{Network: "aa", Priority: 9}}},
	} {
		made, err := h.create(api.CreateRequest{Command: []string{"sh"}, Networks: c.networks})
		if err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		a := made.electLocked()
		h.mu.Unlock()
		got := ""
		if a != nil {
			got = a.lan.name
		}
		if got != c.want {
			t.Errorf("%+v: by %q, want %q", c.networks, got, c.want)
		}
		h.end(made)
	}
}

// TestUpRemakesNetworks: `up` with another table of flows makes the router anew,
// and all networks with it.
func TestUpRemakesNetworks(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha", Internal: true, Options: map[string]string{"icc": "off"}})
	was := get[api.NetworkInspect](t, h, "/v1/networks/alpha")
	closeOld, err := h.stay(api.UpRequest{Options: map[string]string{"flows": "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	closeOld()
	if now := get[api.NetworkInspect](t, h, "/v1/networks/alpha"); fmt.Sprint(now) != fmt.Sprint(was) {
		t.Errorf("it is\n%+v, was\n%+v", now, was)
	}
	c, err := h.create(api.CreateRequest{Command: []string{"sh"}, Network: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	h.end(c)
	refused(t, func() error { _, err := h.stay(api.UpRequest{BIP: "172.18.0.9/16"}); return err }(),
		"invalid pool request: Pool overlaps with other one on this address space: 172.18.0.0/16 and 172.18.0.0/16 of network alpha; --subnet 172.17.0.0/16 is free")
}

// FuzzNetworkRequests: whatever is asked about a network is done, or refused with
// a reason; then the network can be removed, and nothing of it is left.
func FuzzNetworkRequests(f *testing.F) {
	for _, s := range [][2]string{
		{`{"name":"lab"}`, `{"container":"web"}`},
		{`{"name":"lab","subnet":"10.9.0.0/24","gateway":"10.9.0.9","ip_range":"10.9.0.128/25","aux_addresses":{"a":"10.9.0.1"}}`, `{"container":"web","endpoint":{"ip":"10.9.0.4"}}`},
		{`{"name":"lab","internal":true,"options":{"mtu":"1400","icc":"off"},"labels":{"a":"b"}}`, `{"internal":false,"options":{"icc":"on"}}`},
		{`{"name":"lab","egress":{"spec":"none"}}`, `{"egress":{"spec":"all"},"host_loopback":true}`},
		{`{"name":"lab"}`, `{"container":"web","endpoint":{"ip":"dhcp","aliases":[""],"routes":["x"]}}`},
		{`{"name":"../lab"}`, `{}`}, {`{"name":"bridge"}`, `[]`}, {`{}`, `{"container":"web","force":true}`},
	} {
		f.Add(s[0], s[1])
	}
	h := newHandlers(f)
	f.Fuzz(func(t *testing.T, create, other string) {
		web, err := h.create(api.CreateRequest{Name: "web", Command: []string{"sh"}})
		if err != nil {
			t.Fatal(err)
		}
		code, text := h.call("POST", "/v1/networks", create)
		if code != 200 && (code/100 != 4 || !strings.HasPrefix(text, `{"error":"`)) {
			t.Errorf("%d %s", code, text)
		}
		for _, l := range h.listLans() {
			for _, what := range []string{"/connect", "/disconnect", ""} {
				if code, text := h.call("POST", "/v1/networks/"+l.id+what, other); code != 200 && !strings.HasPrefix(text, `{"error":"`) {
					t.Errorf("%s: %d %s", what, code, text)
				}
			}
		}
		h.end(web)
		for _, l := range h.listLans()[1:] {
			if err := h.removeNetwork(l.id); err != nil {
				t.Error(err)
			}
		}
		no := false
		if _, err := h.changeNetwork("default", api.NetworkRequest{HostLoopback: &no, Egress: &api.Egress{Spec: "all"}}); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(h.conf.Dir, stateFile)); !os.IsNotExist(err) {
			t.Errorf("networks are kept: %v", err)
		}
	})
}

func TestValidInterface(t *testing.T) {
	for name, want := range map[string]bool{
		"eth1": true, "_x": true, "0": true, "a.b-c_d": true, "0123456789abcde": true,
		"": false, "0123456789abcdef": false, ".a": false, "-a": false, "a%d": false, "a/b": false, "a b": false, "ä": false,
	} {
		if validInterface(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}
