package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// defaultWidth is that of the table where no terminal says another.
const defaultWidth = 100

// terminalWidth is how many columns a terminal has.
func terminalWidth(f *os.File) int {
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return defaultWidth
}

// A column of the table. Where it does not fit, those with the highest rank are
// left out.
type column struct {
	name string
	rank int
	cell func(f *figure) string
}

// columns are all there are; "–" is where a path has nothing to say.
func (r *results) columns() []column {
	return []column{
		{"path", 0, (*figure).marked},
		{"median", 0, func(f *figure) string { return number(f.Value.Median) }},
		{"quartiles", 2, func(f *figure) string { return number(f.Value.Q1) + "–" + number(f.Value.Q3) }},
		{"÷ kernel", 1, func(f *figure) string { return f.timesOf(r.besideKernel(f)) }},
		{"÷ raw", 7, func(f *figure) string { return f.timesOf(r.find(f.Workload, "raw")) }},
		{"÷ peer", 3, func(f *figure) string { return f.timesOf(r.besidePeer(f)) }},
		{"offered %", 2, (*figure).offered},
		{"retr/GB", 5, func(f *figure) string { return f.costs().retransmits }},
		{"tx drop %", 6, (*figure).overrun},
		{"CPU s/GB", 4, func(f *figure) string { return f.costs().perGB }},
		{"CPU s/Mfr", 6, func(f *figure) string { return f.costs().perMillion }},
		{"kernel %", 8, func(f *figure) string { return f.costs().kernel }},
		{"steal %", 9, (*figure).theft},
	}
}

// legend says what the columns are.
const legend = "÷: how many times better, round by round, than the kernel's bridge, the raw relay and the best peer " +
	"of the same run. offered %: what was sent, of what the path carries. retr: segments sent again. tx drop %: frames for which " +
	"the containers' interfaces had no room. CPU: of the path's own process, for each gigabyte and each million frames; " +
	"the kernel's work is no process's. kernel %: what of that was spent in the kernel. steal %: what the hypervisor took of all " +
	"processors meanwhile; where that is more than 5, there is a ! behind the path."

// number writes a figure in few places: 0.031, 31.40, 612.0, 1025k.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsInf(v, 0) || math.IsNaN(v):
		return "–"
	case a == 0:
		return "0"
	case a < 0.1:
		return fmt.Sprintf("%.2g", v)
	case a < 100:
		return fmt.Sprintf("%.2f", v)
	case a < 10_000:
		return fmt.Sprintf("%.0f", v)
	case a < 100_000:
		return fmt.Sprintf("%.1fk", v/1e3)
	case a < 10_000_000:
		return fmt.Sprintf("%.0fk", v/1e3)
	}
	return fmt.Sprintf("%.1fM", v/1e6)
}

// timesOf is the ratio to another figure as a cell of the table.
func (f *figure) timesOf(other *figure) string {
	if other == nil || other == f {
		return "–"
	}
	ratios := f.beside(other)
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", quantiles(ratios).Median)
}

// marked is the path, with a mark if too much of the machine was missing.
func (f *figure) marked() string {
	if f.Stolen > tooMuchStolen {
		return f.Path + " !"
	}
	return f.Path
}

// theft is what the hypervisor took, as a cell.
func (f *figure) theft() string {
	if f.Stolen == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", 100*f.Stolen)
}

// A cost is what traffic took, as cells.
type cost struct{ retransmits, perGB, perMillion, kernel string }

