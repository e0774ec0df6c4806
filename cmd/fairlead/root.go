package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node"
	"fairlead/node/api"
	"fairlead/node/box"
)

// Exit statuses as `docker run` has them; anything else is the command's own.
const (
	exitFailure     = 125 // an error of ours
	exitInterrupted = 128 + int(syscall.SIGINT)
)

// An exitStatus ends the program with a status and without a message: the
// command has said all there is to say.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// execute runs one command line and returns the exit status.
func execute(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), heeded(syscall.SIGTERM, syscall.SIGINT)...)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return report(stderr, err)
}

// report prints what is wrong, a line for each error that was joined, and
// returns the exit status.
func report(stderr io.Writer, err error) int {
	var status exitStatus
	var failure *box.Failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "fairlead: "+strings.TrimRight(line, "\n"))
	}
	if errors.As(err, &failure) {
		return failure.Code
	}
	return exitFailure
}

// usage is the help behind a command's description: one line of how to call
// it, examples first.
const usage = `Usage:
  {{.UseLine}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$all := .Commands}}{{if .Groups}}{{range $group := .Groups}}

{{.Title}}{{range $all}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{else}}

Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}

` + "`{{.CommandPath}} COMMAND --help`" + ` says more.{{else if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}
`

// newRoot makes the tree of commands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "fairlead COMMAND",
		Short: "Containers of this machine's programs, connected by a switch you can watch",
		Long: `fairlead runs commands of this machine in containers and connects them by a
virtual switch: one ordinary process, no privileges, no kernel bridge.`,
		Example: `  fairlead run -d --name web -- fairlead probe http-server
  fairlead run -- fairlead probe get http://172.17.0.2/
  fairlead run -it -- sh
  fairlead publish web 8080:80
  fairlead show switch
  fairlead trace`,
		SilenceErrors: true, // report prints them, in one line
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: "container", Title: "Containers:"},
		&cobra.Group{ID: "network", Title: "The network:"},
		&cobra.Group{ID: "node", Title: "The node:"},
	)
	for id, commands := range map[string][]*cobra.Command{
		"container": {newRun(), newExec(), newPs(), newLogs(), newStop(), newKill(), newRename(), newUpdate(), newInspect(), newPort(), newPublish(), newUnpublish()},
		"network":   {newShow(), newTrace(), newMac(), newARP(), newNames(), newNetwork(), newRule(), newProbe()},
		"node":      {newUp(), newDown(), newVersion(), newDoctor(), newBench()},
	} {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	root.AddCommand(newNode(), newCheck(), newMan())
	root.SetFlagErrorFunc(explainFlag)
	root.SetUsageTemplate(usage)
	root.SetHelpCommand(newHelp())
	root.SetCompletionCommandGroupID("node")
	group(root)
	bare(root)
	complete(root)
	return root
}

// newHelp is cobra's help, only that it says so when there is nothing to help
// with.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Print the help of a command",
		Example: "  fairlead help run",
		GroupID: "node",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, _ := cmd.Root().Find(args) // an error is what rest says too
			if len(rest) > 0 && about.HasAvailableSubCommands() {
				return unknownCommand(about, rest[0])
			}
			return about.Help()
		},
	}
}

// bare takes from cmd, and all below it, what cobra would add in other words
// than ours.
func bare(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	if cmd.Flags().Lookup("help") == nil {
		cmd.Flags().BoolP("help", "h", false, "Print this help")
	}
	for _, c := range cmd.Commands() {
		bare(c)
	}
}

// group makes cmd a mere group of commands: called by itself it helps, called
// with a word it does not know it says which one may be meant.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs // else cobra answers unknown commands, in several lines
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

// wrongCall is an error about how cmd was called.
func wrongCall(cmd *cobra.Command, format string, args ...any) error {
	return fmt.Errorf("%s: %s; see `%s --help`", short(cmd), fmt.Sprintf(format, args...), cmd.CommandPath())
}

// short is the command's name without the program's.
func short(cmd *cobra.Command) string {
	_, name, found := strings.Cut(cmd.CommandPath(), " ")
	if !found {
		return cmd.CommandPath()
	}
	return name
}

// atLeast wants n arguments or more, in Docker's words.
func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return wrongCall(cmd, "requires at least %s: %s", arguments(n), cmd.UseLine())
		}
		return nil
	}
}

