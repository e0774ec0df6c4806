package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
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
		_, _ = requests.Write([]byte(strings.TrimSpace(call+" "+body.String()) + "\n"))
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
		"GET /v1/version":                             api.VersionInfo{API: api.Version},
		"GET /v1/containers":                          []api.Container{{ID: testID, Name: "web"}},
		"GET /v1/containers/web":                      inspect,
		"GET /v1/containers/db":                       api.Error{Message: "No such container: db"},
		"GET /v1/containers/web/logs?":                "hello\n",
		"GET /v1/containers/web/logs?follow=1&tail=5": "tail\n",
		"GET /v1/containers/0":                        inspect, // the beginning of its id
		"GET /v1/macs":                                []api.MAC{},
		"DELETE /v1/macs?network=default":             api.Flushed{MACs: 3},
		"GET /v1/check":                               api.Check{Violations: []string{"port 1: one frame too many"}},
		"GET /v1/trace?container=web":                 `{"line":"a packet"}` + "\n",
		"GET /v1/trace":                               `{"line":"a packet"}` + "\n",
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
		{"network disconnect default web", "GET /v1/containers/web\nDELETE /v1/containers/" + testID, "", "", 0},
		{"network disconnect bridge web", "GET /v1/containers/web\nDELETE /v1/containers/" + testID, "", "", 0},
		{"network disconnect backend web", "GET /v1/containers/web", "", "fairlead: network disconnect: container web is not connected to network backend; `fairlead ps` shows what is where\n", 125},
		{"check", "GET /v1/check", "port 1: one frame too many\n", "", 1},
		{"trace web", "GET /v1/trace?container=web", "a packet\n", "", 0},
		{"trace", "GET /v1/version\nGET /v1/trace", "a packet\n", "", 0}, // a node is started if need be
	} {
		t.Run(test.args, func(t *testing.T) {
			requests := fakeNode(t, answers)
			var out, stderr bytes.Buffer
			code := execute(strings.Fields(test.args), &out, &stderr)
			if code != test.code || out.String() != test.out || stderr.String() != test.stderr || requests.String() != test.request+"\n" {
				t.Errorf("exit status %d, want %d\nrequests %q\nwant     %q\nout %q, want %q\nstderr %q, want %q", code, test.code,
					requests.String(), test.request+"\n", out.String(), test.out, stderr.String(), test.stderr)
			}
		})
	}
}

// A node in the foreground goes down in order when its terminal does.
func TestHangUp(t *testing.T) {
	dir, err := os.MkdirTemp("", "n") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir += "/node"
	t.Setenv("FAIRLEAD_DIR", dir)
	ended := make(chan int, 1)
	var out, stderr bytes.Buffer
	go func() { ended <- execute([]string{"up", "--foreground"}, &out, &stderr) }()
	lab.Eventually(t, 10*time.Second, func() error {
		return client().Get(t.Context(), "/v1/version", new(api.VersionInfo))
	})
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != 0 || stderr.Len() > 0 {
			t.Errorf("exit status %d, %s", code, &stderr)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory is still there: %v", err)
	}
}

// Without a node these have an answer all the same.
func TestWithoutNode(t *testing.T) {
	t.Setenv("FAIRLEAD_DIR", t.TempDir()+"/none")
	for args, want := range map[string]string{
		"ps":        "CONTAINER ID  COMMAND  STATUS  NETWORK  IP  NAMES\n",
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
