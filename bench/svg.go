package main

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// A chart is one figure for a document: a bar for each path or workload, as long
// as its ratio to what it stands beside, with whiskers from quartile to quartile.
type chart struct {
	Name  string
	Lines []string // of text above it
	Bars  []chartBar
	Ticks []chartTick

	Width, Height, Left, Top, Bottom, Reference float64
}

type chartBar struct {
	Label, Value          string
	Ours                  bool
	Ratio                 quantile
	Y, Wide, Q1, Q3, Text float64 // the row's middle; the bar; where whiskers end, and the value begins
}

type chartTick struct{ X, Label float64 }

// A chart has a ground of its own, so that it is read on any page, and the
// colours of the reader's system.
var svg = template.Must(template.New("chart").Funcs(template.FuncMap{
	"add":  func(a, b float64) float64 { return a + b },
	"line": func(i int) int { return 48 + 17*i },
}).Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" role="img" font-family="sans-serif" font-size="13">
<title>{{.Name}}</title>
<style>
  .ground { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328 } .faint { fill: #59636e }
  .grid { stroke: #d0d7de } .reference { stroke: #59636e; stroke-dasharray: 4 3 }
  .bar { fill: #9aa7b5 } .ours { fill: #2f81d7 } .whisker { stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .faint { fill: #9198a1 }
    .grid { stroke: #30363d } .reference { stroke: #9198a1 }
    .bar { fill: #59636e } .ours { fill: #388bfd } .whisker { stroke: #f0f6fc }
  }
</style>
<rect class="ground" x="0.5" y="0.5" width="{{add .Width -1}}" height="{{add .Height -1}}" rx="6"/>
<text x="16" y="27" font-size="15" font-weight="bold">{{.Name}}</text>
{{- $c := .}}
{{- range $i, $line := .Lines}}
<text class="faint" x="16" y="{{line $i}}">{{$line}}</text>
{{- end}}
{{- range .Ticks}}
<line class="grid" x1="{{.X}}" x2="{{.X}}" y1="{{$c.Top}}" y2="{{$c.Bottom}}"/>
<text class="faint" x="{{.X}}" y="{{add $c.Bottom 17}}" text-anchor="middle">{{.Label}}</text>
{{- end}}
<line class="reference" x1="{{.Reference}}" x2="{{.Reference}}" y1="{{$c.Top}}" y2="{{.Bottom}}"/>
{{- range .Bars}}
<text x="{{add $c.Left -8}}" y="{{add .Y 4.5}}" text-anchor="end">{{.Label}}</text>
<rect class="bar{{if .Ours}} ours{{end}}" x="{{$c.Left}}" y="{{add .Y -8}}" width="{{.Wide}}" height="16"/>
<path class="whisker" fill="none" d="M{{.Q1}} {{.Y}}H{{.Q3}}M{{.Q1}} {{add .Y -4}}v8M{{.Q3}} {{add .Y -4}}v8"/>
<text x="{{.Text}}" y="{{add .Y 4.5}}">{{.Value}}</text>
{{- end}}
</svg>
`))

// layOut places everything. Bars begin at zero.
func (c *chart) layOut() {
	const right, row = 600, 26
	longest, most := 0, 1.0
	for _, b := range c.Bars {
		longest, most = max(longest, len(b.Label)), max(most, b.Ratio.Q3, b.Ratio.Median)
	}
	c.Width, c.Left, c.Top = 760, 32+7*float64(longest), 44+17*float64(len(c.Lines))
	c.Bottom = c.Top + row*float64(len(c.Bars)) + 4
	c.Height = c.Bottom + 28
	x := func(ratio float64) float64 { return math.Round(c.Left + (right-c.Left)*ratio/most) }
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for step*2 > most/2 {
		step /= 2
	}
	for i := 0.0; i*step <= most; i++ {
		c.Ticks = append(c.Ticks, chartTick{x(i * step), math.Round(i*step*100) / 100})
	}
	c.Reference = x(1)
	for i := range c.Bars {
		b := &c.Bars[i]
		b.Y = c.Top + row*(float64(i)+0.5) + 2
		b.Wide, b.Q1, b.Q3 = x(b.Ratio.Median)-c.Left, x(b.Ratio.Q1), x(b.Ratio.Q3)
		b.Text = max(c.Left+b.Wide, b.Q3) + 8
	}
}

// charts are one for each workload with something to compare, and one of all
// workloads beside the kernel's bridge.
func (r *results) charts() (list []*chart) {
	r.sort()
	all := &chart{Name: "fairlead beside the kernel bridge", Lines: []string{"how many times better, round by round; median, whiskers from quartile to quartile"}}
	for _, block := range r.blocks(nil) {
		first := block[0]
		if len(block) < 2 {
			continue
		}
		reference := cmp.Or(r.find(first.Workload, "kernel"), r.find(first.Workload, "fairlead"), first)
		var text strings.Builder
		wrap(&text, "", fmt.Sprintf("%s: how many times better than %s; median, whiskers from quartile to quartile", first.What, reference.Path), 105)
		c := &chart{Name: first.Workload, Lines: strings.Split(strings.TrimSpace(text.String()), "\n")}
		for _, f := range block {
			ratios := f.beside(reference)
			if len(ratios) == 0 {
				continue
			}
			b := chartBar{Label: f.Path, Value: number(f.Value.Median) + " " + f.Unit, Ours: strings.HasPrefix(f.Path, "fairlead"), Ratio: quantiles(ratios)}
			c.Bars = append(c.Bars, b)
			if f.Path == "fairlead" && reference.Path == "kernel" {
				b.Label, b.Value = f.Workload, fmt.Sprintf("%.2f: %s", b.Ratio.Median, b.Value)
				all.Bars = append(all.Bars, b)
			}
		}
		if len(c.Bars) == 0 { // of a workload whose figures are not comparable
			continue
		}
		c.layOut()
		list = append(list, c)
	}
	if len(all.Bars) > 0 {
		all.layOut()
		list = append(list, all)
	}
	return list
}

// writeSVG writes all charts into a folder.
func (r *results) writeSVG(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range r.charts() {
		var b strings.Builder
		if err := svg.Execute(&b, c); err != nil {
			return fmt.Errorf("chart %s: %w", c.Name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(c.Name, " ", "-")+".svg"), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
