package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A client that may ask, and asks what nobody should: the node says no, keeps
// nothing of it, and serves the others meanwhile.

// rubbish are requests that are none. Each is answered with an error, or the
// connection is closed.
var rubbish = map[string]string{
	"binary":               "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
	"half a line":          "POST\r\n\r\n",
	"no length":            post("/v1/containers", "Content-Length: -1", ""),
	"two lengths":          post("/v1/containers", "Content-Length: 2\r\nContent-Length: 3", "{}"),
	"length and chunks":    post("/v1/containers", "Content-Length: 2\r\nTransfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
	"wrong chunks":         post("/v1/containers", "Transfer-Encoding: chunked", "-1\r\n{}\r\n"),
	"deep JSON":            jsonPost("/v1/containers", strings.Repeat("[", 200_000)),
	"deep objects":         jsonPost("/v1/networks", strings.Repeat(`{"a":`, 50_000)),
	"deep in a field":      jsonPost("/v1/containers", `{"command":`+strings.Repeat("[", 100_000)),
	"not JSON":             jsonPost("/v1/containers", "name=x"),
	"two values":           jsonPost("/v1/containers", "{}{}"),
	"of another type":      jsonPost("/v1/containers", `{"name":{"a":1},"command":"sh"}`),
	"a number beyond all":  jsonPost("/v1/containers/web/stop", `{"timeout":1e999}`),
	"a field nobody knows": jsonPost("/v1/containers", `{"nome":"x"}`),
	"an enormous name":     jsonPost("/v1/containers", `{"command":["sh"],"network":"none","name":"`+strings.Repeat("x", 200_000)+`"}`),
	"an enormous network":  jsonPost("/v1/networks", `{"name":"`+strings.Repeat("n", 200_000)+`"}`),
	"a name with a path":   jsonPost("/v1/containers", `{"command":["sh"],"network":"none","name":"../../x"}`),
	"a name with a NUL":    jsonPost("/v1/containers", `{"command":["sh"],"network":"none","name":"a\u0000b"}`),
	"no UTF-8":             jsonPost("/v1/containers", "{\"name\":\"\xff\xfe\"}"),
	"more than is taken":   jsonPost("/v1/containers", `{"name":"`+strings.Repeat("x", 300_000)+`"}`),
	"an enormous path":     "GET /v1/containers/" + strings.Repeat("x", 60_000) + " HTTP/1.1\r\nHost: node\r\n\r\n",
	"an enormous header":   "GET /v1/version HTTP/1.1\r\nHost: node\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
	"many headers":         "GET /v1/version HTTP/1.1\r\nHost: node\r\n" + strings.Repeat("X: y\r\n", 100_000) + "\r\n",
	"all ports of TCP":     jsonPost("/v1/containers/web/ports", `{"publish":["1-65535:1-65535"]}`),
	"all ports, each":      jsonPost("/v1/containers/web/ports", `{"publish":[`+strings.TrimSuffix(strings.Repeat(`"80",`, 40_000), ",")+`]}`),
	"a port beyond all":    jsonPost("/v1/containers/web/ports", `{"publish":["65536:80"]}`),
	"an upgrade to none":   "POST /v1/containers/web/exec HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}

func post(path, header, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: node\r\n" + header + "\r\n\r\n" + body
}

func jsonPost(path, body string) string {
	return post(path, fmt.Sprintf("Content-Length: %d", len(body)), body)
}

// Requests that are none, bodies that do not end and descriptors in floods get an
// error, in bounded time and memory.
func TestHostileClientRubbish(t *testing.T) {
	n := newNode(t)
	n.start("web")
	before := n.holdings()
	memory := residentKB(t, before.pid)
	for what, request := range rubbish {
		conn := n.dial()
		go func() { _, _ = conn.Write([]byte(request)) }() // the node may hang up before all is said
		if status, text := heard(conn); status == "" && strings.Contains(text, "timeout") || strings.HasPrefix(status, "2") {
			t.Errorf("%s: %s %.200s", what, status, text)
		}
		conn.Close()
	}

	// A body without end is read up to the bound and no further.
	conn := n.dial()
	_, _ = io.WriteString(conn, post("/v1/containers", "Transfer-Encoding: chunked", ""))
	chunk := []byte("10000\r\n" + strings.Repeat(" ", 1<<16) + "\r\n")
	written, err := 0, error(nil)
	for size := 0; err == nil && written < 64<<20; written += size {
		size, err = conn.Write(chunk)
	}
	conn.Close()
	if err == nil {
		t.Errorf("the node took %d bytes of a body", written)
	}

	// Descriptors: beside a request that takes none, too many, and again and again.
	null := openFile(t, os.DevNull)
	for range 20 {
		conn := n.dial()
		send(conn, "GET /v1/version HTTP/1.1\r\nHost: node\r\n\r\n", unix.UnixRights(repeat(null, 200)...))
		_, _ = heard(conn)
		conn.Close()
		err := api.NewClient(n.dir).Hand(t.Context(), "/v1/containers/web/exec", api.Exec{Command: []string{"true"}}, repeat(null, 250))
		if err == nil {
			t.Error("250 descriptors were taken")
		}
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
	grown := residentKB(t, before.pid) - memory
	t.Logf("%d kinds of rubbish, %d bytes of a body without end; the node grew by %d KiB", len(rubbish), written, grown)
	n.grewAtMost(grown, 32<<10)
	if out := n.exec("web", "echo", "well"); out != "well\n" {
		t.Errorf("exec says %q", out)
	}
	if len(n.containers()) != 1 {
		t.Errorf("there are %+v", n.containers())
	}
	if open := n.run("port", "web"); open != "" {
		t.Errorf("of what was refused is published\n%s", open)
	}
}

// heard is the status and the text of an answer, or in the text why there is none.
func heard(conn net.Conn) (status, text string) {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 64<<10)
	size, err := conn.Read(b)
	if err != nil {
		return "", err.Error()
	}
	line, _, _ := strings.Cut(string(b[:size]), "\r\n")
	if _, rest, ok := strings.Cut(line, " "); ok {
		status = rest
	}
	return status, string(b[:size])
}

// Thousands of connections of one process, half of them slow and half silent: it
// is refused beyond its share, and commands are served meanwhile.
func TestHostileClientFlood(t *testing.T) {
	n := newNode(t)
	n.start("web")
	before := n.holdings()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var held []*net.UnixConn
	refused := 0
	const workers, each = 8, 400
	for g := range workers {
		wg.Go(func() {
			for i := range each {
				conn, err := net.Dial("unix", api.Socket(n.dir))
				if errors.Is(err, syscall.EAGAIN) { // the line is full
					continue
				} else if err != nil {
					t.Error(err)
					return
				}
				if (g+i)%2 == 0 {
					_, _ = io.WriteString(conn, "GET /v1/version HTTP/1.1\r\nHost:")
				}
				mu.Lock()
				held = append(held, conn.(*net.UnixConn))
				mu.Unlock()
			}
		})
	}
	for range 5 {
		n.run("ps")
		n.exec("web", "true")
	}
	wg.Wait()
	n.run("ps")
	for _, conn := range held {
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Read(func(fd uintptr) bool {
			size, _, err := unix.Recvfrom(int(fd), make([]byte, 1024), unix.MSG_DONTWAIT)
			if err == nil && size == 0 || errors.Is(err, unix.ECONNRESET) || size > 0 {
				refused++
			}
			return true
		})
		conn.Close()
	}
	t.Logf("%d connections were made, %d of them refused or cut off", len(held), refused)
	if refused == 0 && len(held) > 256 { // a quarter of all
		t.Error("none was refused")
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// Several processes each take all the connections they can, and have them wait, follow,
// trace and ask for tables that they do not read. All others are served meanwhile.
func TestHostileClientsTogether(t *testing.T) {
	n := newNode(t)
	n.start("web")
	pid := n.holdings().pid
	memory := residentKB(t, pid)
	var besiegers []*exec.Cmd
	for range 5 {
		words := play(t, "besiege", api.Socket(n.dir), "web")
		c := exec.Command(words[0], words[1:]...)
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); _ = c.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("besiege: %q, %v", line, err)
		}
		besiegers = append(besiegers, c)
	}
	n.start("later")
	for _, words := range []string{"ps", "show switch", "show flows", "show nat", "show rules", "port web", "logs web", "exec later true", "kill later"} {
		n.run(strings.Fields(words)...)
	}
	grown := residentKB(t, pid) - memory
	t.Logf("%d clients with all their connections: the node grew by %d KiB", len(besiegers), grown)
	n.grewAtMost(grown, 128<<10) // 800 connections, and what they are told
	for _, c := range besiegers {
		_ = c.Process.Kill()
	}
}

// besiege asks a node for what takes long, on more connections than one process may have,
// reads nothing, and keeps all until its standard input ends.
func besiege(args []string) error {
	asked := []string{"/v1/containers/%s/wait", "/v1/containers/%s/logs?follow=1", "/v1/trace", "/v1/switches", "/v1/nat", "/v1/rules", "/v1/flows", "/v1/openapi.json"}
	var conns []net.Conn // which the collector would close
	for i := range 300 {
		conn, err := net.Dial("unix", args[0])
		if errors.Is(err, syscall.EAGAIN) { // the line is full
			continue
		} else if err != nil {
			return err
		}
		path := strings.ReplaceAll(asked[i%len(asked)], "%s", args[1])
		_, _ = io.WriteString(conn, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: node\r\n\r\n", 20)) // who is refused hears nothing
		conns = append(conns, conn)
	}
	fmt.Println(len(conns), "connections")
	waitForInput()
	for _, conn := range conns {
		conn.Close()
	}
	return nil
}

// A client asks for long answers on many connections and reads none of them. Others
// are told theirs, and the node's memory stays within bounds.
func TestHostileClientReadsNothing(t *testing.T) {
	n := newNode(t)
	n.start("web")
	before := n.holdings()
	memory := residentKB(t, before.pid)
	var idle []*net.UnixConn
	for i := range 200 {
		paths := []string{"/v1/openapi.json", "/v1/flows", "/v1/switches", "/v1/containers/web", "/v1/containers/web/logs", "/v1/nat", "/v1/rules", "/v1/containers/nobody"}
		path := paths[i%len(paths)]
		conn := n.dial()
		_ = conn.SetReadBuffer(1)
		send(conn, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: node\r\n\r\n", 100), nil)
		idle = append(idle, conn)
	}
	n.run("show", "flows")
	n.run("ps")
	resp, err := (&http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", api.Socket(n.dir)) },
		DisableKeepAlives: true,
	}}).Get("http://node/v1/version") // of the tables it has its share already
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Contains(body, []byte("version")) {
		t.Errorf("version: %s (%v)", body, err)
	}
	grown := residentKB(t, before.pid) - memory
	t.Logf("200 clients that read nothing: the node grew by %d KiB", grown)
	n.grewAtMost(grown, 64<<10) // 200 answers and requests that wait
	for _, conn := range idle {
		conn.Close()
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}
