package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead/cmd/fairlead/labfile"
	"fairlead/node/api"
)

// networkOptionsHelp is what --opt of a network takes.
const networkOptionsHelp = `Options, KEY=VALUE; those marked * can be changed later by network set:
  mtu=N             largest packet, 1500 unless it says otherwise
  icc=off         * its containers do not reach one another, but for links and rules
  masquerade=off  * what leaves keeps the containers' addresses: the network outside
                    has to know a way back; host sockets cannot do that
  join=off        * packets of a flow get to containers as they came, one by one,
                    instead of small ones joined to segments of a large one
  routed=on       * it and others that are routed reach one another directly
  hub=on            every port gets a copy of every frame
  guard=off         containers may send from any address, as routers do
  loop-guard=off    ports that are joined behind the switch's back stay open
  offload=off       links are textbook wires: plain frames, nothing offloaded
  link=veth         links are pairs of interfaces, instead of TAPs
  ageing=TIME       until a MAC address is forgotten, 300s unless it says otherwise
  flood-limit=N     copies of flooded frames a second and port
  dhcp=off        * lend no addresses; on: also where an interface is a port;
                    auto: neither, as without a word
  dhcp-lease=TIME * how long for, 1h unless it says otherwise; or infinite
  dhcp-range=FIRST,LAST
                  * those that are lent to stations which are no containers
  dhcp-host=MAC|id:ID,ADDRESS[,NAME]
                  * reserve one; several with ; between
  dhcp-route=SUBNET@ROUTER
                  * a route stations are told; several with ; between
  domain=NAME     * of the stations, the network's own unless it says otherwise
An empty value takes any of the last five back.
Docker's com.docker.network.bridge.enable_icc, com.docker.network.driver.mtu and
com.docker.network.bridge.enable_ip_masquerade mean the same.`

// createOptions is what `network create` was told.
type createOptions struct {
	driver, gateway, ipRange, bip string
	hostLink                      string
	subnets, aux, opts, labels    []string
	uplinks                       []string
	internal                      bool
	accepted                      [3]bool // --attachable, --ipv4, --ipv6
	reach                         networkFlags
}

func newNetworkCreate() *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Make a network and print its id",
		Long: `Make a network: a switch and a router of its own. Containers on it know one
another by name, reach the world as those of the default network do, and reach
containers of other networks only by what these publish.

Without --subnet it gets the first of Docker's pools, 172.17.0.0/16 to
172.31.0.0/16 and then sixteen of 192.168.0.0/16, that is no other network's and
that this machine has no route into; without --gateway its first address.
--ip-range says where addresses of containers are taken from, --aux-address
keeps one from them. --bip says gateway and subnet in one.

An --internal network leads nowhere: no default route, no way out, and names of
its own containers only.

A network stays until network rm removes it, also when the node ends.

` + networkOptionsHelp + `

` + hostLinkHelp + `

` + uplinkHelp,
		Example: `  fairlead network create lab
  fairlead network create --subnet 10.1.0.0/16 --ip-range 10.1.5.0/24 lab
  fairlead network create --subnet 10.1.0.0/16 --aux-address router=10.1.0.2 lab
  fairlead network create --bip 10.2.0.254/24 -o mtu=1400 lab
  fairlead network create --internal --label stage=test backend
  fairlead network create -o icc=off lab
  fairlead network create --uplink tap:up0,ip=192.0.2.2/24,gw=192.0.2.1 lab`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := o.request(cmd, args[0])
			if err != nil {
				return err
			}
			return o.create(cmd, req)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.driver, "driver", "d", "bridge", "`DRIVER`: bridge is all there is")
	f.StringArrayVar(&o.subnets, "subnet", nil, "Its `SUBNET`, such as 172.30.0.0/16")
	f.StringVar(&o.gateway, "gateway", "", "`ADDRESS` of the gateway (default: the first one)")
	f.StringVar(&o.ipRange, "ip-range", "", "Take addresses of containers from this part of the `SUBNET`")
	f.StringArrayVar(&o.aux, "aux-address", nil, "Keep an address from containers, `NAME=ADDRESS` (repeatable)")
	f.StringVar(&o.bip, "bip", "", "Gateway and subnet in one, `ADDRESS/LENGTH`")
	f.BoolVar(&o.internal, "internal", false, "No way out and no default route")
	f.StringArrayVarP(&o.opts, "opt", "o", nil, "Option of the network, `KEY=VALUE` (repeatable)")
	f.StringArrayVar(&o.labels, "label", nil, "A label, `KEY=VALUE` (repeatable)")
	f.StringArrayVar(&o.uplinks, "uplink", nil, "A way out, `SPEC`, host, or none (repeatable)")
	f.BoolVar(&o.accepted[0], "attachable", false, "Accepted; containers can always join")
	f.BoolVar(&o.accepted[1], "ipv4", true, "Accepted; a network has IPv4 addresses")
	f.BoolVar(&o.accepted[2], "ipv6", false, "Refused: of IPv6 a network has link-local addresses only")
	o.reach.define(f)
	defineHostLink(f, &o.hostLink)
	return cmd
}

