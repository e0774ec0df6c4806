package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairlead/cmd/fairlead/labfile"
	"fairlead/node"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/lockin"
)

func newUp() *cobra.Command {
	var bip, names, hostLink, lockIn string
	var opts, uplinks []string
	var foreground, replace bool
	var network networkFlags
	var lab labFlags
	cmd := &cobra.Command{
		Use:   "up [OPTIONS]",
		Short: "Start a node that stays until `fairlead down`; with -f bring up a lab",
		Long: `Start a node that stays until it is told to go down. Without up, the first run
starts a node and the node ends after its last container.

With -f FILE it brings up the networks and containers of a file instead, in a
node that runs or is started. What is there as the file says stays untouched;
what changed in the file begins anew; what is not in it any more stays until
--prune. fairlead-lab(5) and docs/lab.md are about such files.

Options of the default network, each as --opt KEY=VALUE:
  mtu=1500          largest packet
  hub=on            be a hub: every port hears everything
  ageing=300s       how long the switch remembers a MAC address
  guard=off         let containers use any source address but the gateway's
  loop-guard=off    leave ports alone that are joined behind the switch's back
  join=off          packets of a flow get to containers as they came, one by one,
                    instead of small ones joined to segments of a large one
  flood-limit=N     copies a second that are made of the frames one port floods;
                    0 is no limit
  flows=262144      connections the node keeps track of
  flows-per-container=32768
                    those of one container

` + egressHelp + `

Ports below 1024 take a right. Sockets that somebody who has it bound for this
command (LISTEN_FDS, as those of a systemd socket unit) are used when a container
publishes their ports.

--host-loopback has containers reach services of this machine's own loopback, at
the gateway's address and as host.fairlead.internal and host.docker.internal.
Without it nobody does.

` + hostLinkHelp + `

Once it has started the node gives up what it does not need: capabilities, files
but its own, and all system calls but those on a list (docs/security.md).
--lock-in=off keeps all of it, for debuggers; FAIRLEAD_LOCK_IN=off does so for
nodes that other commands start.

--names on has the node answer this machine when it asks for containers by name, at
127.0.0.17; ` + "`fairlead names`" + ` says which there are and how the machine's resolver
learns of it.

--uplink leads the default network outside, by links or, as without it, by the
sockets of this machine; what it takes says ` + "`fairlead network set --help`.",
		Example: `  fairlead up
  fairlead up --uplink tap:up0,ip=192.0.2.2/24,gw=192.0.2.1
  fairlead up --bip 172.17.42.1/16 --opt ageing=30s
  fairlead up --egress internet
  fairlead up --host-loopback
  sudo fairlead up --host-link
  fairlead up --names on
  fairlead up --replace
  fairlead up --foreground
  fairlead up -f lab.yaml --dry-run
  fairlead up -f lab.yaml`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lab.schema {
				_, err := cmd.OutOrStdout().Write(labfile.Schema())
				return err
			}
			if err := lab.check(cmd); err != nil {
				return err
			}
			if lab.file != "" {
				return lab.up(cmd)
			}
			options, err := pairs("--opt", opts)
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			ways, err := parseUplinks(uplinks)
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			ways.hostLink = hostLink
			request := api.UpRequest{BIP: bip, Options: options, Names: names}
			if change, err := network.request(cmd); err != nil {
				return err
			} else if change != nil {
				request.Egress, request.HostLoopback = change.Egress, change.HostLoopback
			}
			if replace {
				return replaceNode(cmd)
			}
			mode, err := lockin.ParseMode(cmp.Or(lockIn, os.Getenv(lockin.Variable)))
			if err != nil {
				return wrongCall(cmd, "%v", err)
			}
			if err := os.Setenv(lockin.Variable, string(mode)); err != nil { // for the node that is started
				return err
			}
			if foreground {
				return upHere(cmd.Context(), cmd.ErrOrStderr(), request, ways)
			}
			return up(cmd, request, ways)
		},
	}
	f := cmd.Flags()
	f.StringVar(&bip, "bip", "", "Gateway's `ADDRESS/LENGTH` on the default network (default 172.17.0.1/16)")
	f.StringArrayVar(&opts, "opt", nil, "Option of the default network, `KEY=VALUE`")
	f.StringArrayVar(&uplinks, "uplink", nil, "A way out, `SPEC`, host, or none (repeatable; default host)")
	network.define(f)
	defineHostLink(f, &hostLink)
	f.StringVar(&names, "names", "", "Answer this machine's questions for names of containers: on, off, or at `ADDRESS`[:PORT] of the loopback")
	lab.define(f, true)
	f.StringVar(&lockIn, "lock-in", "", "What the node gives up once it has started: on, off, or strict to end it at a system call it should not make (default on)")
	f.BoolVar(&replace, "replace", false, "Have a node of this version take the place of the one that runs; its containers and connections go on")
	f.BoolVar(&foreground, "foreground", false, "Stay until the node ends, and end it when told to; log here")
	return cmd
}

