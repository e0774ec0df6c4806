package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead/node/api"
)

// The file of --egress is read by who calls, and the node gets what it holds.
func TestReadEgress(t *testing.T) {
	const text = "allow 192.0.2.0/24 443/tcp\n"
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]api.Egress{
		"internet":      {Spec: "internet"},
		"allow:" + file: {Spec: "allow:" + file, Text: text},
	} {
		if e, err := readEgress(newRun(), spec); err != nil || *e != want {
			t.Errorf("%s: %+v, %v", spec, e, err)
		}
	}
	if err := os.WriteFile(file, []byte("allow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		"":              `--egress: "" is none of all, none, internet and allow:FILE`,
		"allow:":        `--egress: "allow:" is none of all, none, internet and allow:FILE`,
		"allow:/no/one": "--egress: open /no/one: no such file or directory",
		"allow:" + file: file + ":1: ",
	} {
		if _, err := readEgress(newRun(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", spec, err, want)
		}
	}
}

func TestSocketsWords(t *testing.T) {
	some := api.Sockets{Descriptors: 4096, Used: 7, Most: 3584, MostEach: 512, Listening: 2, MostListening: 1792}
	full, short := some, some
	full.Used = 3584
	short.Refused = 3
	var out strings.Builder
	socketsVersion(&out, &some)
	if got, want := out.String(), " Sockets:     7 of 3584, 512 for one container; 2 of 1792 listen (ulimit -n is 4096)\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := socketsShort(&some); got != "" {
		t.Error(got)
	}
	if got := socketsShort(&full); !strings.HasPrefix(got, "Sockets of this machine: 3584 of 3584 are used") {
		t.Error(got)
	}
	if got := socketsShort(&short); !strings.HasSuffix(got, "; 3 connections were refused for want of one") {
		t.Error(got)
	}
}
