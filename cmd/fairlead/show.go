package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// A view is one thing `show` shows: it fetches and prints it, as JSON if asked.
type view func(ctx context.Context, out io.Writer, asJSON bool) error

func newShow() *cobra.Command {
	show := group(&cobra.Command{
		Use:   "show KIND",
		Short: "Show the switch, its tables and what it dropped",
		Long: `Show the switch (as brctl show), its MAC table (brctl showmacs), the gateway's
ARP table (arp -n) and the frames that were dropped, with what to try.`,
		Example: `  fairlead show switch
  fairlead show switch -v
  fairlead show mac --watch
  fairlead show drops --json`,
	})
	show.AddCommand(newShowSwitch(),
		newView("mac", "The MAC table: who is behind which port, as brctl showmacs", showTable("/v1/macs", macTable)),
		newView("arp", "The gateway's ARP table, as arp -n", showTable("/v1/arp", arpTable)),
		newView("drops", "Frames that were dropped: where, why, and what to try", showTable("/v1/drops",
			func(out io.Writer, drops []api.Drop) error { return dropsTable(out, drops, time.Now()) })),
	)
	return show
}

func newShowSwitch() *cobra.Command {
	var verbose bool
	print := func(out io.Writer, switches []api.Switch) error {
		if verbose {
			switchDetails(out, switches)
			return nil
		}
		return switchTable(out, switches)
	}
	cmd := newView("switch", "The switches and their ports, as brctl show", showTable("/v1/switches", print))
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show which cable is whose, and all counters")
	return cmd
}

// showTable is the view of a list that the node has at path.
func showTable[T any](path string, print func(io.Writer, []T) error) view {
	return func(ctx context.Context, out io.Writer, asJSON bool) error {
		rows := []T{}
		if err := client().Get(ctx, path, &rows); err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, rows)
		}
		return print(out, rows)
	}
}

// newView makes the command that shows v, once or again and again.
func newView(name, what string, v view) *cobra.Command {
	var asJSON bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:     name + " [OPTIONS]",
		Short:   what,
		Example: fmt.Sprintf("  fairlead show %[1]s\n  fairlead show %[1]s --json\n  fairlead show %[1]s --watch 5s", name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("watch") {
				if err := exactly(0)(cmd, args); err != nil {
					return err
				}
				return v(cmd.Context(), cmd.OutOrStdout(), asJSON)
			}
			every, err := watchInterval(cmd, interval, args)
			if err != nil {
				return err
			}
			return watch(cmd.Context(), cmd.OutOrStdout(), every, asJSON, v)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	cmd.Flags().DurationVar(&interval, "watch", 0, "Show it again every `INTERVAL` until Ctrl-C")
	cmd.Flags().Lookup("watch").NoOptDefVal = "1s"
	return cmd
}

// watchInterval reads --watch, --watch=2s and --watch 2s.
func watchInterval(cmd *cobra.Command, interval time.Duration, args []string) (time.Duration, error) {
	if len(args) > 1 {
		return 0, atMost(1)(cmd, args)
	}
	if len(args) == 1 {
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return 0, wrongCall(cmd, "--watch %s is not an interval such as 2s", args[0])
		}
		interval = d
	}
	// Faster than a person can read is a load test of the node.
	if interval < 100*time.Millisecond {
		return 0, wrongCall(cmd, "--watch %v is less than 100ms", interval)
	}
	return interval, nil
}

// watch shows v until ctx ends: on a terminal always in the same place, else
// one after the other.
func watch(ctx context.Context, out io.Writer, every time.Duration, asJSON bool, v view) error {
	f, ok := out.(*os.File)
	redraw := ok && isTerminal(f) && !asJSON
	if redraw {
		fmt.Fprint(out, "\x1b[2J")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var b bytes.Buffer
		if err := v(ctx, &b, asJSON); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := drawFrame(out, b.Bytes(), redraw, asJSON); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// drawFrame prints one state. Lines are cleared one by one, so that nothing
// flickers; JSON goes on one line, so that a reader has one state for each.
func drawFrame(out io.Writer, frame []byte, redraw, asJSON bool) error {
	switch {
	case redraw:
		frame = bytes.ReplaceAll(frame, []byte("\n"), []byte("\x1b[K\n"))
		frame = append(append([]byte("\x1b[H"), frame...), "\x1b[J"...)
	case asJSON:
		var b bytes.Buffer
		if err := json.Compact(&b, frame); err != nil {
			return err
		}
		frame = append(b.Bytes(), '\n')
	default:
		frame = append([]byte(time.Now().Format("15:04:05")+"\n"), frame...)
	}
	_, err := out.Write(frame)
	return err
}
