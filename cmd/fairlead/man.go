package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/cmd/fairlead/labfile"
)

// newMan writes the manual; `make install` calls it.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a directory: man1 and man5",
		Example: "  fairlead man /usr/local/share/man",
		Args:    exactly(1),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, page := range manual(cmd.Root()) {
				path := filepath.Join(args[0], "man"+name[len(name)-1:], name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, page, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manual is a page for each command that help shows, and one for the file of a
// lab, by the name of its file.
func manual(root *cobra.Command) map[string][]byte {
	root.InitDefaultCompletionCmd()
	pages := map[string][]byte{"fairlead-lab.5": labPage()}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		pages[pageName(cmd)+".1"] = commandPage(cmd)
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() && cmd.Name() != "completion" { // one page says it for all shells
				visit(c)
			}
		}
	}
	visit(root)
	return pages
}

// pageName is what a command's page is called: fairlead-network-create.
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// A page is a manual page while it is written, in the macros of man(7).
type page struct{ bytes.Buffer }

func newPage(name, section, about string) *page {
	p := &page{}
	p.macro("TH", strings.ToUpper(name), section, "", "fairlead "+version, "Manual of fairlead")
	p.macro("SH", "NAME")
	p.text(name + " - " + about)
	return p
}

// macro writes one macro with its arguments.
func (p *page) macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, a := range args {
		fmt.Fprintf(p, ` "%s"`, strings.ReplaceAll(roff(a), `"`, `\(dq`))
	}
	p.WriteByte('\n')
}

// text writes lines of text, none of which may be taken for a macro.
func (p *page) text(s string) {
	for line := range strings.Lines(s) {
		line = roff(strings.TrimRight(line, "\n"))
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		p.WriteString(line + "\n")
	}
}

// roff escapes what groff would take for something else: a backslash, and a
// hyphen, which is no minus to copy. What stands in backquotes is bold.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "'", `\(aq`).Replace(s)
	for bold := true; strings.Contains(s, "`"); bold = !bold {
		s = strings.Replace(s, "`", map[bool]string{true: `\fB`, false: `\fR`}[bold], 1)
	}
	return s
}

// prose writes paragraphs; what is indented stays as it is, as in a help text.
func (p *page) prose(s string) {
	asIs := false
	for line := range strings.Lines(strings.TrimSpace(s) + "\n") {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case indented && !asIs:
			p.WriteString(".PP\n.nf\n")
		case !indented && asIs:
			p.WriteString(".fi\n.PP\n")
		}
		switch asIs = indented; {
		case line == "":
			p.WriteString(".PP\n")
		default:
			p.text(line)
		}
	}
	if asIs {
		p.WriteString(".fi\n")
	}
}

// example writes commands to copy.
func (p *page) example(s string) {
	p.WriteString(".PP\n.nf\n")
	p.text(s)
	p.WriteString(".fi\n")
}

func commandPage(cmd *cobra.Command) []byte {
	p := newPage(pageName(cmd), "1", cmd.Short)
	p.macro("SH", "SYNOPSIS")
	p.macro("B", cmd.UseLine())
	p.macro("SH", "DESCRIPTION")
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	p.prose(about)
	if below := cmd.Commands(); len(below) > 0 && cmd.HasAvailableSubCommands() {
		p.macro("SH", "COMMANDS")
		for _, c := range below {
			if c.IsAvailableCommand() {
				p.WriteString(".TP\n")
				p.macro("B", c.CommandPath())
				p.text(c.Short)
			}
		}
	}
	if cmd.HasAvailableLocalFlags() {
		p.macro("SH", "OPTIONS")
		cmd.LocalFlags().VisitAll(p.flag)
	}
	if cmd.HasExample() {
		p.macro("SH", "EXAMPLES")
		p.example(cmd.Example)
	}
	if !cmd.HasParent() {
		p.aboutAll()
	} else {
		p.macro("SH", "SEE ALSO")
		p.macro("BR", pageName(cmd.Parent()), "(1)")
	}
	return p.Bytes()
}

// flag writes what an option does.
func (p *page) flag(f *pflag.Flag) {
	if f.Hidden {
		return
	}
	name, about := pflag.UnquoteUsage(f)
	word := "--" + f.Name
	if f.Shorthand != "" {
		word = "-" + f.Shorthand + ", " + word
	}
	if name != "" {
		word += " " + name
	}
	p.WriteString(".TP\n")
	p.macro("B", word)
	p.text(about)
}

// aboutAll is what the page of the program says beside its commands.
func (p *page) aboutAll() {
	p.macro("SH", "EXIT STATUS")
	p.prose("0 when all is well, 125 for every error of fairlead itself. `fairlead run` and `fairlead exec` end with the status of the command, 127 when there is no such command, 126 when it cannot be run.")
	p.macro("SH", "ENVIRONMENT")
	p.WriteString(".TP\n")
	p.macro("B", "FAIRLEAD_DIR")
	p.text("The node directory. Without it root's is /run/fairlead and a user's $XDG_RUNTIME_DIR/fairlead, or /tmp/fairlead-UID.")
	p.macro("SH", "SEE ALSO")
	p.macro("BR", "fairlead-lab", "(5)")
}

// labPage is about the file of a lab.
func labPage() []byte {
	p := newPage("fairlead-lab", "5", "the file of `fairlead up -f`: networks and containers")
	p.macro("SH", "DESCRIPTION")
	p.prose("A lab is a file in YAML. `fairlead up -f FILE` brings it up, and again when it has changed; `fairlead down -f FILE` takes it down. An unknown key and a wrong value are refused with their line and column before anything is changed. Keys at the top that begin with x- are ignored: a place for anchors. Where a list is wanted, a single text is one, too.")
	p.macro("SH", "KEYS")
	for _, k := range labfile.Keys() {
		p.WriteString(".TP\n")
		p.macro("B", k.Name)
		p.text(k.Doc)
	}
	p.macro("SH", "EXAMPLES")
	p.example(labExample)
	p.macro("SH", "SEE ALSO")
	p.macro("BR", "fairlead-up", "(1)")
	return p.Bytes()
}

// labExample is a lab of two containers.
const labExample = `networks:
  front: {subnet: 10.1.0.0/24}
containers:
  web:
    command: fairlead probe http-server
    networks: [front]
    ports: ["8080:80"]
  client:
    command: sleep infinity
    networks: {front: {ip: 10.1.0.9}}
    wait-for: web:80
`
