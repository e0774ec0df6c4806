package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"fairlead/dns"
)

// dialDNS connects to the nameserver from an address.
func dialDNS(t *testing.T, d *nameserver, from string) net.Conn {
	t.Helper()
	conn, err := tryDNS(t, d, from)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// tryDNS may also hear that it is not served before it has connected.
func tryDNS(t *testing.T, d *nameserver, from string) (net.Conn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.port()))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn, nil
}

func TestNameserverTCP(t *testing.T) {
	resolver(t, "127.0.2.1", saysText(30000))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	conn := dialDNS(t, d, "127.0.1.1")
	// More than are answered at once, in pieces, and then the end.
	const n = 3 * pendingPerConn
	var out []byte
	for i := range uint16(n) {
		m := asks("text.example.", mdns.TypeTXT)
		m.Id = i
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, framed(b)...)
	}
	go func() {
		for piece := range slices.Chunk(out, 7) {
			if _, err := conn.Write(piece); err != nil {
				t.Error(err)
				return
			}
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	seen := map[uint16]bool{}
	for range n {
		b, err := readFramed(conn, 65535)
		if err != nil {
			t.Fatal(err)
		}
		r := new(mdns.Msg)
		if err := r.Unpack(b); err != nil || r.Truncated || len(r.Answer) != 300 {
			t.Errorf("answered %d records, %v", len(r.Answer), err)
		}
		seen[r.Id] = true
	}
	if len(seen) != n {
		t.Errorf("answers to %v", seen)
	}
	if k, err := conn.Read(make([]byte, 1)); k != 0 || err == nil {
		t.Errorf("after the last answer: %d bytes, %v", k, err)
	}
}

// Who is no container, has too many connections, or does not speak DNS is not
// served.
func TestNameserverTCPRefuses(t *testing.T) {
	resolver(t, "127.0.2.1", says(1))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	closed := func(from string, say []byte) bool {
		conn, err := tryDNS(t, d, from)
		if err == nil {
			defer conn.Close()
			_, _ = conn.Write(say)
			_, err = conn.Read(make([]byte, 1))
		}
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	good, err := asks("x.example.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if !closed("127.0.0.1", framed(good)) {
		t.Error("a process of the host's is served")
	}
	for name, b := range map[string][]byte{
		"too long":      binary.BigEndian.AppendUint16(nil, dns.MaxQuery+1),
		"nothing":       {0, 0},
		"an answer":     framed(append([]byte{0, 1, 0x80}, good[3:]...)),
		"no whole one":  framed(make([]byte, 5)),
		"of HTTP":       []byte("GET / HTTP/1.1\r\n\r\n"),
		"very long one": append(binary.BigEndian.AppendUint16(nil, 65535), make([]byte, 65535)...),
	} {
		if !closed("127.0.1.2", b) {
			t.Errorf("who sends %s is served", name)
		}
	}
	talks := func(from string) (net.Conn, bool) {
		conn, err := tryDNS(t, d, from)
		if err != nil {
			return nil, false
		}
		_, _ = conn.Write(framed(good))
		_, err = readFramed(conn, 512)
		return conn, err == nil
	}
	var open []net.Conn
	for range connsPerContainer {
		conn, ok := talks("127.0.1.3")
		if !ok {
			t.Fatal("a connection is not served")
		}
		open = append(open, conn)
	}
	if !closed("127.0.1.3", framed(good)) {
		t.Error("a connection too many is served")
	}
	if _, ok := talks("127.0.1.4"); !ok {
		t.Error("another container is not served")
	}
	_ = open[0].Close()
	for deadline := time.Now().Add(patience); ; {
		if _, ok := talks("127.0.1.3"); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a connection that has ended is not given again")
		}
	}
	if _, counts, _ := d.stats(); counts.Strangers != 1 || counts.Surplus < 1 {
		t.Errorf("%+v", counts)
	}
}

// Who asks and does not take the answers has us hold few of them, and holds up
// nobody.
func TestNameserverTCPDoesNotTake(t *testing.T) {
	resolver(t, "127.0.2.1", saysText(60000))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	deaf := dialDNS(t, d, "127.0.1.1")
	if err := deaf.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	stuck := make(chan int, 1)
	go func() { // until neither side's buffers take more
		sent := 0
		for ; sent < 10000; sent++ {
			m := asks("x.example.", mdns.TypeTXT)
			m.Id = uint16(sent)
			b, _ := m.Pack()
			if _, err := deaf.Write(framed(b)); err != nil {
				break
			}
		}
		stuck <- sent
	}()
	other := dialDNS(t, d, "127.0.1.2")
	for range 5 {
		b, err := asks("y.example.", mdns.TypeTXT).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Write(framed(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := readFramed(other, 65535); err != nil {
			t.Fatal(err)
		}
	}
	_, _, flying := d.stats()
	if flying > pendingPerConn {
		t.Errorf("%d in flight", flying)
	}
	_ = deaf.Close()
	<-stuck
}
