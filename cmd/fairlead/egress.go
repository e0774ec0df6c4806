package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node/api"
	"fairlead/policy"
)

// egressHelp is what --egress takes.
const egressHelp = `--egress says where containers may open connections to. What comes in by
published ports is not asked about, and their nameserver always answers:
  all             everywhere, which is what is without it
  none            nowhere, and nobody outside is asked for a name
  internet        public addresses only: none that is private, link-local or
                  the host's, nor where clouds have their machines' credentials
  allow:FILE      what FILE lists, and nothing else: a line is
                  allow NAME|ADDRESS[/LENGTH] [PORT[/tcp|/udp]]
A NAME stands for the addresses the nameserver of the containers has answered for
it, as long as the answer holds.`

// readEgress reads --egress and the file it names.
func readEgress(cmd *cobra.Command, spec string) (*api.Egress, error) {
	e, err := readEgressFile(spec)
	var missing *os.PathError
	switch {
	case errors.As(err, &missing):
		return nil, fmt.Errorf("%s: --%w", short(cmd), err)
	case err != nil:
		return nil, wrongCall(cmd, "--%v", err)
	}
	return e, nil
}

// readEgressFile reads rules of egress and the file they name.
func readEgressFile(spec string) (*api.Egress, error) {
	var text strings.Builder
	_, err := policy.ParseEgress(spec, func(name string) (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.TeeReader(f, &text), f}, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.Egress{Spec: spec, Text: text.String()}, nil
}

// networkFlags are flags of a network that is used, for up and network set.
type networkFlags struct {
	egress   string
	loopback bool
}

func (o *networkFlags) define(f *pflag.FlagSet) {
	f.StringVar(&o.egress, "egress", "", "Where its containers may open connections to, `RULES`: all, none, internet or allow:FILE")
	f.BoolVar(&o.loopback, "host-loopback", false, "Let its containers reach this machine's loopback, as host.fairlead.internal")
}

// request is what the node is asked to change, nil if it is nothing.
func (o *networkFlags) request(cmd *cobra.Command) (*api.NetworkRequest, error) {
	r := &api.NetworkRequest{}
	if cmd.Flags().Changed("egress") {
		var err error
		if r.Egress, err = readEgress(cmd, o.egress); err != nil {
			return nil, err
		}
	}
	if cmd.Flags().Changed("host-loopback") {
		r.HostLoopback = &o.loopback
	}
	if r.Egress == nil && r.HostLoopback == nil {
		return nil, nil
	}
	return r, nil
}
