package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// add adds a rule and returns it.
func (h *handlers) addRule(t *testing.T, from, to string) api.Rule {
	t.Helper()
	if code, text := h.call("POST", "/v1/rules", fmt.Sprintf(`{"from": %q, "to": %q}`, from, to)); code != 200 {
		t.Fatalf("rule %s %s: %d %s", from, to, code, text)
	}
	rules := get[[]api.Rule](t, h, "/v1/rules/added")
	return rules[len(rules)-1]
}

// opened is what is open on the default network, in words.
func (h *handlers) opened() (list []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := map[packet.ContainerID]string{0: "any"}
	for _, c := range h.containers {
		names[c.stationLocked()] = c.name()
	}
	for _, r := range h.admittedLocked(h.defaultLocked()) {
		list = append(list, fmt.Sprintf("%d %s %s %v %d-%d", r.Number, names[r.From], names[r.To], r.Proto, r.Ports.First, r.Ports.Last))
	}
	slices.Sort(list)
	return list
}

func TestRulesFollowNames(t *testing.T) {
	h := newHandlers(t)
	expect := func(want ...string) {
		t.Helper()
		if got := h.opened(); !slices.Equal(got, want) {
			t.Errorf("open is %q, want %q", got, want)
		}
	}
	r := h.addRule(t, "web", "db:5432")
	if r.Number != 1 || r.Needed || !slices.Equal(r.Missing, []string{"web", "db"}) || r.To != "db:5432/tcp" || r.Network != "default" {
		t.Errorf("%+v", r)
	}
	h.addRule(t, "any", "db")
	expect()
	web := h.join(t, "web")
	expect()
	db := h.join(t, "db")
	expect("1 web db TCP 5432-5432", "2 any db protocol 0 0-0")
	if err := h.rename(db.container, "store"); err != nil {
		t.Fatal(err)
	}
	expect()
	if err := h.rename(web.container, "db"); err != nil {
		t.Fatal(err)
	}
	expect("2 any db protocol 0 0-0")
	h.end(web.container)
	expect()
	if code, text := h.call("DELETE", "/v1/rules/1", ""); code != 200 {
		t.Error(code, text)
	}
	if rules := get[[]api.Rule](t, h, "/v1/rules/added"); len(rules) != 1 || rules[0].Number != 2 {
		t.Errorf("%+v", rules)
	}
	if r := h.addRule(t, "web", "db:5432"); r.Number != 3 {
		t.Errorf("a number is used again: %+v", r)
	}
}

func TestRulesRefuse(t *testing.T) {
	h := newHandlers(t)
	h.addRule(t, "web", "db:80")
	for _, c := range []struct {
		method, path, body, want string
		code                     int
	}{
		{"POST", "/v1/rules", `{"from": "web", "to": "db:80/tcp"}`, "rule 1 of network default is web → db:80/tcp already", 409},
		{"POST", "/v1/rules", `{"network": "nosuch", "from": "web", "to": "db:80"}`, "network nosuch not found", 404},
		{"POST", "/v1/rules", `{"from": "web", "to": "db:x"}`, "Invalid containerPort: x", 400},
		{"POST", "/v1/rules", `{"from": "web", "to": "db", "colour": 1}`, "colour", 400},
		{"DELETE", "/v1/rules/9", "", "no rule has number 9", 404},
		{"DELETE", "/v1/rules/x", "", "is no number of a rule", 400},
	} {
		if code, text := h.call(c.method, c.path, c.body); code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, code, text)
		}
	}
	h.mu.Lock()
	for len(h.rules) < maxRules {
		h.rules = append(h.rules, h.rules[0])
	}
	h.mu.Unlock()
	if code, text := h.call("POST", "/v1/rules", `{"from": "web", "to": "db:81"}`); code != 409 || !strings.Contains(text, "which is all it can have") {
		t.Error(code, text)
	}
}

// Options of a network that is used change what may pass, and what there was to
// count is still there.
func TestAdmitFollowsTheNetwork(t *testing.T) {
	h := newHandlers(t)
	web, db := h.join(t, "web"), h.join(t, "db")
	set := func(value string) {
		t.Helper()
		if code, text := h.call("POST", "/v1/networks/default", `{"options": {"icc": "`+value+`"}}`); code != 200 {
			t.Fatal(code, text)
		}
	}
	frames := uint64(0)
	ask := func(port uint16) {
		t.Helper()
		web.send(t, packettest.UDP(web.Station, db.Station, 9, port, nil))
		frames++
		web.settled(t, frames)
	}
	refused := func() (n uint64) {
		for _, r := range get[[]api.FilterRule](t, h, "/v1/rules") {
			if r.Reason == packet.ICC.String() {
				n += r.Packets
			}
		}
		return n
	}
	h.addRule(t, "web", "db:53/udp")
	ask(53)
	set("off")
	ask(53)
	ask(54)
	rules := get[[]api.Rule](t, h, "/v1/rules/added")
	if len(rules) != 1 || rules[0].Packets != 1 || !rules[0].Needed || refused() != 1 {
		t.Errorf("%+v, %d refused", rules, refused())
	}
	set("on")
	ask(54)
	set("off")
	ask(55)
	if refused() != 2 {
		t.Errorf("%d refused, want 2", refused())
	}
	if c := db.attachments[0].endpoint.port.Counts(); c.Written != 3 {
		t.Errorf("db got %d frames, want 3", c.Written)
	}
}

