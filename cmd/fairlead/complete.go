package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node/api"
	"fairlead/node/network"
)

// A completer lists the words that may stand where the cursor is.
type completer = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeWithin bounds how long a shell waits for a list of names.
const completeWithin = time.Second

// A lister lists words of one kind.
type lister = func(ctx context.Context) []string

// completions says what each command's arguments are, one after another; the last
// may be repeated where repeated says so. What is not here are files.
var completions = map[string][]lister{
	"exec": {containerNames}, "logs": {containerNames}, "trace": {containerNames}, "rename": {containerNames},
	"port": {containerNames}, "publish": {containerNames}, "unpublish": {containerNames},
	"stop": {containerNames}, "kill": {containerNames}, "update": {containerNames}, "inspect": {containerNames},
	"rule add": {containerNames, containerNames}, "rule rm": {ruleNumbers},
	"mac add": {words(), containerNames}, "mac rm": {stationMACs},
	"arp add": {words(), words(), containerNames}, "arp rm": {neighbourAddresses},
	"network set": {networkNames}, "network inspect": {networkNames}, "network rm": {networkNames},
	"network connect": {networkNames, targets}, "network disconnect": {networkNames, containerNames},
}

// repeated are the commands whose last argument may come again.
var repeated = []string{"stop", "kill", "update", "inspect", "rule rm", "mac rm", "arp rm", "network inspect", "network rm"}

// flagWords says what options are, whichever command has them. A word that ends
// with one of = : , goes on.
var flagWords = map[string]lister{
	"network": runNetworks, "link": containerNames,
	"egress": words("all", "none", "internet", "allow:"), "uplink": words("tap:", "if:", "host", "none"),
	"signal": words("TERM", "KILL", "INT", "HUP", "USR1", "USR2", "STOP", "CONT", "QUIT"),
	"as":     words("kernel"), "names": words("on", "off"), "ip": words("dhcp"),
	"only": benchNames("Workloads"), "paths": benchNames("Paths"),
}

// linkOpts are the options of a container's link.
var linkOpts = words("offload=", "isolated=", "link=", "vlan=", "trunk=")

// optWords are those of --opt.
var optWords = map[string]lister{
	"run": linkOpts, "network connect": linkOpts,
	"up": networkOpts, "network create": networkOpts, "network set": networkOpts,
}

// complete gives cmd, and all below it, their completions.
func complete(cmd *cobra.Command) {
	name := short(cmd)
	if args, ok := completions[name]; ok {
		cmd.ValidArgsFunction = inOrder(args, slices.Contains(repeated, name))
	} else if cmd.ValidArgsFunction == nil && cmd.HasParent() && name != "run" && name != "probe get" {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		var c completer
		switch list := flagWords[f.Name]; {
		case f.Name == "opt" && optWords[name] != nil:
			c = one(optWords[name])
		case f.Name == "file":
			c = files("yaml", "yml")
		case f.Name == "resume" || f.Name == "json" && f.Value.Type() == "string":
			c = files("json")
		case f.Name == "svg":
			c = files("svg")
		case f.Name == "rootfs" || f.Name == "workdir":
			c = directories
		case list != nil:
			c = one(list)
		case f.Value.Type() != "bool":
			c = cobra.NoFileCompletions
		}
		if c != nil {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, c) // fails for what has one already
		}
	})
	for _, c := range cmd.Commands() {
		complete(c)
	}
}

// inOrder completes each argument by its list; what the node would know there is
// none of without one.
func inOrder(lists []lister, again bool) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if again {
			i = min(i, len(lists)-1)
		}
		if i >= len(lists) {
			if lists != nil && cmd.Name() == "exec" {
				return nil, cobra.ShellCompDirectiveDefault // a command of this machine
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return fitting(lists[i], args, begun)
	}
}

// one completes the word behind an option.
func one(list lister) completer {
	return func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return fitting(list, nil, begun)
	}
}

// fitting are the words of a list that begin with begun and were not said yet.
func fitting(list lister, said []string, begun string) (found []string, how cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
	defer cancel()
	how = cobra.ShellCompDirectiveNoFileComp
	for _, word := range list(ctx) {
		if strings.HasPrefix(word, begun) && !slices.Contains(said, word) {
			found = append(found, word)
			if strings.ContainsAny(word[len(word)-1:], "=:,") {
				how |= cobra.ShellCompDirectiveNoSpace
			}
		}
	}
	return found, how
}

func words(list ...string) lister { return func(context.Context) []string { return list } }

// files completes names of files that end so.
func files(extensions ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return extensions, cobra.ShellCompDirectiveFilterFileExt
	}
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// runNetworks is what --network takes.
func runNetworks(ctx context.Context) []string {
	return append(networkNames(ctx), "none", "host", "container:")
}

// targets are what network connect takes.
func targets(ctx context.Context) []string { return append(containerNames(ctx), "netns:", "pid:") }

// networkOpts are the options of a network.
func networkOpts(context.Context) (list []string) {
	for _, name := range network.OptionNames(false) {
		list = append(list, name+"=")
	}
	return list
}

// stationMACs are those the switches know.
func stationMACs(ctx context.Context) (list []string) {
	var macs []api.MAC
	_ = onlooker().Get(ctx, "/v1/macs", &macs)
	for _, m := range macs {
		if !m.Local {
			list = append(list, m.MAC)
		}
	}
	return list
}

// neighbourAddresses are those the gateways know.
func neighbourAddresses(ctx context.Context) (list []string) {
	var neighbours []api.Neighbour
	_ = onlooker().Get(ctx, "/v1/arp", &neighbours)
	for _, n := range neighbours {
		list = append(list, n.IP)
	}
	return list
}

func containerNames(ctx context.Context) (list []string) {
	var containers []api.Container
	_ = onlooker().Get(ctx, "/v1/containers", &containers) // the cursor is no place for an error
	for _, c := range containers {
		list = append(list, c.Name)
	}
	return list
}

func networkNames(ctx context.Context) (list []string) {
	var switches []api.Switch
	_ = onlooker().Get(ctx, "/v1/switches", &switches)
	for _, s := range switches {
		list = append(list, s.Network)
	}
	return list
}
