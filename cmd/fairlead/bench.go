package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fairlead/bench/flags"
)

// benchProgram is what measures. It lies beside this program.
const benchProgram = "fairlead-bench"

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench [OPTIONS]",
		Short: "Measure fairlead beside the kernel's bridge and other switches",
		Long: `Measure how fast fairlead is on this machine, beside the kernel's bridge, a relay
that only reads and writes, and what else is installed: Open vSwitch, VDE,
slirp4netns, pasta, rootlesskit, docker-proxy. What is not is listed, with the
command that installs it.

It takes no rights and leaves nothing behind: all of it happens in namespaces of
its own. The paths of a workload are measured in turns, and what counts is the
ratio of two measurements that stand beside each other. All of it takes less
than an hour, and says beforehand how long; when it is interrupted it prints what
it has, and --resume goes on from what --json wrote.

The exit status is 1 when something could not be measured. With --check it is 1
when a bar was not met, and 2 when none was missed but nobody can tell of some,
because a peer is not installed or was not measured often enough: such a bar is
open and says whom it lacks. --help and --list name all workloads and paths.`,
		Example: `  fairlead bench --quick
  fairlead bench --json bench.json
  fairlead bench --resume bench.json
  fairlead bench --show bench.json --svg charts
  fairlead bench --only tcp-1,nat --paths fairlead,kernel --seconds 1
  fairlead bench --check`,
		Args: exactly(0),
	}
	said := flags.Define(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := said.Complete(cmd.Flags().Changed); err != nil {
			return wrongCall(cmd, "%v", err)
		}
		return bench(cmd, flags.Args(cmd.Flags())...)
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.Root().HelpFunc()(cmd, args)
		fmt.Fprintln(cmd.OutOrStdout())
		if err := bench(cmd, "--list"); err != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "Workloads and paths are known to %s, which is not here.\n", benchProgram)
		}
	})
	return cmd
}

// bench runs the program that measures, and ends as it does.
func bench(cmd *cobra.Command, args ...string) error {
	program, err := besideUs(benchProgram)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	// The kernel ties the parent-death signal to the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := exec.CommandContext(cmd.Context(), program, args...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	var exit *exec.ExitError
	switch err := c.Run(); {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exitStatus(exit.ExitCode())
	case c.ProcessState != nil && c.ProcessState.ExitCode() > 0: // Run says that it was interrupted
		return exitStatus(c.ProcessState.ExitCode())
	default:
		return fmt.Errorf("bench: %w", err)
	}
}

// besideUs finds a program in the folder of this one.
func besideUs(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	program := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("there is no %s beside %s; try `make install`, or `make build` in a checkout", name, self)
	}
	return program, nil
}

// benchNames lists what stands below headings of `fairlead bench --list` that
// begin with a word.
func benchNames(heading string) lister {
	return func(ctx context.Context) (names []string) {
		program, err := besideUs(benchProgram)
		if err != nil {
			return nil
		}
		text, _ := exec.CommandContext(ctx, program, "--list").Output() // what there is of it
		below := false
		for line := bufio.NewScanner(strings.NewReader(string(text))); line.Scan(); {
			name, entry := strings.CutPrefix(line.Text(), "  ")
			switch {
			case !entry:
				below = strings.HasPrefix(line.Text(), heading) || below && line.Text() == ""
			case below:
				name, _, _ = strings.Cut(name, " ")
				names = append(names, name)
			}
		}
		return names
	}
}
