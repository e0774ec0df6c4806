package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"fairlead/dns"
	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/test/lab"
)

// settle has what depends on where c is follow.
func (h *handlers) settle(c *container) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settleLocked(c)
}

// TestOneMoreContainer: what one more container takes, from its creation to its end,
// is no more among a hundred; also where links and rules say who may talk to whom.
func TestOneMoreContainer(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "closed", Options: map[string]string{"icc": "off"}})
	req := func(network, name string) api.CreateRequest {
		return api.CreateRequest{Name: name, Networks: []api.EndpointRequest{{Network: network}}}
	}
	stay := func(req api.CreateRequest) {
		c := h.joinAs(t, req, 1).container
		c.forget.Stop() // nothing happens meanwhile but what is counted
		h.settle(c)
	}
	for _, network := range []string{"default", "closed"} {
		stay(req(network, network+"-db"))
		linked := req(network, network+"-web")
		linked.Networks[0].Links = []string{network + "-db:db"}
		stay(linked)
	}
	if code, text := h.call("POST", "/v1/rules", `{"from": "closed-db", "to": "closed-web:80", "network": "closed"}`); code != 200 {
		t.Fatal(text)
	}
	cost := func(network string) float64 {
		return testing.AllocsPerRun(10, func() {
			m := h.joinAs(t, req(network, "more"), 1)
			h.settle(m.container)
			h.end(m.container)
		})
	}
	few := map[string]float64{"default": cost("default"), "closed": cost("closed")}
	for i := range 100 {
		for network := range few {
			stay(req(network, fmt.Sprintf("%s-%d", network, i)))
		}
	}
	for network, few := range few {
		if many := cost(network); many > 1.5*few { // a map may grow
			t.Errorf("network %s: %v allocations, among a hundred %v", network, few, many)
		}
	}
	h.agrees(t)
}

// agrees wants what is kept beside the registry to say what that does, and the
// nameserver to know the names in it and no other.
func (h *handlers) agrees(t *testing.T, gone ...string) {
	t.Helper()
	h.mu.Lock()
	named, further, macs, links := map[string]*container{}, 0, 0, 0
	for _, c := range h.containers {
		named[c.name()] = c
		further += max(0, len(c.attachments)-1)
		for _, a := range c.attachments {
			macs++
			links += len(a.links)
			if a.lan.macs[a.mac] != c {
				t.Errorf("%s of %s is that of %v on %s", a.mac, c.name(), a.lan.macs[a.mac], a.lan.name)
			}
			for _, name := range a.linkedNames() {
				if h.linked[name][a] != c {
					t.Errorf("%s is not known to be linked to %s", c.name(), name)
				}
			}
		}
	}
	for _, l := range h.lans {
		macs -= len(l.macs)
	}
	for _, from := range h.linked {
		links -= len(from)
	}
	if !maps.Equal(named, h.named) || further != h.further || macs != 0 || links != 0 {
		t.Errorf("named %v, want %v; %d further attachments, want %d; %d MACs and %d links too few", h.named, named, h.further, further, macs, links)
	}
	h.mu.Unlock()

	for _, n := range get[api.Names](t, h, "/v1/names").Names {
		if got := h.hears(t, n.Name+"."); !slices.Contains(got, n.Address) {
			t.Errorf("%s is %v, want %s", n.Name, got, n.Address)
		}
	}
	for _, name := range gone {
		if got := h.hears(t, name+"."); len(got) > 0 {
			t.Errorf("%s is gone, and is %v", name, got)
		}
	}
}

// hears is what this host hears of a name.
func (h *handlers) hears(t *testing.T, name string) (list []string) {
	t.Helper()
	question, err := asks(name, mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	h.dns.call(func() {
		h.dns.names.Lock()
		defer h.dns.names.Unlock()
		for _, reply := range h.dns.fw.Query(loop.Clock(), dns.Question{Network: dns.HostNetwork, Payload: question}, nil).Replies {
			var m mdns.Msg
			if err := m.Unpack(reply.Message); err != nil {
				t.Error(err)
			}
			for _, a := range m.Answer {
				addr, _ := netip.AddrFromSlice(a.(*mdns.A).A.To4())
				list = append(list, addr.String())
			}
		}
	})
	return list
}

// TestRegistryFollows: containers come, are called something else, are linked and
// go in any order, and what is kept beside the registry agrees with it.
func TestRegistryFollows(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "lab", Options: map[string]string{"icc": "off"}})
	rng := rand.New(rand.NewPCG(1, 2))
	networks := []string{"default", "lab"}
	there := map[string]*member{}
	var gone []string
	some := func() *member {
		names := slices.Sorted(maps.Keys(there))
		return there[names[rng.IntN(len(names))]]
	}
	left := func(name string) { // on either network
		for _, network := range networks {
			gone = append(gone, fmt.Sprintf("%s.%s.%s", name, network, dns.Domain))
		}
	}
	for i := range 300 {
		name := fmt.Sprintf("c%d", i)
		switch op := rng.IntN(6); {
		case op < 3 || len(there) == 0:
			on := api.EndpointRequest{Network: networks[rng.IntN(2)]}
			if len(there) > 0 {
				if to := some(); to.attachments[0].lan.name == on.Network { // else there is nobody to be linked to
					on.Links = []string{to.name() + ":db"}
				}
			}
			req := api.CreateRequest{Name: name, Networks: []api.EndpointRequest{on}}
			if rng.IntN(4) == 0 {
				req.Networks = append(req.Networks, api.EndpointRequest{Network: networks[rng.IntN(2)]})
			}
			if len(req.Networks) == 2 && req.Networks[0].Network == req.Networks[1].Network {
				if _, err := h.create(req); err == nil {
					t.Fatal("it is on a network twice")
				}
				left(name)
				break
			}
			there[name] = h.joinAs(t, req, 1)
			h.settle(there[name].container)
		case op == 3:
			m := some()
			before := m.name()
			delete(there, before)
			if err := h.rename(m.container, name); err != nil {
				t.Fatal(err)
			}
			there[name] = m
			left(before)
		default:
			m := some()
			delete(there, m.name())
			h.end(m.container)
			left(m.name())
		}
		h.agrees(t, gone...)
	}
	for _, m := range there {
		h.end(m.container)
	}
	if h.agrees(t); len(h.linked)+len(h.named)+h.further > 0 {
		t.Errorf("left are %v, %v and %d", h.linked, h.named, h.further)
	}
}

// TestDescriptorsThatWait: while a worker is in a long turn nothing is closed, and what
// waits for that counts as if it were there.
func TestDescriptorsThatWait(t *testing.T) {
	lab.NoLeaks(t)
	h := newHandlers(t)
	left := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		left, _ := h.descriptorsLocked()
		return left
	}
	const count = soonClosed + 8
	before := left()
	list := make([]*member, count)
	for i := range list {
		list[i] = h.join(t, fmt.Sprint("c", i))
	}
	release := make(chan struct{})
	h.loop.Worker(0).Post(func() { <-release })
	for _, m := range list {
		h.end(m.container)
	}
	if now := left(); now != before-8 {
		t.Errorf("%d descriptors are left, want %d", now, before-8)
	}
	close(release)
	lab.Eventually(t, 10*time.Second, func() error {
		if now := left(); now != before || h.closing.Load() != 0 {
			return fmt.Errorf("%d descriptors are left, want %d; %d wait", now, before, h.closing.Load())
		}
		return nil
	})
}
