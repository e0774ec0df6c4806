package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// measuredResults are of two workloads, with all there may be to tell.
func measuredResults() *results {
	r := &results{
		Format: formatVersion, Commit: "0123456789ab", Pairs: 7, Seconds: 2,
		Machine: machine{Kernel: "6.18.0", CPU: "A Processor of Some Length @ 2.0 GHz", CPUs: 2, Go: "go1.26", User: "user"},
	}
	for _, w := range []*workload{
		{name: "tcp-1-cubic", unit: "Gb/s", what: "TCP from one container to another, 1 stream, cubic"},
		{name: "udp60-latency", unit: "µs", less: true, what: "time & again: <a>\"quoted\" 'text'"},
	} {
		for i, path := range []string{"fairlead", "raw", "kernel", "fairlead-wire", "textbook", "ovs", "a-path-with-a-long-name"} {
			f := r.figure(w, path)
			f.Peer = i == 4 || i == 5
			for round := range 7 {
				f.add(sample{Round: round, Value: 20 / float64(i+1) * (1 + float64(round)/50), Bytes: 2e9, Retransmits: 3, Frames: 1e6, spent: spent{CPU: 0.5}})
			}
		}
		r.Figures[0].Note = strings.Repeat("a note that goes on ", 12)
		r.figure(w, "never measured")
		r.atLeast(r.Figures[0], r.Figures[1], 3)
		r.end(w, 0, nil)
	}
	r.fail(&workload{name: "stall"}, errors.New("no such program, and a reason that is longer than any terminal that anybody has ever had on a desk"))
	r.notRun(&workload{name: "tcp-1-cubic"}, "vde", errors.New("there is no vde_switch; try: sudo apt-get install vde2"))
	return r
}

func table(r *results, width int) string {
	var b strings.Builder
	r.printIn(&b, width)
	return b.String()
}

// The table fits the terminal, with all columns from a hundred on.
func TestTableFits(t *testing.T) {
	r := measuredResults()
	columns := map[int][]string{
		100: {"÷ kernel", "quartiles", "÷ peer", "CPU s/GB", "retr/GB", "CPU s/Mfr"},
		80:  {"÷ kernel", "quartiles"},
		50:  {"÷ kernel"},
	}
	for _, width := range []int{200, 100, 80, 60, 50} {
		text := table(r, width)
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("in %d columns a line has %d: %q", width, n, line)
			}
		}
		for _, want := range append([]string{"median", "a-path-with-a-long-name"}, columns[width]...) {
			if !strings.Contains(text, want) {
				t.Errorf("in %d columns there is no %q:\n%s", width, want, text)
			}
		}
	}
	if strings.Contains(table(r, 50), "CPU s/Mfr") {
		t.Error("in 50 columns there is the last one too")
	}
}

func TestTable(t *testing.T) {
	text := table(measuredResults(), 120)
	for _, want := range []string{
		"tcp-1-cubic, Gb/s: TCP from one container to another, 1 stream, cubic\n",
		"  fairlead                  21.20  20.60–21.80      3.00   2.00    5.00      1.5     0.250       0.50\n",
		"NOT MET  tcp-1-cubic: fairlead beside raw: 2.000, lower quartile 2.000, 7 pairs, want at least 3.00\n",
		"Peers not run:\n  tcp-1-cubic, vde: there is no vde_switch; try: sudo apt-get install vde2\n",
		"Not measured:\n  stall: no such program",
		"commit 0123456789ab; 7 rounds of 2 s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "never measured") {
		t.Errorf("a path without samples is in\n%s", text)
	}
}

