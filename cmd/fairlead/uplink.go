package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
)

// uplinkHelp is what --uplink takes.
const uplinkHelp = `An uplink is the way out. One needs no right, and a network has it while it has
no other:
  host                                     ordinary sockets of this machine
The others are links on a real network, with an address and a MAC of their own:
  tap:NAME,ip=ADDRESS/LENGTH,gw=ADDRESS    a TAP, whose other end is elsewhere
  if:NAME,ip=ADDRESS/LENGTH,gw=ADDRESS     an interface of this machine
  if:NAME,dhcp                             the same, with an address by DHCP
and behind these, each after a comma:
  route=SUBNET    what it is for, instead of everything (repeatable)
  addr=ADDRESS    one more address, for publish --address (repeatable)
  mtu=N           if not the device's
  mac=MAC         if not one that is this node's alone; mac=shared is the interface's
A TAP that is yours (ip tuntap add mode tap user NAME) takes no right, an
interface takes CAP_NET_RAW, which root lends you for one command:
  sudo --preserve-env=XDG_RUNTIME_DIR,FAIRLEAD_DIR setpriv --reuid $(id -u) \
    --regid $(id -g) --init-groups --inh-caps +net_raw --ambient-caps +net_raw \
    fairlead network set default --uplink if:eth0,dhcp
This machine itself does not reach an uplink on one of its interfaces: ask from
another one.`

// waysOut is what --uplink says.
type waysOut struct {
	links []*api.UplinkSpec
	host  bool // the sockets of this host
	none  bool // nothing at all

	hostLink string // the way to this host itself: what --host-link says
}

// parseUplinks reads --uplink.
func parseUplinks(args []string) (*waysOut, error) {
	if slices.Equal(args, []string{"none"}) {
		return &waysOut{none: true}, nil
	}
	w := &waysOut{}
	for _, arg := range args {
		spec, err := api.ParseUplink(arg)
		if err != nil {
			return nil, err
		}
		if w.host && spec.Kind == api.HostUplink || slices.ContainsFunc(w.links, func(s *api.UplinkSpec) bool { return s.Name == spec.Name }) {
			return nil, fmt.Errorf("uplink %s is given twice", spec.Name)
		}
		if spec.Kind == api.HostUplink {
			w.host = true
		} else {
			w.links = append(w.links, spec)
		}
	}
	return w, nil
}

// hostPath is where the node has the uplink by its host's sockets.
const hostPath = "/v1/uplinks/" + api.HostUplink

func isHost(u api.Uplink) bool { return u.Kind == api.HostUplink }

// setUplinks has a network lead outside by what ways names, and with only by
// nothing else; the sockets of the host give way to links by themselves. An uplink that is there as it is wanted stays untouched; one that changes
// begins anew, and its connections end. What can go wrong is looked for before
// anything goes, and after an error the uplinks are as they were. What is in
// opened needs not be opened any more. It returns which addresses of containers
// no uplink has any more.
func setUplinks(ctx context.Context, c *api.Client, network string, ways *waysOut, opened map[string]*box.Uplink, only bool) ([]api.OwnAddress, error) {
	network, err := networkName(ctx, c, network)
	if err != nil {
		return nil, err
	}
	hostPath := hostPath
	if network != defaultNetwork {
		hostPath += "?network=" + url.QueryEscape(network)
	}
	check := api.UplinksCheck{Network: network, Only: only}
	for _, s := range ways.links {
		check.Specs = append(check.Specs, s.String())
	}
	var checked api.UplinksChecked
	if err := c.Post(ctx, "/v1/uplinks/check", check, &checked); err != nil {
		return nil, err
	}
	var have []api.Uplink
	if err := c.Get(ctx, "/v1/uplinks", &have); err != nil {
		return nil, err
	}
	have = slices.DeleteFunc(have, func(u api.Uplink) bool { return u.Network != network })
	hosted := slices.ContainsFunc(have, isHost)
	have = slices.DeleteFunc(have, isHost)
	if only && !ways.host && !hosted { // lest it steps in while others go
		if err := c.Delete(ctx, hostPath, nil); err != nil {
			return nil, err
		}
	}
	x := exchange{ctx: ctx, c: c, network: network, opened: map[string]*box.Uplink{}}
	defer closeUplinks(x.opened)
	var added []*api.UplinkSpec
	for _, s := range ways.links {
		i := slices.IndexFunc(have, func(u api.Uplink) bool { return u.Name == s.Name })
		if i >= 0 && have[i].Spec == s.String() && have[i].State != "down" {
			have = slices.Delete(have, i, i+1) // it stays
			continue
		}
		added = append(added, s)
		if l := opened[s.Name]; l != nil {
			x.opened[s.Name] = l
			delete(opened, s.Name)
		} else if i < 0 || s.Kind == "if" || have[i].State == "down" { // else the node has it open: a TAP has one end
			l, err := openSoon(ctx, s)
			if err != nil {
				return nil, err
			}
			x.opened[s.Name] = l
		}
	}
	if err := x.swap(have, added, only); err != nil {
		return nil, errors.Join(err, x.restore())
	}
	switch {
	case ways.host:
		err = c.Post(ctx, hostPath, nil, nil)
	case only && hosted:
		err = c.Delete(ctx, hostPath, nil)
	}
	return checked.Lost, err
}

