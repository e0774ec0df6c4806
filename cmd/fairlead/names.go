package main

import (
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// resolverLines are what has a resolver of this machine ask the node, by the name
// of the resolver.
var resolverLines = map[string]func(n *api.Names, addr, port string) string{
	"resolved": func(n *api.Names, addr, port string) string {
		domains := []string{"~" + n.Domain}
		for _, zone := range n.Reverse {
			domains = append(domains, "~"+zone)
		}
		return fmt.Sprintf("[Resolve]\nDNS=%s\nDomains=%s\n", net.JoinHostPort(addr, port), strings.Join(domains, " "))
	},
	"dnsmasq": func(n *api.Names, addr, port string) string {
		var b strings.Builder
		for _, zone := range append([]string{n.Domain}, n.Reverse...) {
			fmt.Fprintf(&b, "server=/%s/%s#%s\n", zone, addr, port)
		}
		return b.String()
	},
	"resolv.conf": func(_ *api.Names, addr, _ string) string { return "nameserver " + addr + "\n" },
}

func newNames() *cobra.Command {
	var asJSON bool
	var resolver string
	cmd := &cobra.Command{
		Use:   "names [OPTIONS]",
		Short: "Names of containers as this machine may ask for them",
		Long: `List names of containers as this machine may ask for them: CONTAINER.NETWORK, or
just CONTAINER, below fairlead.internal. So may aliases and short ids be asked for.

The node answers, by UDP and TCP, at an address of the loopback that
` + "`fairlead up --names on`" + ` opens. Then tell the resolver of this machine, once; it is
asked for nothing else. --for prints what that takes:

  systemd-resolved, whose other servers are those of interfaces, as by DHCP
    fairlead names --for resolved | sudo tee /etc/systemd/resolved.conf.d/fairlead.conf
    sudo systemctl restart systemd-resolved
  dnsmasq
    fairlead names --for dnsmasq | sudo tee /etc/dnsmasq.d/fairlead.conf
    sudo systemctl restart dnsmasq
  neither: as the first nameserver of /etc/resolv.conf, which takes port 53
    fairlead names --for resolv.conf

Port 53 takes a right: sudo sysctl net.ipv4.ip_unprivileged_port_start=53. Without it
the port is 1053, which resolv.conf cannot name.`,
		Example: `  fairlead up --names on
  fairlead names
  dig @127.0.0.17 -p 1053 web.fairlead.internal
  fairlead names --for resolved`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names api.Names
			if err := client().Get(cmd.Context(), "/v1/names", &names); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				return printJSON(out, &names)
			case resolver != "":
				lines, err := linesFor(resolver, &names)
				if err != nil {
					return err
				}
				_, err = io.WriteString(out, lines)
				return err
			}
			return namesTable(out, &names)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "Print JSON")
	f.StringVar(&resolver, "for", "", "Print what has a `RESOLVER` ask the node: resolved, dnsmasq or resolv.conf")
	return cmd
}

// linesFor are the lines of a resolver's configuration.
func linesFor(resolver string, names *api.Names) (string, error) {
	lines := resolverLines[resolver]
	if lines == nil {
		return "", fmt.Errorf("--for %s: there is resolved, dnsmasq and resolv.conf", resolver)
	}
	if names.Server == "" {
		return "", fmt.Errorf("the node does not answer this machine; first: `fairlead up --names on`")
	}
	addr, port, err := net.SplitHostPort(names.Server)
	if err != nil {
		return "", err
	}
	if resolver == "resolv.conf" && port != "53" {
		return "", fmt.Errorf("resolv.conf cannot name port %s: `sudo sysctl net.ipv4.ip_unprivileged_port_start=53`, then `fairlead up --names off` and `fairlead up --names on`", port)
	}
	return lines(names, addr, port), nil
}

func namesTable(out io.Writer, names *api.Names) error {
	t := newTable(out, "NAME", "ADDRESS", "ALIASES")
	for _, n := range names.Names {
		t.row(n.Name, n.Address, strings.Join(n.Aliases, ", "))
	}
	if err := t.end(); err != nil {
		return err
	}
	if names.Server == "" {
		fmt.Fprintln(out, "\nThis machine cannot ask for them yet: `fairlead up --names on`.")
		return nil
	}
	fmt.Fprintf(out, "\nAnswered at %s, by UDP and TCP; `fairlead names --help` says how this machine's resolver learns of it.\n", names.Server)
	return nil
}
