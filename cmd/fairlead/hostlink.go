package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/pflag"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
)

// hostLinkHelp is what --host-link takes.
const hostLinkHelp = `--host-link gives this machine an interface on the network, with the gateway's
address and MAC and a route to the containers: it reaches them by their addresses,
and they reach what listens at that address here, unless the gateway answers
there itself (ARP, ping, DNS, DHCP, published ports). It takes CAP_NET_ADMIN, and
goes with the network. --host-link=NAME uses a TAP that is yours and takes no
right, --host-link=off removes it. Who has neither asks from inside:
  fairlead run -- curl 172.17.0.3`

// defineHostLink defines --host-link, whose value may be missing.
func defineHostLink(f *pflag.FlagSet, value *string) {
	f.StringVar(value, "host-link", "", "This machine's own link: on, off, or a TAP of yours, `NAME`")
	f.Lookup("host-link").NoOptDefVal = "on"
}

// setHostLink has a network have a link to this host, or with "off" not. Any other
// value but "on" is the name of a TAP.
func setHostLink(ctx context.Context, c *api.Client, network, value string) error {
	if value != "off" {
		_, err := linkHost(ctx, c, network, value)
		return err
	}
	of, err := networkOf(ctx, c, network)
	if err != nil {
		return err
	}
	return c.Delete(ctx, networkPath(of.ID)+"/host-link", nil)
}

// networkOf is a network, whatever name it was called by.
func networkOf(ctx context.Context, c *api.Client, network string) (of api.NetworkInspect, err error) {
	err = c.Get(ctx, networkPath(cmp.Or(network, defaultNetwork)), &of)
	return of, err
}

// linkHost links this host to a network. made is false of a link that was there.
func linkHost(ctx context.Context, c *api.Client, network, value string) (made bool, err error) {
	of, err := networkOf(ctx, c, network)
	if err != nil {
		return false, err
	}
	var switches []api.Switch
	if err := c.Get(ctx, "/v1/switches", &switches); err != nil {
		return false, err
	}
	i := slices.IndexFunc(switches, func(s api.Switch) bool { return s.Network == of.Name })
	if i < 0 {
		return false, fmt.Errorf("network %s has just gone", of.Name)
	}
	want, err := wantedHostLink(&switches[i], value)
	if err != nil {
		return false, err
	}
	if have := switches[i].HostLink; have != "" && (want.Name == "" || want.Name == have) {
		return false, nil
	}
	if err := takesHostLink(&want); err != nil {
		return false, err
	}
	opened, err := box.OpenHostLink(want)
	if err != nil {
		return false, err
	}
	defer opened.Close()
	err = c.Hand(ctx, networkPath(of.ID)+"/host-link", api.HostLinkRequest{Interface: opened.Name, Index: opened.Index}, []int{opened.FD})
	return err == nil, err
}

// wantedHostLink is what the interface has to be.
func wantedHostLink(s *api.Switch, value string) (h box.HostLink, err error) {
	h = box.HostLink{Network: s.Network, MTU: s.MTU}
	if value != "on" {
		h.Name = value
	}
	subnet, err := netip.ParsePrefix(s.Subnet)
	if err != nil {
		return h, err
	}
	gateway, err := netip.ParseAddr(s.Gateway)
	if err != nil {
		return h, err
	}
	h.Addr, h.MAC = netip.PrefixFrom(gateway, subnet.Bits()), packet.MACFromIPv4(gateway)
	return h, nil
}

// takesHostLink refuses an interface where this machine is on the subnet already:
// which of the two it would use is anybody's guess.
func takesHostLink(h *box.HostLink) error {
	taken, err := box.HostRoutes()
	if err != nil {
		return err
	}
	for _, r := range taken {
		if r.Dev != h.Name && conflicts(h.Addr.Masked(), r.Prefix) {
			return fmt.Errorf("host link of network %s: this machine has %s already, on %s; another subnet: `fairlead up --bip %s`",
				h.Network, r.Prefix, r.Dev, freeSubnet(taken))
		}
	}
	return nil
}