// exactly wants n arguments, in Docker's words.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case n == 0:
			return wrongCall(cmd, "accepts no arguments, and got %q", args[0])
		case len(args) > n:
			return wrongCall(cmd, "requires %s, and got %q too", arguments(n), args[n])
		}
		return wrongCall(cmd, "requires %s: %s", arguments(n), cmd.UseLine())
	}
}

// atMost wants n arguments or fewer, in Docker's words.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return wrongCall(cmd, "requires at most %s, and got %q too", arguments(n), args[n])
		}
		return nil
	}
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// client returns the client of the node that runs, if one does, the same for all of
// a command. After a node that was killed with its containers running the next one is
// started when it is used.
func client() *api.Client {
	known.Lock()
	defer known.Unlock()
	if dir := api.Dir(); known.client == nil || known.client.Dir() != dir {
		known.client = api.NewClient(dir)
		known.client.Greet = greet
		known.client.Revive = func(ctx context.Context) (bool, error) {
			if !node.HasLeft(dir) {
				return false, nil
			}
			// One that is just ending in order takes all of it away.
			if _, err := node.AwaitSettled(ctx, dir); err != nil || !node.HasLeft(dir) {
				return false, err
			}
			_, err := node.Ensure(ctx, dir, version)
			return err == nil, err
		}
	}
	return known.client
}

var known struct {
	sync.Mutex
	client *api.Client
}

// onlooker is client for who starts no node.
func onlooker() *api.Client { return api.NewClient(api.Dir()) }

// ensure returns the client of a node that runs, starting one if need be.
func ensure(ctx context.Context) (*api.Client, error) {
	if _, err := node.Ensure(ctx, api.Dir(), version); err != nil {
		return nil, err
	}
	return client(), nil
}

func greet(info *api.VersionInfo) error { return greeting(os.Stderr, info) }

// greeting says when the node is of another version, and refuses one that speaks
// another API. An earlier node cannot always take the place of a later one.
func greeting(stderr io.Writer, info *api.VersionInfo) error {
	mend := "`fairlead up --replace` has the node be of this version, and its containers go on"
	if isLater(info.Version, version) {
		mend = "the node is the later one; install fairlead " + info.Version + " for the commands, too"
	}
	text := fmt.Sprintf("client %s, node %s: %s", version, info.Version, mend)
	switch {
	case info.API != api.Version:
		return fmt.Errorf("%s; they speak API v%d and v%d", text, api.Version, info.API)
	case info.Version != version:
		fmt.Fprintln(stderr, "fairlead: "+text)
	}
	return nil
}

// isLater compares versions by their three numbers, as in 0.12.1 and v0.9.2-3-gabcdef0. Of
// others, as the name of a commit, nobody knows.
func isLater(a, b string) bool {
	numbers := func(v string) []int {
		list := make([]int, 3)
		if _, err := fmt.Sscanf(strings.TrimPrefix(v, "v"), "%d.%d.%d", &list[0], &list[1], &list[2]); err != nil {
			return nil
		}
		return list
	}
	x, y := numbers(a), numbers(b)
	return x != nil && y != nil && slices.Compare(x, y) > 0
}

// ensureLeft is client where nothing is left of a node before, and else ensure: its
// networks are there, whether a node runs or not.
func ensureLeft(ctx context.Context) (*api.Client, error) {
	if !node.HasState(api.Dir()) {
		return client(), nil
	}
	return ensure(ctx)
}

// containerPath is the path of a container, or of something below it.
func containerPath(name string, below ...string) string {
	return "/v1/containers/" + strings.Join(append([]string{url.PathEscape(name)}, below...), "/")
}

// find asks the node which container ref means: a name, an id or the beginning
// of one. What is done to a container is done by the id found.
func find(ctx context.Context, ref string) (*api.Inspect, error) {
	c := new(api.Inspect)
	err := client().Get(ctx, containerPath(ref), c)
	return c, err
}

// forEach calls do for each name and goes on after an error; all errors are
// reported, a line each.
func forEach(names []string, do func(name string) error) error {
	var errs []error
	for _, name := range names {
		if err := do(name); err != nil {
			errs = append(errs, about(name, err))
		}
	}
	return errors.Join(errs...)
}

// about names the object in an error that cannot know it.
func about(name string, err error) error {
	if errors.Is(err, api.ErrNoNode) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// flagNames are the names of all flags cmd takes.
func flagNames(cmd *cobra.Command) (names []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}
