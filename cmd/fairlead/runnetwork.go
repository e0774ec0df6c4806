package main

import (
	"errors"
	"maps"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// networkHelp is what --network of run takes.
const networkHelp = `--network may be repeated, and its long form says how the container is connected
to each: name=NETWORK, and behind it, each after a comma,
  ip=ADDRESS           or dhcp: it is asked for on the network
  mac-address=ADDRESS
  alias=NAME           a further name there (repeatable)
  link=NAME:ALIAS      what this container calls another one there (repeatable)
  ifname=NAME          of the interface, instead of eth0, eth1 and so on
  gw-priority=N        the network with the highest has the default route; of
                       equal ones the first by name
  route=SUBNET@ROUTER  a further route (repeatable)
  driver-opt=KEY=VALUE an option of the link (repeatable)
--ip, --mac and --network-alias are for the first network.`

// readNetworks reads --network, and what is for the first one.
func (o *runOptions) readNetworks(cmd *cobra.Command) error {
	if len(o.networks) == 0 {
		o.networks = []string{defaultNetwork}
	}
	var list []api.EndpointRequest
	for _, arg := range o.networks {
		if arg == "" {
			return wrongCall(cmd, "no name set for network")
		}
		if arg == "container:" {
			return wrongCall(cmd, "--network %q: invalid container format container:<name|id>", arg)
		}
		e, err := api.ParseEndpoint(arg)
		if err != nil {
			return wrongCall(cmd, "--network: %v", err)
		}
		list = append(list, e)
	}
	if err := o.completeFirst(&list[0]); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	// A mode, or one network without more to say, needs no list.
	if e := list[0]; len(list) == 1 && (api.EndpointRequest{Network: e.Network, IP: e.IP, MAC: e.MAC}).String() == e.String() {
		o.network, o.ip, o.mac = e.Network, e.IP, e.MAC
		return nil
	}
	for i := range list {
		if e := &list[i]; e.Options != nil && o.options != nil {
			all := maps.Clone(o.options)
			maps.Copy(all, e.Options)
			e.Options = all
		}
	}
	o.endpoints, o.network, o.ip, o.mac = list, "", "", ""
	return nil
}

// completeFirst adds to the first network what flags of their own say of it, and
// refuses in Docker's words what both say.
func (o *runOptions) completeFirst(e *api.EndpointRequest) error {
	if o.ip != "" {
		if e.IP != "" || e.DHCP {
			return errors.New("conflicting options: cannot specify both --ip and per-network IPv4 address")
		}
		if o.ip == "dhcp" {
			e.DHCP = true
		} else {
			e.IP = o.ip // the node's to judge
		}
	}
	if o.mac != "" {
		if e.MAC != "" {
			return errors.New("conflicting options: cannot specify both --mac-address and per-network MAC address")
		}
		e.MAC = o.mac
	}
	if len(o.aliases) > 0 {
		if len(e.Aliases) > 0 {
			return errors.New("conflicting options: cannot specify both --network-alias and per-network alias")
		}
		e.Aliases = o.aliases
	}
	return nil
}
