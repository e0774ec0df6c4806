package labfile

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

var verbs = map[Do]string{Keep: "keep", Make: "make", Set: "set", Remake: "remake", Remove: "remove", Leave: "leave"}

// words are a plan on one line for each change.
func words(p *Plan) string {
	var b strings.Builder
	for _, list := range [][]Change{p.Networks, p.Containers} {
		for _, c := range list {
			fmt.Fprintf(&b, "%s %s", verbs[c.Do], c.Name)
			if c.Why != "" {
				fmt.Fprintf(&b, " (%s)", c.Why)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// have is what a node has after it was made as a file says.
func have(t *testing.T, path, file string) *Have {
	t.Helper()
	f, err := Read(path, "/"+path, []byte(file), "lab")
	if err != nil {
		t.Fatal(err)
	}
	h := &Have{Exists: func(string) bool { return true }, Networks: []HaveNetwork{{Name: "default", Subnet: "172.17.0.0/16"}}}
	for _, w := range f.Networks {
		h.Networks = append(h.Networks, HaveNetwork{Name: w.Name, Subnet: w.Subnet, Labels: f.Labels(w.Config(), w.Labels),
			Rules: []string{"web db:80/tcp"}, Uplinks: []string{"host"}})
	}
	for i, c := range f.Containers {
		on := map[string]string{}
		for _, name := range c.networks() {
			on[name] = ""
		}
		for _, e := range c.Networks {
			on[e.Network] = e.IP
		}
		h.Containers = append(h.Containers, HaveContainer{ID: fmt.Sprint(i), Name: c.Name, Labels: f.Labels(c.Config(), c.Labels), Networks: on})
	}
	return h
}

const before1 = `
networks:
  a: {subnet: 10.1.0.0/24, options: {icc: off, mtu: 1400}, egress: all}
  b: {subnet: 10.2.0.0/24, uplinks: host, rules: web db:80}
containers:
  web: {command: serve, networks: {a: {ip: 10.1.0.2}}}
  db: {command: serve, networks: [b], env: {A: 1}}
  plain: {command: serve}
  guest: {command: serve, networks: container:db}
`

func TestPlan(t *testing.T) {
	for _, test := range []struct {
		what, file string
		prune      bool
		have       func(h *Have)
		want       string // the plan, or the error
	}{
		{what: "the same again", file: before1, want: "keep a\nkeep b\nkeep web\nkeep db\nkeep plain\nkeep guest\n"},
		{what: "nothing is there", file: before1, have: func(h *Have) { *h = Have{} },
			want: "make a\nmake b\nmake web\nmake db\nmake plain\nmake guest\n"},
		{what: "another order, other forms", file: `
containers:
  plain: {command: [sh, -c, serve], networks: default}
  db: {command: serve, networks: {b: }, env: [A=1]}
  guest: {command: serve, networks: [container:db], wait-for: plain}
  web: {command: serve, networks: {a: {ip: 10.1.0.2}}}
networks:
  b: {uplinks: [host], subnet: 10.2.0.0/24, internal: no, rules: [web db:80]}
  a: {options: [icc=off, mtu=1400], subnet: 10.1.0.0/24, egress: all}
`, want: "keep b\nkeep a\nremake plain (networks)\nkeep db\nkeep guest\nkeep web\n"},
		{what: "a container ended", file: before1, have: func(h *Have) { h.Containers = h.Containers[1:] },
			want: "keep a\nkeep b\nmake web\nkeep db\nkeep plain\nkeep guest\n"},
		{what: "a container changed, and one that shares its network", file: strings.Replace(before1, "{A: 1}", "{A: 2}, hostname: x", 1),
			want: "keep a\nkeep b\nkeep web\nremake db (env and hostname)\nkeep plain\nremake guest (container db)\n"},
		{what: "of a network what can be set", file: strings.NewReplacer("icc: off", "icc: on", "egress: all", "egress: none").Replace(before1),
			want: "set a (egress and options)\nkeep b\nkeep web\nkeep db\nkeep plain\nkeep guest\n"},
		{what: "of a network what is taken back", file: strings.NewReplacer("icc: off, ", "").Replace(before1),
			want: "set a (options)\nkeep b\nkeep web\nkeep db\nkeep plain\nkeep guest\n"},
		{what: "of a network what cannot be set", file: strings.Replace(before1, "1400", "1300", 1),
			want: "remake a (options)\nkeep b\nremake web (network a)\nkeep db\nkeep plain\nkeep guest\n"},
		{what: "a container is on other networks", file: before1, have: func(h *Have) {
			delete(h.Containers[0].Networks, "a")
			h.Containers[1].Networks["a"] = "10.1.0.9"
		}, want: "keep a\nkeep b\nremake web (it is not on a any more)\nremake db (it is on a too)\nkeep plain\nremake guest (container db)\n"},
		{what: "the node began anew", file: before1, have: func(h *Have) { h.Networks[2].Rules, h.Networks[2].Uplinks = nil, nil },
			want: "keep a\nset b (rules and uplinks)\nkeep web\nkeep db\nkeep plain\nkeep guest\n"},
		{what: "some are not in the file any more", file: "networks: {b: {subnet: 10.2.0.0/24, uplinks: host, rules: any any}}",
			want: "set b (rules)\nleave a\nleave web\nleave db\nleave plain\nleave guest\n"},
		{what: "some are to go", file: "networks: {b: {subnet: 10.2.0.0/24, uplinks: host, rules: any any}}", prune: true,
			want: "set b (rules)\nremove a\nremove web\nremove db\nremove plain\nremove guest\n"},
		{what: "others' of the same name", file: before1, have: func(h *Have) {
			h.Networks[1].Labels = nil
			h.Containers[0].Labels = map[string]string{LabelLab: "other"}
		}, want: "lab.yaml:3:3: networks.a: there is a network of this name, and it is of no file; call this one otherwise, or use that one: external: true\n" +
			"lab.yaml:6:3: containers.web: there is a container of this name, and it is of the lab other; call this one otherwise, or `fairlead stop web`"},
		{what: "a network that has to go is used", file: "networks: {b: {subnet: 10.2.0.0/24, internal: on, ip-range: 10.2.0.0/25}}", prune: true, have: func(h *Have) {
			h.Containers = append(h.Containers, HaveContainer{Name: "mine", Networks: map[string]string{"b": "10.2.0.7", "a": "10.1.0.7"}})
		}, want: "lab.yaml:1:1: networks.a: network a has to go, and container mine uses it, which is of no file; `fairlead network disconnect a mine`\n" +
			"lab.yaml:1:12: networks.b: network b has to go, and container mine uses it, which is of no file; `fairlead network disconnect b mine`"},
		{what: "an address is taken", file: strings.Replace(before1, "10.1.0.2", "10.1.0.7", 1), have: func(h *Have) {
			h.Containers = append(h.Containers, HaveContainer{Name: "mine", Networks: map[string]string{"a": "10.1.0.7"}})
		}, want: "lab.yaml:6:44: containers.web.networks.a.ip: container mine has 10.1.0.7 already"},
		{what: "an address moves on", file: strings.NewReplacer("web: {command: serve, networks: {a: {ip: 10.1.0.2}}}", "web: {command: serve, networks: {a: {ip: 10.1.0.3}}}",
			"plain: {command: serve}", "plain: {command: serve, networks: {a: {ip: 10.1.0.2}}}").Replace(before1),
			want: "keep a\nkeep b\nremake web (networks)\nkeep db\nremake plain (networks)\nkeep guest\n"},
		{what: "a network of others is used", file: "networks: {theirs: {external: true}}\ncontainers: {x: {command: serve, networks: [theirs]}}", have: func(h *Have) {
			*h = Have{Networks: []HaveNetwork{{Name: "theirs"}}}
		}, want: "make x\n"},
		{what: "a network of others is not there", file: "networks: {theirs: {external: true}}", have: func(h *Have) { *h = Have{} },
			want: "lab.yaml:1:12: networks.theirs: there is no such network; `fairlead network create theirs` makes it"},
		{what: "a subnet overlaps with one that stays", file: "networks: {mine: {subnet: 172.17.3.0/24}, c: {subnet: 10.2.0.0/16}}", prune: true,
			want: "lab.yaml:1:27: networks.mine.subnet: 172.17.3.0/24 overlaps with 172.17.0.0/16 of network default"},
		{what: "another file of the same name", file: before1, have: func(h *Have) {
			for i := range h.Containers {
				h.Containers[i].Labels[LabelFile] = "/elsewhere/lab.yaml"
			}
		}, want: "lab.yaml: name: a lab \"lab\" is up already, from /elsewhere/lab.yaml; say name: in one of them, or `fairlead down -f /elsewhere/lab.yaml`"},
		{what: "the file was moved", file: before1, have: func(h *Have) {
			h.Exists = func(string) bool { return false }
			h.Networks[1].Labels[LabelFile] = "/elsewhere/lab.yaml"
		}, want: "keep a\nkeep b\nkeep web\nkeep db\nkeep plain\nkeep guest\n"},
	} {
		f, err := Read("lab.yaml", "/lab.yaml", []byte(test.file), "lab")
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		h := have(t, "lab.yaml", before1)
		if test.have != nil {
			test.have(h)
		}
		p, err := f.Plan(h, test.prune)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = words(p)
		}
		if got != test.want {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", test.what, got, test.want)
		}
	}
}

// Nothing of the lab is left, and all else stays.
func TestRemove(t *testing.T) {
	h := have(t, "lab.yaml", before1)
	h.Networks = append(h.Networks, HaveNetwork{Name: "mine"})
	h.Containers = append(h.Containers, HaveContainer{Name: "mine"})
	p, err := (&File{Name: "lab", Path: "/lab.yaml"}).Remove(h)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := words(p), "remove a\nremove b\nremove web\nremove db\nremove plain\nremove guest\n"; got != want || p.Changes() != 6 {
		t.Errorf("%d changes:\n%s\nwant\n%s", p.Changes(), got, want)
	}
}

// What is taken back is as if nobody had said a word.
func TestLiveOptionsTakenBack(t *testing.T) {
	was := &Network{Options: []string{"icc=off", "dhcp=off", "dhcp-lease=2h", "domain=lab", "mtu=1400"}}
	options, ok := (&Network{Options: []string{"mtu=1400", "domain=other"}}).LiveOptions(was)
	if want := map[string]string{"icc": "on", "dhcp": "auto", "dhcp-lease": "", "domain": "other"}; !ok || !maps.Equal(options, want) {
		t.Errorf("%v, %v, want %v", options, ok, want)
	}
	if options, ok = (&Network{}).LiveOptions(was); ok {
		t.Errorf("the MTU cannot be taken back: %v", options)
	}
}
