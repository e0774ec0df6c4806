package test

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// shows are all there is to show, as the help lists it.
func (n *node) shows() (names []string) {
	n.t.Helper()
	_, list, _ := strings.Cut(n.run("show", "--help"), "Commands:")
	for _, m := range regexp.MustCompile(`(?m)^  (\w+) `).FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	if len(names) < 4 {
		n.t.Fatalf("show --help lists %q", names)
	}
	return names
}

// --json is one valid document, an array also when it is empty.
func TestShowJSON(t *testing.T) {
	lab.Need(t, "ping", "curl")
	n := newNode(t)
	check := func(least int) {
		t.Helper()
		for _, args := range append(prefixed("show", n.shows()), []string{"ps"}) {
			atLeast := least
			var rows []map[string]any
			n.json(&rows, args...)
			if slices.Equal(args, []string{"show", "leases"}) {
				atLeast = 0 // S19 has some
			}
			if rows == nil || len(rows) < atLeast {
				t.Errorf("%q --json has %d rows: %v", args, len(rows), rows)
			}
		}
	}
	check(0)
	n.start("a")
	n.start("b", "-p", "8080:80")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	n.try("exec", "a", "curl", "-s", "--max-time", "5", "http://172.17.0.1:8080/") // nobody listens, and still a flow
	n.try("exec", "a", "ping", "-c", "1", "-W", "5", "192.0.2.1")
	check(1)
}

func prefixed(word string, words []string) (lists [][]string) {
	for _, w := range words {
		lists = append(lists, []string{word, w})
	}
	return lists
}

// --watch shows it again and again, until Ctrl-C.
func TestShowWatch(t *testing.T) {
	n := newNode(t)
	for _, name := range n.shows() {
		text, data := n.background("show", name, "--watch", "100ms"), n.background("show", name, "--json", "--watch=100ms")
		frame := strings.SplitAfter(n.run("show", name), "\n")[0]
		text.says(frame)
		data.says("\n")
		if name == "switch" {
			n.start("late")
		}
		for _, c := range []*client{text, data} {
			if name == "switch" {
				c.says("late")
			}
			seen := strings.Count(c.out.String(), "\n")
			lab.Eventually(t, patience, func() error {
				if strings.Count(c.out.String(), "\n") <= seen {
					return errors.New("nothing new is shown")
				}
				return nil
			})
			c.signal(interrupt)
			if code := c.wait(); code != 0 || c.errors.String() != "" {
				t.Errorf("Ctrl-C ends %q with %d: %s", c.cmd.Args[1:], code, c.errors.String())
			}
		}
		for line := range strings.Lines(data.out.String()) {
			var rows []map[string]any
			if err := json.Unmarshal([]byte(line), &rows); err != nil || rows == nil {
				t.Errorf("show %s --json --watch: %v: %q", name, err, line)
			}
		}
	}
	n.refuses("--watch 10ms is less than 100ms", "show", "mac", "--watch", "10ms")
}

// In the words people have for docker inspect.
func TestS37_Inspect(t *testing.T) {
	n := newNode(t)
	id := n.start("web", "--hostname", "www", "--ip", "172.17.0.9", "-e", "A=1", "-w", "/etc")
	for format, want := range map[string]string{
		"{{json .NetworkSettings.IPAddress}}":                            `"172.17.0.9"`,
		"{{.NetworkSettings.IPAddress}}":                                 "172.17.0.9",
		"{{.NetworkSettings.IPPrefixLen}}":                               "16",
		"{{.NetworkSettings.Gateway}}":                                   "172.17.0.1",
		"{{.NetworkSettings.MacAddress}}":                                "02:42:ac:11:00:09",
		"{{.NetworkSettings.Networks.default.IPAddress}}":                "172.17.0.9",
		"{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}":     "default",
		"{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}":      "02:42:ac:11:00:09",
		"{{.Config.Hostname}}":                                           "www",
		"{{.Config.WorkingDir}} {{json .Config.Env}}":                    `/etc ["A=1"]`,
		"{{.Name}} {{.Id}}":                                              "/web " + id,
		"{{.Path}} {{join .Args \" \"}} {{.State.Running}}":              "sleep 1000 true",
		"{{.State.Status}} {{.HostConfig.NetworkMode}}":                  "running default",
		"{{.HostConfig.AutoRemove}}{{upper .Config.Hostname}}":           "trueWWW",
		"{{if ge .State.Pid 1}}{{len .NetworkSettings.Networks}}{{end}}": "1",
	} {
		if got := n.run("inspect", "--format", format, "web"); got != want+"\n" {
			t.Errorf("inspect --format %q: %q, want %q", format, got, want)
		}
	}
	if pid := n.pid("web"); pid == 0 || !strings.Contains(n.run("inspect", "web"), `"Pid": `) {
		t.Errorf("pid %d", pid)
	}
	var all []api.Inspect
	n.start("db")
	if err := json.Unmarshal([]byte(n.run("inspect", "web", "db", id[:6])), &all); err != nil || len(all) != 3 || all[1].Name != "/db" || all[2].ID != id {
		t.Errorf("inspect of three: %+v (%v)", all, err)
	}
	r := n.try("inspect", "web", "nobody")
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) != 1 || r.code != 125 || !strings.Contains(r.stderr, "No such container: nobody") {
		t.Errorf("inspect of one that is and one that is not: %v", r)
	}
	n.refuses("template parsing error", "inspect", "-f", "{{.No.Such}}", "web")
}

func TestPs(t *testing.T) {
	n := newNode(t)
	if rows := table(t, n.run("ps")); len(rows) != 0 {
		t.Errorf("ps of nothing: %v", rows)
	}
	id := n.start("web", "--", "sh", "-c", "exec sleep 1000")
	n.start("alone", "--net", "none")
	n.start("with", "--net", "container:web")
	rows := table(t, n.run("ps", "-a"))
	if len(rows) != 3 {
		t.Fatalf("ps: %v", rows)
	}
	for head, cell := range map[string]string{"CONTAINER ID": id[:12], "NETWORK": "default", "IP": "172.17.0.2", "NAMES": "web"} {
		if rows[2][head] != cell {
			t.Errorf("ps: %s is %q, want %q", head, rows[2][head], cell)
		}
	}
	if rows[1]["NETWORK"] != "none" || rows[1]["IP"] != "-" || rows[0]["NETWORK"] != "container:web" || rows[0]["IP"] != "172.17.0.2" {
		t.Errorf("ps: %v", rows)
	}
	if got := strings.Fields(n.run("ps", "-q")); len(got) != 3 || got[2] != id[:12] {
		t.Errorf("ps -q: %q", got)
	}
	if got := n.run("ps", "-q", "--no-trunc"); !strings.Contains(got, id) {
		t.Errorf("ps -q --no-trunc: %q", got)
	}
}
