package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// A log is a buffer that a server and a test may use at the same time.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestHTTPProbes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var requests log
	served := make(chan error)
	go func() { served <- serveHTTP(ctx, l, &requests, "") }()

	t.Setenv("http_proxy", "http://127.0.0.1:1") // must not be asked
	file := filepath.Join(t.TempDir(), "page")
	var out, stderr bytes.Buffer
	url := "http://" + l.Addr().String() + "/x"
	if code := execute([]string{"probe", "get", "-o", file, url}, &out, &stderr); code != 0 {
		t.Errorf("get: %d %s", code, &stderr)
	}
	page, _ := os.ReadFile(file)
	if host, _ := os.Hostname(); !strings.HasPrefix(string(page), "Hello 127.0.0.1:") || !strings.Contains(string(page), "this is "+host+" at "+l.Addr().String()) {
		t.Errorf("page %q", page)
	}
	if !strings.HasSuffix(requests.String(), " GET /x\n") {
		t.Errorf("log %q", requests.String())
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if code := execute([]string{"probe", "get", url}, &out, &stderr); code != 1 || !strings.Contains(stderr.String(), "connection refused") {
		t.Errorf("nobody serves: %d %s", code, &stderr)
	}
}

func TestUDPProbes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var said log
	served := make(chan error)
	go func() { served <- serveUDP(ctx, "127.0.0.1:0", &said) }()
	var addr string
	for addr == "" {
		time.Sleep(time.Millisecond)
		_, addr, _ = strings.Cut(strings.TrimSpace(said.String()), "echoing on ")
	}
	var out, stderr bytes.Buffer
	if code := execute([]string{"probe", "udp-echo", addr, "ahoy"}, &out, &stderr); code != 0 || !strings.HasPrefix(out.String(), "ahoy from "+addr+", time=") {
		t.Errorf("%d %q %q", code, &out, &stderr)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if code := execute([]string{"probe", "udp-echo", "--timeout", "50ms", addr}, &out, &stderr); code != 1 {
		t.Errorf("nobody answers: %d %s", code, &stderr)
	}
}

// What a pinger says of answers, ours and others'.
func TestPingAnswers(t *testing.T) {
	host := &net.IPAddr{IP: net.IPv4(172, 17, 0, 2)}
	start := time.Now()
	p := &pinger{host: host, raw: true, id: 7, total: 3, sent: map[int]time.Time{1: start, 2: start, 3: start}}
	var out bytes.Buffer
	say := func(m icmp.Message, from net.IP) {
		p.take(&out, answer{message: &m, from: &net.IPAddr{IP: from}, ttl: 64, size: 64, at: start.Add(1500 * time.Microsecond)})
	}
	reply := func(id, seq int) icmp.Message {
		return icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &icmp.Echo{ID: id, Seq: seq}}
	}
	say(reply(7, 1), host.IP)
	say(reply(7, 1), host.IP) // a second time
	say(reply(8, 2), host.IP) // somebody else's
	say(icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 2}}, host.IP)
	quoted := make([]byte, 28)
	quoted[0] = 0x45
	binary.BigEndian.PutUint16(quoted[24:], 7)
	binary.BigEndian.PutUint16(quoted[26:], 3)
	say(icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 1, Body: &icmp.DstUnreach{Data: quoted}}, net.IPv4(172, 17, 0, 1))
	want := "64 bytes from 172.17.0.2: icmp_seq=1 ttl=64 time=1.500 ms\n" +
		"From 172.17.0.1: icmp_seq=3 Destination Host Unreachable\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
	out.Reset()
	if got := p.summary(&out, "web", start); got != 1 {
		t.Errorf("%d answers, want 1", got)
	}
	for _, want := range []string{"--- web ping statistics ---", "3 packets transmitted, 1 received, +1 errors, 67% packet loss", "rtt min/avg/max/mdev = 1.500/1.500/1.500/0.000 ms"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nwant %q in it", &out, want)
		}
	}
}

// ICMP errors come from anybody.
func FuzzPingQuoted(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(make([]byte, 28), false)
	f.Add(append([]byte{0x4f}, make([]byte, 67)...), false)
	f.Add(make([]byte, 48), true)
	f.Fuzz(func(t *testing.T, packet []byte, v6 bool) {
		p := &pinger{v6: v6, id: 1}
		if seq, ours := p.quoted(packet); ours && (seq < 0 || seq > 0xffff) {
			t.Errorf("sequence number %d", seq)
		}
	})
}