// request is what the node is asked for.
func (o *createOptions) request(cmd *cobra.Command, name string) (*api.NetworkCreate, error) {
	if len(o.subnets) > 1 {
		return nil, wrongCall(cmd, "a network has one subnet, and --subnet names %d", len(o.subnets))
	}
	if o.accepted[2] {
		return nil, wrongCall(cmd, "--ipv6: a network has IPv4 addresses, and of IPv6 link-local ones only")
	}
	if !o.accepted[1] {
		return nil, wrongCall(cmd, "--ipv4=false: IPv4 or IPv6 must be enabled, and a network here has IPv4 addresses")
	}
	req := &api.NetworkCreate{
		Name: name, Driver: o.driver, Gateway: o.gateway, IPRange: o.ipRange, Internal: o.internal,
	}
	if len(o.subnets) == 1 {
		req.Subnet = o.subnets[0]
	}
	if err := o.addBIP(req); err != nil {
		return nil, wrongCall(cmd, "%v", err)
	}
	var err error
	for _, x := range []struct {
		flag string
		args []string
		into *map[string]string
	}{{"--aux-address", o.aux, &req.AuxAddresses}, {"--opt", o.opts, &req.Options}} {
		if *x.into, err = pairs(x.flag, x.args); err != nil {
			return nil, wrongCall(cmd, "%v", err)
		}
	}
	if req.Labels, err = labels(o.labels); err != nil {
		return nil, wrongCall(cmd, "%v", err)
	}
	change, err := o.reach.request(cmd)
	if err != nil {
		return nil, err
	}
	if change != nil {
		req.Egress, req.HostLoopback = change.Egress, change.HostLoopback
	}
	return req, nil
}

// addBIP takes --bip apart.
func (o *createOptions) addBIP(req *api.NetworkCreate) error {
	if o.bip == "" {
		return nil
	}
	if req.Subnet != "" || req.Gateway != "" {
		return errors.New("--bip says gateway and subnet, so leave out --gateway and --subnet")
	}
	p, err := netip.ParsePrefix(o.bip)
	if err != nil {
		return fmt.Errorf("--bip %q is not an address with a length, such as 172.30.0.1/16", o.bip)
	}
	req.Subnet, req.Gateway = p.Masked().String(), p.Addr().String()
	return nil
}

// labels reads --label; Docker takes one without a value. Those of labs are not
// for others: `down -f` would take for the lab's what is not.
func labels(args []string) (map[string]string, error) {
	var m map[string]string
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch {
		case key == "":
			return nil, fmt.Errorf("--label %q is not KEY=VALUE", arg)
		case strings.HasPrefix(key, labfile.LabelPrefix):
			return nil, fmt.Errorf("--label %q is no label of yours: those that begin with %s are fairlead's", arg, labfile.LabelPrefix)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[key] = value
	}
	return m, nil
}

