package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// newProbe makes a small client and server of every kind, for machines and
// trees without tools.
func newProbe() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "probe COMMAND",
		Short: "Small clients and servers to try a network with",
		Long: `Small clients and servers to try a network with, where ping, curl and the like
are not installed. Exit status 1: the other side did not answer.`,
		Example: `  fairlead run -d --name web -- fairlead probe http-server
  fairlead run -- fairlead probe ping -c 3 172.17.0.2
  fairlead run -- fairlead probe get http://172.17.0.2/`,
	})
	cmd.AddCommand(newHTTPServer(), newGet(), newUDPEcho(), newPing())
	return cmd
}

// noAnswer prints err and ends with 1, as curl and ping do when nobody answers.
func noAnswer(cmd *cobra.Command, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "fairlead: %v\n", err)
	return exitStatus(1)
}

func newHTTPServer() *cobra.Command {
	var addr, text string
	cmd := &cobra.Command{
		Use:   "http-server [OPTIONS]",
		Short: "Serve a page that says who asks whom",
		Example: `  fairlead run -d --name web -- fairlead probe http-server
  fairlead probe http-server --addr :8080 --text 'hello'`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("probe http-server: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "serving on %s\n", l.Addr())
			return serveHTTP(cmd.Context(), l, cmd.OutOrStdout(), text)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", ":80", "`[ADDRESS]:PORT` to listen on")
	cmd.Flags().StringVar(&text, "text", "", "Serve this `TEXT` instead")
	return cmd
}

// serveHTTP serves until ctx ends and logs a line for each request.
func serveHTTP(ctx context.Context, l net.Listener, log io.Writer, text string) error {
	host, _ := os.Hostname()
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(log, "%s %s %s\n", r.RemoteAddr, r.Method, r.URL)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if text != "" {
				fmt.Fprintln(w, text)
				return
			}
			here, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			fmt.Fprintf(w, "Hello %s, this is %s at %s.\n", r.RemoteAddr, host, here)
		}),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("probe http-server: %w", err)
	}
	return nil
}

func newGet() *cobra.Command {
	var file string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "get [OPTIONS] URL",
		Short: "Fetch a page and print it",
		Example: `  fairlead run -- fairlead probe get http://172.17.0.2/
  fairlead probe get --timeout 2s -o page.txt http://172.17.0.2:8080/`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return wrongCall(cmd, "%q is not a URL such as http://172.17.0.2/", args[0])
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("no answer within %v", timeout))
			defer cancel()
			out := cmd.OutOrStdout()
			if file != "" {
				f, err := os.Create(file)
				if err != nil {
					return fmt.Errorf("probe get: %w", err)
				}
				defer f.Close()
				out = f
			}
			if err := get(ctx, u.String(), out); err != nil {
				return noAnswer(cmd, fmt.Errorf("probe get %s: %w", u, err))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "Write the page to `FILE`")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "Give up after `TIME`")
	return cmd
}

// get copies a page. It goes straight to the host the URL names: a proxy of the
// caller's is out of a container's reach.
func get(ctx context.Context, url string, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{Proxy: nil}}).Do(req)
	if err != nil {
		return innermost(ctx, err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return innermost(ctx, err)
	}
	if resp.StatusCode >= 400 {
		return errors.New(resp.Status)
	}
	return nil
}

// innermost is err without the URL and the addresses that were said already, or
// why ctx ended.
func innermost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err
}

func newUDPEcho() *cobra.Command {
	var addr string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "udp-echo [OPTIONS] [HOST:PORT [TEXT]]",
		Short: "Send UDP datagrams back, or ask somebody who does",
		Example: `  fairlead run -d --name echo -- fairlead probe udp-echo
  fairlead run -- fairlead probe udp-echo 172.17.0.2:7 hello`,
		Args: atMost(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return serveUDP(cmd.Context(), addr, cmd.OutOrStdout())
			}
			text := "hello"
			if len(args) == 2 {
				text = args[1]
			}
			if _, _, err := net.SplitHostPort(args[0]); err != nil {
				return wrongCall(cmd, "%q is not HOST:PORT such as 172.17.0.2:7", args[0])
			}
			if err := askUDP(cmd.OutOrStdout(), args[0], text, timeout); err != nil {
				return noAnswer(cmd, fmt.Errorf("probe udp-echo %s: %w", args[0], innermost(cmd.Context(), err)))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&addr, "addr", ":7", "`[ADDRESS]:PORT` to listen on")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "Wait this `TIME` for an answer")
	return cmd
}

func serveUDP(ctx context.Context, addr string, log io.Writer) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return fmt.Errorf("probe udp-echo: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	fmt.Fprintf(log, "echoing on %s\n", conn.LocalAddr())
	buf := make([]byte, 1<<16) // the largest datagram
	for {
		n, from, err := conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("probe udp-echo: %w", err)
		}
		fmt.Fprintf(log, "%s %d bytes\n", from, n)
		_, _ = conn.WriteTo(buf[:n], from) // who does not get it asks again
	}
}

func askUDP(out io.Writer, addr, text string, timeout time.Duration) error {
	conn, err := net.DialTimeout("udp", addr, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	start := time.Now()
	_ = conn.SetDeadline(start.Add(timeout)) // of a socket this cannot fail
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer within %v", timeout)
	} else if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s from %s, time=%.3f ms\n", buf[:n], conn.RemoteAddr(), millis(time.Since(start)))
	return err
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
