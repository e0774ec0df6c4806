package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"fairlead/node/api"
)

// fakeNode answers in a node directory of the test's own: for each request the
// value, or an api.Error. It returns the requests that came.
func fakeNode(t *testing.T, answers map[string]any) *log {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("FAIRLEAD_DIR", dir)
	l, err := net.Listen("unix", api.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	requests := new(log)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		call := r.Method + " " + r.URL.String()
		if call != "GET /v1/version" { // all that is done begins with it
			_, _ = requests.Write([]byte(strings.TrimSpace(call+" "+body.String()) + "\n"))
		}
		answer := answers[call]
		if e, failed := answer.(api.Error); failed {
			w.WriteHeader(http.StatusNotFound)
			answer = e
		}
		if text, raw := answer.(string); raw {
			_, _ = w.Write([]byte(text))
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return requests
}

// What commands ask the node for, and what they print of its answers.
func TestCommands(t *testing.T) {
	inspect := &api.Inspect{ID: testID, Name: "/web"}
	inspect.NetworkSettings.IPAddress = "172.17.0.2"
	inspect.NetworkSettings.Networks = map[string]api.InspectNetwork{"default": {}}
	answers := map[string]any{
		"GET /v1/version":                                       api.VersionInfo{API: api.Version, Version: version},
		"GET /v1/containers":                                    []api.Container{{ID: testID, Name: "web"}},
		"GET /v1/containers/web":                                inspect,
		"GET /v1/containers/db":                                 api.Error{Message: "No such container: db"},
		"GET /v1/containers/web/logs?":                          "hello\n",
		"GET /v1/containers/web/logs?follow=1&tail=5":           "tail\n",
		"GET /v1/containers/0":                                  inspect, // the beginning of its id
		"GET /v1/macs":                                          []api.MAC{},
		"DELETE /v1/macs?network=default":                       api.Flushed{MACs: 3},
		"GET /v1/switches":                                      testSwitches(),
		"GET /v1/uplinks":                                       testUplinks,
		"GET /v1/networks":                                      testNetworks(),
		"GET /v1/networks/lab":                                  api.NetworkInspect{Name: "lab"},
		"GET /v1/networks/backend":                              api.Error{Message: "network backend not found"},
		"POST /v1/networks":                                     api.NetworkCreated{ID: testID},
		"DELETE /v1/networks/backend":                           api.Error{Message: "network backend not found; try"},
		"DELETE /v1/networks/" + strings.Repeat("b", 64):        api.Error{Message: "network empty has active endpoints"},
		"POST /v1/networks/empty":                               api.NetworkChanged{Warnings: []string{"container web has the default route of before"}},
		"POST /v1/networks/backend/disconnect":                  api.Error{Message: "network backend not found"},
		"POST /v1/networks/yard":                                api.Error{Message: "network yard not found"},
		"POST /v1/uplinks/check":                                api.UplinksChecked{Lost: []api.OwnAddress{{Container: "web", Address: "192.0.2.50"}}},
		"DELETE /v1/uplinks/up0":                                struct{}{},
		"DELETE /v1/uplinks/eth1":                               struct{}{},
		"POST /v1/uplinks/host":                                 struct{}{},
		"DELETE /v1/uplinks/host":                               struct{}{},
		"GET /v1/containers/web/ports":                          testPorts,
		"POST /v1/containers/web/ports":                         testPorts,
		"DELETE /v1/containers/web/ports?port=80&port=53%2Fudp": testPorts,
		"DELETE /v1/containers/web/ports?address=192.0.2.50":    api.Ports{Addresses: []string{"192.0.2.50"}},
		"GET /v1/check":                                         api.Check{Violations: []string{"port 1: one frame too many"}},
		"GET /v1/trace?container=web":                           `{"line":"a packet"}` + "\n",
		"GET /v1/trace":                                         `{"line":"a packet"}` + "\n",
	}
	for _, test := range []struct {
		args, request, out, stderr string
		code                       int
	}{
		{"ps -q", "GET /v1/containers", "0123456789ab\n", "", 0},
		{"ps -aq --no-trunc", "GET /v1/containers", testID + "\n", "", 0},
		{"inspect -f {{.NetworkSettings.IPAddress}} db web", "GET /v1/containers/db\nGET /v1/containers/web", "172.17.0.2\n", "fairlead: No such container: db\n", 125},
		{"inspect -f {{.Name}} a/b", "GET /v1/containers/a%2Fb", "\n", "", 0}, // a name is one step of the path
		{"logs web", "GET /v1/containers/web/logs?", "hello\n", "", 0},
		{"logs -f -n 5 web", "GET /v1/containers/web/logs?follow=1&tail=5", "tail\n", "", 0},
		{"stop web", "GET /v1/containers/web\nPOST /v1/containers/" + testID + "/stop {}", "web\n", "", 0},
		{"stop -t 0 -s INT web", "GET /v1/containers/web\nPOST /v1/containers/" + testID + `/stop {"signal":"INT","timeout":0}`, "web\n", "", 0},
		{"stop --time 3 web db", "GET /v1/containers/web\nPOST /v1/containers/" + testID + `/stop {"timeout":3}` + "\nGET /v1/containers/db", "web\n", "fairlead: No such container: db\n", 125},
		{"kill -s HUP 0", "GET /v1/containers/0\nPOST /v1/containers/" + testID + `/kill {"signal":"HUP"}`, "web\n", "", 0},
		{"show mac --json", "GET /v1/macs", "[]\n", "", 0},
		{"mac flush --network default", "DELETE /v1/macs?network=default", "3 forgotten\n", "", 0},
		{"network disconnect default web", "POST /v1/networks/default/disconnect " + `{"container":"web"}`, "", "", 0},
		{"network disconnect -f backend web", "POST /v1/networks/backend/disconnect " + `{"container":"web","force":true}`, "", "fairlead: network backend not found\n", 125},
		{"network connect --ip 10.1.0.9 --alias db --mac-address 02:00:00:00:00:01 lab web", "POST /v1/networks/lab/connect " +
			`{"container":"web","endpoint":{"network":"lab","ip":"10.1.0.9","mac":"02:00:00:00:00:01","aliases":["db"]}}`, "", "", 0},
		{"network connect --name x lab web", "", "", "fairlead: network connect: --name is for netns:PATH and pid:N only, and \"web\" is neither; see `fairlead network connect --help`\n", 125},
		{"network connect --ip 10.1.0.9/24 lab web", "", "", "fairlead: network connect: ADDRESS/LENGTH@GATEWAY is for netns:PATH and pid:N only, and \"web\" is neither; see `fairlead network connect --help`\n", 125},
		{"network create --internal -o mtu=1400 lab", "POST /v1/networks " + `{"name":"lab","driver":"bridge","internal":true,"options":{"mtu":"1400"}}`, testID + "\n", "", 0},
		{"network ls -q", "GET /v1/networks\nGET /v1/uplinks", "aaaaaaaaaaaa\nbbbbbbbbbbbb\ncccccccccccc\n", "", 0},
		{"network inspect -f {{.Name}} lab backend", "GET /v1/networks/lab\nGET /v1/networks/backend", "lab\n", "fairlead: network backend not found\n", 125},
		{"network rm lab backend", "DELETE /v1/networks/lab\nDELETE /v1/networks/backend", "lab\n", "fairlead: network backend not found; try\n", 125},
		{"network rm -f backend", "DELETE /v1/networks/backend", "", "", 0},
		{"network prune", "", "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ", "", 0},
		{"network prune -f --filter label=stage", "GET /v1/networks\nGET /v1/uplinks\nDELETE /v1/networks/" + strings.Repeat("c", 64), "Deleted Networks:\nbackend\n", "", 0},
		{"network prune -f", "GET /v1/networks\nGET /v1/uplinks\nDELETE /v1/networks/" + strings.Repeat("b", 64) + "\nDELETE /v1/networks/" + strings.Repeat("c", 64),
			"Deleted Networks:\nbackend\n", "fairlead: network empty has active endpoints\n", 125},
		{"network set --internal empty", `POST /v1/networks/empty {"internal":true}`, "", "fairlead: warning: container web has the default route of before\n", 0},
		{"network set --uplink none -o bogus=1 yard", "POST /v1/networks/yard " + `{"options":{"bogus":"1"},"check":true}`, "", "fairlead: network yard not found\n", 125},
		{"network set --label a=b --label c lab", "GET /v1/networks/lab\nPOST /v1/networks/lab " + `{"labels":{"a":"b","c":""}}`, "", "", 0},
		{"network set --label= lab", "GET /v1/networks/lab\nPOST /v1/networks/lab " + `{"labels":{}}`, "", "", 0},
		{"network set --label fairlead.lab=x lab", "", "", "fairlead: network set: --label \"fairlead.lab=x\" is no label of yours: those that begin with fairlead. are fairlead's; see `fairlead network set --help`\n", 125},
		{"network set -o icc=off --internal=false lab", "POST /v1/networks/lab " + `{"internal":false,"options":{"icc":"off"}}`, "", "", 0},
		{"port web", "GET /v1/containers/web/ports", "80/tcp -> 192.0.2.2:8080\n80/tcp -> 192.0.2.50:8080\n5353/udp -> 127.0.0.1:53\nall -> 192.0.2.50\n", testAdvice, 0},
		{"port web 80", "GET /v1/containers/web/ports", "192.0.2.2:8080\n192.0.2.50:8080\n192.0.2.50:80\n", "fairlead: nobody listens on 80/tcp in web; the port that is listened on is 5353/udp (on loopback)\n", 0},
		{"publish web 8080:80", "POST /v1/containers/web/ports " + `{"publish":["8080:80"]}`, "80/tcp -> 192.0.2.2:8080\n80/tcp -> 192.0.2.50:8080\n5353/udp -> 127.0.0.1:53\nall -> 192.0.2.50\n", "", 0},
		{"publish -p 80 --address 192.0.2.50 web 53/udp", "POST /v1/containers/web/ports " + `{"publish":["80","53/udp"],"address":"192.0.2.50"}`, "80/tcp -> 192.0.2.2:8080\n80/tcp -> 192.0.2.50:8080\n5353/udp -> 127.0.0.1:53\nall -> 192.0.2.50\n", "", 0},
		{"unpublish web 80 53/udp", "DELETE /v1/containers/web/ports?port=80&port=53%2Fudp", "80/tcp -> 192.0.2.2:8080\n80/tcp -> 192.0.2.50:8080\n5353/udp -> 127.0.0.1:53\nall -> 192.0.2.50\n", "", 0},
		{"unpublish web --address 192.0.2.50", "DELETE /v1/containers/web/ports?address=192.0.2.50", "all -> 192.0.2.50\n", "", 0},
		{"network set default --uplink none", "POST /v1/uplinks/check {\"network\":\"default\",\"only\":true}\nGET /v1/uplinks\nDELETE /v1/uplinks/host\nDELETE /v1/uplinks/up0\nDELETE /v1/uplinks/eth1\nGET /v1/uplinks", testUplinkWords, testLost, 0},
		{"network set default --uplink " + testUplinks[0].Spec, "POST /v1/uplinks/check {\"network\":\"default\",\"specs\":[\"" + testUplinks[0].Spec + "\"],\"only\":true}\nGET /v1/uplinks\nDELETE /v1/uplinks/host\nDELETE /v1/uplinks/eth1\nGET /v1/uplinks", testUplinkWords, testLost, 0},
		{"network set default --uplink host", "POST /v1/uplinks/check {\"network\":\"default\",\"only\":true}\nGET /v1/uplinks\nDELETE /v1/uplinks/up0\nDELETE /v1/uplinks/eth1\nPOST /v1/uplinks/host\nGET /v1/uplinks", testUplinkWords, testLost, 0},
		{"__complete port w", "GET /v1/containers", "web\n:4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n", 0},
		{"__complete stop web w", "GET /v1/containers", ":4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n", 0},
		{"__complete network set d", "GET /v1/switches", "default\n:4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n", 0},
		{"__complete network disconnect default w", "GET /v1/containers", "web\n:4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n", 0},
		{"__complete run --network d", "GET /v1/switches", "default\n:4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n", 0},
		{"__complete run --link w", "GET /v1/containers", "web\n:4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n", 0},
		{"check", "GET /v1/check", "port 1: one frame too many\n", "", 1},
		{"trace web", "GET /v1/trace?container=web", "a packet\n", "", 0},
		{"trace", "GET /v1/trace", "a packet\n", "", 0}, // a node is started if need be
	} {
		t.Run(test.args, func(t *testing.T) {
			requests := fakeNode(t, answers)
			var out, stderr bytes.Buffer
			code := execute(strings.Fields(test.args), &out, &stderr)
			if code != test.code || out.String() != test.out || stderr.String() != test.stderr || strings.TrimSuffix(requests.String(), "\n") != test.request {
				t.Errorf("exit status %d, want %d\nrequests %q\nwant     %q\nout %q, want %q\nstderr %q, want %q", code, test.code,
					requests.String(), test.request+"\n", out.String(), test.out, stderr.String(), test.stderr)
			}
		})
	}
}

// What a node with two uplinks answers, one of them lost.
var testUplinks = []api.Uplink{
	{Name: "up0", Network: "default", Kind: "tap", Spec: "tap:up0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.50", State: "up",
		Address: "192.0.2.2/24", Gateway: "192.0.2.1", Addresses: []string{"192.0.2.50"}},
	{Name: "eth1", Network: "default", Kind: "if", Spec: "if:eth1,dhcp", State: "down", Why: "the interface was removed"},
}

const testLost = "fairlead: 192.0.2.50, which is container web's, leads nowhere any more: no uplink has it; give it to one again: addr=192.0.2.50\n"

const testUplinkWords = "uplink up0: 192.0.2.2/24, next hop 192.0.2.1\nuplink eth1: down: the interface was removed\n"

// A web server that listens on another port than is published.
var testPorts = api.Ports{
	Published: []api.PublishedPort{
		{Proto: "tcp", Port: 80, HostIP: "0.0.0.0", HostPort: 8080, Reached: []string{"192.0.2.2", "192.0.2.50"}},
		{Proto: "udp", Port: 5353, HostIP: "127.0.0.1", HostPort: 53},
	},
	Addresses:      []string{"192.0.2.50"},
	ListenersKnown: true,
	Listeners:      []api.Listener{{Proto: "udp", Address: "127.0.0.1", Port: 5353}},
}

const testAdvice = "fairlead: 127.0.0.1:53: this host's own loopback; nobody comes from there by an uplink that has an address of its own\n" +
	"fairlead: 5353/udp is listened on in web, but on 127.0.0.1 only, where nobody comes from outside; have the program listen on 0.0.0.0\n" +
	"fairlead: nobody listens on 80/tcp in web; the port that is listened on is 5353/udp (on loopback)\n"

func TestEnumerate(t *testing.T) {
	list := []string{"a", "b", "c", "d", "e", "f", "g"}
	for n, want := range map[int]string{1: "a", 5: "a, b, c, d, e", 7: "a, b, c, d, e and 2 more"} {
		if got := enumerate(list[:n]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Without a node these have an answer all the same.
func TestWithoutNode(t *testing.T) {
	t.Setenv("FAIRLEAD_DIR", t.TempDir()+"/none")
	for args, want := range map[string]string{
		"ps":        "CONTAINER ID  COMMAND  STATUS  NETWORK  IP  PORTS  NAMES\n",
		"ps -q":     "",
		"ps --json": "[]\n",
		"down":      "",
	} {
		var out, stderr bytes.Buffer
		if code := execute(strings.Fields(args), &out, &stderr); code != 0 || out.String() != want || stderr.Len() > 0 {
			t.Errorf("fairlead %s: %d %q %q", args, code, &out, &stderr)
		}
	}
	var out, stderr bytes.Buffer
	if code := execute([]string{"version"}, &out, &stderr); code != 0 || !strings.Contains(out.String(), "Version:     "+version) || !strings.Contains(out.String(), "none runs in") {
		t.Errorf("version: %d %s%s", code, &out, &stderr)
	}
}

// A node of another version is talked to, with a word about it; one that speaks another
// API is not.
func TestOtherVersion(t *testing.T) {
	was := version
	version = "0.10.0"
	t.Cleanup(func() { version = was })
	for _, test := range []struct {
		info api.VersionInfo
		said string
		err  string
	}{
		{api.VersionInfo{API: api.Version, Version: "0.10.0"}, "", "<nil>"},
		{api.VersionInfo{API: api.Version, Version: "0.2.1"}, "fairlead: client 0.10.0, node 0.2.1: `fairlead up --replace` has the node be of this version, and its containers go on\n", "<nil>"},
		{api.VersionInfo{API: api.Version, Version: "v0.10.0-4-gabcdef0"}, "fairlead: client 0.10.0, node v0.10.0-4-gabcdef0: `fairlead up --replace` has the node be of this version, and its containers go on\n", "<nil>"},
		{api.VersionInfo{API: api.Version, Version: "0.10.1"}, "fairlead: client 0.10.0, node 0.10.1: the node is the later one; install fairlead 0.10.1 for the commands, too\n", "<nil>"},
		{api.VersionInfo{API: 99, Version: "9.9.0"}, "", "client 0.10.0, node 9.9.0: the node is the later one; install fairlead 9.9.0 for the commands, too; they speak API v1 and v99"},
		{api.VersionInfo{API: 0, Version: "87abcde"}, "", "client 0.10.0, node 87abcde: `fairlead up --replace` has the node be of this version, and its containers go on; they speak API v1 and v0"},
	} {
		var said bytes.Buffer
		if err := fmt.Sprint(greeting(&said, &test.info)); err != test.err || said.String() != test.said {
			t.Errorf("%s: %s, said %q", test.info.Version, err, said.String())
		}
	}
}
