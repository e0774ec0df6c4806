package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node/api"
)

func newPs() *cobra.Command {
	var asJSON, quiet, whole bool
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS]",
		Short: "List containers",
		Long:  "List containers. Those that have ended are gone, so all there are run.",
		Example: `  fairlead ps
  fairlead ps -q
  fairlead ps --json`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			containers := []api.Container{}
			err := client().Get(cmd.Context(), "/v1/containers", &containers)
			if err != nil && !isNoNode(err) { // without a node there are no containers
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				return printJSON(out, containers)
			case quiet:
				for _, c := range containers {
					fmt.Fprintln(out, shortID(c.ID, whole))
				}
				return nil
			}
			return psTable(out, containers, whole, time.Now())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "Print JSON")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	f.BoolVar(&whole, "no-trunc", false, "Do not cut ids and commands")
	f.BoolP("all", "a", false, "Accepted; containers that have ended are gone")
	return cmd
}

func newLogs() *cobra.Command {
	var follow bool
	var tail string
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Print what a detached container has written",
		Example: `  fairlead logs web
  fairlead logs -f --tail 10 web`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if follow {
				q.Set("follow", "1")
			}
			if tail != "all" {
				if n, err := strconv.Atoi(tail); err != nil || n < 0 {
					return wrongCall(cmd, "--tail %s is neither a number of lines nor \"all\"", tail)
				}
				q.Set("tail", tail)
			}
			body, err := client().Stream(cmd.Context(), containerPath(args[0], "logs")+"?"+q.Encode())
			if err != nil {
				return about(args[0], err)
			}
			defer body.Close()
			err = copyUntil(cmd, cmd.OutOrStdout(), body)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("the node left; `%s %s` goes on with the next one", "fairlead logs -f", args[0])
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "Go on printing until the container ends")
	cmd.Flags().StringVarP(&tail, "tail", "n", "all", "Print the last `N` lines only")
	return cmd
}

// copyUntil copies a stream; Ctrl-C is the way to end one, not an error.
func copyUntil(cmd *cobra.Command, dst io.Writer, src io.Reader) error {
	if _, err := io.Copy(dst, src); err != nil && cmd.Context().Err() == nil {
		return err
	}
	return nil
}

func newStop() *cobra.Command {
	var timeout int
	var sig string
	cmd := &cobra.Command{
		Use:   "stop [OPTIONS] CONTAINER...",
		Short: "End containers: SIGTERM, and SIGKILL for those that do not hear it",
		Example: `  fairlead stop web
  fairlead stop -t 1 web db
  fairlead stop $(fairlead ps -q)`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := api.SignalRequest{Signal: sig}
			if cmd.Flags().Changed("timeout") {
				request.Timeout = &timeout
			}
			return forEach(args, func(name string) error {
				done := slow(cmd.ErrOrStderr(), fmt.Sprintf("waiting up to %d seconds for %s to end", timeout, name))
				c, err := find(cmd.Context(), name)
				if err == nil {
					err = stop(cmd.Context(), client(), c.ID, request)
				}
				done()
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), strings.TrimPrefix(c.Name, "/"))
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	f.IntVarP(&timeout, "timeout", "t", stopWithin, "`SECONDS` to wait before SIGKILL")
	f.StringVarP(&sig, "signal", "s", "", "`SIGNAL` to send first (default TERM)")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "time" { // what Docker called it before
			name = "timeout"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

func newKill() *cobra.Command {
	var sig string
	cmd := &cobra.Command{
		Use:   "kill [OPTIONS] CONTAINER...",
		Short: "Send containers a signal, SIGKILL unless told otherwise",
		Example: `  fairlead kill web
  fairlead kill -s HUP web`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return forEach(args, func(name string) error {
				c, err := find(cmd.Context(), name)
				if err == nil {
					err = client().Post(cmd.Context(), containerPath(c.ID, "kill"), api.SignalRequest{Signal: sig}, nil)
				}
				if err == nil { // whose id begins with "3" is better said than guessed
					fmt.Fprintln(cmd.OutOrStdout(), strings.TrimPrefix(c.Name, "/"))
				}
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&sig, "signal", "s", "", "`SIGNAL` to send: a name or a number (default KILL)")
	return cmd
}

func newRename() *cobra.Command {
	return &cobra.Command{
		Use:     "rename CONTAINER NAME",
		Short:   "Give a container another name",
		Long:    "Give a container another name, by which others find it at once. Its host name\nstays what it is.",
		Example: "  fairlead rename web front",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return about(args[0], client().Post(cmd.Context(), containerPath(args[0], "rename"), api.RenameRequest{Name: args[1]}, nil))
		},
	}
}

// stopWithin is how many seconds a container has to end, unless somebody says it.
const stopWithin = 10

// stop ends a container and returns once it has ended. If another node takes the place of
// the one that was asked, that one is asked for the rest of the time: nobody knows what
// the first has done.
func stop(ctx context.Context, c *api.Client, id string, request api.SignalRequest) error {
	seconds := stopWithin
	if request.Timeout != nil {
		seconds = *request.Timeout
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	err := c.Post(ctx, containerPath(id, "stop"), request, nil)
	for errors.Is(err, api.ErrLeft) && time.Since(end) < stopWithin*time.Second {
		left := max(0, int(math.Ceil(time.Until(end).Seconds())))
		request.Timeout = &left
		if err = c.Post(ctx, containerPath(id, "stop"), request, nil); isUnknown(err) {
			return nil // it has ended in between
		}
	}
	return err
}

// slow says what we are waiting for once that takes more than a second, to a
// person only. The function it returns takes the line away again.
func slow(stderr io.Writer, what string) (done func()) {
	f, ok := stderr.(*os.File)
	if !ok || !isTerminal(f) {
		return func() {}
	}
	gone, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-gone:
		case <-time.After(time.Second):
			fmt.Fprint(f, what+" …")
			<-gone
			fmt.Fprint(f, "\r\x1b[K")
		}
	}()
	return func() { close(gone); <-stopped }
}