// upHere is up of a node that logs here, and stays until that ends. Who tells us to
// end means the node.
func upHere(ctx context.Context, stderr io.Writer, request api.UpRequest, ways *waysOut) error {
	if !signal.Ignored(syscall.SIGHUP) { // as nohup(1) has it
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	opened, err := openWithRights(ways.links)
	if err != nil {
		return err
	}
	defer closeUplinks(opened)
	process, err := node.StartHere(ctx, api.Dir())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = process.Signal(syscall.SIGTERM) })
	defer stop()
	if err = setUp(ctx, stderr, onlooker(), request, ways, opened); err == nil { // which starts no other
		err = notifyReady()
	}
	if err != nil {
		_ = process.Signal(syscall.SIGTERM)
	}
	end := process.Wait()
	switch {
	case ctx.Err() != nil && end.Success():
		return nil // whatever was not done yet
	case err != nil && !errors.Is(err, api.ErrLeft) && !errors.Is(err, api.ErrNoNode):
		return err
	case !end.Exited():
		return fmt.Errorf("up: the node has ended: %v", end)
	case !end.Success():
		return exitStatus(end.ExitCode()) // it has said why
	}
	return err
}

// setUp has a node that answers be what `up` says.
func setUp(ctx context.Context, stderr io.Writer, c *api.Client, request api.UpRequest, ways *waysOut, opened map[string]*box.Uplink) error {
	if err := c.Post(ctx, "/v1/up", request, nil); err != nil {
		return err
	}
	if err := handListeners(ctx, c); err != nil {
		return err
	}
	lost, err := setUplinks(ctx, c, "", ways, opened, ways.none)
	if err != nil {
		return err
	}
	sayLost(stderr, lost)
	if ways.hostLink != "" {
		return setHostLink(ctx, c, "", ways.hostLink)
	}
	return nil
}

// replaceNode has a node of this version take the place of the one that runs.
func replaceNode(cmd *cobra.Command) error {
	for _, name := range flagNames(cmd) {
		if name != "replace" && cmd.Flags().Changed(name) {
			return wrongCall(cmd, "--replace leaves everything as it is, and --%s changes something: call `fairlead up` for that", name)
		}
	}
	var before, after api.VersionInfo
	if err := onlooker().Get(cmd.Context(), "/v1/version", &before); err != nil {
		return err
	}
	if err := os.Setenv(lockin.Variable, before.LockIn.Mode); err != nil { // as everything else it is as it was
		return err
	}
	if err := node.Replace(cmd.Context(), api.Dir()); err != nil {
		return fmt.Errorf("node %d goes on: %w", before.Pid, err)
	}
	if err := onlooker().Get(cmd.Context(), "/v1/version", &after); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "node %d of version %s has taken the place of node %d of version %s\n", after.Pid, after.Version, before.Pid, before.Version)
	return nil
}

// up starts a node in the background, or makes the one that runs stay.
func up(cmd *cobra.Command, request api.UpRequest, ways *waysOut) error {
	opened, err := openWithRights(ways.links)
	if err != nil {
		return err
	}
	defer closeUplinks(opened)
	ctx := cmd.Context()
	c, err := ensure(ctx)
	if err != nil {
		return err
	}
	if err := setUp(ctx, cmd.ErrOrStderr(), c, request, ways, opened); err != nil {
		return err
	}
	var info api.VersionInfo
	if err := c.Get(ctx, "/v1/version", &info); err != nil {
		return err
	}
	if cmd.Flags().Changed("lock-in") && info.LockIn.Mode != os.Getenv(lockin.Variable) {
		return fmt.Errorf("up: the node that runs has its lock-in %s, which is for its life; end it with `fairlead down` first", info.LockIn.Mode)
	}
	var switches []api.Switch
	if err := c.Get(ctx, "/v1/switches", &switches); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "node %d is up in %s\n", info.Pid, info.Dir)
	for _, s := range switches {
		fmt.Fprintf(out, "network %s: %s, gateway %s\n", s.Network, s.Subnet, s.Gateway)
	}
	return printUplinks(cmd, c, defaultNetwork)
}

