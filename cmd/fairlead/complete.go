package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// A completer lists the words that may stand where the cursor is.
type completer = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeWithin bounds how long a shell waits for a list of names.
const completeWithin = time.Second

// completions says what each command's arguments are: the first one, or with
// more all of them.
var completions = map[string]struct {
	words func(ctx context.Context) []string
	more  bool
}{
	"exec": {containerNames, false}, "logs": {containerNames, false}, "trace": {containerNames, false},
	"port": {containerNames, false}, "publish": {containerNames, false}, "unpublish": {containerNames, false},
	"stop": {containerNames, true}, "kill": {containerNames, true}, "rename": {containerNames, false}, "update": {containerNames, true}, "rule rm": {ruleNumbers, false}, "inspect": {containerNames, true},
	"network set": {networkNames, false}, "network connect": {networkNames, false}, "network disconnect": {networkNames, false},
	"network rm": {networkNames, true}, "network inspect": {networkNames, true},
}

// complete gives cmd, and all below it, their completions.
func complete(cmd *cobra.Command) {
	if c, ok := completions[short(cmd)]; ok {
		cmd.ValidArgsFunction = names(c.words, c.more)
	}
	if cmd.Flags().Lookup("uplink") != nil {
		_ = cmd.RegisterFlagCompletionFunc("uplink", beginnings("tap:", "if:", "none")) // fails only for a flag there is not
	}
	for _, c := range cmd.Commands() {
		complete(c)
	}
}

// names completes words the node knows; without a node there are none.
func names(list func(ctx context.Context) []string, more bool) completer {
	return func(cmd *cobra.Command, args []string, begun string) (found []string, _ cobra.ShellCompDirective) {
		if len(args) > 0 && !more {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
		defer cancel()
		for _, name := range list(ctx) {
			if strings.HasPrefix(name, begun) && !slices.Contains(args, name) {
				found = append(found, name)
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// beginnings completes the first part of a word that has others.
func beginnings(words ...string) completer {
	return func(_ *cobra.Command, _ []string, begun string) (found []string, _ cobra.ShellCompDirective) {
		for _, w := range words {
			if strings.HasPrefix(w, begun) {
				found = append(found, w)
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

func containerNames(ctx context.Context) (list []string) {
	var containers []api.Container
	_ = client().Get(ctx, "/v1/containers", &containers) // the cursor is no place for an error
	for _, c := range containers {
		list = append(list, c.Name)
	}
	return list
}

func networkNames(ctx context.Context) (list []string) {
	var switches []api.Switch
	_ = client().Get(ctx, "/v1/switches", &switches)
	for _, s := range switches {
		list = append(list, s.Network)
	}
	return list
}
