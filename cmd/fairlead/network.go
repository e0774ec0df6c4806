package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node/api"
	"fairlead/node/box"
)

func newNetwork() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "network COMMAND",
		Short: "Make networks, lead them outside, and connect containers and namespaces",
		Example: `  fairlead network create --subnet 10.1.0.0/16 lab
  fairlead network ls
  fairlead network connect --alias db lab web
  fairlead network connect default netns:/run/netns/blue
  fairlead network set default --uplink tap:up0,ip=192.0.2.2/24,gw=192.0.2.1
  fairlead network disconnect lab web
  fairlead network rm lab`,
	})
	cmd.AddCommand(newNetworkCreate(), newNetworkLs(), newNetworkInspect(), newNetworkSet(), newNetworkRm(), newNetworkPrune(), newConnect(), newDisconnect(), newNetworkWait())
	return cmd
}

// connectOptions is what `network connect` was told.
type connectOptions struct {
	api.EndpointRequest
	name, ip string
	opts     []string
	rates    rateFlags
	wait     time.Duration
}

func newConnect() *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER|netns:PATH|pid:N|if:NAME|veth:NAME",
		Short: "Connect a container, or a namespace that somebody else made, to a network",
		Long: `Connect a container that runs to a further network. It gets an interface there,
is known there by its name and by --alias, and its default route is elected anew:
that by the network with the highest --gw-priority, of equal ones the first by
name.

Or hang an interface into a network namespace that somebody else made: the one a
path leads to, or that of a process. You must have the rights of root in the
user namespace that owns it. The gateway becomes the default route unless there
is one; with --ip ADDRESS/LENGTH@GATEWAY that gateway does in any case. The
interface leaves the network when the namespace ends, or by network disconnect.
--wait waits until there is such a namespace.

` + plugHelp,
		Example: `  fairlead network connect lab web
  fairlead network connect --ip 10.1.5.9 --alias db --alias sql lab web
  fairlead network connect --ip dhcp --ifname eth1 lab web
  fairlead network connect --route 10.7.0.0/16@10.1.5.2 lab web
  fairlead network connect default netns:/run/netns/blue
  fairlead network connect --name db --ip 172.17.0.9/16@172.17.0.2 default pid:4711
  fairlead network connect --wait 10s --ifname eth1 default netns:/run/netns/blue
  fairlead network connect lan if:eth1`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Network = args[0]
			var err error
			if o.Options, err = linkOptions(o.opts); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			for _, r := range o.Routes {
				if _, _, err := api.ParseRoute(r); err != nil {
					return wrongCall(cmd, "%v", err)
				}
			}
			if err := o.rates.check(); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			at, err := parseAt(o.ip)
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			if isPlug(args[1]) {
				return o.connectPlug(cmd, args[1])
			}
			if !isForeign(args[1]) {
				return o.connect(cmd, args[1], at)
			}
			target, err := parseTarget(args[1])
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			return o.connectForeign(cmd, args[1], target, at)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "`NAME` of the container a namespace becomes (default: made up)")
	f.StringVar(&o.ip, "ip", "", "IPv4 `ADDRESS` (default: the lowest free one), or dhcp; of a namespace also ADDRESS/LENGTH@GATEWAY")
	f.StringVar(&o.MAC, "mac", "", "MAC `ADDRESS` (default: 02:42 and the IPv4 address); also --mac-address")
	f.StringVar(&o.Interface, "ifname", "", "`NAME` of the interface inside (default: the first free one of eth0, eth1, …; of a namespace eth0)")
	f.StringArrayVar(&o.Aliases, "alias", nil, "A further `NAME` of the container on this network (repeatable)")
	f.StringArrayVar(&o.Links, "link", nil, "Call another container something else here, `NAME:ALIAS` (repeatable)")
	f.IntVar(&o.Priority, "gw-priority", 0, "The network with the highest `NUMBER` has the default route")
	f.StringArrayVar(&o.Routes, "route", nil, "A further route, `SUBNET@ROUTER` (repeatable)")
	f.StringArrayVar(&o.opts, "opt", nil, "Option of the link, `KEY=VALUE`: offload=off, isolated=on, link=veth, vlan=10, trunk=10,20-29; also --driver-opt")
	o.rates.define(f)
	f.DurationVar(&o.wait, "wait", 0, "Wait as long as `TIME` until the namespace is there")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name { // Docker's other spellings
		case "mac-address":
			name = "mac"
		case "driver-opt":
			name = "opt"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

// An at is an address as pipework has it: ADDRESS, ADDRESS/LENGTH,
// ADDRESS/LENGTH@GATEWAY or dhcp.
type at struct {
	addr    netip.Addr // the zero Addr is any
	bits    int        // 0 is that of the network
	gateway netip.Addr // the zero Addr is the network's
	dhcp    bool
}

func parseAt(s string) (a at, err error) {
	if s == "" || s == "dhcp" {
		return at{dhcp: s != ""}, nil
	}
	wrong := fmt.Errorf("invalid address %q: it is ADDRESS, ADDRESS/LENGTH, ADDRESS/LENGTH@GATEWAY or dhcp", s)
	own, gateway, by := strings.Cut(s, "@")
	if by {
		if a.gateway, err = netip.ParseAddr(gateway); err != nil || !a.gateway.Is4() {
			return at{}, wrong
		}
	}
	if !strings.Contains(own, "/") && !by {
		if a.addr, err = netip.ParseAddr(own); err != nil || !a.addr.Is4() {
			return at{}, fmt.Errorf("invalid IPv4 address: %s", s)
		}
		return a, nil
	}
	p, err := netip.ParsePrefix(own)
	if err != nil || !p.Addr().Is4() || p.Bits() == 0 {
		return at{}, wrong
	}
	a.addr, a.bits = p.Addr(), p.Bits()
	if by && (!p.Masked().Contains(a.gateway) || a.gateway == a.addr) {
		return at{}, fmt.Errorf("invalid address %q: %s is no other station of %s", s, a.gateway, p.Masked())
	}
	return a, nil
}

// connect connects a container of ours.
func (o *connectOptions) connect(cmd *cobra.Command, container string, a at) error {
	for _, x := range []struct {
		flag  string
		given bool
	}{{"--name", o.name != ""}, {"--wait", o.wait != 0}, {"ADDRESS/LENGTH@GATEWAY", a.bits != 0}} {
		if x.given {
			return wrongCall(cmd, "%s is for netns:PATH and pid:N only, and %q is neither", x.flag, container)
		}
	}
	if o.rates != (rateFlags{}) {
		return wrongCall(cmd, "rates are of a container, and not of a network: `fairlead update --rate-in RATE --rate-out RATE %s`", container)
	}
	if o.DHCP = a.dhcp; a.addr.IsValid() {
		o.IP = a.addr.String()
	}
	req := api.ConnectRequest{Container: container, Endpoint: o.EndpointRequest}
	return client().Post(cmd.Context(), networkPath(o.Network)+"/connect", req, nil)
}

// isForeign reports whether a target is a namespace somebody else made: no name of
// a container has a colon.
func isForeign(s string) bool { return strings.Contains(s, ":") }

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
	return box.Target{}, fmt.Errorf("%q is neither the name of a container, nor netns:PATH, pid:N, if:NAME or veth:NAME", s)
}

