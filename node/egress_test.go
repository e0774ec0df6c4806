package node

import (
	"strings"
	"testing"

	"fairlead/node/api"
)

// egressOf are the network's policy and its rules, as they are shown.
func (h *handlers) egressOf(t *testing.T) string {
	t.Helper()
	words := []string{get[[]api.Switch](t, h, "/v1/switches")[0].Egress}
	for _, r := range get[[]api.FilterRule](t, h, "/v1/rules") {
		if r.Chain == "egress" {
			words = append(words, r.In+" "+r.Target+" "+r.Match)
		}
	}
	return strings.Join(words, "; ")
}

// Where containers may open connections to is set while they are there, for the
// network and for each.
func TestEgress(t *testing.T) {
	h := newHandlers(t)
	for _, step := range []struct{ path, body, want string }{
		{"/v1/networks/default", `{}`, "all"},
		{"/v1/networks/bridge", `{"egress":{"spec":"none"}}`, "none; default reject 1: to everything"},
		{"/v1/networks/default", `{"host_loopback":true}`, "none; default reject 1: to everything"},
		{"/v1/up", `{"egress":{"spec":"allow:/etc/hosts","text":"allow 192.0.2.0/24 443/tcp\n"}}`,
			"allow:/etc/hosts; default accept 1: to 192.0.2.0/24; default reject 2: to everything else"},
		{"/v1/up", `{"options":{"flows":"128"}}`, "allow:/etc/hosts; default accept 1: to 192.0.2.0/24; default reject 2: to everything else"},
		{"/v1/networks/default", `{"egress":{"spec":"all"}}`, "all"},
	} {
		if code, text := h.call("POST", step.path, step.body); code != 200 {
			t.Errorf("POST %s %s: %d %s", step.path, step.body, code, text)
		}
		if got := h.egressOf(t); got != step.want {
			t.Errorf("after %s: %s, want %s", step.body, got, step.want)
		}
	}
	if s := get[[]api.Switch](t, h, "/v1/switches")[0]; !s.HostLoopback {
		t.Error("host_loopback is not kept")
	}
	for _, c := range []struct{ path, body, want string }{
		{"/v1/networks/other", `{}`, "network other not found"},
		{"/v1/networks/default", `{"egress":{"spec":"some"}}`, `egress: \"some\" is none of all, none, internet and allow:FILE`},
		{"/v1/networks/default", `{"egress":{"spec":"allow:x","text":"deny"}}`, "egress: x:1: "},
		{"/v1/up", `{"egress":{}}`, "is none of all"},
	} {
		if code, text := h.call("POST", c.path, c.body); code < 400 || !strings.Contains(text, c.want) {
			t.Errorf("POST %s %s: %d %s, want %s", c.path, c.body, code, text, c.want)
		}
	}

	none := &api.Egress{Spec: "none"}
	if _, err := h.create(api.CreateRequest{Name: "web", Command: []string{"sh"}, Egress: none}); err != nil {
		t.Fatal(err)
	}
	if got, want := h.egressOf(t), "all; web reject 1: to everything"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	_, err := h.create(api.CreateRequest{Network: "none", Command: []string{"sh"}, Egress: none})
	refused(t, err, "conflicting options: --egress and the network mode; with --network none there is no port on a network to hold to it")
}
