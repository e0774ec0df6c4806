package main

import (
	"bytes"
	"strings"
	"testing"
)

// What needs no node to be completed.
func TestComplete(t *testing.T) {
	t.Setenv("FAIRLEAD_DIR", t.TempDir())
	for args, want := range map[string]string{
		"run --egress ":             "all none internet allow: :6", // a FILE follows
		"run --opt o":               "offload= :6",
		"up --opt mt":               "mtu= :6",
		"network create -o mas":     "masquerade= :6",
		"up --uplink t":             "tap: :6",
		"up -f ":                    "yaml yml :8",
		"down --file ":              "yaml yml :8",
		"run --rootfs ":             ":16",
		"run --network c":           "container: :6",
		"run --network n":           "none :4",
		"stop -s US":                "USR1 USR2 :4",
		"show mac --as ":            "kernel :4",
		"stop ":                     ":4", // no node, no containers
		"ps ":                       ":4",
		"network connect default n": "netns: :6",
		"run -d ec":                 ":0", // programs are files
		"stat":                      ":4",
		"sto":                       "stop\tEnd containers: SIGTERM, and SIGKILL for those that do not hear it :4",
	} {
		var out, stderr bytes.Buffer
		fields := append([]string{"__complete"}, strings.Split(args, " ")...)
		if code := execute(fields, &out, &stderr); code != 0 {
			t.Errorf("%s: exit status %d, %s", args, code, &stderr)
		}
		if got := strings.Join(strings.Split(strings.TrimSpace(out.String()), "\n"), " "); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// Each shell has a script.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out, stderr bytes.Buffer
		if code := execute([]string{"completion", shell}, &out, &stderr); code != 0 || !strings.Contains(out.String(), "fairlead __complete") && !strings.Contains(out.String(), "__complete") {
			t.Errorf("completion %s: %d\n%s", shell, code, &stderr)
		}
	}
}
