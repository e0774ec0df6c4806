package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/cmd/fairlead/labfile"
	"fairlead/node/api"
	"fairlead/node/box"
)

func newNetworkSet() *cobra.Command {
	var uplinks []string
	var network networkFlags
	var internal bool
	var opts, labelled []string
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
so in ` + "`fairlead network create --help`" + `. --label says all labels it shall have.

What cannot be done changes nothing, also not what was asked for besides.`,
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
			x := networkSettings{network: args[0], hostLink: hostLink}
			var err error
			if x.change, err = network.change(cmd, &internal, opts); err != nil {
				return err
			}
			if len(uplinks) > 0 {
				if x.ways, err = parseUplinks(uplinks); err != nil {
					return wrongCall(cmd, "%v", err)
				}
			}
			if cmd.Flags().Changed("label") {
				if x.labels, err = labelsOrNone(labelled); err != nil {
					return wrongCall(cmd, "%v", err)
				}
			}
			if x.change == nil && x.ways == nil && x.labels == nil && x.hostLink == "" {
				return wrongCall(cmd, "there is nothing to set: say --uplink, --egress, --host-loopback, --host-link, --internal, --opt or --label")
			}
			return x.apply(cmd)
		},
	}
	network.define(cmd.Flags())
	defineHostLink(cmd.Flags(), &hostLink)
	cmd.Flags().BoolVar(&internal, "internal", false, "Take its ways out")
	cmd.Flags().StringArrayVarP(&opts, "opt", "o", nil, "Option of the network, `KEY=VALUE` (repeatable): icc, join, masquerade, routed, dhcp, dhcp-…, domain")
	cmd.Flags().StringArrayVar(&labelled, "label", nil, "A label, `KEY=VALUE` (repeatable); these are all it has, and one that is empty is none")
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

// networkSettings are what network set was told.
type networkSettings struct {
	network  string
	change   *api.NetworkRequest // nil is nothing
	labels   map[string]string   // nil is as they are
	ways     *waysOut            // nil is as they are
	hostLink string              // empty is as it is
}

// apply does all that was asked for, or nothing.
func (x *networkSettings) apply(cmd *cobra.Command) error {
	var opened map[string]*box.Uplink
	if x.ways != nil {
		var err error
		if opened, err = openWithRights(x.ways.links); err != nil {
			return err
		}
		defer closeUplinks(opened)
	}
	ctx := cmd.Context()
	start := ensureLeft // else there is nothing to take away, without a node
	if x.links() || x.ways != nil && !x.ways.none {
		start = ensure
	}
	c, err := start(ctx)
	if err != nil {
		return err
	}
	if err := x.keepLabels(ctx, c); err != nil {
		return err
	}
	lost, err := x.carryOut(ctx, c, cmd.ErrOrStderr(), opened)
	if err != nil || x.ways == nil {
		return err
	}
	sayLost(cmd.ErrOrStderr(), lost)
	return printUplinks(cmd, c, x.network)
}

// links reports whether this host is to be linked.
func (x *networkSettings) links() bool { return x.hostLink != "" && x.hostLink != "off" }

// carryOut asks first whether the node would change the network so, and undoes the
// host's link when the uplinks cannot be had; those undo themselves.
func (x *networkSettings) carryOut(ctx context.Context, c *api.Client, stderr io.Writer, opened map[string]*box.Uplink) (lost []api.OwnAddress, err error) {
	if x.change != nil && (x.ways != nil || x.hostLink != "") {
		asked := *x.change
		asked.Check = true
		if err := setNetwork(ctx, c, stderr, x.network, &asked); err != nil {
			return nil, err
		}
	}
	if x.links() {
		var made bool
		if made, err = linkHost(ctx, c, x.network, x.hostLink); err != nil {
			return nil, err
		}
		if made {
			defer func() {
				if err != nil {
					err = errors.Join(err, setHostLink(context.WithoutCancel(ctx), c, x.network, "off"))
				}
			}()
		}
	}
	if x.ways != nil {
		if lost, err = setUplinks(ctx, c, x.network, x.ways, opened, true); err != nil {
			return nil, err
		}
	}
	if x.change != nil {
		if err := setNetwork(ctx, c, stderr, x.network, x.change); err != nil {
			return nil, err
		}
	}
	if x.hostLink == "off" {
		return lost, setHostLink(ctx, c, x.network, "off")
	}
	return lost, nil
}

// keepLabels adds the labels to the change, and those by which a lab knows its
// network: they are no user's to take away.
func (x *networkSettings) keepLabels(ctx context.Context, c *api.Client) error {
	if x.labels == nil {
		return nil
	}
	var have api.NetworkInspect
	if err := c.Get(ctx, networkPath(x.network), &have); err != nil {
		return err
	}
	for key, value := range have.Labels {
		if strings.HasPrefix(key, labfile.LabelPrefix) {
			x.labels[key] = value
		}
	}
	if x.change == nil {
		x.change = &api.NetworkRequest{}
	}
	x.change.Labels = x.labels
	return nil
}

// labelsOrNone is labels, or none at all of one that is empty.
func labelsOrNone(args []string) (map[string]string, error) {
	if slices.Equal(args, []string{""}) {
		return map[string]string{}, nil
	}
	return labels(args)
}

// setNetwork changes a network while it is used.
func setNetwork(ctx context.Context, c *api.Client, stderr io.Writer, name string, change *api.NetworkRequest) error {
	var changed api.NetworkChanged
	if err := c.Post(ctx, networkPath(name), change, &changed); err != nil {
		return err
	}
	sayWarnings(stderr, changed.Warnings)
	return nil
}

// sayWarnings says what is less than was asked for.
func sayWarnings(stderr io.Writer, list []string) {
	for _, w := range list {
		fmt.Fprintln(stderr, "fairlead: warning: "+w)
	}
}