func newDown() *cobra.Command {
	var all bool
	var lab labFlags
	cmd := &cobra.Command{
		Use:   "down [OPTIONS]",
		Short: "End the node; with -f what a file brought up",
		Long: `End the node. While containers run this is refused; --all ends them first.
Without a node there is nothing to do, and that is no error.

With -f FILE it ends the containers and removes the networks that ` + "`fairlead up -f`" + `
made of this file, and nothing else. The node is left to itself.`,
		Example: `  fairlead down
  fairlead down --all
  fairlead down -f lab.yaml`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.check(cmd); err != nil {
				return err
			}
			if lab.file != "" {
				return lab.down(cmd)
			}
			done := slow(cmd.ErrOrStderr(), "waiting for the node to end")
			defer done()
			c := client()
			c.Greet = nil // a node that ends may be of any version
			return down(cmd.Context(), c, all)
		},
	}
	lab.define(cmd.Flags(), false)
	cmd.Flags().BoolVar(&all, "all", false, "End the containers too")
	return cmd
}

// downWithin bounds how long down waits: a node gives its containers five
// seconds.
const downWithin = 20 * time.Second

// down tells the node to end and waits until it has. One that somebody is just starting
// or ending is waited for first.
func down(ctx context.Context, c *api.Client, all bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, downWithin, fmt.Errorf("the node in %s has not ended after %v; see node.log there", c.Dir(), downWithin))
	defer cancel()
	for {
		var answer api.DownAnswer
		err := c.Post(ctx, "/v1/down", api.DownRequest{All: all}, &answer)
		switch {
		case err == nil:
			return node.AwaitEnd(ctx, c.Dir(), answer.Pid)
		case !isNoNode(err) && !errors.Is(err, api.ErrLeft):
			return err
		}
		if waited, werr := node.AwaitSettled(ctx, c.Dir()); werr != nil {
			return werr
		} else if !waited && isNoNode(err) {
			return nil
		}
	}
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version [OPTIONS]",
		Short:   "Print the versions of this program and of the node that runs",
		Example: "  fairlead version\n  fairlead version --json",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := new(api.VersionInfo)
			err := onlooker().Get(cmd.Context(), "/v1/version", info)
			if err != nil {
				info = nil // the client has a version whatever became of the node
			}
			if isNoNode(err) {
				err = nil
			}
			return errors.Join(printVersion(cmd.OutOrStdout(), info, asJSON), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

// printVersion prints ours and the node's, if there is one.
func printVersion(out io.Writer, info *api.VersionInfo, asJSON bool) error {
	if asJSON {
		mine := map[string]any{"version": version, "api": api.Version, "go": runtime.Version(), "arch": runtime.GOARCH}
		return printJSON(out, map[string]any{"client": mine, "node": info})
	}
	fmt.Fprintf(out, "Client:\n Version:     %s\n API:         v%d\n Go:          %s\n Arch:        %s/%s\n",
		version, api.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if info == nil {
		fmt.Fprintf(out, "Node:         none runs in %s\n", api.Dir())
		return nil
	}
	nodeVersion(out, info, time.Now())
	return nil
}

// newCheck is a developer's command: it compares the counters with the
// conservation law.
func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:     "check",
		Short:   "Check that every frame is accounted for; exact when nothing is in flight",
		Example: "  fairlead check",
		Args:    exactly(0),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var check api.Check
			if err := client().Get(cmd.Context(), "/v1/check", &check); err != nil {
				return err
			}
			for _, v := range check.Violations {
				fmt.Fprintln(cmd.OutOrStdout(), v)
			}
			if len(check.Violations) > 0 {
				return exitStatus(1)
			}
			return nil
		},
	}
}

// newNode is what a client starts in the background.
func newNode() *cobra.Command {
	var dir string
	var replace bool
	cmd := &cobra.Command{
		Use:    "node --dir DIR",
		Short:  "Be a node; `fairlead up` and `fairlead run` start it",
		Args:   exactly(0),
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mode, err := lockin.ParseMode(os.Getenv(lockin.Variable))
			if err != nil {
				return err
			}
			return node.Serve(cmd.Context(), node.Config{Dir: dir, Version: version, LockIn: mode, Replace: replace})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", api.Dir(), "The node directory")
	cmd.Flags().BoolVar(&replace, "replace", false, "Take the place of the node that runs there")
	return cmd
}
