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

// A view is one thing `show` shows: it fetches and prints it in a layout.
type view func(ctx context.Context, out io.Writer, as layout) error

// A layout is how a view is printed.
type layout int

const (
	asTable  layout = iota
	asJSON          // --json
	asKernel        // --as kernel: as the kernel's own tool prints it
)

func newShow() *cobra.Command {
	show := group(&cobra.Command{
		Use:   "show KIND",
		Short: "Show the switch, NAT, routes, all tables, and what was dropped",
		Long: `Show what the kernel's tools show of a kernel's network: the switch (brctl
show), its MAC table (brctl showmacs), the gateway's ARP table (arp -n), the
rules of NAT (iptables -t nat -L -v -n), what may pass (iptables -L -v -n),
connections (conntrack -L) and routes (ip route); addresses lent by DHCP; and
the frames that were dropped, with what to try. --as kernel prints a table as
that tool does.`,
		Example: `  fairlead show switch
  fairlead show switch -v
  fairlead show mac --watch
  fairlead show nat --as kernel
  fairlead show drops --json`,
	})
	show.AddCommand(newShowSwitch(),
		newView("mac", "The MAC table: who is behind which port, as brctl showmacs", "brctl showmacs", showTable("/v1/macs", macTable, macsAsBrctl)),
		newView("arp", "The gateway's ARP table, as arp -n", "arp -n", showTable("/v1/arp", arpTable, neighboursAsARP)),
		newView("nat", "The rules of NAT with counters, as iptables -t nat -L -v -n", "iptables -t nat -L -v -n", showTable("/v1/nat", natTable, natAsIptables)),
		newView("flows", "Connections, as conntrack -L", "conntrack -L", showFlows),
		newView("rules", "What may pass and what not, with counters, as iptables -L -v -n", "iptables -L -v -n", showTable("/v1/rules", rulesTable, rulesAsIptables)),
		newView("routes", "The routing table of each network, as ip route", "ip route", showTable("/v1/routes", routesTable, routesAsIP)),
		newView("leases", "Addresses lent by DHCP: to whom, and how long", "", showTable("/v1/leases",
			func(out io.Writer, leases []api.Lease) error { return leasesTable(out, leases, time.Now()) }, nil)),
		newView("drops", "Frames that were dropped: where, why, and what to try", "", showTable("/v1/drops",
			func(out io.Writer, drops []api.Drop) error { return dropsTable(out, drops, time.Now()) }, nil)),
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
	cmd := newView("switch", "The switches and their ports, as brctl show", "brctl show", showTable("/v1/switches", print, switchAsBrctl))
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show which cable is whose, and all counters")
	return cmd
}

// showTable is the view of a list that the node has at path. kernel prints it
// as the kernel's tool does; nil where there is no such tool.
func showTable[T any](path string, table, kernel func(io.Writer, []T) error) view {
	return func(ctx context.Context, out io.Writer, as layout) error {
		rows := []T{}
		if err := client().Get(ctx, path, &rows); err != nil {
			return err
		}
		switch as {
		case asJSON:
			return printJSON(out, rows)
		case asKernel:
			return kernel(out, rows)
		}
		return table(out, rows)
	}
}

// showFlows is the view of the flows, with a word on what sockets there are when
// there are not enough.
func showFlows(ctx context.Context, out io.Writer, as layout) error {
	if err := showTable("/v1/flows", flowsTable, flowsAsConntrack)(ctx, out, as); err != nil || as != asTable {
		return err
	}
	var info api.VersionInfo
	if err := client().Get(ctx, "/v1/version", &info); err != nil {
		return err
	}
	if words := socketsShort(&info.Sockets); words != "" {
		fmt.Fprintf(out, "\n%s\n", words)
	}
	return nil
}

// newView makes the command that shows v, once or again and again. tool is what
// the kernel's table is looked at with, empty where there is none.
func newView(name, what, tool string, v view) *cobra.Command {
	var inJSON bool
	var layoutOf string
	var interval time.Duration
	cmd := &cobra.Command{
		Use:     name + " [OPTIONS]",
		Short:   what,
		Example: fmt.Sprintf("  fairlead show %[1]s\n  fairlead show %[1]s --json\n  fairlead show %[1]s --watch 5s", name),
		RunE: func(cmd *cobra.Command, args []string) error {
			as := asTable
			switch {
			case layoutOf != "" && layoutOf != "kernel":
				return wrongCall(cmd, "--as %s: the only layout is kernel", layoutOf)
			case layoutOf != "" && inJSON:
				return wrongCall(cmd, "--as kernel and --json are two layouts")
			case layoutOf != "":
				as = asKernel
			case inJSON:
				as = asJSON
			}
			if !cmd.Flags().Changed("watch") {
				if err := exactly(0)(cmd, args); err != nil {
					return err
				}
				return v(cmd.Context(), cmd.OutOrStdout(), as)
			}
			every, err := watchInterval(cmd, interval, args)
			if err != nil {
				return err
			}
			return watch(cmd.Context(), cmd.OutOrStdout(), every, as, v)
		},
	}
	cmd.Flags().BoolVar(&inJSON, "json", false, "Print JSON")
	cmd.Flags().DurationVar(&interval, "watch", 0, "Show it again every `INTERVAL` until Ctrl-C")
	cmd.Flags().Lookup("watch").NoOptDefVal = "1s"
	if tool != "" {
		cmd.Flags().StringVar(&layoutOf, "as", "", "`LAYOUT`: kernel prints what "+tool+" would")
		cmd.Example += fmt.Sprintf("\n  fairlead show %s --as kernel", name)
	}
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
func watch(ctx context.Context, out io.Writer, every time.Duration, as layout, v view) error {
	f, ok := out.(*os.File)
	redraw := ok && isTerminal(f) && as != asJSON
	if redraw {
		fmt.Fprint(out, "\x1b[2J")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var b bytes.Buffer
		if err := v(ctx, &b, as); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := drawFrame(out, b.Bytes(), redraw, as); err != nil {
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
func drawFrame(out io.Writer, frame []byte, redraw bool, as layout) error {
	switch {
	case redraw:
		frame = bytes.ReplaceAll(frame, []byte("\n"), []byte("\x1b[K\n"))
		frame = append(append([]byte("\x1b[H"), frame...), "\x1b[J"...)
	case as == asJSON:
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
