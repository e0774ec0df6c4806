package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
)

const plugHelp = `Or make an interface of this machine a port, as a switch has an uplink port: with
if:NAME it stays yours, and containers become stations of the LAN behind it; with
veth:NAME it has to be one end of a veth pair, which moves to where nobody but the
switch hears it and goes with the port. It takes the right to open packet sockets,
and for veth: root.`

// isPlug reports whether a target is an interface of this machine.
func isPlug(s string) bool {
	kind, name, _ := strings.Cut(s, ":")
	return (kind == api.ForeignInterface || kind == api.ForeignVeth) && name != ""
}

// connectPlug makes an interface of this machine a port.
func (o *connectOptions) connectPlug(cmd *cobra.Command, target string) error {
	if o.wait != 0 {
		return wrongCall(cmd, "--wait waits for a namespace, and %s is none", target)
	}
	ctx := cmd.Context()
	c, err := ensure(ctx)
	if err != nil {
		return err
	}
	o.IP = o.ip
	var created api.Created
	if err := c.Post(ctx, "/v1/containers", api.CreateRequest{
		Name: o.name, Foreign: target, RateIn: o.rates.in, RateOut: o.rates.out, Networks: []api.EndpointRequest{o.EndpointRequest},
	}, &created); err != nil {
		return err
	}
	if err := plug(ctx, c, &created, target); err != nil {
		giveBack(created.ID)
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), created.Name)
	return nil
}

// plug opens the interface and hands it to the node.
func plug(ctx context.Context, c *api.Client, created *api.Created, target string) error {
	open := box.OpenInterface
	kind, name, _ := strings.Cut(target, ":")
	if kind == api.ForeignVeth {
		open = box.TakeVeth
	}
	// Before it is taken: what is refused stays as it is. That there is none open says.
	if i, err := net.InterfaceByName(name); err == nil && created.Link != nil && created.Link.MTU > i.MTU {
		return fmt.Errorf("%s takes %d bytes at most, and the network %d: make one for it, fairlead network create --opt mtu=%[2]d …", target, i.MTU, created.Link.MTU)
	}
	u, err := open(name)
	if err != nil {
		return err
	}
	defer u.Close()
	err = handOver(ctx, c, created, api.Attach{
		Descriptors: []string{"tap"}, Interface: u.Name, Index: u.Index,
	}, []int{u.FD})
	if err != nil {
		return errors.Join(err, u.GiveBack())
	}
	return nil
}
