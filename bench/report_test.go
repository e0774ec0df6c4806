package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
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
		{name: "request-idle", unit: "µs", less: true, what: "time & again: <a>\"quoted\" 'text'"},
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
		"Paths not measured:\n  vde on tcp-1-cubic: there is no vde_switch; try: sudo apt-get install vde2\n",
		"Workloads not measured:\n  stall: no such program",
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
	text := filled(t, r, doc)
	for _, want := range []string{
		"# Title\n<!-- bench: machine -->\n\nA Processor", "commit 0123456789ab; 7 rounds of 2 s.\n\n<!-- /bench -->\ntext\n",
		"| `tcp-1-cubic`, Gb/s | **fairlead** | **21.20** |", "|  | ovs |", "| tcp-1-cubic: fairlead beside raw | at least 3.00 |", "**not met** |\n\n<!-- /bench -->\nend\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "old") || strings.Contains(text, "request-idle`") {
		t.Errorf("what was there before, or was not asked for, is in\n%s", text)
	}
	if none := filled(t, r, "<!-- bench: table sctp -->\nold\n<!-- /bench -->"); none != "<!-- bench: table sctp -->\nold\n<!-- /bench -->" {
		t.Errorf("a place for what was not measured holds %q", none)
	}
	if again := filled(t, r, text); again != text {
		t.Errorf("filled again it is another:\n%s", again)
	}
	name := filepath.Join(t.TempDir(), "x.md")
	if err := os.WriteFile(name, []byte("no place\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.fillFiles([]string{name}); err == nil || !strings.Contains(err.Error(), "no place for figures") {
		t.Error(err)
	}
}

func filled(t *testing.T, r *results, doc string) string {
	t.Helper()
	text, err := r.fill(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A document tells of one run: what is filled is not left beside another run's figures,
// nor taken away for less.
func TestFillRefuses(t *testing.T) {
	const empty = "<!-- bench: %s -->\n<!-- /bench -->\n"
	whole, names := measuredResults(), func(part string) string { return strings.Replace(empty, "%s", part, 1) }
	less := func(change func(r *results)) *results {
		r := measuredResults()
		change(r)
		return r
	}
	unmeasured := func(r *results) {
		r.Complete = []string{"tcp-1-cubic"}
		r.Figures = slices.DeleteFunc(r.Figures, func(f *figure) bool { return f.Run != "tcp-1-cubic" })
	}
	barless := func(r *results) { r.Complete = []string{"request-idle"} }
	selected := func(r *results) {
		r.Paths = "fairlead,raw"
		for _, f := range r.Figures {
			if f.Path == "ovs" {
				f.Samples = nil
			}
		}
	}
	for name, c := range map[string]struct {
		place string
		now   *results
		want  string
	}{
		"the same":                    {"table tcp- request-", whole, ""},
		"what it does not tell of":    {"table tcp-", less(unmeasured), ""},
		"nothing of its workloads":    {"table request-", less(unmeasured), "it tells of request-idle, of which"},
		"one of its workloads":        {"table tcp- request-", less(unmeasured), "it tells of request-idle, of which"},
		"one of its bars":             {"bars", less(barless), "it tells of tcp-1-cubic, of which"},
		"one of its columns":          {"across tcp-1-cubic request-idle", less(unmeasured), "it tells of request-idle, of which"},
		"no column":                   {"across request-idle", less(unmeasured), "it tells of request-idle, of which"},
		"a column that it had not":    {"across tcp-1-cubic none", less(unmeasured), ""},
		"one of its rows":             {"table tcp-", less(selected), "it tells of ovs on tcp-1-cubic, of which"},
		"one of its rows, in columns": {"across tcp-1-cubic", less(selected), "it tells of ovs on tcp-1-cubic, of which"},
		"a row that cannot be had": {"table tcp-", less(func(r *results) {
			selected(r)
			r.NotRun = append(r.NotRun, failure{"tcp-1-cubic, ovs", "it does not start"})
		}), ""},
	} {
		doc := filled(t, whole, names("machine")+names(c.place))
		_, err := c.now.fill(doc)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}

	// Of several documents none is written when one is refused.
	dir := t.TempDir()
	kept, refused := filepath.Join(dir, "kept.md"), filepath.Join(dir, "refused.md")
	for name, text := range map[string]string{kept: names("machine"), refused: filled(t, whole, names("bars"))} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := less(barless).fillFiles([]string{kept, refused}); err == nil || !strings.Contains(err.Error(), refused+": it tells of") {
		t.Errorf("it was filled: %v", err)
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != names("machine") {
		t.Errorf("beside one that was refused another one was filled: %s (%v)", text, err)
	}
}

// What was not measured is told with its reason, each once.
func TestRest(t *testing.T) {
	r := measuredResults()
	r.NotRun = []failure{{"kernel-10000", "it needs root"}, {"a, ovs", "it does not start"}, {"b, ovs", "it does not start"}, {"b, vde", "it ended\nearly"}}
	got := filled(t, r, "<!-- bench: rest -->\nold\n<!-- /bench -->")
	for _, want := range []string{
		"<!-- bench: rest -->\n\n- `kernel-10000`: it needs root.\n- `ovs` on `a`, `b`: it does not start.\n- `vde` on `b`: it ended early.\n",
		"\n- `stall`: no such program, and",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if all := filled(t, &results{}, got); !strings.Contains(all, "Everything was measured that was to be.") {
		t.Error(all)
	}
}

// The heading says how long it took, and what no whole run has apart.
func TestDuration(t *testing.T) {
	for want, took := range map[string]map[string]float64{
		"":                     nil,
		"; it took 50 minutes": {"tcp-1-cubic": 2000, "stall": 1000},
		"; it took 20 seconds": {"hostile-arp": 20},
		"; it took 30 minutes, and 5 minutes for what is measured only when asked for": {"stall": 1800, "hostile-arp": 200, "hostile-dhcp": 100},
	} {
		r := measuredResults()
		r.Took = took
		if got := r.heading(); !strings.HasSuffix(got, "7 rounds of 2 s"+want) {
			t.Errorf("%q, want %q at the end", got, want)
		}
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
		"request-idle":                      {"fairlead", "raw", "kernel", "time & again: <a>\"quoted\" 'text'"},
		"fairlead-beside-the-kernel-bridge": {"tcp-1-cubic", "request-idle"},
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
	got := filled(t, r, "<!-- bench: across tcp-1-cubic request-idle none -->\nold\n<!-- /bench -->")
	for _, want := range []string{
		"| path | `tcp-1-cubic`, Gb/s | `request-idle`, µs | `none` |\n| --- | --- | --- | --- |\n",
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