func (f *figure) costs() cost {
	var bytes, frames, cpu, kernel float64
	for _, s := range f.Samples {
		bytes, frames, cpu, kernel = bytes+s.Bytes, frames+s.Frames, cpu+s.CPU, kernel+s.Kernel
	}
	c := cost{"–", "–", "–", "–"}
	if cpu > 0 && kernel > 0 {
		c.kernel = fmt.Sprintf("%.0f", min(100, 100*kernel/cpu))
	}
	if bytes > 0 && f.Unit == "Gb/s" {
		c.retransmits = fmt.Sprintf("%.1f", f.again())
	}
	if bytes > 0 && cpu > 0 {
		c.perGB = fmt.Sprintf("%.3f", cpu/(bytes/1e9))
	}
	if frames > 0 && cpu > 0 {
		c.perMillion = fmt.Sprintf("%.2f", cpu/(frames/1e6))
	}
	return c
}

// print writes the table for people, as wide as their terminal is.
func (r *results) print(out *os.File) { r.printIn(out, terminalWidth(out)) }

// printIn writes the table in lines of that width.
func (r *results) printIn(out io.Writer, width int) {
	r.sort()
	wrap(out, "", r.heading(), width)
	blocks := r.blocks(nil)
	shown := r.fitting(blocks, width)
	var widths []int
	for _, c := range shown {
		widths = append(widths, c.width(slices.Concat(blocks...)))
	}
	line := func(cell func(c column) string) {
		text := ""
		for i, c := range shown {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell(c)))
			if i == 0 {
				text = "  " + cell(c) + pad
			} else {
				text += "  " + pad + cell(c)
			}
		}
		fmt.Fprintln(out, text)
	}
	for i, block := range blocks {
		if i == 0 {
			fmt.Fprintln(out)
			line(func(c column) string { return c.name })
		}
		fmt.Fprintln(out)
		f := block[0]
		wrap(out, "", fmt.Sprintf("%s, %s: %s", f.Workload, f.Unit, f.What), width)
		for _, f := range block {
			line(func(c column) string { return c.cell(f) })
		}
		for _, n := range notes(block) {
			wrap(out, "  ", n.paths+": "+n.text, width)
		}
	}
	if len(blocks) > 0 {
		fmt.Fprintln(out)
		wrap(out, "", legend, width)
	}
	r.printRest(out, width)
}

// A remark is a note, and whom it is about.
type remark struct{ paths, text string }

// notes are those of a workload's figures, each once.
func notes(block []*figure) (list []remark) {
	for _, f := range block {
		i := slices.IndexFunc(list, func(n remark) bool { return n.text == f.Note })
		switch {
		case f.Note == "":
		case i >= 0:
			list[i].paths += ", " + f.Path
		default:
			list = append(list, remark{f.Path, f.Note})
		}
	}
	return list
}

// printRest writes what is not in the table.
func (r *results) printRest(out io.Writer, width int) {
	if len(r.Bars) > 0 {
		fmt.Fprintln(out, "\nBars:")
	}
	for _, b := range r.Bars {
		verdict := "met    "
		switch {
		case b.Open:
			verdict = "open   " // too few pairs to tell
		case !b.Met:
			verdict = "NOT MET"
		}
		wrap(out, "  ", fmt.Sprintf("%s  %s: %s, want %s", verdict, b.Name, b.Have, b.Want), width)
	}
	for _, list := range []struct {
		name     string
		failures []failure
	}{{"Paths not measured", r.NotRun}, {"Workloads not measured", r.Failures}} {
		if len(list.failures) > 0 {
			fmt.Fprintf(out, "\n%s:\n", list.name)
		}
		for _, r := range gather(list.failures) {
			wrap(out, "  ", r.what("")+": "+r.why, width)
		}
	}
}

// A reason is why a path was not measured on some workloads, on all it could be
// measured on if there are none here, or why a workload was not measured at all.
type reason struct {
	name, why string
	workloads []string
}

// gather tells each reason once, in the order in which they came.
func gather(list []failure) (reasons []*reason) {
	for _, f := range list {
		workload, name, of := strings.Cut(f.Workload, ", ")
		if !of {
			name = workload
		}
		i := slices.IndexFunc(reasons, func(r *reason) bool { return r.name == name && r.why == f.Why })
		if i < 0 {
			i = len(reasons)
			reasons = append(reasons, &reason{name: name, why: f.Why})
		}
		if of {
			reasons[i].workloads = append(reasons[i].workloads, workload)
		}
	}
	return reasons
}

