package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// A networkLine is a network with its uplinks, as `network ls` has it.
type networkLine struct {
	ID       string            `json:"id"`
	Network  string            `json:"network"`
	Driver   string            `json:"driver"`
	Scope    string            `json:"scope"`
	Internal bool              `json:"internal"`
	Labels   map[string]string `json:"labels"`
	Created  time.Time         `json:"created"`
	Subnet   string            `json:"subnet"`
	Gateway  string            `json:"gateway"`
	Ports    int               `json:"ports"`
	Uplinks  []api.Uplink      `json:"uplinks"`
}

func newNetworkLs() *cobra.Command {
	var asJSON, quiet, whole bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks and their uplinks",
		Long: `List networks, how many containers are on each, and by which uplinks it leads
outside.

A filter is name=PART, id=BEGINNING, label=KEY or label=KEY=VALUE, driver=bridge,
scope=local, type=custom or type=builtin, dangling=true for those nobody is on.
Of several with the same key one has to fit, of several keys all.`,
		Example: `  fairlead network ls
  fairlead network ls -q --filter type=custom
  fairlead network ls --format '{{.Name}} {{.Subnet}}'
  fairlead network ls --json`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := parseFilters(filters)
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			c, err := ensureLeft(cmd.Context())
			if err != nil {
				return err
			}
			lines, err := listNetworks(cmd.Context(), c)
			if err != nil {
				return err
			}
			lines = slices.DeleteFunc(lines, func(l networkLine) bool { return !wanted.fit(&l) })
			out := cmd.OutOrStdout()
			switch {
			case quiet:
				for _, l := range lines {
					fmt.Fprintln(out, shortID(l.ID, whole))
				}
				return nil
			case format != "":
				return printNetworkLines(cmd, format, lines, whole)
			case asJSON:
				return printJSON(out, lines)
			}
			return networkTable(out, lines, whole)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "Print JSON")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	f.BoolVar(&whole, "no-trunc", false, "Print whole ids")
	f.StringVar(&format, "format", "", "Print each by a Go `TEMPLATE`, or json; fields: ID Name Driver Scope Internal IPv4 IPv6 Labels CreatedAt Subnet Gateway Containers Uplinks")
	f.StringArrayVarP(&filters, "filter", "f", nil, "Print those only that fit `KEY=VALUE` (repeatable)")
	return cmd
}

// listNetworks asks the node for all networks.
func listNetworks(ctx context.Context, c *api.Client) ([]networkLine, error) {
	var networks []api.NetworkInspect
	var uplinks []api.Uplink
	if err := c.Get(ctx, "/v1/networks", &networks); err != nil {
		return nil, err
	}
	if err := c.Get(ctx, "/v1/uplinks", &uplinks); err != nil {
		return nil, err
	}
	return networkLines(networks, uplinks), nil
}