// connectForeign hangs an interface into a namespace somebody else made.
func (o *connectOptions) connectForeign(cmd *cobra.Command, target string, in box.Target, a at) error {
	if len(o.Links) > 0 || o.Priority != 0 {
		return wrongCall(cmd, "--link and --gw-priority are for containers of ours, and %s is somebody else's", target)
	}
	ctx := cmd.Context()
	if err := awaitTarget(ctx, in, o.wait); err != nil {
		return fmt.Errorf("%s: %s: %w", short(cmd), target, err)
	}
	c, err := ensure(ctx)
	if err != nil {
		return err
	}
	if a.addr.IsValid() {
		o.IP = a.addr.String()
	}
	o.DHCP = a.dhcp
	var created api.Created
	if err := c.Post(ctx, "/v1/containers", api.CreateRequest{
		Name: o.name, Foreign: target, RateIn: o.rates.in, RateOut: o.rates.out, Networks: []api.EndpointRequest{o.EndpointRequest},
	}, &created); err != nil {
		return err
	}
	err = o.hang(ctx, c, cmd.ErrOrStderr(), &created, in, a)
	if err != nil {
		giveBack(created.ID)
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), created.Name)
	return nil
}

// hang makes the interface and hands its other end to the node.
func (o *connectOptions) hang(ctx context.Context, c *api.Client, stderr io.Writer, created *api.Created, in box.Target, a at) error {
	link, err := boxInterface(created.Link)
	if err != nil {
		return err
	}
	if a.bits != 0 {
		link.Addresses = []netip.Prefix{netip.PrefixFrom(a.addr, a.bits)}
	}
	if a.gateway.IsValid() {
		link.Gateways, link.ReplaceDefault = []netip.Addr{a.gateway}, true
	}
	foreign, err := box.AttachForeign(in, link)
	if err != nil {
		return err
	}
	defer foreign.Close()
	sayWarnings(stderr, foreign.Warnings)
	return handOver(ctx, c, created, api.Attach{
		Descriptors: []string{"tap"}, Pid: in.PID, Interface: link.Name, Index: foreign.Index, Netns: foreign.NetNS.Ino, PeerNetns: foreign.PeerNetNS,
	}, []int{foreign.TAP})
}

// awaitTarget waits until a namespace is there.
func awaitTarget(ctx context.Context, in box.Target, within time.Duration) error {
	if within <= 0 {
		return nil // who makes the interface says what is missing
	}
	path := pathOf(in)
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("there is no such namespace after %v", within))
	defer cancel()
	for {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pathOf is where a namespace is.
func pathOf(in box.Target) string {
	if in.Path != "" {
		return in.Path
	}
	return filepath.Join("/proc", strconv.Itoa(in.PID), "ns/net")
}

// inodeOf is by what a namespace is known whatever it is called, 0 where nobody
// says: it has gone, or is not ours to look at.
func inodeOf(in box.Target) uint64 {
	info, err := os.Stat(pathOf(in))
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func newDisconnect() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect [OPTIONS] NETWORK CONTAINER|TARGET",
		Short: "Take a container, or what network connect hung in, off a network",
		Long: `Take a container off a network, or what network connect hung in: by the name it
printed, or by the same words, netns:PATH, pid:N, if:NAME or veth:NAME.`,
		Example: `  fairlead network disconnect lab web
  fairlead network disconnect default blue
  fairlead network disconnect default netns:/run/netns/blue
  fairlead network disconnect lan if:eth1`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.DisconnectRequest{Container: args[1], Force: force}
			if isForeign(args[1]) && !isPlug(args[1]) {
				in, err := parseTarget(args[1])
				if err != nil {
					return wrongCall(cmd, "%v", err)
				}
				req.Netns = inodeOf(in)
			}
			return about(args[1], client().Post(cmd.Context(), networkPath(args[0])+"/disconnect", req, nil))
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also when the container does not answer")
	return cmd
}
