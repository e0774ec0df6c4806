package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseProgress(t *testing.T) {
	for line, want := range map[string]progress{
		"fuzz: elapsed: 1m3s, execs: 325017 (108336/sec), new interesting: 11 (total: 202)": {63 * time.Second, 325017, 11, 202},
		"fuzz: elapsed: 3s, execs: 7 (2/sec)":                                               {3 * time.Second, 7, 0, 0},
		"fuzz: elapsed: 6s, minimizing":                                                     {elapsed: 6 * time.Second},
		"fuzz: elapsed: 0s, gathering baseline coverage: 0/192 completed":                   {},
	} {
		if p, ok := parseProgress(line); !ok || p != want {
			t.Errorf("%s: %+v, %v, want %+v", line, p, ok, want)
		}
	}
	for _, line := range []string{"", "PASS", "fuzz: minimizing 34-byte failing input file", "fuzz: elapsed: forever,"} {
		if p, ok := parseProgress(line); ok {
			t.Errorf("%q: %+v", line, p)
		}
	}
}

// What grows with each execution is found.
func TestGrowthIsFound(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"go.mod": "module grows\n",
		"grows_test.go": `package grows

import (
	"bytes"
	"testing"
)

var kept [][]byte

func FuzzGrows(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { kept = append(kept, bytes.Repeat([]byte{1}, 64<<20)) })
}
`} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	c := campaign{share: "1000x", corpus: "corpus", jobs: 1}
	if err := c.run(t.Context(), []string{"."}); err == nil || !strings.Contains(err.Error(), "1 targets found something") {
		t.Errorf("it ends with %v", err)
	}
	if text, err := os.ReadFile("corpus/" + reportFile); !strings.Contains(string(text), "terminated unexpectedly") {
		t.Errorf("%s, %v", text, err)
	}
}

// A campaign that is interrupted goes on with what is left, in another process
// too, perhaps of another version, and each version has what was done at it. One
// that is done begins anew.
func TestCampaignGoesOn(t *testing.T) {
	dir := t.TempDir()
	open := func(version string) *report {
		r, err := openReport(dir, version)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := target{"fairlead/a", "", "FuzzA"}, target{"fairlead/b", "", "FuzzB"}
	both := []target{a, b}
	r := open("v1")
	if todo := r.begin(both, "10m"); len(todo) != 2 || r.left(a) != "10m0s" {
		t.Fatalf("%v is to be done at first, %s of it of the first", todo, r.left(a))
	}
	r.heard(a, progress{time.Minute, 500, 2, 30})
	r.end(a, "")
	r.heard(b, progress{3 * time.Minute, 1000, 5, 20})
	r.heard(b, progress{elapsed: 4 * time.Minute})

	r = open("v2") // the process ended by kill -9
	if todo := r.begin(both, "10m"); len(todo) != 1 || todo[0] != b || r.left(b) != "6m0s" {
		t.Fatalf("%v is to be done then, %s of it", todo, r.left(b))
	}
	r.heard(b, progress{time.Minute, 100, 1, 21})
	r.pause(b)
	if left := r.left(b); left != "5m0s" {
		t.Errorf("%s is left after another minute", left)
	}
	r.end(b, "--- FAIL: FuzzB\n")
	if n := r.found(both); n != 1 || r.failed != nil {
		t.Errorf("%d targets found something (%v)", n, r.failed)
	}
	text, err := os.ReadFile(r.path(pageFile))
	for _, row := range []string{"| a FuzzA | v1 | 1m0s |", "| b FuzzB | v1 4m0s, v2 1m0s | 5m0s | 10m | 1100 | 6 | 21 | **yes** |"} {
		if err != nil || !strings.Contains(string(text), row) {
			t.Errorf("the page: no %s, %v\n%s", row, err, text)
		}
	}

	r = open("v3")
	if todo := r.begin(both, "10m"); len(todo) != 2 || r.left(b) != "10m0s" || r.found(both) != 0 {
		t.Errorf("%v is to be done when all was done, %s of the last", todo, r.left(b))
	}
	if todo := open("v3").begin([]target{a}, "1000x"); len(todo) != 1 {
		t.Errorf("%v is to be done of another share", todo)
	}
}
