package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node/api"
	"fairlead/policy"
)

// rateFlags are how much a container may be sent and send.
type rateFlags struct{ in, out string }

func (o *rateFlags) define(f *pflag.FlagSet) {
	f.StringVar(&o.in, "rate-in", "", "How much it may be sent, `RATE`: 500kbit, 100mbit, 1.5gbit or none; the rest is dropped")
	f.StringVar(&o.out, "rate-out", "", "How much it may send, `RATE`; the rest waits")
}

// check finds what is wrong with the rates.
func (o *rateFlags) check() error {
	for _, x := range []struct{ flag, word string }{{"--rate-in", o.in}, {"--rate-out", o.out}} {
		if x.word == "" {
			continue
		}
		if _, err := policy.ParseBandwidth(x.word); err != nil {
			return fmt.Errorf("%s: %w", x.flag, err)
		}
	}
	return nil
}

func newUpdate() *cobra.Command {
	var o rateFlags
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER...",
		Short: "Change the rates of running containers",
		Long: `Change how much running containers may be sent and send, over all their networks
together. What a container sends too fast waits in it; what it is sent too fast
is dropped, rate-limit in show drops. Programs in it notice a slower network and
nothing else.`,
		Example: `  fairlead update --rate-in 10mbit --rate-out 2mbit web
  fairlead update --rate-out none web`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			var request api.UpdateRequest
			if cmd.Flags().Changed("rate-in") {
				request.RateIn = &o.in
			}
			if cmd.Flags().Changed("rate-out") {
				request.RateOut = &o.out
			}
			if request == (api.UpdateRequest{}) {
				return wrongCall(cmd, "nothing is to change: %s", cmd.UseLine())
			}
			for _, name := range args {
				if err := client().Post(cmd.Context(), containerPath(name, "update"), request, nil); err != nil {
					return about(name, err)
				}
			}
			return nil
		},
	}
	o.define(cmd.Flags())
	return cmd
}