func TestLinks(t *testing.T) {
	h := newHandlers(t)
	web := h.join(t, "web1")
	create := func(req api.CreateRequest) (*container, error) {
		req.Command = []string{"sh"}
		return h.create(req)
	}
	c, err := create(api.CreateRequest{Name: "client", Links: []string{"web1:db", web.id[:12]}})
	if err != nil {
		t.Fatal(err)
	}
	if links := c.attachments[0].links; !slices.Equal(links, []string{"web1:db", "web1:web1"}) {
		t.Errorf("links %q", links)
	}
	each, err := create(api.CreateRequest{Networks: []api.EndpointRequest{{Network: "default", Links: []string{"web1:one"}}}, Links: []string{"web1:two"}})
	if err != nil || !slices.Equal(each.attachments[0].links, []string{"web1:one", "web1:two"}) {
		t.Errorf("%v, %v", each, err)
	}
	for want, req := range map[string]api.CreateRequest{
		"could not get container for nosuch: No such container: nosuch":          {Links: []string{"nosuch:db"}},
		"Cannot link to a non running container: /client AS /c":                  {Links: []string{"client:c"}},
		"bad format for links: a:b:c":                                            {Links: []string{"a:b:c"}},
		"another one is called db already":                                       {Links: []string{"web1:db", "web1:db"}},
		"conflicting options: links and the network mode":                        {Network: "none", Links: []string{"web1"}},
		"conflicting options: host type networking can't be used with links":     {Network: "host", Links: []string{"web1"}},
		"conflicting options: --rate-in and --rate-out and the network mode":     {Network: "none", RateIn: "1mbit"},
		`--rate-out: "much" is no rate such as 500kbit, 100mbit or 1.5gbit, nor`: {RateOut: "much"},
	} {
		before := len(h.list())
		if _, err := create(req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", req, err, want)
		}
		if len(h.list()) != before {
			t.Errorf("%+v has left something", req)
		}
	}
}

func TestLinkEnv(t *testing.T) {
	port := func(first, last uint16, proto string) api.PortSpec {
		return api.PortSpec{Container: api.PortRange{First: first, Last: last}, Proto: proto}
	}
	env := linkEnv("client", "my-db", "172.17.0.2", joined([]api.PortSpec{port(53, 53, "udp"), port(81, 81, "tcp"), port(80, 80, "tcp"), port(9000, 9000, "tcp"), port(80, 80, "tcp")}),
		[]string{"COLOUR=red=", "HOME=/root", "PATH=/bin", "PASSED"})
	want := `MY_DB_PORT=tcp://172.17.0.2:80
MY_DB_PORT_80_TCP=tcp://172.17.0.2:80
MY_DB_PORT_80_TCP_ADDR=172.17.0.2
MY_DB_PORT_80_TCP_PORT=80
MY_DB_PORT_80_TCP_PROTO=tcp
MY_DB_PORT_81_TCP=tcp://172.17.0.2:81
MY_DB_PORT_81_TCP_ADDR=172.17.0.2
MY_DB_PORT_81_TCP_PORT=81
MY_DB_PORT_81_TCP_PROTO=tcp
MY_DB_PORT_80_TCP_START=tcp://172.17.0.2:80
MY_DB_PORT_80_TCP_PORT_START=80
MY_DB_PORT_80_TCP_END=tcp://172.17.0.2:81
MY_DB_PORT_80_TCP_PORT_END=81
MY_DB_PORT_9000_TCP=tcp://172.17.0.2:9000
MY_DB_PORT_9000_TCP_ADDR=172.17.0.2
MY_DB_PORT_9000_TCP_PORT=9000
MY_DB_PORT_9000_TCP_PROTO=tcp
MY_DB_PORT_53_UDP=udp://172.17.0.2:53
MY_DB_PORT_53_UDP_ADDR=172.17.0.2
MY_DB_PORT_53_UDP_PORT=53
MY_DB_PORT_53_UDP_PROTO=udp
MY_DB_NAME=/client/my-db
MY_DB_ENV_COLOUR=red=`
	if got := strings.Join(env, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if env := linkEnv("c", "w", "172.17.0.2", nil, nil); !slices.Equal(env, []string{"W_NAME=/c/w"}) {
		t.Errorf("%q", env)
	}
	size := 0
	for _, kv := range linkEnv("c", "w", "172.17.0.2", []api.PortSpec{port(1, 65535, "tcp"), port(1, 65535, "udp")}, nil) {
		size += len(kv) + 1
	}
	if size > 1<<18 { // of the two megabytes a program is started with
		t.Errorf("the variables of all ports take %d bytes", size)
	}
}
