package node

import (
	"strings"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
)

// uplinkNames are those of the uplinks the node lists.
func (h *handlers) uplinkNames(t *testing.T) string {
	t.Helper()
	var names []string
	for _, u := range get[[]api.Uplink](t, h, "/v1/uplinks") {
		names = append(names, u.Name)
	}
	return strings.Join(names, " ")
}

// bring has the node have an uplink that is a link, as if it had been handed one.
func (h *handlers) bring(t *testing.T, spec string) *uplink {
	t.Helper()
	s, err := api.ParseUplink(spec)
	if err != nil {
		t.Fatal(err)
	}
	near, _ := link.NewPair(packet.BatchFrames)
	u := &uplink{spec: s, lan: h.lans[0], mac: packet.MAC{2, 0, 0, 0, 0, 9}, since: time.Now()}
	if u.way, err = h.router.AddUplink(network.UplinkConfig{Name: s.Name, MAC: u.mac, Addr: s.Addr, Gateway: s.Gateway}, near); err != nil {
		t.Fatal(err)
	}
	h.Node.mu.Lock()
	defer h.Node.mu.Unlock()
	h.Node.uplinks = append(h.Node.uplinks, u)
	if err := h.setWaysLocked(); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestHostIsTheWayOut: the sockets of the host are a network's way out until
// another is named, and again when that has gone; not when its device is lost,
// nor when somebody said so.
func TestHostIsTheWayOut(t *testing.T) {
	h := newHandlersOut(t)
	step := func(what, listed, route string) {
		t.Helper()
		if got := h.uplinkNames(t); got != listed {
			t.Errorf("%s: uplinks %q, want %q", what, got, listed)
		}
		var dev []string
		for _, r := range get[[]api.IPRoute](t, h, "/v1/routes") {
			if r.Destination == "0.0.0.0/0" {
				dev = append(dev, r.Dev+" "+r.State)
			}
		}
		if got := strings.Join(dev, ","); got != route {
			t.Errorf("%s: default route %q, want %q", what, got, route)
		}
	}
	call := func(method, path string) {
		t.Helper()
		if code, text := h.call(method, path, ""); code != 200 {
			t.Errorf("%s %s: %d %s", method, path, code, text)
		}
	}
	step("to begin with", "host", "host up")
	h.bring(t, "tap:up0,ip=192.0.2.2/24,gw=192.0.2.1")
	step("a link", "up0", "up0 up")
	call("POST", "/v1/uplinks/host")
	step("both", "up0 host", "up0 up,host up")
	call("DELETE", "/v1/uplinks/up0")
	step("the link has gone", "host", "host up")
	call("POST", "/v1/uplinks/host")
	up := h.bring(t, "tap:up0,ip=192.0.2.2/24,gw=192.0.2.1")
	step("a link after the host", "up0", "up0 up")
	h.uplinkLost(up, packet.EgressGone)
	step("its device is lost", "up0", "up0 down")
	call("DELETE", "/v1/uplinks/up0")
	step("it is removed", "host", "host up")
	call("DELETE", "/v1/uplinks/host")
	call("DELETE", "/v1/uplinks/host")
	step("none", "", "")
	h.bring(t, "tap:up0,ip=192.0.2.2/24,gw=192.0.2.1")
	call("DELETE", "/v1/uplinks/up0")
	step("still none", "", "")
	call("POST", "/v1/uplinks/host")
	step("the host again", "host", "host up")
	if code, text := h.call("POST", "/v1/up", `{"options":{"flows":"128"}}`); code != 200 {
		t.Error(code, text)
	}
	step("another router", "host", "host up")
}

func TestBudget(t *testing.T) {
	for _, c := range []struct {
		limit int
		ports string
		want  budget
	}{
		{1 << 20, "32768\t60999\n", budget{1 << 20, 1024, 7058, 1041006}},
		{20000, "32768\t60999\n", budget{20000, 1024, 7058, 12430}},
		{4096, "32768\t60999\n", budget{4096, 512, 3584, 1792}},
		{1024, "32768\t60999\n", budget{1024, 128, 512, 256}},
		{1 << 20, "1024\t65535\n", budget{1 << 20, 1024, 16128, 1031936}},
		{1 << 20, "", budget{1 << 20, 1024, 7058, 1041006}},
		{100, "40000\t40001\n", budget{100, 12, 1, 0}},
	} {
		if got := deriveBudget(c.limit, c.ports); got != c.want {
			t.Errorf("%d descriptors, ports %q: %+v, want %+v", c.limit, c.ports, got, c.want)
		}
	}
}
