package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A place in a document holds what is made from the results: from a line
//
//	<!-- bench: table tcp- nat- -->
//
// to the line <!-- /bench -->. It has the workloads whose name begins with
// one of the words, and stays empty if none of those was measured. Instead of table there
// may be across, a column of medians for each workload whose name is one of the words;
// machine; bars; or rest, what was not measured and why.
var place = regexp.MustCompile(`(?s)(<!-- bench: (table|across|machine|bars|rest)([^\n]*?) -->\n)(.*?)(<!-- /bench -->)`)

// fill puts results into the places of a document. All of them are of one run, so a
// document that tells of what was not measured this time is refused.
func (r *results) fill(text string) (string, error) {
	var lost []string
	filled := place.ReplaceAllStringFunc(text, func(whole string) string {
		m := place.FindStringSubmatch(whole)
		for _, name := range r.lost(m[2], m[4]) {
			if !slices.Contains(lost, name) {
				lost = append(lost, name)
			}
		}
		if words := strings.Fields(m[3]); m[2] == "table" && len(r.blocks(words)) == 0 {
			return whole
		}
		return m[1] + "\n" + r.markdown(m[2], strings.Fields(m[3])) + "\n" + m[5]
	})
	if n := len(lost); n > 0 {
		if n > 5 {
			lost = append(lost[:4:4], fmt.Sprintf("%d more", n-4))
		}
		return "", fmt.Errorf("it tells of %s, of which there are no figures now, and runs are not mixed: measure that too (--resume FILE goes on with a run), or empty the place by hand",
			strings.Join(lost, ", "))
	}
	return filled, nil
}

// fillFiles does so in files, of which each has at least one place: in all of them or in
// none.
func (r *results) fillFiles(names []string) error {
	texts := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !place.Match(text) {
			return fmt.Errorf("%s has no place for figures: a line <!-- bench: table --> and a line <!-- /bench -->", name)
		}
		if texts[name], err = r.fill(string(text)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range names {
		if err := replaceFile(name, []byte(texts[name])); err != nil {
			return err
		}
	}
	return nil
}

// measuredName is how a table names a workload that was measured, with its unit.
var measuredName = regexp.MustCompile("^`([^`]+)`, ")

// lost are the workloads that a part of a document tells of and that were not measured,
// and the paths of the others, when not all were to be measured.
func (r *results) lost(part, text string) (lost []string) {
	lose := func(figure, path string) {
		w := workloadOf(figure)
		switch {
		case w == nil: // there is no such workload any more
		case !r.has(w.name):
			lost = append(lost, w.name)
		case path != "" && (r.Quick || r.Paths != "") && r.find(figure, path) == nil && !r.excuses(w.name, path):
			lost = append(lost, path+" on "+w.name)
		}
	}
	var columns []string // the figures that a table across workloads has
	figure := ""
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 || cells[0] != "" {
			continue
		}
		for i, cell := range cells {
			cells[i] = strings.Trim(cell, " *!")
		}
		switch m := measuredName.FindStringSubmatch(cells[1]); {
		case part == "table" && m != nil:
			figure = m[1]
			lose(figure, cells[2])
		case part == "table" && cells[1] == "":
			lose(figure, cells[2])
		case part == "bars":
			name, _, _ := strings.Cut(cells[1], ":")
			lose(name, "")
		case part == "across" && cells[1] == "path":
			for _, cell := range cells[2:] {
				name := "" // of a column without figures
				if m := measuredName.FindStringSubmatch(cell); m != nil {
					name = m[1]
				}
				columns = append(columns, name)
			}
		case part == "across" && cells[1] != "---":
			for i, name := range columns {
				if i+2 < len(cells) && cells[i+2] != "–" {
					lose(name, cells[1])
				}
			}
		}
	}
	return lost
}

// workloadOf is the workload that a figure came of: the one whose name the figure's
// begins with, nil if there is none.
func workloadOf(figure string) (of *workload) {
	for _, w := range workloads {
		if strings.HasPrefix(figure, w.name) && (of == nil || len(w.name) > len(of.name)) {
			of = w
		}
	}
	return of
}

// excuses reports whether it is said why a path was not measured on a workload.
func (r *results) excuses(workload, path string) bool {
	return slices.ContainsFunc(r.NotRun, func(f failure) bool {
		return f.Workload == path || f.Workload == workload+", "+path
	})
}

// markdown writes a part of the results.
func (r *results) markdown(part string, words []string) string {
	r.sort()
	var b strings.Builder
	switch part {
	case "machine":
		b.WriteString(r.heading() + ".\n")
	case "bars":
		b.WriteString("| bar | want | have | |\n| --- | --- | --- | --- |\n")
		for _, x := range r.Bars {
			verdict := "met"
			switch {
			case x.Open:
				verdict = "open"
			case !x.Met:
				verdict = "**not met**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", x.Name, x.Want, x.Have, verdict)
		}
	case "across":
		r.markdownAcross(&b, words)
	case "rest":
		r.markdownRest(&b)
	default:
		r.markdownTable(&b, words)
	}
	return b.String()
}

// markdownRest says what was not measured, and why.
func (r *results) markdownRest(b *strings.Builder) {
	reasons := append(gather(r.NotRun), gather(r.Failures)...)
	if len(reasons) == 0 {
		b.WriteString("Everything was measured that was to be.\n")
	}
	for _, reason := range reasons {
		fmt.Fprintf(b, "- %s: %s.\n", reason.what("`"), strings.Join(strings.Fields(reason.why), " "))
	}
}

// markdownAcross has a row for each path that was measured on the first workload, in
// the order in which they are measured.
func (r *results) markdownAcross(b *strings.Builder, workloads []string) {
	var rows []*figure
	b.WriteString("| path |")
	for i, name := range workloads {
		unit := ""
		for _, f := range r.Figures {
			if f.Workload == name && len(f.Samples) > 0 {
				unit = ", " + f.Unit
				if i == 0 {
					rows = append(rows, f)
				}
			}
		}
		fmt.Fprintf(b, " `%s`%s |", name, unit)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(workloads)) + "\n")
	for _, row := range rows {
		mark := ""
		if row.Path == "fairlead" {
			mark = "**"
		}
		fmt.Fprintf(b, "| %s%s%[1]s |", mark, row.Path)
		for _, name := range workloads {
			cell := "–"
			if f := r.find(name, row.Path); f != nil {
				cell = number(f.Value.Median)
			}
			fmt.Fprintf(b, " %s%s%[1]s |", mark, cell)
		}
		b.WriteString("\n")
	}
}

func (r *results) markdownTable(b *strings.Builder, words []string) {
	blocks := r.blocks(words)
	shown := r.fitting(blocks, len(r.columns())*1000)
	b.WriteString("| workload |")
	for _, c := range shown {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(shown)) + "\n")
	var remarks []string
	for _, block := range blocks {
		name := fmt.Sprintf("`%s`, %s", block[0].Workload, block[0].Unit)
		for _, f := range block {
			b.WriteString("| " + name + " |")
			for _, c := range shown {
				cell := c.cell(f)
				if f.Path == "fairlead" {
					cell = "**" + cell + "**"
				}
				b.WriteString(" " + cell + " |")
			}
			b.WriteString("\n")
			name = ""
		}
		for _, n := range notes(block) {
			remarks = append(remarks, fmt.Sprintf("- `%s`, %s: %s.\n", block[0].Workload, n.paths, n.text))
		}
	}
	if len(remarks) > 0 {
		b.WriteString("\n" + strings.Join(remarks, ""))
	}
}
