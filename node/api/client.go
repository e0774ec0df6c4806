package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrNoNode says that no node runs in the directory. An error that wraps it says
// in which: nobody can tell from outside where we look.
var ErrNoNode = errors.New("no node is running")

// ErrLeaving says that the node is on its way out. It is answered with status
// 503, and nothing else is.
var ErrLeaving = errors.New("the node is just ending; try again")

// ErrLeft says that the node took the connection and ended. Whether it did what
// it was asked for, nobody knows.
var ErrLeft = errors.New("the node left without an answer")

// A Client talks to the node in one directory.
type Client struct {
	dir  string
	http *http.Client

	// Revive, if set, is called when no node runs, and says whether one does now.
	Revive func(ctx context.Context) (bool, error)
	// Greet, if set, has the node asked who it is before the first call, and is told.
	// A node that is just ending, or was just killed, is waited for first, so that
	// nothing is asked of it.
	Greet   func(*VersionInfo) error
	greeted sync.Once
	refused error // what Greet said
}

// NewClient returns a client of the node in dir. It connects when used.
func NewClient(dir string) *Client {
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true, // a node that is told to end must not wait for us
	}}
	return c
}

// Dir is the node directory.
func (c *Client) Dir() string { return c.dir }

// dial connects to the control socket. A directory that is not ours is refused
// before anything is said to whoever listens there.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if err := CheckDir(c.dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, c.noNode()
		}
		return nil, err
	}
	conn, err := c.line(ctx)
	if errors.Is(err, ErrNoNode) && c.Revive != nil {
		revived, rerr := c.Revive(ctx)
		if rerr != nil {
			return nil, rerr
		}
		if revived {
			return c.line(ctx)
		}
	}
	return conn, err
}

// line waits for a place in the line at the control socket.
func (c *Client) line(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", Socket(c.dir))
		switch {
		case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
			return nil, c.noNode()
		case !errors.Is(err, syscall.EAGAIN):
			return conn, err
		}
		// Others stand in line, perhaps a container that is refused again and
		// again. Go's sockets do not wait, so the line is tried again.
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
}

func (c *Client) noNode() error {
	return fmt.Errorf("%w in %s; start one with `fairlead up` or `fairlead run`", ErrNoNode, c.dir)
}

// dialWithin bounds the wait for a place in the line at the control socket.
const dialWithin = 5 * time.Second

// Get fetches path and decodes the answer into out.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// Post sends in to path and decodes the answer into out, which may be nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.call(ctx, http.MethodPost, path, in, out)
}

// Delete deletes path and decodes the answer into out, which may be nil.
func (c *Client) Delete(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodDelete, path, nil, out)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, body)
		return err
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("read the node's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// Stream fetches path and returns the body as it comes; the caller closes it.
func (c *Client) Stream(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.open(ctx, http.MethodGet, path, nil)
}

func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	if err := c.greet(ctx); err != nil {
		return nil, err
	}
	return c.openAt(ctx, method, path, in)
}

// leavesWithin bounds the wait for a node that is just ending.
const leavesWithin = 10 * time.Second

func (c *Client) greet(ctx context.Context) error {
	if c.Greet == nil {
		return nil
	}
	c.greeted.Do(func() {
		for deadline := time.Now().Add(leavesWithin); ; {
			var info VersionInfo
			body, err := c.openAt(ctx, http.MethodGet, "/v1/version", nil)
			if err == nil {
				err = json.NewDecoder(body).Decode(&info)
				body.Close()
			}
			switch {
			case err == nil:
				c.refused = c.Greet(&info)
				return
			case !errors.Is(err, ErrLeft) && !errors.Is(err, ErrLeaving) || time.Now().After(deadline):
				return // the call itself says it
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return c.refused
}

func (c *Client) openAt(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	req, err := request(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, failure(resp)
	}
	return resp.Body, nil
}

func request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	return http.NewRequestWithContext(ctx, method, "http://node"+path, body)
}

// plain takes off what net/http wraps around an error: the method and a URL
// that exists for nobody.
func plain(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w: %w", ErrLeft, err)
	}
	return err
}

// failure reads the error an answer carries.
func failure(resp *http.Response) error {
	if resp.StatusCode == http.StatusServiceUnavailable {
		return ErrLeaving
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	e := &Error{Status: resp.StatusCode}
	if json.Unmarshal(b, e) == nil && e.Message != "" {
		return e
	}
	return fmt.Errorf("the node answered %s: %s", resp.Status, bytes.TrimSpace(b))
}

// Hand hands descriptors to the node: it upgrades path, sends msg with fds in
// one piece and reads the node's answer into done. fds stay the caller's.
func (c *Client) Hand(ctx context.Context, path string, msg any, fds []int) error {
	if err := c.greet(ctx); err != nil {
		return err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = c.hand(ctx, conn.(*net.UnixConn), path, msg, fds)
	if ctx.Err() != nil {
		return fmt.Errorf("hand over descriptors at %s: %w", path, context.Cause(ctx))
	}
	return err
}

func (c *Client) hand(ctx context.Context, conn *net.UnixConn, path string, msg any, fds []int) error {
	if err := c.upgrade(ctx, conn, path); err != nil {
		return err
	}
	if err := SendMessage(conn, msg, fds); err != nil {
		return fmt.Errorf("hand over descriptors at %s: %w", path, err)
	}
	var done Done
	if _, err := ReceiveMessage(conn, &done); errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the node's answer at %s: %w: %w", path, ErrLeft, err)
	} else if err != nil {
		return fmt.Errorf("the node's answer at %s: %w", path, err)
	}
	if done.Error != "" {
		return &Error{Message: done.Error}
	}
	return nil
}

// Upgrade begins a conversation that carries descriptors, at a path; the caller
// closes it.
func (c *Client) Upgrade(ctx context.Context, path string) (*net.UnixConn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.upgrade(ctx, conn, path); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// upgrade asks for the protocol that carries descriptors.
func (c *Client) upgrade(ctx context.Context, conn net.Conn, path string) error {
	req, err := request(ctx, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("ask for %s at %s: %w", Protocol, path, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return fmt.Errorf("ask for %s at %s: %w", Protocol, path, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return failure(resp)
	}
	return nil // the node says nothing before our message, so nothing is buffered
}
