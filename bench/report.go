package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// print writes the table for people.
func (r *results) print(out io.Writer) {
	m := &r.Machine
	fmt.Fprintf(out, "%s, %d CPUs, Linux %s, %s, as %s, load %s at the start; %d rounds of %d s\n\n",
		m.CPU, m.CPUs, m.Kernel, m.Go, m.User, m.Load, r.Pairs, r.Seconds)
	r.table(out, "", []string{"÷ kernel", "÷ raw"}, func(f *figure) []string { return []string{f.times("kernel"), f.times("raw")} })
	r.table(out, hostGroup, []string{"fairlead is"}, func(f *figure) []string { return []string{r.fairleadBeside(f)} })
	for _, f := range r.Figures {
		if f.Note != "" && len(f.Samples) > 0 {
			fmt.Fprintf(out, "%s, %s: %s\n", f.Workload, f.Path, f.Note)
		}
	}
	if len(r.Bars) > 0 {
		fmt.Fprintln(out, "\nBars:")
	}
	for _, b := range r.Bars {
		verdict := "met    "
		if !b.Met {
			verdict = "NOT MET"
		}
		fmt.Fprintf(out, "  %s  %s: %s, want %s\n", verdict, b.Name, b.Have, b.Want)
	}
	if len(r.NotRun) > 0 {
		fmt.Fprintln(out, "\nPeers not run:")
	}
	for _, f := range r.NotRun {
		fmt.Fprintf(out, "  %s: %s\n", f.Workload, f.Why)
	}
	if len(r.Failures) > 0 {
		fmt.Fprintln(out, "\nNot measured:")
	}
	for _, f := range r.Failures {
		fmt.Fprintf(out, "  %s: %s\n", f.Workload, f.Why)
	}
}

// table writes the figures of a group, with columns of ratios of its own.
func (r *results) table(out io.Writer, group string, ratios []string, cells func(f *figure) []string) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	const row = "%-14s\t%-13s\t%s\t%s\t%s\t%s\t%s\t\n"
	last := ""
	for _, f := range r.Figures {
		if len(f.Samples) == 0 || f.Group != group {
			continue
		}
		if last == "" {
			fmt.Fprintf(t, row, "workload", "path", "median", "quartiles", "unit", strings.Join(ratios, "\t"), "retrans/GB\tCPU s\tCPU s/GB")
		}
		name := f.Workload
		if name == last {
			name = ""
		}
		last = f.Workload
		fmt.Fprintf(t, row, name, f.Path, fmt.Sprintf("%.2f", f.Value.Median), fmt.Sprintf("%.2f–%.2f", f.Value.Q1, f.Value.Q3),
			f.Unit, strings.Join(cells(f), "\t"), f.costs())
	}
	t.Flush()
	if last != "" {
		fmt.Fprintln(out)
	}
}

// fairleadBeside is how many times better fairlead is than a path of the same
// workload.
func (r *results) fairleadBeside(f *figure) string {
	for _, ours := range r.Figures {
		if ours.Path == "fairlead" && ours.Workload == f.Workload && f != ours {
			return strings.Replace(ours.times(f.Path)+" ×", "– ×", "–", 1)
		}
	}
	return ""
}

// times is the ratio to another path as a cell of the table.
func (f *figure) times(other string) string {
	q, ok := f.Ratios[other]
	if !ok {
		return "–"
	}
	return fmt.Sprintf("%.2f", q.Median)
}

// costs are the cells that exist for bulk traffic only.
func (f *figure) costs() string {
	var bytes, cpu float64
	var retransmits int
	var each []float64
	for _, s := range f.Samples {
		bytes += s.Bytes
		cpu += s.CPU
		retransmits += s.Retransmits
		each = append(each, s.CPU)
	}
	if bytes == 0 {
		return "–\t–\t–"
	}
	again := fmt.Sprintf("%.1f", float64(retransmits)/(bytes/1e9))
	if cpu == 0 {
		return again + "\t–\t–"
	}
	return fmt.Sprintf("%s\t%.2f\t%.3f", again, quantiles(each).Median, cpu/(bytes/1e9))
}

// writeJSON writes all figures.
func (r *results) writeJSON(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
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