// defaultNetwork is what the default network is called.
const defaultNetwork = "default"

// networkName is the name of a network that is called by another one, or by its id.
func networkName(ctx context.Context, c *api.Client, ref string) (string, error) {
	if ref == "" || ref == "bridge" || ref == defaultNetwork {
		return defaultNetwork, nil
	}
	var found api.NetworkInspect
	err := c.Get(ctx, networkPath(ref), &found)
	return found.Name, err
}

// An exchange is one of uplinks for others, with what it takes to undo it.
type exchange struct {
	ctx     context.Context
	c       *api.Client
	network string
	opened  map[string]*box.Uplink

	removed []*api.UplinkSpec
	added   []string
}

// swap adds uplinks. Of those there are, each goes as late as can be: before one
// that takes its name or its subnet, or with only in the end.
func (x *exchange) swap(have []api.Uplink, specs []*api.UplinkSpec, only bool) error {
	remove := func(goes func(u *api.UplinkSpec) bool) error {
		for i := 0; i < len(have); i++ {
			old, err := api.ParseUplink(have[i].Spec)
			if err != nil {
				return err
			}
			if !goes(old) {
				continue
			}
			if err := x.c.Delete(x.ctx, "/v1/uplinks/"+url.PathEscape(old.Name), nil); err != nil {
				return err
			}
			if have[i].State != "down" {
				x.removed = append(x.removed, old)
			}
			have = slices.Delete(have, i, i+1)
			i--
		}
		return nil
	}
	for _, s := range specs {
		err := remove(func(u *api.UplinkSpec) bool {
			return u.Name == s.Name || only && s.Addr.IsValid() && s.Addr.Overlaps(u.Addr)
		})
		if err != nil {
			return err
		}
		if err := addUplink(x.ctx, x.c, x.network, s, x.opened[s.Name]); err != nil {
			return err
		}
		x.added = append(x.added, s.Name)
	}
	return remove(func(*api.UplinkSpec) bool { return only })
}

// restore makes undone what swap did before it failed. What was removed has lost
// its connections.
func (x *exchange) restore() (err error) {
	for _, name := range x.added {
		err = errors.Join(err, x.c.Delete(x.ctx, "/v1/uplinks/"+url.PathEscape(name), nil))
	}
	for _, s := range x.removed {
		err = errors.Join(err, addUplink(x.ctx, x.c, x.network, s, nil))
	}
	return err
}

// sayLost says which addresses of containers lead nowhere now.
func sayLost(stderr io.Writer, lost []api.OwnAddress) {
	for _, a := range lost {
		fmt.Fprintf(stderr, "fairlead: %s, which is container %s's, leads nowhere any more: no uplink has it; give it to one again: addr=%[1]s\n", a.Address, a.Container)
	}
}

