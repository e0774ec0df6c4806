package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"fairlead/node/box"
)

// newNetworkWait is pipework's --wait, which a container runs before its service.
func newNetworkWait() *cobra.Command {
	var a box.Await
	cmd := &cobra.Command{
		Use:   "wait [OPTIONS] [CONTAINER|netns:PATH|pid:N]",
		Short: "Wait until an interface is there and up",
		Long: `Wait until a network namespace has an interface that is up, with somebody at its
other end: the namespace this command runs in, that of a container, the one a
path leads to, or that of a process. So a service can be started after the
interface it serves by, whoever connects that: run this in front of it, inside.`,
		Example: `  fairlead run -d --name web -- sh -c 'fairlead network wait && exec ./server'
  fairlead network connect --ifname eth1 lab web
  fairlead network wait --ifname eth0 --timeout 10s netns:/run/netns/blue`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var target *box.Target
			if len(args) > 0 {
				t, err := waitTarget(cmd, args[0])
				if err != nil {
					return err
				}
				target = &t
			}
			if a.Within < 0 {
				return wrongCall(cmd, "--timeout %v: that is over already", a.Within)
			}
			if err := box.AwaitInterface(cmd.Context(), target, a); err != nil {
				return fmt.Errorf("network wait: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&a.Name, "ifname", "i", "eth1", "`NAME` of the interface")
	f.DurationVar(&a.Within, "timeout", 0, "Give up after this `TIME` (default: never)")
	return cmd
}

// waitTarget is the namespace that is meant.
func waitTarget(cmd *cobra.Command, s string) (box.Target, error) {
	if isForeign(s) {
		t, err := parseTarget(s)
		if err != nil {
			return t, wrongCall(cmd, "%q is neither the name of a container, nor netns:PATH or pid:N", s)
		}
		return t, nil
	}
	c, err := find(cmd.Context(), s)
	if err == nil && c.State.Pid == 0 {
		err = fmt.Errorf("network wait: container %s has no process of ours: say netns:PATH or pid:N", s)
	}
	if err != nil {
		return box.Target{}, about(s, err)
	}
	return box.Target{PID: c.State.Pid}, nil
}
