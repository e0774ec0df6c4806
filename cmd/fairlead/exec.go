package main

import (
	"context"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
)

func newExec() *cobra.Command {
	var interactive, tty bool
	var env []string
	var workdir string
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Run one more command in a running container",
		Long: `Run one more command in a running container. The exit status is the command's,
as with run. When you leave, what it started is hung up.`,
		Example: `  fairlead exec web ip addr
  fairlead exec -it web sh
  fairlead exec -e LANG=C -w /tmp web ls`,
		Args: atLeast(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkEnv(env); err != nil {
				return wrongCall(cmd, "%v", err)
			}
			t, err := openTerminal(tty, interactive)
			if err != nil {
				return fmt.Errorf("exec: %w", err)
			}
			defer t.close()
			if tty {
				env = append([]string{"TERM"}, env...)
			}
			return runExec(cmd.Context(), args[0], &api.Exec{
				Command: args[1:], Env: passOn(env), Workdir: workdir, TTY: tty,
			}, t)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&interactive, "interactive", "i", false, "Pass standard input on")
	f.BoolVarP(&tty, "tty", "t", false, "Give the command a terminal")
	f.StringArrayVarP(&env, "env", "e", nil, "Set `NAME=VALUE`, or pass NAME on")
	f.StringVarP(&workdir, "workdir", "w", "", "Working `DIRECTORY` inside (default: the container's)")
	f.SetInterspersed(false)
	return cmd
}

// runExec hands the node one end of a session and our stdio, and then talks to
// the container's init itself.
func runExec(ctx context.Context, name string, e *api.Exec, t *terminal) error {
	caller := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // as in run
	defer cancel()
	signals := forwardSignals(caller, cancel)
	defer signals.stop()

	stdio, closeStdio, err := t.descriptors()
	if err != nil {
		return err
	}
	s, end, err := box.NewSession()
	if err != nil {
		closeStdio()
		return err
	}
	defer s.Close()
	err = client().Hand(ctx, containerPath(name, "exec"), e, append(stdio, end))
	api.CloseAll([]int{end})
	closeStdio()
	t.started()
	if err != nil {
		return signals.orElse(about(name, err))
	}
	// Until the command runs there is nobody to signal, perhaps for long: an
	// init that stands still does not answer.
	signals.to(func(syscall.Signal) error { s.Close(); return nil })
	if err := s.Started(); err != nil {
		return signals.orElse(err)
	}
	signals.to(s.Signal)
	t.attach()
	code, err := s.Wait()
	t.drainSome()
	if err != nil {
		return signals.orElse(err)
	}
	if code == 0 {
		return nil
	}
	return exitStatus(code)
}