// addUplink hands a link to the node, and opens it before, unless it is open.
func addUplink(ctx context.Context, c *api.Client, network string, s *api.UplinkSpec, l *box.Uplink) error {
	if l == nil {
		var err error
		if l, err = openSoon(ctx, s); err != nil {
			return err
		}
		defer l.Close()
	}
	return handUplink(ctx, c, network, s, l)
}

// busyFor bounds how long openSoon waits for a device the node had until just
// now: it closes links in the background.
const busyFor = 2 * time.Second

// openSoon is openUplink, and waits until the device is free.
func openSoon(ctx context.Context, s *api.UplinkSpec) (*box.Uplink, error) {
	l, err := openUplink(s)
	for deadline := time.Now().Add(busyFor); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		l, err = openUplink(s)
	}
	return l, err
}

func handUplink(ctx context.Context, c *api.Client, network string, s *api.UplinkSpec, l *box.Uplink) error {
	mac := uplinkMAC(s)
	if s.SharedMAC {
		mac = l.MAC
	}
	return c.Hand(ctx, "/v1/uplinks", api.UplinkRequest{
		Network: network, Spec: s.String(), MAC: mac.String(), MTU: l.MTU,
	}, []int{l.FD})
}

// openUplink opens the device, with the rights of whoever calls, for the MAC
// the uplink will have.
func openUplink(s *api.UplinkSpec) (*box.Uplink, error) {
	if s.Kind == "tap" {
		return box.OpenUplinkTAP(s.Name)
	}
	return box.OpenPacket(s.Name, uplinkMAC(s), s.SharedMAC)
}

// uplinkMAC is the MAC of an uplink that does not share one: what was asked for,
// or one that is this node's alone and the same every time. So who has the same
// address on that network is told from us and found (RFC 5227), and a DHCP server
// lends the same address again.
func uplinkMAC(s *api.UplinkSpec) packet.MAC {
	if s.MAC != nil {
		return packet.MAC(s.MAC)
	}
	machine, _ := os.ReadFile("/etc/machine-id") // where there is none, or one that was copied, the name has to do
	host, _ := os.Hostname()                     // it only fails without a kernel
	sum := sha256.Sum256(fmt.Appendf(nil, "fairlead uplink %q %q %q %q", s.Name, api.Dir(), host, machine))
	return packet.MAC{0x02, 0x42, sum[0], sum[1], sum[2], sum[3]}
}

// printUplinks says by what a network leads outside.
func printUplinks(cmd *cobra.Command, c *api.Client, network string) error {
	network, err := networkName(cmd.Context(), c, network)
	if err != nil {
		return err
	}
	list, err := awaitAddresses(cmd.Context(), c, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.Network == network {
			fmt.Fprintf(cmd.OutOrStdout(), "uplink %s: %s\n", u.Name, uplinkWords(&u))
		}
	}
	return nil
}

// uplinkWords says in a few words how an uplink is.
func uplinkWords(u *api.Uplink) string {
	var words string
	switch {
	case u.State == "down":
		words = "down"
	case u.Kind == api.HostUplink && u.Address != "":
		words = "sockets of this host, as " + u.Address
	case u.Kind == api.HostUplink:
		words = "sockets of this host"
	case u.Address == "":
		words = "no address yet"
	case u.Gateway == "":
		words = u.Address
	default:
		words = u.Address + ", next hop " + u.Gateway
	}
	if u.Why != "" {
		words += ": " + u.Why
	}
	return words
}

// leaseWithin bounds how long a command waits for uplinks to get an address by
// DHCP: a server answers within seconds or not at all.
const leaseWithin = 5 * time.Second

// awaitAddresses waits until all uplinks have an address, or for leaseWithin;
// they go on asking.
func awaitAddresses(ctx context.Context, c *api.Client, stderr io.Writer) ([]api.Uplink, error) {
	done := slow(stderr, "waiting for an address by DHCP")
	defer done()
	for deadline := time.Now().Add(leaseWithin); ; {
		var list []api.Uplink
		if err := c.Get(ctx, "/v1/uplinks", &list); err != nil {
			return nil, err
		}
		waits := slices.ContainsFunc(list, func(u api.Uplink) bool { return u.State == "no-address" })
		if !waits || time.Now().After(deadline) {
			return list, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
