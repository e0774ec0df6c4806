package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"sync"
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
when it cannot be run, and 125 when fairlead failed.`,
		Example: `  fairlead run -it -- sh
  fairlead run -d --name web -- fairlead probe http-server
  fairlead run --ip 172.17.0.100 -- ping -c 1 172.17.0.1
  fairlead run --net container:web -- ip addr
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
	signals := forwardSignals(cancel)
	defer signals.stop()

	dir, err := o.directory()
	if err != nil {
		return fmt.Errorf("run: working directory: %w", err)
	}
	env := o.environment()
	found := commandFinder(lookEnv(env, "PATH"), dir)
	if err := imageHint(o.command, o.interactive, o.rootfs != "", found); err != nil {
		return err
	}
	term, err := o.terminal()
	if err != nil {
		return err
	}
	defer term.close()

	client, err := ensure(ctx)
	if err != nil {
		return err
	}
	var created api.Created
	if err := client.Post(ctx, "/v1/containers", o.request(), &created); err != nil {
		return err
	}
	b, err := o.start(ctx, client, &created, env, dir, term)
	if err != nil {
		giveBack(client, created.ID)
		return err
	}
	defer b.Close()
	signals.to(b.Signal)
	err = b.Started()
	for _, w := range b.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "fairlead: warning: "+w)
	}
	if err != nil {
		b.Close()
		_, _ = b.Wait()
		return err
	}
	if o.detach {
		fmt.Fprintln(cmd.OutOrStdout(), created.ID)
		return nil
	}
	term.attach()
	code, err := b.Wait()
	term.drain()
	if err != nil || code == 0 {
		return err
	}
	return exitStatus(code)
}

// start makes the namespaces and hands the container's descriptors to the node.
func (o *runOptions) start(ctx context.Context, c *api.Client, created *api.Created, env []string, dir string, term *terminal) (*box.Box, error) {
	spec, err := o.spec(created, env, dir)
	if err != nil {
		return nil, err
	}
	b, err := box.Start(spec, term.stdio())
	if err != nil {
		return nil, err
	}
	term.started()
	attach := api.Attach{Descriptors: []string{"init", "channel"}, Pid: b.PID}
	fds := []int{b.PIDFD, b.Node}
	if b.TAP >= 0 {
		attach.Descriptors = append(attach.Descriptors, "tap")
		attach.Interface = spec.Interface.Name
		fds = append(fds, b.TAP)
	}
	if err := c.Hand(ctx, containerPath(created.ID, "attach"), attach, fds); err != nil {
		b.Close()
		_, _ = b.Wait()
		return nil, err
	}
	b.Release()
	return b, nil
}

// spec is what init has to know.
func (o *runOptions) spec(created *api.Created, env []string, dir string) (*box.Spec, error) {
	spec := &box.Spec{
		ID: created.ID, Hostname: created.Hostname, Args: o.command, Env: env, Cwd: dir,
		TTY: o.tty && !o.detach, Stdin: o.interactive, Detached: o.detach, RootFS: o.rootfs, Sysctls: o.parameters,
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
	i := &box.Interface{Name: link.Name, MAC: mac, MTU: link.MTU, Addresses: []netip.Prefix{addr}, Plain: link.Textbook}
	if link.Gateway != "" {
		gw, err := netip.ParseAddr(link.Gateway)
		if err != nil {
			return nil, fmt.Errorf("interface %s: gateway: %w", link.Name, err)
		}
		i.Gateways = []netip.Addr{gw}
	}
	return i, nil
}

// giveBack tells the node that a reservation is not needed. It would find out
// by itself, only later.
func giveBack(c *api.Client, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.Delete(ctx, containerPath(id), nil)
}

// A forwarder passes signals of this process on: to what to named, before that
// to cancel.
type forwarder struct {
	signals chan os.Signal
	mu      sync.Mutex
	send    func(syscall.Signal) error
}

// forwardSignals begins to take the signals a user or a supervisor sends. Those
// for job control stay with this process.
func forwardSignals(cancel func()) *forwarder {
	f := &forwarder{signals: make(chan os.Signal, 16)}
	f.send = func(syscall.Signal) error { cancel(); return nil }
	signal.Notify(f.signals, heeded(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)...)
	go func() {
		for s := range f.signals {
			f.mu.Lock()
			send := f.send
			f.mu.Unlock()
			_ = send(s.(syscall.Signal)) // fails when it has just ended, which is as well
		}
	}()
	return f
}

// to makes send the receiver of every later signal.
func (f *forwarder) to(send func(syscall.Signal) error) {
	f.mu.Lock()
	f.send = send
	f.mu.Unlock()
}

func (f *forwarder) stop() {
	signal.Stop(f.signals)
	close(f.signals)
}

// discardErr copies until either side ends; who copies learns of the end from
// the container, not from here.
func discardErr(dst io.Writer, src io.Reader) { _, _ = io.Copy(dst, src) }