// what names whom the reason is about, with quotes around each name.
func (r *reason) what(quote string) string {
	what := quote + r.name + quote
	if len(r.workloads) > 0 {
		what += " on " + quote + strings.Join(r.workloads, quote+", "+quote) + quote
	}
	return what
}

// heading says where and how it was measured.
func (r *results) heading() string {
	m := &r.Machine
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s, as %s, load %s at the start, %s; commit %s; %d rounds of %d s%s",
		m.CPU, m.CPUs, m.Kernel, m.Go, m.User, m.Load, m.Time.Format("2006-01-02 15:04 MST"), r.Commit, r.Pairs, r.Seconds, r.duration())
}

// duration says how long all workloads took, those apart that belong to no whole run.
// Files of older versions do not know.
func (r *results) duration() string {
	var whole, asked time.Duration
	for _, w := range workloads {
		took := time.Duration(r.Took[w.name] * float64(time.Second))
		if w.asked {
			asked += took
		} else {
			whole += took
		}
	}
	switch {
	case whole > 0 && asked > 0:
		return fmt.Sprintf("; it took %s, and %s for what is measured only when asked for", about(whole), about(asked))
	case whole+asked > 0:
		return "; it took " + about(whole+asked)
	}
	return ""
}

// blocks are the figures with samples, those of a workload together. With words
// it is only the workloads whose name begins with one of them.
func (r *results) blocks(words []string) (blocks [][]*figure) {
	at := map[string]int{}
	for _, f := range r.Figures {
		wanted := len(words) == 0 || slices.ContainsFunc(words, func(word string) bool { return strings.HasPrefix(f.Workload, word) })
		if !wanted || len(f.Samples) == 0 {
			continue
		}
		i, known := at[f.Workload]
		if !known {
			i = len(blocks)
			at[f.Workload] = i
			blocks = append(blocks, nil)
		}
		blocks[i] = append(blocks[i], f)
	}
	return blocks
}

// fitting are the columns that have something to say of some figures, and fit a
// width. The first two always do.
func (r *results) fitting(blocks [][]*figure, width int) []column {
	figures := slices.Concat(blocks...)
	shown := slices.DeleteFunc(r.columns(), func(c column) bool {
		return c.rank > 0 && !slices.ContainsFunc(figures, func(f *figure) bool { return c.cell(f) != "–" })
	})
	for {
		total, last := 0, 0
		for i, c := range shown {
			total += 2 + c.width(figures)
			if c.rank > shown[last].rank {
				last = i
			}
		}
		if total <= width || shown[last].rank == 0 {
			return shown
		}
		shown = slices.Delete(shown, last, last+1)
	}
}

// width is how much room a column needs.
func (c column) width(figures []*figure) int {
	widest := utf8.RuneCountInString(c.name)
	for _, f := range figures {
		widest = max(widest, utf8.RuneCountInString(c.cell(f)))
	}
	return widest
}

// wrap writes text in lines of a width. Those that go on are further in.
func wrap(out io.Writer, indent, text string, width int) {
	line, empty := indent, true
	for word := range strings.SplitSeq(text, " ") {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			fmt.Fprintln(out, line)
			line, empty = indent+"    ", true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	fmt.Fprintln(out, line)
}

// Progress goes to standard error: on a terminal to one line that changes, else
// to a line each.
var (
	onTerminal = isTerminal(os.Stderr)
	midLine    bool
)

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func progress(format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	if !onTerminal {
		fmt.Fprintln(os.Stderr, line)
		return
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K"+strings.TrimSpace(line))
	midLine = true
}

// endProgress leaves the line that changes.
func endProgress() {
	if midLine {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		midLine = false
	}
}
