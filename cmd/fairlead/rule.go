package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

func newRule() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "rule",
		Short: "Let containers reach others where they may not by themselves (icc=off)",
		Long: `Let containers reach others on a network whose containers do not talk to one
another by themselves: one set up with --opt icc=off. A rule opens a port of one
container to another, for connections in that direction and their answers. It
is of names: it holds for whatever container has the name, now or later, on that
network. It goes with the network, and on the default one with the node.

Where containers talk to one another anyway, rules open nothing more.`,
		Example: `  fairlead up --opt icc=off
  fairlead rule add web db:5432
  fairlead rule ls
  fairlead show rules`,
	})
	cmd.AddCommand(newRuleAdd(), newRuleRm(), newRuleLs())
	return cmd
}

func newRuleAdd() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] FROM TO[:PORT[-PORT][/PROTOCOL]]",
		Short: "Let a container open connections to a port of another",
		Long: `Let a container open connections to a port of another, by TCP or with /udp by
UDP; without a port by everything, ping included. FROM and TO are names of
containers, which need not be there yet, or any. It prints the rule's number.`,
		Example: `  fairlead rule add web db:5432
  fairlead rule add any dns:53/udp
  fairlead rule add --network backend admin any`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := api.ParseRule(args[0], args[1]); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			var added api.Rule
			if err := client().Post(cmd.Context(), "/v1/rules", api.RuleRequest{Network: network, From: args[0], To: args[1]}, &added); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), added.Number)
			adviseOnRule(cmd.ErrOrStderr(), &added)
			return nil
		},
	}
	cmd.Flags().StringVar(&network, "network", "default", "`NETWORK` the two are on")
	return cmd
}

// adviseOnRule says what keeps a rule from opening anything.
func adviseOnRule(stderr io.Writer, r *api.Rule) {
	if !r.Needed {
		fmt.Fprintf(stderr, "fairlead: containers of network %s talk to one another anyway; not so after `fairlead network set %[1]s --opt icc=off`\n", r.Network)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(stderr, "fairlead: no container on network %s is called %s so far; the rule waits for one\n", r.Network, strings.Join(r.Missing, ", nor "))
	}
}

func newRuleRm() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:   "rm [OPTIONS] NUMBER | FROM TO[:PORT[-PORT][/PROTOCOL]]",
		Short: "Take a rule away",
		Long: `Take a rule away, by its number or as it was added. Connections it has let begin
do not go on.`,
		Example: `  fairlead rule rm 3
  fairlead rule rm web db:5432`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := atLeast(1)(cmd, args); err != nil {
				return err
			}
			return atMost(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			number := args[0]
			switch _, err := strconv.ParseUint(number, 10, 32); {
			case len(args) == 1 && err != nil:
				return wrongCall(cmd, "%q is no number of a rule; `fairlead rule ls` lists them", number)
			case len(args) == 2:
				r, err := findRule(cmd, network, args[0], args[1])
				if err != nil {
					return err
				}
				number = strconv.Itoa(r.Number)
			}
			return client().Delete(cmd.Context(), "/v1/rules/"+number, nil)
		},
	}
	cmd.Flags().StringVar(&network, "network", "default", "`NETWORK` the two are on")
	return cmd
}

// findRule is the rule with these words.
func findRule(cmd *cobra.Command, network, from, to string) (*api.Rule, error) {
	spec, err := api.ParseRule(from, to)
	if err != nil {
		return nil, wrongCall(cmd, "%v", err)
	}
	if network == "bridge" {
		network = "default"
	}
	var rules []api.Rule
	if err := client().Get(cmd.Context(), "/v1/rules/added", &rules); err != nil {
		return nil, err
	}
	for i := range rules {
		if r := &rules[i]; r.Network == network && r.From == spec.From && r.To == spec.Target() {
			return r, nil
		}
	}
	return nil, fmt.Errorf("rule rm: network %s has no rule %s; `fairlead rule ls` lists them", network, spec)
}

func newRuleLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List the rules that were added, with counters",
		Example: "  fairlead rule ls\n  fairlead rule ls --json",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			rules := []api.Rule{}
			if err := client().Get(cmd.Context(), "/v1/rules/added", &rules); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rules)
			}
			return ruleTable(cmd.OutOrStdout(), rules)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

func ruleTable(out io.Writer, rules []api.Rule) error {
	t := newTable(out, "rule", "network", "from", "to", "packets", "bytes", "state")
	for _, r := range rules {
		state := "open"
		switch {
		case !r.Needed:
			state = "not needed (icc=on)"
		case len(r.Missing) > 0:
			state = "waits for " + strings.Join(r.Missing, ", ")
		}
		t.row(strconv.Itoa(r.Number), r.Network, r.From, r.To, number(r.Packets), number(r.Bytes), state)
	}
	return t.end()
}

// ruleNumbers completes numbers of rules.
func ruleNumbers(ctx context.Context) (list []string) {
	var rules []api.Rule
	_ = onlooker().Get(ctx, "/v1/rules/added", &rules) // the cursor is no place for an error
	for _, r := range rules {
		list = append(list, strconv.Itoa(r.Number))
	}
	return list
}
