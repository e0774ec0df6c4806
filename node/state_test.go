package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/node/network"
)

// TestState: networks outlive the node, with what was set later. Their file is
// replaced whole, and goes with the last of them.
func TestState(t *testing.T) {
	dir := shortDir(t)
	again := func(c *Config) { c.Dir = dir }
	keep := func(fn func(r *rig)) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		conf := Config{Dir: dir, Version: "test", Stays: true}
		again(&conf)
		r := &rig{Client: api.NewClient(dir), t: t, ctx: ctx, cancel: cancel, served: make(chan error, 1)}
		go func() { r.served <- Serve(ctx, conf) }()
		r.answers()
		fn(r)
		cancel()
		r.ended(10 * time.Second)
	}
	var was api.NetworkInspect
	keep(func(r *rig) {
		r.network(api.NetworkCreate{Name: "lab", Labels: map[string]string{"a": "b"}, Options: map[string]string{"mtu": "1400", "dhcp-lease": "1h"},
			Subnet: "10.9.0.0/24", Gateway: "10.9.0.9", IPRange: "10.9.0.128/25", AuxAddresses: map[string]string{"x": "10.9.0.3"}})
		yes := true
		if err := r.Post(r.ctx, "/v1/networks/lab", api.NetworkRequest{Internal: &yes, Options: map[string]string{"icc": "off"},
			Egress: &api.Egress{Spec: "allow:x", Text: "allow 192.0.2.1\n"}}, nil); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"db:80", "db"} { // and one that is taken away again
			if err := r.Post(r.ctx, "/v1/rules", api.RuleRequest{Network: "lab", From: "web", To: to}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Delete(r.ctx, "/v1/rules/2", nil); err != nil {
			t.Fatal(err)
		}
		was = r.inspectNetwork("lab")
	})
	if was.Options["icc"] != "off" || was.Options["mtu"] != "1400" || !was.Internal || was.Egress != "allow:x" {
		t.Errorf("it was %+v", was)
	}
	path := filepath.Join(dir, stateFile)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != stateFile {
		t.Errorf("left are %v, %v", files, err)
	}
	keep(func(r *rig) {
		if now := r.inspectNetwork("lab"); fmt.Sprint(now) != fmt.Sprint(was) {
			t.Errorf("it is\n%+v, was\n%+v", now, was)
		}
		var rules []api.Rule
		if err := r.Get(r.ctx, "/v1/rules/added", &rules); err != nil || len(rules) != 1 || rules[0].To != "db:80/tcp" || rules[0].Network != "lab" || !rules[0].Needed {
			t.Errorf("rules %+v, %v", rules, err)
		}
		if c := r.create(api.CreateRequest{Network: "lab"}); c.Link.MTU != 1400 || c.Link.Gateway != "" {
			t.Errorf("link %+v", c.Link)
		}
	})

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{strings.Replace(string(text), `"version": 1`, `"version": 2`, 1), ": it has version 2, and this fairlead reads version 1: start the one that wrote it; `rm " + path + "` forgets its networks"},
		{strings.Replace(string(text), `"db:80/tcp"`, `"db:x"`, 1), ": db:x: Invalid containerPort: x; a rule is FROM TO[:PORT[-PORT][/tcp|/udp]], such as web db:5432, with names of containers or any; `rm " + path + "` forgets its networks"},
		{"{", ": networks of the node before: unexpected end of JSON input; `rm " + path + "` forgets its networks"},
		{strings.Replace(string(text), was.ID, "ab", 1), `: network "lab" has the id "ab", which is not 64 hexadecimal digits; ` + "`rm " + path + "` forgets its networks"},
		{strings.Replace(string(text), `"lab"`, `"none"`, 1), ": operation is not permitted on predefined none network; choose another name; `rm " + path + "` forgets its networks"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Serve(context.Background(), Config{Dir: dir, Version: "test"})
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("got  %v\nwant …%s", err, c.want)
		}
		if now, err := os.ReadFile(path); string(now) != c.text {
			t.Errorf("it was changed: %v", err)
		}
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	keep(func(r *rig) {
		if err := r.Delete(r.ctx, "/v1/networks/lab", nil); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// What cannot be written down is refused, and nothing has changed.
func TestStateNotWritten(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "lab"})
	h.makeNetwork(t, api.NetworkCreate{Name: "stays"}) // without any there is no file
	if code, text := h.call("POST", "/v1/rules", `{"network": "lab", "from": "web", "to": "db"}`); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	see := func() string {
		_, networks := h.call("GET", "/v1/networks", "")
		_, rules := h.call("GET", "/v1/rules/added", "")
		return networks + rules
	}
	was := see()
	fresh := filepath.Join(h.home.Name(), stateFile+".new")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/networks", `{"name": "other"}`},
		{"POST", "/v1/networks/lab", `{"internal": true, "options": {"icc": "off"}}`},
		{"DELETE", "/v1/networks/lab", ""},
		{"POST", "/v1/rules", `{"network": "lab", "from": "web", "to": "db:80"}`},
		{"DELETE", "/v1/rules/1", ""},
	} {
		code, text := h.call(c.method, c.path, c.body)
		if code != 500 || !strings.Contains(text, fresh) || !strings.Contains(text, "nothing is changed") {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, text)
		}
		if now := see(); now != was {
			t.Errorf("%s %s: there is\n%s\nwas\n%s", c.method, c.path, now, was)
		}
	}
	if err := os.Remove(fresh); err != nil {
		t.Fatal(err)
	}
}

