package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// traceOptions is how `trace` prints.
type traceOptions struct {
	json, words bool
	count       int    // 0: without end
	grep        string // only lines that hold it
}

func newTrace() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace [OPTIONS] [CONTAINER]",
		Short: "Follow packets: one line for each, with where it went and why",
		Long: `Follow packets through the switch until Ctrl-C: one line for each, with the port
it came in by, what it is, the verdict, the reason and the ports it left by.
With a container, only what comes from it or goes to it. Without a node it starts
one, so that it can be there before the first container.`,
		Example: `  fairlead trace
  fairlead trace web
  fairlead trace --words --grep echo -n 2
  fairlead trace --json | jq .reason`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.count < 0 {
				return wrongCall(cmd, "--count %d is less than 0", o.count)
			}
			body, err := follow(cmd.Context(), args)
			if err != nil {
				return err
			}
			defer body.Close()
			if f, ok := cmd.ErrOrStderr().(*os.File); ok && isTerminal(f) {
				fmt.Fprintln(f, "following packets; Ctrl-C ends it")
			}
			err = o.print(cmd.OutOrStdout(), cmd.ErrOrStderr(), body)
			if cmd.Context().Err() != nil {
				return nil // Ctrl-C is the way to end it
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "Print JSON, one object a line")
	f.BoolVar(&o.words, "words", false, "Print each packet's way step by step")
	f.StringVar(&o.grep, "grep", "", "Only packets whose line contains `TEXT`")
	f.IntVarP(&o.count, "count", "n", 0, "End after `COUNT` packets")
	return cmd
}

// follow opens the stream of all packets or of one container's. Who follows all
// may be there before the first container, and with that before its node; a
// container's node runs or there is no such container.
func follow(ctx context.Context, container []string) (io.ReadCloser, error) {
	if len(container) > 0 {
		stream, err := client().Stream(ctx, "/v1/trace?container="+url.QueryEscape(container[0]))
		return stream, about(container[0], err)
	}
	c, err := ensure(ctx)
	if err != nil {
		return nil, err
	}
	return c.Stream(ctx, "/v1/trace")
}

// print prints the stream of lines as it comes.
func (o *traceOptions) print(out, stderr io.Writer, stream io.Reader) error {
	d := json.NewDecoder(stream)
	for n := 0; o.count == 0 || n < o.count; {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			return nil // the node went down
		} else if err != nil {
			return fmt.Errorf("trace: %w", err)
		}
		var line api.TraceLine
		if err := json.Unmarshal(raw, &line); err != nil {
			return fmt.Errorf("trace: %w", err)
		}
		if line.Lost > 0 {
			fmt.Fprintf(stderr, "fairlead: %d packets came too fast to be recorded\n", line.Lost)
		}
		if !strings.Contains(line.Line, o.grep) {
			continue
		}
		n++
		if o.json {
			fmt.Fprintf(out, "%s\n", raw)
			continue
		}
		fmt.Fprintln(out, line.Line)
		if o.words {
			for _, step := range line.Walk {
				fmt.Fprintln(out, "    "+step)
			}
		}
	}
	return nil
}
