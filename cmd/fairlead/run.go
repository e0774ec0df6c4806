package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
)

func newRun() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] [--] COMMAND [ARG...]",
		Short: "Run a command of this machine in a container of its own",
		Long: `Run a command of this machine in user, network, mount, process, IPC and host
name namespaces of its own, connected to the switch by an interface eth0.

The command sees your files with your rights, and is root only inside. When it
ends, the container and everything it started are gone. The exit status is the
command's, 128+N when signal N ended it, 127 when there is no such command, 126
when it cannot be run, and 125 when fairlead failed.

Without another uplink it reaches the world by ordinary sockets of this machine,
and the world reaches what -p publishes.

` + egressHelp + `
The rules of the network hold beside those of the container.

` + networkHelp + `

--rootfs DIR makes the folders dev, proc and sys in DIR where they are missing,
and leaves them there. The command can write to DIR, as it can to your files.`,
		Example: `  fairlead run -it -- sh
  fairlead run -d --name web -- fairlead probe http-server
  fairlead run -d -p 8080:80 -- fairlead probe http-server
  fairlead run --egress internet -- curl https://example.org
  fairlead run --egress allow:./hosts -- make
  fairlead run --link web:db -- fairlead probe get http://db/
  fairlead run --rate-in 100mbit --rate-out 20mbit -- bash
  fairlead run --ip 172.17.0.100 -- ping -c 1 172.17.0.1
  fairlead run --net container:web -- ip addr
  fairlead run -d --name db --network lab --network-alias sql -- postgres
  fairlead run -it --network name=lab,ip=10.1.5.9 --network backend -- sh
  fairlead run --net none --rootfs /srv/alpine -- /bin/busybox sh`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.command = args
			if err := o.check(cmd); err != nil {
				return err
			}
			return o.run(cmd)
		},
	}
	o.define(cmd.Flags())
	return cmd
}

// run runs the container and returns its exit status.
func (o *runOptions) run(cmd *cobra.Command) error {
	// Signals of this command belong to the container once it runs; until
	// then they end the attempt. So cmd.Context, which they cancel, is not used.
	ctx, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer cancel()
	signals := forwardSignals(cmd.Context(), cancel)
	defer signals.stop()

	term, err := o.terminal()
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	defer term.close()
	b, id, err := o.begin(ctx, cmd, term, signals)
	if err != nil {
		return signals.orElse(err)
	}
	defer b.Close()
	if o.detach {
		fmt.Fprintln(cmd.OutOrStdout(), id)
		return nil
	}
	term.attach()
	code, err := b.Wait()
	term.drain()
	awaitGone(id)
	if err != nil || code == 0 {
		return err
	}
	return exitStatus(code)
}

// begin makes the container and returns once its command runs.
func (o *runOptions) begin(ctx context.Context, cmd *cobra.Command, term *terminal, signals *forwarder) (b *box.Box, id string, err error) {
	client, err := ensure(ctx)
	if err != nil {
		return nil, "", err
	}
	var created api.Created
	if err := client.Post(ctx, "/v1/containers", o.request(), &created); err != nil {
		return nil, "", err
	}
	b, err = o.start(ctx, client, &created, term)
	if err != nil {
		giveBack(created.ID)
		return nil, "", err
	}
	if created.Nowhere {
		adviseOnPorts(cmd.ErrOrStderr(), created.Name, &api.Ports{Nowhere: true})
	}
	signals.to(b.Signal)
	err = b.Started()
	sayWarnings(cmd.ErrOrStderr(), b.Warnings)
	if err != nil {
		abandon(b)
		awaitGone(created.ID)
		return nil, "", err
	}
	return b, created.ID, nil
}

// start makes the namespaces and hands the container's descriptors to the node.
func (o *runOptions) start(ctx context.Context, c *api.Client, created *api.Created, term *terminal) (*box.Box, error) {
	spec, err := o.spec(created)
	if err == nil {
		err = spec.Validate()
	}
	if err != nil {
		return nil, err // about what was asked for, not about this container
	}
	b, err := box.Start(spec, term.stdio())
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", created.Name, err)
	}
	term.started()
	netns, err := box.NetNS(b.PIDFD)
	if err != nil {
		abandon(b)
		return nil, fmt.Errorf("container %s: %w", created.Name, err)
	}
	attach := api.Attach{Descriptors: []string{"init", "channel"}, Pid: b.PID, Netns: netns.Ino, KeptChannel: b.KeptChannel, KeptLink: b.KeptLink}
	fds := []int{b.PIDFD, b.Node}
	if b.TAP >= 0 {
		attach.Descriptors = append(attach.Descriptors, "tap")
		attach.Interface, attach.Index, attach.PeerNetns = spec.Interface.Name, b.Index, b.PeerNetNS
		fds = append(fds, b.TAP)
	}
	if err := handOver(ctx, c, created, attach, fds); err != nil {
		abandon(b)
		return nil, err
	}
	b.Release()
	return b, nil
}

