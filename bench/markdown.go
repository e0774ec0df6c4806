package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A place in a document holds what is made from the results: from a line
//
//	<!-- bench: table tcp- nat- -->
//
// to the line <!-- /bench -->. It has the workloads whose name begins with
// one of the words, and stays as it is if none of those was measured. Instead of table there may be across, a column of medians for each
// workload whose name is one of the words, machine or bars.
var place = regexp.MustCompile(`(?s)(<!-- bench: (table|across|machine|bars)([^\n]*?) -->\n).*?(<!-- /bench -->)`)

// fill puts results into the places of a document.
func (r *results) fill(text string) string {
	return place.ReplaceAllStringFunc(text, func(whole string) string {
		m := place.FindStringSubmatch(whole)
		if words := strings.Fields(m[3]); m[2] == "table" && len(r.blocks(words)) == 0 {
			return whole
		}
		return m[1] + "\n" + r.markdown(m[2], strings.Fields(m[3])) + "\n" + m[4]
	})
}

// fillFile does so in a file, which has at least one.
func (r *results) fillFile(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !place.Match(text) {
		return fmt.Errorf("%s has no place for figures: a line <!-- bench: table --> and a line <!-- /bench -->", name)
	}
	return replaceFile(name, []byte(r.fill(string(text))))
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
	default:
		r.markdownTable(&b, words)
	}
	return b.String()
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