// TestOptionsAgain: what a network's options are written as is read as the same.
func TestOptionsAgain(t *testing.T) {
	o, err := network.ParseOptions(map[string]string{"mtu": "1400", "hub": "on", "ageing": "10s", "flood-limit": "9", "guard": "off", "offload": "off",
		"link": "tap", "loop-guard": "off", "join": "off", "icc": "off", "masquerade": "off", "routed": "on", "dhcp": "off", "dhcp-lease": "infinite",
		"dhcp-range": "10.0.0.9,10.0.0.20", "dhcp-host": "02:42:00:00:00:09,10.0.0.9", "dhcp-route": "10.1.0.0/16@10.0.0.1", "domain": "lab.example"})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := network.ParseOptions(o.Pairs()); err != nil || again != o {
		t.Errorf("%+v, %v\nwas %+v", again, err, o)
	}
	if pairs := (network.Options{}).Pairs(); pairs == nil {
		t.Error("no pairs")
	}
}

// Networks that could not be told from one another are refused.
func TestStateCheck(t *testing.T) {
	a, b := strings.Repeat("0a", 32), strings.Repeat("1b", 32)
	for _, c := range []struct{ networks, want string }{
		{`{"id":"` + a + `","name":"x"},{"id":"` + b + `","name":"y"}`, ""},
		{`{"name":"x"}`, `network "x" has the id "", which is not 64 hexadecimal digits`},
		{`{"id":"` + strings.ToUpper(a) + `","name":"x"}`, `network "x" has the id "` + strings.ToUpper(a) + `", which is not 64 hexadecimal digits`},
		{`{"id":"` + a + `\n","name":"x"}`, `network "x" has the id "` + a + `\n", which is not 64 hexadecimal digits`},
		{`{"id":"` + a + `","name":"x"},{"id":"` + a + `","name":"y"}`, "two networks have the id " + a},
		{`{"id":"` + a + `","name":"x"},{"id":"` + b + `","name":"x"}`, `two networks have the name "x"`},
	} {
		_, err := parseState([]byte(`{"version":1,"networks":[` + c.networks + `]}`))
		if got := fmt.Sprint(err); got != c.want && (err != nil || c.want != "") {
			t.Errorf("%s:\ngot  %s\nwant %s", c.networks, got, c.want)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"networks":[{"id":"ab","created":"2026-01-02T03:04:05Z","name":"lab","subnet":"172.18.0.0/16","gateway":"172.18.0.1"}]}`))
	f.Add([]byte(`{"version":1,"networks":[{"id":"` + strings.Repeat("0a", 32) + `","name":"lab","subnet":"172.18.0.0/16","gateway":"172.18.0.1",` +
		`"ip_range":"172.18.1.0/24","aux_addresses":{"x":"172.18.0.9"},"options":{"icc":"off"},"rules":[{"from":"a","to":"b:80"}]}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseState(text)
		if err != nil {
			return
		}
		s.taken()
		for _, saved := range s.Networks {
			_ = saved.ID[:12] // as networks are shown
			if conf, err := readNetwork(&saved.NetworkCreate, nil); err == nil {
				l := &lan{id: saved.ID, name: saved.Name, conf: conf}
				req := l.requestLocked()
				if _, err := readNetwork(&req, nil); err != nil {
					t.Errorf("%+v is saved as %+v: %v", saved, req, err)
				}
			}
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseState(again); err != nil {
			t.Errorf("what was written is refused: %v", err)
		}
	})
}