func networkLines(networks []api.NetworkInspect, uplinks []api.Uplink) []networkLine {
	lines := []networkLine{}
	for _, n := range networks {
		l := networkLine{
			ID: n.ID, Network: n.Name, Driver: n.Driver, Scope: n.Scope, Internal: n.Internal, Labels: n.Labels,
			Created: n.Created, Ports: len(n.Containers), Uplinks: []api.Uplink{},
		}
		if len(n.IPAM.Config) > 0 {
			l.Subnet, l.Gateway = n.IPAM.Config[0].Subnet, n.IPAM.Config[0].Gateway
		}
		for _, u := range uplinks {
			if u.Network == n.Name {
				l.Uplinks = append(l.Uplinks, u)
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// networkTable is a line for each network, and one for each further uplink and
// each further address; below it why uplinks are as they are. The widest column
// that anything follows is a name, so that it fits a terminal.
func networkTable(out io.Writer, lines []networkLine, whole bool) error {
	t := newTable(out, "NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNET", "PORTS", "UPLINK", "STATE", "ADDRESS")
	var why []string // once each: many networks use the same
	for _, l := range lines {
		first := []string{shortID(l.ID, whole), l.Network, l.Driver, l.Scope, l.Subnet, strconv.Itoa(l.Ports)}
		switch {
		case l.Internal:
			t.row(append(first, "internal", "-", "-")...) // it uses none
			continue
		case len(l.Uplinks) == 0:
			t.row(append(first, "-", "-", "-")...)
		}
		for _, u := range l.Uplinks {
			t.row(append(first, uplinkName(&u), u.State, dash(u.Address))...)
			first = []string{"", "", "", "", "", ""}
			for _, a := range u.Addresses {
				t.row(append(first, "", "", a)...)
			}
			if reason := uplinkName(&u) + ": " + u.Why; u.Why != "" && !slices.Contains(why, reason) {
				why = append(why, reason)
			}
		}
	}
	if err := t.end(); err != nil {
		return err
	}
	for i, reason := range why {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, reason)
	}
	return nil
}

// uplinkName is what --uplink begins with.
func uplinkName(u *api.Uplink) string {
	if u.Kind == api.HostUplink {
		return u.Name
	}
	return u.Kind + ":" + u.Name
}

// A formatLine is a network as --format sees it, by Docker's names and ours.
type formatLine struct {
	ID, Name, Driver, Scope, IPv4, IPv6, Internal, Labels, CreatedAt string

	Subnet, Gateway, Uplinks string
	Containers               int
}

func printNetworkLines(cmd *cobra.Command, format string, lines []networkLine, whole bool) error {
	asJSON := format == "json"
	format = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.TrimPrefix(format, "table "))
	tmpl, err := parseFormat(short(cmd), format)
	if err != nil {
		return err
	}
	for _, l := range lines {
		var labels, uplinks []string
		for key, value := range l.Labels {
			labels = append(labels, key+"="+value)
		}
		slices.Sort(labels)
		for i := range l.Uplinks {
			uplinks = append(uplinks, uplinkName(&l.Uplinks[i]))
		}
		f := formatLine{
			ID: shortID(l.ID, whole), Name: l.Network, Driver: l.Driver, Scope: l.Scope, IPv4: "true", IPv6: "false", Internal: strconv.FormatBool(l.Internal),
			Labels: strings.Join(labels, ","), CreatedAt: l.Created.Format("2006-01-02 15:04:05.999999999 -0700 MST"), Subnet: l.Subnet, Gateway: l.Gateway, Uplinks: strings.Join(uplinks, ","), Containers: l.Ports,
		}
		if asJSON {
			text, _ := toJSON(f) // of strings: it cannot fail
			fmt.Fprintln(cmd.OutOrStdout(), text)
			continue
		}
		if err := tmpl.Execute(cmd.OutOrStdout(), f); err != nil {
			return fmt.Errorf("%s: template parsing error: %w", short(cmd), err)
		}
		fmt.Fprintln(cmd.OutOrStdout())
	}
	return nil
}

// filters are those of --filter, by key.
type filters map[string][]string

func parseFilters(args []string) (filters, error) {
	f := filters{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("invalid argument %q for --filter: it is KEY=VALUE, such as name=lab", arg)
		case key == "type" && value != "custom" && value != "builtin":
			return nil, fmt.Errorf("invalid filter: type=%s: it is custom or builtin", value)
		case key == "dangling" && value != "true" && value != "false" && value != "1" && value != "0":
			return nil, fmt.Errorf("invalid filter 'dangling=[%s]': it is true or false", value)
		}
		switch key {
		case "name", "id", "label", "driver", "scope", "type", "dangling":
			f[key] = append(f[key], value)
		default:
			return nil, fmt.Errorf("invalid filter '%s': there are name, id, label, driver, scope, type and dangling", key)
		}
	}
	return f, nil
}

// fit reports whether a network fits all of them.
func (f filters) fit(l *networkLine) bool {
	for key, values := range f {
		if !slices.ContainsFunc(values, func(value string) bool { return l.fits(key, value) }) {
			return false
		}
	}
	return true
}

func (l *networkLine) fits(key, value string) bool {
	switch key {
	case "name":
		return strings.Contains(l.Network, value)
	case "id":
		return strings.HasPrefix(l.ID, value)
	case "driver":
		return l.Driver == value
	case "scope":
		return l.Scope == value
	case "type":
		return l.custom() == (value == "custom")
	case "dangling":
		return l.dangling() == (value == "true" || value == "1")
	}
	label, want, exact := strings.Cut(value, "=")
	have, ok := l.Labels[label]
	return ok && (!exact || have == want)
}

// custom reports whether somebody made the network, dangling whether it is for
// nobody.
func (l *networkLine) custom() bool   { return l.Network != defaultNetwork }
func (l *networkLine) dangling() bool { return l.custom() && l.Ports == 0 }
