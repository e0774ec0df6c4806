package main

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/spf13/cobra"

	"fairlead/test/lab"
)

// Every command that help shows has a page, and groff finds nothing wrong in any.
func TestManual(t *testing.T) {
	lab.Need(t, "groff")
	root := newRoot()
	pages := manual(root)
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() && c.Name() != "completion" {
				visit(c)
			}
		}
		if pages[pageName(cmd)+".1"] == nil {
			t.Errorf("%s has no page", cmd.CommandPath())
		}
	}
	visit(root)
	for name, page := range pages {
		// As `man --warnings` has it, a terminal of 80 columns.
		groff := exec.Command("groff", "-man", "-Tutf8", "-ww", "-rLL=78n", "-K", "utf8")
		groff.Stdin = bytes.NewReader(page)
		var stderr bytes.Buffer
		groff.Stderr = &stderr
		if err := groff.Run(); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, &stderr)
		}
		for _, part := range []string{"NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"} {
			if !bytes.Contains(page, []byte(".SH \""+part+"\"\n")) && name != "fairlead-completion.1" {
				t.Errorf("%s has no %s", name, part)
			}
		}
	}
}
