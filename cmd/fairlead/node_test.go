package main

import (
	"bytes"
	"encoding/json"
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
	inspect := &api.Inspect{Name: "/web"}
	inspect.NetworkSettings.IPAddress = "172.17.0.2"
	answers := map[string]any{
		"GET /v1/containers":                          []api.Container{{ID: testID, Name: "web"}},
		"GET /v1/containers/web":                      inspect,
		"GET /v1/containers/db":                       api.Error{Message: "No such container: db"},
		"GET /v1/containers/web/logs?":                "hello\n",
		"GET /v1/containers/web/logs?follow=1&tail=5": "tail\n",
		"POST /v1/containers/db/stop":                 api.Error{Message: "No such container: db"},
		"GET /v1/macs":                                []api.MAC{},
		"DELETE /v1/macs?network=default":             api.Flushed{MACs: 3},
		"GET /v1/check":                               api.Check{Violations: []string{"port 1: one frame too many"}},
		"GET /v1/trace?container=web":                 `{"line":"a packet"}` + "\n",
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
		{"stop web", "POST /v1/containers/web/stop {}", "web\n", "", 0},
		{"stop -t 0 -s INT web", `POST /v1/containers/web/stop {"signal":"INT","timeout":0}`, "web\n", "", 0},
		{"stop --time 3 web db", `POST /v1/containers/web/stop {"timeout":3}` + "\n" + `POST /v1/containers/db/stop {"timeout":3}`, "web\n", "fairlead: No such container: db\n", 125},
		{"kill -s HUP web", `POST /v1/containers/web/kill {"signal":"HUP"}`, "web\n", "", 0},
		{"show mac --json", "GET /v1/macs", "[]\n", "", 0},
		{"mac flush --network default", "DELETE /v1/macs?network=default", "3 forgotten\n", "", 0},
		{"network disconnect default web", "DELETE /v1/containers/web", "", "", 0},
		{"check", "GET /v1/check", "port 1: one frame too many\n", "", 1},
		{"trace web", "GET /v1/trace?container=web", "a packet\n", "", 0},
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
