package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/lockin"
)

// What doctor's exit status says.
const (
	exitLimited = exitStatus(1)
	exitMissing = exitStatus(2)
)

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Say what of this machine is in the way, and the command that mends it",
		Long: `Try what fairlead needs of this machine, and say what was found: for each check
a line, and where something is less than it could be, why that matters and the
command that mends it. Nothing is changed, and no node is started.

The exit status is 0 when all is well, 1 when fairlead works with limits, and 2
when something is missing it cannot work without.

What sysctl, modprobe and chmod change lasts until the next boot. These last:
  /etc/sysctl.d/90-fairlead.conf      KEY=VALUE
  /etc/modules-load.d/fairlead.conf   tun
  /etc/udev/rules.d/90-fairlead.rules KERNEL=="tun", MODE="0666"`,
		Example: `  fairlead doctor
  fairlead doctor --json | jq -r '.checks[] | select(.mend) | .mend'`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := examine(cmd.Context(), thisMachine())
			var err error
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.print(cmd.OutOrStdout())
			}
			switch {
			case err != nil:
				return err
			case r.State == missing:
				return exitMissing
			case r.State == limited:
				return exitLimited
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

// A state is what a check came to.
type state string

const (
	well    state = "ok"
	limited state = "limited" // fairlead works, with less
	missing state = "missing" // it does not
)

// A finding is what one check found.
type finding struct {
	Name  string `json:"name"`
	State state  `json:"state"`
	Found string `json:"found"`
	Why   string `json:"why,omitempty"`  // it matters
	Mend  string `json:"mend,omitempty"` // a command line
}

// A diagnosis is what all checks found; its state is the worst of theirs.
type diagnosis struct {
	State  state     `json:"state"`
	Checks []finding `json:"checks"`
}

func (d *diagnosis) add(f finding) {
	d.Checks = append(d.Checks, f)
	if f.State == missing || f.State == limited && d.State == well {
		d.State = f.State
	}
}

// examine makes all checks, in the order in which one needs the other.
func examine(ctx context.Context, m machine) *diagnosis {
	d := &diagnosis{State: well}
	d.add(m.kernel())
	alone, proc := m.namespaces()
	d.add(alone)
	d.add(proc)
	device := m.tun()
	d.add(device)
	d.add(m.tap(alone.State, device.State))
	d.add(m.sockets())
	d.add(m.descriptors())
	d.add(m.ping())
	d.add(judgeLockIn(lockin.LandlockABI(), lockin.Missing()))
	d.add(m.ports())
	d.add(m.directory())
	running, subnets := m.node(ctx, api.NewClient(m.dir))
	d.add(running)
	d.add(m.subnets(subnets))
	d.add(judgeHostLink(box.MayMakeInterfaces(), subnets))
	d.add(m.outside())
	d.add(m.neighbours())
	d.add(m.congestion())
	d.add(m.ipv6())
	return d
}

// print prints the findings as a table, and what they come to. Commands are not
// broken: they are to be copied.
func (d *diagnosis) print(out io.Writer) error {
	var b strings.Builder
	row := func(name, word, text string, width int) {
		head := fmt.Sprintf("%-12s  %-7s  ", name, word)
		for i, line := range wrap(text, width-len(head)) {
			if i > 0 {
				head = strings.Repeat(" ", len(head))
			}
			b.WriteString(head + line + "\n")
		}
	}
	row("check", "state", "found", usualWidth)
	var ill []string
	for _, f := range d.Checks {
		row(f.Name, string(f.State), f.Found, usualWidth)
		if f.Why != "" {
			row("", "why", f.Why, usualWidth)
		}
		if f.Mend != "" {
			row("", "mend", f.Mend, 1<<20)
		}
		if f.State == d.State {
			ill = append(ill, f.Name)
		}
	}
	switch d.State {
	case well:
		b.WriteString("\nAll is well.\n")
	case limited:
		fmt.Fprintf(&b, "\nfairlead works here, with limits: %s.\n", strings.Join(ill, ", "))
	case missing:
		fmt.Fprintf(&b, "\nfairlead cannot work here: %s.\n", strings.Join(ill, ", "))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