// What has nothing to tell has no columns.
func TestTableOfLittle(t *testing.T) {
	r := &results{}
	r.figure(&workload{name: "idle", unit: "%"}, "fairlead").add(sample{Value: 0.031})
	text := table(r, 100)
	if !strings.Contains(text, "0.031") || strings.Contains(text, "retr/GB") || strings.Contains(text, "÷ raw") {
		t.Errorf("%s", text)
	}
	if empty := table(&results{}, 100); strings.Contains(empty, "median") {
		t.Errorf("nothing was measured, and there is a table:\n%s", empty)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0312: "0.031", 0.31: "0.31", 31.4: "31.40", 612.4: "612", 9999: "9999",
		10_250: "10.2k", 1_025_000: "1025k", 58_000_000: "58.0M", -5.028: "-5.03", math.Inf(1): "–",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

func TestFill(t *testing.T) {
	r := measuredResults()
	const doc = "# Title\n<!-- bench: machine -->\nold\n<!-- /bench -->\ntext\n<!-- bench: table tcp- -->\n<!-- /bench -->\n<!-- bench: bars -->\n<!-- /bench -->\nend\n"
	text := r.fill(doc)
	for _, want := range []string{
		"# Title\n<!-- bench: machine -->\n\nA Processor", "commit 0123456789ab; 7 rounds of 2 s.\n\n<!-- /bench -->\ntext\n",
		"| `tcp-1-cubic`, Gb/s | **fairlead** | **21.20** |", "|  | ovs |", "| tcp-1-cubic: fairlead beside raw | at least 3.00 |", "**not met** |\n\n<!-- /bench -->\nend\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "old") || strings.Contains(text, "udp60-latency`") {
		t.Errorf("what was there before, or was not asked for, is in\n%s", text)
	}
	if none := r.fill("<!-- bench: table sctp -->\nold\n<!-- /bench -->"); none != "<!-- bench: table sctp -->\nold\n<!-- /bench -->" {
		t.Errorf("a place for what was not measured holds %q", none)
	}
	if again := r.fill(text); again != text {
		t.Errorf("filled again it is another:\n%s", again)
	}
	name := filepath.Join(t.TempDir(), "x.md")
	if err := os.WriteFile(name, []byte("no place\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.fillFile(name); err == nil || !strings.Contains(err.Error(), "no place for figures") {
		t.Error(err)
	}
}

// A chart is XML, names every path, and draws all within its ground.
func TestCharts(t *testing.T) {
	r, dir := measuredResults(), t.TempDir()
	if err := r.writeSVG(dir); err != nil {
		t.Fatal(err)
	}
	for name, labels := range map[string][]string{
		"tcp-1-cubic":                       {"fairlead", "raw", "kernel", "fairlead-wire", "textbook", "ovs", "a-path-with-a-long-name"},
		"udp60-latency":                     {"fairlead", "raw", "kernel", "time & again: <a>\"quoted\" 'text'"},
		"fairlead-beside-the-kernel-bridge": {"tcp-1-cubic", "udp60-latency"},
	} {
		f, err := os.Open(filepath.Join(dir, name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var text strings.Builder
		d := xml.NewDecoder(f)
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch x := token.(type) {
			case xml.CharData:
				text.Write(x)
				text.WriteString("\n")
			case xml.StartElement:
				for _, a := range x.Attr {
					v, err := strconv.ParseFloat(a.Value, 64)
					if err == nil && (math.IsNaN(v) || v < 0 || a.Name.Local == "x" && v > 760) {
						t.Errorf("%s: %s %s=%q", name, x.Name.Local, a.Name.Local, a.Value)
					}
				}
			}
		}
		for _, label := range labels {
			if !strings.Contains(text.String(), label) {
				t.Errorf("%s does not name %s:\n%s", name, label, text.String())
			}
		}
	}
}

// A table across workloads has a row for each path and a column for each workload.
func TestAcross(t *testing.T) {
	r := measuredResults()
	got := r.fill("<!-- bench: across tcp-1-cubic udp60-latency none -->\nold\n<!-- /bench -->")
	for _, want := range []string{
		"| path | `tcp-1-cubic`, Gb/s | `udp60-latency`, µs | `none` |\n| --- | --- | --- | --- |\n",
		"\n| **fairlead** | **21.20** | **21.20** | **–** |\n", "\n| raw | 10.60 | 10.60 | – |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "old") || strings.Contains(got, "never measured") {
		t.Error(got)
	}
}

// docs/performance.md has a place for each workload, and none for what there is
// not.
func TestPerformanceDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range place.FindAllStringSubmatch(string(text), -1) {
		if m[2] != "table" {
			continue
		}
		words = append(words, strings.Fields(m[3])...)
	}
	used := map[string]bool{}
	for _, w := range workloads {
		here := false
		for _, word := range words {
			if strings.HasPrefix(w.name, word) {
				here, used[word] = true, true
			}
		}
		if !here {
			t.Errorf("docs/performance.md has no place for %s: <!-- bench: table %[1]s -->", w.name)
		}
	}
	for _, word := range words {
		if !used[word] {
			t.Errorf("docs/performance.md has a place for %s, which no workload begins with", word)
		}
	}
	if n, places := strings.Count(string(text), "<!-- bench:"), len(place.FindAll(text, -1)); n != places {
		t.Errorf("docs/performance.md begins %d places, and %d of them end", n, places)
	}
}

// What the hypervisor took is that of the measurements where it was watched, else of
// the whole workload; a row of which it took too much is marked.
func TestSteal(t *testing.T) {
	for line, want := range map[string]theft{
		"cpu  10 1 20 300 5 2 3 40 8 9": {stolen: 40, all: 381}, // guests are in user and nice
		"cpu  10 1 20 300":              {all: 331},
		"":                              {},
	} {
		if got := parseTheft(line); got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
	if share := (theft{stolen: 10, all: 100}).until(theft{stolen: 30, all: 300}); share != 0.1 {
		t.Errorf("a share of %v", share)
	}
	if share := (theft{all: 100}).until(theft{all: 100}); share != 0 {
		t.Errorf("of no time a share of %v", share)
	}

	r := newResults(&options{Pairs: 2})
	w := &workload{name: "x", unit: "Gb/s"}
	for _, path := range []string{"robbed", "watched", "whole"} {
		f := r.figure(w, path)
		for round := range 2 {
			f.add(sample{Round: round, Value: 1, Stolen: map[string]float64{"robbed": 0.06, "watched": 0.02 * float64(round)}[path], watched: path != "whole"})
		}
	}
	r.end(w, 0.03, nil)
	text := table(r, 200)
	for _, want := range []string{"steal %", "  robbed !", "6.0\n", "  watched ", "1.0\n", "  whole ", "3.0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "watched !") || strings.Contains(text, "whole !") {
		t.Errorf("a row is marked of which little was taken:\n%s", text)
	}
}