// create makes the network and gives it its uplinks. Without those it is not left.
func (o *createOptions) create(cmd *cobra.Command, req *api.NetworkCreate) error {
	var ways *waysOut
	if len(o.uplinks) > 0 {
		var err error
		if ways, err = parseUplinks(o.uplinks); err != nil {
			return wrongCall(cmd, "%v", err)
		}
	}
	ctx := cmd.Context()
	c, err := ensure(ctx)
	if err != nil {
		return err
	}
	var made api.NetworkCreated
	if err := c.Post(ctx, "/v1/networks", req, &made); err != nil {
		return err
	}
	if err := o.link(ctx, c, req.Name, ways); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return errors.Join(err, c.Delete(ctx, networkPath(made.ID), nil))
	}
	fmt.Fprintln(cmd.OutOrStdout(), made.ID)
	return nil
}

// link gives a network that was just made what somebody with the right has to open.
func (o *createOptions) link(ctx context.Context, c *api.Client, name string, ways *waysOut) error {
	if ways != nil {
		opened, err := openWithRights(ways.links)
		if err != nil {
			return err
		}
		defer closeUplinks(opened)
		if _, err = setUplinks(ctx, c, name, ways, opened, true); err != nil {
			return err
		}
	}
	if o.hostLink != "" {
		return setHostLink(ctx, c, name, o.hostLink)
	}
	return nil
}

func newNetworkInspect() *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NETWORK...",
		Short: "Print all about networks, in the shape of docker network inspect",
		Example: `  fairlead network inspect lab
  fairlead network inspect --format '{{(index .IPAM.Config 0).Subnet}}' lab
  fairlead network inspect -f '{{range .Containers}}{{.Name}}{{println}}{{end}}' lab`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ensureLeft(cmd.Context())
			if err != nil {
				return err
			}
			return inspectAll(cmd, args, format, func(name string, into *api.NetworkInspect) error {
				return c.Get(cmd.Context(), networkPath(name), into)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Print by a Go `TEMPLATE`; functions: json join split lower upper")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Accepted; all is printed anyway")
	return cmd
}

func newNetworkRm() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] NETWORK...",
		Aliases: []string{"remove"},
		Short:   "Remove networks nobody is on",
		Example: "  fairlead network rm lab\n  fairlead network rm -f lab backend",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ensureLeft(cmd.Context())
			if err != nil {
				return err
			}
			return forEach(args, func(name string) error {
				err := c.Delete(cmd.Context(), networkPath(name), nil)
				switch {
				case force && (isNoNode(err) || isUnknown(err)):
					return nil
				case err == nil:
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "That there is no such network is no error")
	return cmd
}

// isUnknown reports whether the node has said that there is no such thing,
// of a request that is about one.
func isUnknown(err error) bool {
	var said *api.Error
	return errors.As(err, &said) && said.Status == http.StatusNotFound
}

func newNetworkPrune() *cobra.Command {
	var force bool
	var filter []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all networks nobody is on",
		Long: `Remove all networks that were made and that no container is on. It asks before;
--force does not.`,
		Example: "  fairlead network prune\n  fairlead network prune -f --filter label=stage=test",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := parseFilters(filter)
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			if !force && !agreed(cmd, "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ") {
				return nil
			}
			c, err := ensureLeft(cmd.Context())
			if err != nil {
				return err
			}
			lines, err := listNetworks(cmd.Context(), c)
			if err != nil {
				return err
			}
			lines = slices.DeleteFunc(lines, func(l networkLine) bool { return !l.dangling() || !wanted.fit(&l) })
			var errs []error
			head := "Deleted Networks:\n"
			for _, l := range lines {
				if err := c.Delete(cmd.Context(), networkPath(l.ID), nil); err != nil {
					errs = append(errs, err) // somebody may just have joined it
					continue
				}
				fmt.Fprint(cmd.OutOrStdout(), head, l.Network, "\n")
				head = ""
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	cmd.Flags().StringArrayVar(&filter, "filter", nil, "Remove those only that fit `KEY=VALUE`, as network ls has it (repeatable)")
	return cmd
}

// agreed asks a question that is to be answered with y.
func agreed(cmd *cobra.Command, question string) bool {
	fmt.Fprint(cmd.OutOrStdout(), question)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // who says nothing does not agree
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}
