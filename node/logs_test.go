package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A writer writes a container's log as its init does.
type writer struct {
	t    *testing.T
	path string
	f    *os.File
}

func newWriter(t *testing.T, path string) *writer {
	w := &writer{t: t, path: path}
	w.open()
	t.Cleanup(func() { w.f.Close() })
	return w
}

func (w *writer) open() {
	var err error
	if w.f, err = os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) write(s string) {
	if _, err := w.f.WriteString(s); err != nil {
		w.t.Fatal(err)
	}
}

// rotate moves the file away and begins another one.
func (w *writer) rotate() {
	w.f.Close()
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func (r *rig) logs(query string) string {
	r.t.Helper()
	body, err := r.Stream(r.ctx, "/v1/containers/web/logs"+query)
	if err != nil {
		r.t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		r.t.Error(err)
	}
	return string(b)
}

func TestLogs(t *testing.T) {
	r := serve(t)
	c, _ := r.run(api.CreateRequest{Name: "web", Detached: true})
	r.run(api.CreateRequest{Name: "front"})
	w := newWriter(t, c.Log)
	if got := r.logs(""); got != "" {
		t.Errorf("at first: %q", got)
	}
	w.write("one\ntwo\nthree\n")
	for query, want := range map[string]string{
		"": "one\ntwo\nthree\n", "?tail=": "one\ntwo\nthree\n", "?tail=0": "", "?tail=1": "three\n", "?tail=2": "two\nthree\n",
		"?tail=3": "one\ntwo\nthree\n", "?tail=4": "one\ntwo\nthree\n", "?tail=1000000": "one\ntwo\nthree\n", "?follow=0": "one\ntwo\nthree\n",
	} {
		if got := r.logs(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	w.write("\n\nno end")
	for query, want := range map[string]string{"?tail=1": "no end", "?tail=2": "\nno end", "?tail=3": "\n\nno end", "?tail=4": "three\n\n\nno end"} {
		if got := r.logs(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, tail := range []string{"-1", "many", "1.5"} {
		_, err := r.Stream(r.ctx, "/v1/containers/web/logs?tail="+tail)
		refused(t, err, fmt.Sprintf("tail=%q is not a number of lines", tail))
	}
	_, err := r.Stream(r.ctx, "/v1/containers/front/logs")
	refused(t, err, "container front runs in the foreground: its output went where it was started; `fairlead run -d` keeps it")
}

// TestTailReadsBackwards crosses the pieces it reads in.
func TestTailReadsBackwards(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var all strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&all, "%d %s\n", i, strings.Repeat("x", i%97))
	}
	if err := os.WriteFile(path, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(all.String(), "\n")
	lines = lines[:len(lines)-1]
	for n := 0; n <= len(lines)+5; n += 1 + n/7 {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := seekTail(f, n, false); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if want := strings.Join(lines[max(0, len(lines)-n):], ""); err != nil || string(got) != want {
			t.Errorf("the last %d lines: %d bytes, want %d, %v", n, len(got), len(want), err)
		}
		f.Close()
	}
}

// TestLogsRotated: what was written before the file was full is still there.
func TestLogsRotated(t *testing.T) {
	r := serve(t)
	c, i := r.run(api.CreateRequest{Name: "web", Detached: true})
	w := newWriter(t, c.Log)
	w.write("gone\n")
	w.rotate()
	w.write("one\ntwo\nth")
	w.rotate() // in the middle of a line
	check := func(all string) {
		t.Helper()
		lines := strings.SplitAfter(strings.TrimSuffix(all, "\n"), "\n")
		for n := 0; n <= len(lines)+1; n++ {
			want := strings.TrimPrefix(all, strings.Join(lines[:max(0, len(lines)-n)], ""))
			if n == 0 {
				want = ""
			}
			if got := r.logs(fmt.Sprintf("?tail=%d", n)); got != want {
				t.Errorf("the last %d lines: %q, want %q", n, got, want)
			}
		}
		if got := r.logs(""); got != all {
			t.Errorf("got %q, want %q", got, all)
		}
	}
	check("one\ntwo\nth")
	w.write("ree\nfour\n")
	check("one\ntwo\nthree\nfour\n")
	w.rotate() // at the end of one
	check("ree\nfour\n")
	w.write("five\n")
	check("ree\nfour\nfive\n")

	// Two rotations between two looks of a follower, and another before the end.
	body, err := r.Stream(r.ctx, "/v1/containers/web/logs?follow=1&tail=0")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	w.write("six\n")
	w.rotate()
	w.write("seven\n")
	w.rotate()
	w.write("eight\n")
	w.rotate()
	w.write("nine\n")
	i.exit(t, 0)
	rest, err := io.ReadAll(body)
	if got := string(rest); err != nil || !strings.HasPrefix(got, "six\n") || !strings.HasSuffix(got, "eight\nnine\n") {
		t.Errorf("followed: %q, %v", got, err)
	}
	_ = body.Close()
	lab.Eventually(t, 10*time.Second, func() error {
		if _, err := os.Stat(filepath.Dir(c.Log)); !errors.Is(err, os.ErrNotExist) {
			return errors.New("the files outlive their last reader")
		}
		return nil
	})
}

// TestLogThatIsNoFile: a container can put what it likes in its log's place.
func TestLogThatIsNoFile(t *testing.T) {
	r := serve(t)
	c, _ := r.run(api.CreateRequest{Name: "web", Detached: true})
	if err := errors.Join(os.Remove(c.Log), unix.Mkfifo(c.Log, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := r.Stream(r.ctx, "/v1/containers/web/logs")
	refused(t, err, "log of container web: "+c.Log+" is not a file any more")
}

// TestLogsFollow: what is written arrives, over rotations too, and the stream
// ends with the container; descriptors are given back.
func TestLogsFollow(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	c, i := r.run(api.CreateRequest{Name: "web", Detached: true})
	w := newWriter(t, c.Log)
	w.write("before\n")
	body, err := r.Stream(r.ctx, "/v1/containers/web/logs?follow=1&tail=0")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	before := openDescriptors(t)
	expect := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(body, b); err != nil || string(b) != want {
			t.Errorf("got %q, %v, want %q", b, err, want)
		}
	}
	w.write("first\n")
	expect("first\n")
	for n := range 3 {
		// Written to the old file after the follower has read it to its end, and
		// then to the new one.
		w.write(fmt.Sprintf("old %d\n", n))
		w.rotate()
		w.write(fmt.Sprintf("new %d\n", n))
		expect(fmt.Sprintf("old %d\nnew %d\n", n, n))
	}
	if n := openDescriptors(t); n > before {
		t.Errorf("%d descriptors after three rotations, there were %d", n, before)
	}
	w.write("last\n")
	i.exit(t, 0)
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "last\n" {
		t.Errorf("at the end: %q, %v", rest, err)
	}

	// Who leaves is let go.
	r.run(api.CreateRequest{Name: "web", Detached: true})
	ctx, cancel := context.WithCancel(r.ctx)
	body, err = r.Stream(ctx, "/v1/containers/web/logs?follow=1")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled stream: %v", err)
	}
	_ = body.Close()
}

// TestLogsOfAReader who does not read: the node ends all the same.
func TestLogsOfASlowReader(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	c, _ := r.run(api.CreateRequest{Name: "web", Detached: true})
	w := newWriter(t, c.Log)
	body, err := r.Stream(r.ctx, "/v1/containers/web/logs?follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	w.write(strings.Repeat("more than any buffer holds\n", 100_000))
	time.Sleep(200 * time.Millisecond)
	if err := r.Post(r.ctx, "/v1/containers/web/kill", api.SignalRequest{}, nil); err != nil {
		t.Error(err)
	}
	r.gone("web")
	if err := r.Post(r.ctx, "/v1/down", api.DownRequest{}, nil); err != nil {
		t.Error(err)
	}
	r.ended(10 * time.Second)
}
