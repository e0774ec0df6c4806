package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

func newNetworkSet() *cobra.Command {
	var uplinks []string
	var network networkFlags
	var internal bool
	var opts []string
	var hostLink string
	cmd := &cobra.Command{
		Use:   "set [OPTIONS] NETWORK",
		Short: "Change a network while it is used",
		Long: `Change a network while it is used: its ways out, who may take them, and how its
containers reach one another.

--uplink says all uplinks it shall have, "none" that it shall have none, and
"host" this machine's sockets, which it has to begin with. What is there already
stays, with its connections; an uplink of which anything changes begins anew. It
takes effect at once, for containers that run too: what is published stays so,
and an address of a container's own does wherever addr= has it again. A node
stays as long as it has an uplink that is a link.

` + uplinkHelp + `

` + hostLinkHelp + `

` + egressHelp + `
Connections that have begun go on.

--host-loopback has containers reach services of this machine's own loopback, at
the gateway's address and as host.fairlead.internal and host.docker.internal;
--host-loopback=false takes that back.

--internal takes the network its ways out and its containers their default route;
--internal=false gives them back. Of the options those can change that are marked
so in ` + "`fairlead network create --help`" + `.`,
		Example: `  fairlead network set default --uplink tap:up0,ip=192.0.2.2/24,gw=192.0.2.1
  fairlead network set default --uplink if:eth0,dhcp,mtu=1400
  fairlead network set default --uplink none
  fairlead network set default --uplink host
  fairlead network set default --egress internet
  fairlead network set default --egress allow:./hosts --host-loopback
  sudo fairlead network set --host-link default
  fairlead network set --internal lab
  fairlead network set -o icc=off lab`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := network.change(cmd, &internal, opts)
			if err != nil {
				return err
			}
			if hostLink != "" {
				if err := setHostLinkSoon(cmd.Context(), args[0], hostLink); err != nil {
					return err
				}
			}
			if len(uplinks) == 0 {
				if change == nil && hostLink != "" {
					return nil
				}
				if change == nil {
					return wrongCall(cmd, "there is nothing to set: say --uplink, --egress, --host-loopback, --host-link, --internal or --opt")
				}
				return setNetwork(cmd, args[0], change)
			}
			ways, err := parseUplinks(uplinks)
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			opened, err := openWithRights(ways.links)
			if err != nil {
				return err
			}
			defer closeUplinks(opened)
			ctx := cmd.Context()
			c := client()
			if !ways.none { // else without a node there is nothing to remove
				if c, err = ensure(ctx); err != nil {
					return err
				}
			}
			lost, err := setUplinks(ctx, c, args[0], ways, opened, true)
			if err != nil {
				return err
			}
			sayLost(cmd.ErrOrStderr(), lost)
			if change != nil {
				if err := setNetwork(cmd, args[0], change); err != nil {
					return err
				}
			}
			return printUplinks(cmd, c, args[0])
		},
	}
	network.define(cmd.Flags())
	defineHostLink(cmd.Flags(), &hostLink)
	cmd.Flags().BoolVar(&internal, "internal", false, "Take its ways out")
	cmd.Flags().StringArrayVarP(&opts, "opt", "o", nil, "Option of the network, `KEY=VALUE` (repeatable): icc, join, masquerade, routed, dhcp, dhcp-…, domain")
	cmd.Flags().StringArrayVar(&uplinks, "uplink", nil, "A way out, `SPEC`, host, or none (repeatable)")
	return cmd
}

// change is request with what only network set has.
func (o *networkFlags) change(cmd *cobra.Command, internal *bool, opts []string) (*api.NetworkRequest, error) {
	r, err := o.request(cmd)
	if err != nil {
		return nil, err
	}
	options, err := pairs("--opt", opts)
	if err != nil {
		return nil, wrongCall(cmd, "%v", err)
	}
	if !cmd.Flags().Changed("internal") {
		internal = nil
	}
	if r == nil && internal == nil && options == nil {
		return nil, nil
	}
	if r == nil {
		r = &api.NetworkRequest{}
	}
	r.Internal, r.Options = internal, options
	return r, nil
}

// setNetwork changes a network while it is used.
func setNetwork(cmd *cobra.Command, name string, change *api.NetworkRequest) error {
	var changed api.NetworkChanged
	if err := client().Post(cmd.Context(), networkPath(name), change, &changed); err != nil {
		return err
	}
	sayWarnings(cmd.ErrOrStderr(), changed.Warnings)
	return nil
}

// sayWarnings says what is less than was asked for.
func sayWarnings(stderr io.Writer, list []string) {
	for _, w := range list {
		fmt.Fprintln(stderr, "fairlead: warning: "+w)
	}
}
