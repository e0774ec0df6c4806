package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
)

func newNetwork() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "network COMMAND",
		Short: "Lead networks outside; connect namespaces that others made",
		Example: `  fairlead network ls
  fairlead network set default --uplink tap:up0,ip=192.0.2.2/24,gw=192.0.2.1
  fairlead network connect default netns:/run/netns/blue
  fairlead network disconnect default blue`,
	})
	cmd.AddCommand(newNetworkLs(), newNetworkSet(), newConnect(), newDisconnect())
	return cmd
}

// connectOptions is what `network connect` was told.
type connectOptions struct {
	network, name, ip, mac, iface string
	opts                          []string
	rates                         rateFlags
	target                        box.Target
}

func newConnect() *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK netns:PATH|pid:N",
		Short: "Hang an interface into a network namespace that somebody else made",
		Long: `Hang an interface into a network namespace that somebody else made: the one a
path leads to, or that of a process. You must have the rights of root in the
user namespace that owns it. The gateway becomes the default route unless there
is one. The interface leaves the network when the namespace ends, or by network
disconnect.`,
		Example: `  fairlead network connect default netns:/run/netns/blue
  fairlead network connect --name db --ip 172.17.0.9 default pid:4711
  fairlead network connect --ifname eth1 default netns:/run/netns/blue`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.target, err = parseTarget(args[1]); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			o.network = args[0]
			return o.connect(cmd, args[1])
		},
	}
	f := cmd.Flags()
	o.rates.define(f)
	f.StringVar(&o.name, "name", "", "`NAME` of the container this becomes (default: made up)")
	f.StringVar(&o.ip, "ip", "", "IPv4 `ADDRESS` (default: the lowest free one)")
	f.StringVar(&o.mac, "mac", "", "MAC `ADDRESS` (default: 02:42 and the IPv4 address)")
	f.StringVar(&o.iface, "ifname", "", "`NAME` of the interface inside (default eth0)")
	f.StringArrayVar(&o.opts, "opt", nil, "Option of the link, `KEY=VALUE`: offload=off, isolated=on")
	return cmd
}

// parseTarget reads netns:PATH or pid:N.
func parseTarget(s string) (box.Target, error) {
	kind, value, _ := strings.Cut(s, ":")
	switch kind {
	case "netns":
		if value != "" {
			return box.Target{Path: value}, nil
		}
	case "pid":
		if pid, err := strconv.Atoi(value); err == nil && pid > 0 {
			return box.Target{PID: pid}, nil
		}
	}
	return box.Target{}, fmt.Errorf("%q is neither netns:PATH nor pid:N; a container joins when it is made, `fairlead run`", s)
}

func (o *connectOptions) connect(cmd *cobra.Command, target string) error {
	if err := o.rates.check(); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	options, err := linkOptions(o.opts)
	if err != nil {
		return wrongCall(cmd, "%v", err)
	}
	ctx := cmd.Context()
	c, err := ensure(ctx)
	if err != nil {
		return err
	}
	var created api.Created
	if err := c.Post(ctx, "/v1/containers", api.CreateRequest{
		RateIn: o.rates.in, RateOut: o.rates.out,
		Name: o.name, Network: o.network, IP: o.ip, MAC: o.mac, Foreign: target, Options: options,
	}, &created); err != nil {
		return err
	}
	link, err := boxInterface(created.Link)
	if err != nil {
		giveBack(c, created.ID)
		return err
	}
	if o.iface != "" {
		link.Name = o.iface
	}
	foreign, err := box.AttachForeign(o.target, link)
	if err != nil {
		giveBack(c, created.ID)
		return err
	}
	defer foreign.Close()
	err = c.Hand(ctx, containerPath(created.ID, "attach"), api.Attach{
		Descriptors: []string{"tap"}, Pid: o.target.PID, Interface: link.Name, Index: foreign.Index, Netns: foreign.NetNS.Ino, PeerNetns: foreign.PeerNetNS,
	}, []int{foreign.TAP})
	if err != nil {
		giveBack(c, created.ID)
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), created.Name)
	return nil
}

func newDisconnect() *cobra.Command {
	return &cobra.Command{
		Use:     "disconnect NETWORK NAME",
		Short:   "Take away what network connect hung in",
		Example: "  fairlead network disconnect default blue",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return about(args[1], disconnect(cmd.Context(), args[0], args[1]))
		},
	}
}

func disconnect(ctx context.Context, network, ref string) error {
	c, err := find(ctx, ref)
	if err != nil {
		return err
	}
	// bridge is Docker's word for the default network, and the node's other one.
	if _, connected := c.NetworkSettings.Networks[network]; !connected && network != "bridge" {
		return fmt.Errorf("network disconnect: container %s is not connected to network %s; `fairlead ps` shows what is where",
			strings.TrimPrefix(c.Name, "/"), network)
	}
	return client().Delete(ctx, containerPath(c.ID), nil)
}
