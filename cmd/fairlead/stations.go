package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

func newMac() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "mac COMMAND",
		Short: "List and change the MAC table: who is behind which port",
		Long: `List and change the MAC table of a network's switch: who is behind which port. It
learns from each frame's source, follows whoever moves, and forgets who is
silent for long. A static MAC is added by hand: it is where it was said to be,
whatever is heard, until it is removed or its container leaves the network.`,
		Example: `  fairlead mac ls
  fairlead mac add 02:00:00:00:00:07 web
  fairlead mac rm 02:00:00:00:00:07
  fairlead mac flush`,
	})
	cmd.AddCommand(newMacLs(), newMacAdd(), newMacRm(), newFlush("mac", "Forget all learned MAC addresses: the switch floods until it learns again",
		"/v1/macs", func(cmd *cobra.Command, path string) (int, error) {
			var flushed api.Flushed
			err := client().Delete(cmd.Context(), path, &flushed)
			return flushed.MACs, err
		}))
	return cmd
}

func newMacLs() *cobra.Command {
	return newStationsLs("mac", "List the MAC tables, as fairlead show mac", "/v1/macs", macTable)
}

// newStationsLs makes the command that lists a table, of one network or all.
func newStationsLs[T any](name, what, path string, table func(io.Writer, []T) error) *cobra.Command {
	var network string
	var inJSON bool
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   what,
		Example: fmt.Sprintf("  fairlead %[1]s ls\n  fairlead %[1]s ls --network lab --json", name),
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			as := asTable
			if inJSON {
				as = asJSON
			}
			return showTable(path+ofNetwork(network), table, nil)(cmd.Context(), cmd.OutOrStdout(), as)
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "Of this `NETWORK` only")
	cmd.Flags().BoolVar(&inJSON, "json", false, "Print JSON")
	return cmd
}

// ofNetwork is the query that names a network; no name is all of them.
func ofNetwork(name string) string {
	if name == "" {
		return ""
	}
	return "?network=" + url.QueryEscape(name)
}

func newMacAdd() *cobra.Command {
	var req api.MACRequest
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] MAC CONTAINER",
		Short: "Say behind which container a MAC address is",
		Long: `Say behind which container a MAC address is, in the words of bridge fdb add. It
says where frames to that MAC go, not who may send by it: that is the guard's.`,
		Example: `  fairlead mac add 02:00:00:00:00:07 web
  fairlead mac add --network lab --vlan 10 02:00:00:00:00:07 web`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.MAC, req.Container = args[0], args[1]
			if _, err := api.ParseStation(req.MAC); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			if err := api.CheckVLAN(req.VLAN); err != nil {
				return wrongCall(cmd, "--vlan: %v", err)
			}
			return client().Post(cmd.Context(), "/v1/macs", req, nil)
		},
	}
	cmd.Flags().StringVar(&req.Network, "network", "default", "`NETWORK` the container is on")
	cmd.Flags().Uint16Var(&req.VLAN, "vlan", 0, "`VLAN` it is in (default: none)")
	return cmd
}

func newMacRm() *cobra.Command {
	var network string
	var vlan uint16
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] MAC...",
		Short:   "Forget MAC addresses, static or learned",
		Example: "  fairlead mac rm 02:00:00:00:00:07\n  fairlead mac rm --network lab --vlan 10 02:00:00:00:00:07",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := ofNetwork(network)
			if vlan != 0 {
				query += "&vlan=" + strconv.Itoa(int(vlan))
			}
			return forEach(args, func(mac string) error {
				return client().Delete(cmd.Context(), "/v1/macs/"+url.PathEscape(mac)+query, nil)
			})
		},
	}
	cmd.Flags().StringVar(&network, "network", "default", "`NETWORK` whose table it is")
	cmd.Flags().Uint16Var(&vlan, "vlan", 0, "`VLAN` it is in (default: none)")
	return cmd
}

// newFlush makes the command that empties a table; flush says how many were in it.
func newFlush(name, what, path string, flush func(cmd *cobra.Command, path string) (int, error)) *cobra.Command {
	var network string
	var all bool
	cmd := &cobra.Command{
		Use:     "flush [OPTIONS]",
		Short:   what,
		Example: fmt.Sprintf("  fairlead %[1]s flush\n  fairlead %[1]s flush --network default\n  fairlead %[1]s flush --all", name),
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if network != "" {
				query.Set("network", network)
			}
			if all {
				query.Set("all", "1")
			}
			if len(query) > 0 {
				path += "?" + query.Encode()
			}
			n, err := flush(cmd, path)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%d forgotten\n", n)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "Of this `NETWORK` only")
	cmd.Flags().BoolVar(&all, "all", false, "Also what was added by hand")
	return cmd
}

func newARP() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "arp COMMAND",
		Short: "List and change the gateways' ARP tables: who has which address",
		Long: `List and change the ARP table of a network's gateway: at which MAC and port it
finds an address of its subnet. A static entry is added by hand: nothing that is
heard changes it, until it is removed or its container leaves the network. The
addresses containers were given are in the table for as long as they have them;
a guard holds them to those.`,
		Example: `  fairlead arp ls
  fairlead arp add 172.17.0.9 02:00:00:00:00:07 web
  fairlead arp rm 172.17.0.9
  fairlead arp flush`,
	})
	cmd.AddCommand(newARPLs(), newARPAdd(), newARPRm(), newFlush("arp", "Forget all learned neighbours: the gateway asks again",
		"/v1/arp", func(cmd *cobra.Command, path string) (int, error) {
			var flushed api.NeighboursFlushed
			err := client().Delete(cmd.Context(), path, &flushed)
			return flushed.Neighbours, err
		}))
	return cmd
}

func newARPLs() *cobra.Command {
	return newStationsLs("arp", "List the ARP tables, as fairlead show arp", "/v1/arp", arpTable)
}

func newARPAdd() *cobra.Command {
	var req api.NeighbourRequest
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] ADDRESS MAC CONTAINER",
		Short: "Say which MAC address, behind which container, has an address",
		Long: `Say which MAC address, behind which container, has an IPv4 address of the network,
in the words of arp -s. The gateway does not ask for it then.`,
		Example: `  fairlead arp add 172.17.0.9 02:00:00:00:00:07 web
  fairlead arp add --network lab 10.1.0.9 02:00:00:00:00:07 web`,
		Args: exactly(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.IP, req.MAC, req.Container = args[0], args[1], args[2]
			if _, err := api.ParseNeighbour(req.IP); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			if _, err := api.ParseStation(req.MAC); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			return client().Post(cmd.Context(), "/v1/arp", req, nil)
		},
	}
	cmd.Flags().StringVar(&req.Network, "network", "default", "`NETWORK` the container is on")
	return cmd
}

func newARPRm() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] ADDRESS...",
		Short:   "Forget addresses, static or learned",
		Example: "  fairlead arp rm 172.17.0.9\n  fairlead arp rm --network lab 10.1.0.9",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return forEach(args, func(address string) error {
				return client().Delete(cmd.Context(), "/v1/arp/"+url.PathEscape(address)+ofNetwork(network), nil)
			})
		},
	}
	cmd.Flags().StringVar(&network, "network", "default", "`NETWORK` whose gateway it is")
	return cmd
}