// handOver hands a container's descriptors to the node, which names it when it
// refuses.
func handOver(ctx context.Context, c *api.Client, created *api.Created, m api.Attach, fds []int) error {
	err := c.Hand(ctx, containerPath(created.ID, "attach"), m, fds)
	if refused := new(api.Error); err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("container %s: %w", created.Name, err)
	}
	return err
}

// abandon ends a container whose start went wrong on our side. Closing it is not
// enough: a detached one may just have begun to live without us.
func abandon(b *box.Box) {
	_ = box.SignalPIDFD(b.PIDFD, syscall.SIGKILL) // has ended already, or ends
	b.Close()
	_, _ = b.Wait()
}

// spec is what init has to know.
func (o *runOptions) spec(created *api.Created) (*box.Spec, error) {
	spec := &box.Spec{
		ID: created.ID, Hostname: created.Hostname, Args: o.command, Env: o.linked(created.Env), Cwd: o.dir,
		TTY: o.tty, Stdin: o.interactive, Detached: o.detach, RootFS: o.rootfs, Sysctls: o.parameters, Exit: created.ExitAt,
	}
	if o.detach {
		spec.Log = &box.Log{Path: created.Log, Limit: created.LogBytes}
	}
	for target, source := range map[string]string{
		"/etc/hosts": created.Hosts, "/etc/resolv.conf": created.ResolvConf, "/etc/hostname": created.HostnameAt,
	} {
		if source != "" {
			spec.Files = append(spec.Files, box.File{Source: source, Target: target})
		}
	}
	var err error
	switch created.Mode {
	case "none":
		spec.Network = box.NetworkNone
	case "host":
		spec.Network = box.NetworkHost
	case "shared":
		spec.Network, spec.SharePID = box.NetworkShared, created.SharePid
	default:
		spec.Network = box.NetworkOwn
		spec.Interface, err = boxInterface(created.Link)
	}
	return spec, err
}

// boxInterface is the node's word on a link in the terms of package box.
func boxInterface(link *api.Interface) (*box.Interface, error) {
	if link == nil {
		return nil, errors.New("the node answered without an interface; are client and node of one version? see `fairlead version`")
	}
	mac, err := packet.ParseMAC(link.MAC)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", link.Name, err)
	}
	addr, err := netip.ParsePrefix(link.Address)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", link.Name, err)
	}
	i := &box.Interface{Name: link.Name, MAC: mac, MTU: link.MTU, Addresses: []netip.Prefix{addr}, Plain: link.Textbook, Veth: link.Veth}
	if link.Gateway != "" {
		gw, err := netip.ParseAddr(link.Gateway)
		if err != nil {
			return nil, fmt.Errorf("interface %s: gateway: %w", link.Name, err)
		}
		i.Gateways = []netip.Addr{gw}
	}
	if link.Resolver != "" {
		if i.Resolver, err = netip.ParseAddr(link.Resolver); err != nil {
			return nil, fmt.Errorf("interface %s: resolver: %w", link.Name, err)
		}
	}
	for _, r := range link.Routes {
		to, via, err := api.ParseRoute(r)
		if err != nil {
			return nil, fmt.Errorf("interface %s: %w", link.Name, err)
		}
		i.Routes = append(i.Routes, box.Route{To: to, Via: via})
	}
	return i, nil
}

// awaitGone waits until the node, too, knows that a container has ended: then
// its name and its address are free for whatever the caller does next.
func awaitGone(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for err := api.ErrLeft; errors.Is(err, api.ErrLeft); { // another node may take its place
		err = onlooker().Get(ctx, containerPath(id, "wait"), nil) // mostly it is gone already
	}
}

// giveBack tells the node that a reservation is not needed. It would find out
// by itself, only later.
func giveBack(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = onlooker().Delete(ctx, containerPath(id), nil)
}
