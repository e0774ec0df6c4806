package node

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"fairlead/dns"
	"fairlead/packet"
)

// DNS over TCP. For containers the router redirects their connections to the
// gateway's port 53 to a port on the host's loopback. Everybody on the host can
// connect to it, and nobody else than containers is served.

// Bounds of DNS over TCP: connections, queries of one connection that are not
// answered yet, and how long a connection may be silent (RFC 7766 6.2.3) or not
// take what it asked for.
const (
	connsPerContainer = 8
	maxConns          = 128
	pendingPerConn    = 4
	idleConn          = 10 * time.Second
)

// accept serves connections, of those admit knows.
func (d *nameserver) accept(l *net.TCPListener, admit func(peer netip.AddrPort) (dns.Question, bool)) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is left, say
			if d.pause() {
				continue
			}
			return
		}
		q, ok := admit(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
		if !ok {
			_ = conn.SetLinger(0)
			_ = conn.Close()
			continue
		}
		d.running.Go(func() {
			d.serve(conn, q)
			d.dismiss(q.Container)
		})
	}
}

// pause waits a moment; false is the end of the nameserver.
func (d *nameserver) pause() bool {
	select {
	case <-d.ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// admit says whose a connection is, as a question without payload. ok is false
// when it is no container's, or one more than that may have.
func (d *nameserver) admit(peer netip.AddrPort) (q dns.Question, ok bool) {
	d.mu.Lock()
	owner := d.owner
	d.mu.Unlock()
	if owner == nil {
		return q, false // nobody has been told our port yet
	}
	container, network, ok := owner(peer)
	if !ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.counts.Strangers++
		return q, false
	}
	return d.place(asker(network, container, peer, packet.ProtoTCP))
}

// asker is a question without payload.
func asker(network packet.NetworkID, c packet.ContainerID, peer netip.AddrPort, proto packet.Proto) dns.Question {
	return dns.Question{Network: network, Container: c,
		From: packet.Tuple{Src: packet.AddrFromNetip(peer.Addr()), SrcPort: peer.Port(), Proto: proto}}
}

// place takes a place for a connection, if one is left.
func (d *nameserver) place(q dns.Question) (dns.Question, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns[q.Container] >= connsPerContainer || d.open >= maxConns {
		d.counts.Surplus++
		return q, false
	}
	d.conns[q.Container]++
	d.open++
	return q, true
}

// dismiss gives up the place of a connection.
func (d *nameserver) dismiss(c packet.ContainerID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if d.conns[c]--; d.conns[c] == 0 {
		delete(d.conns, c)
	}
}

// serve answers the queries of one connection, in the order the answers come (RFC
// 7766 6.2.1.1). It reads on only while few are unanswered, so that whoever does
// not take answers cannot have us hold many.
func (d *nameserver) serve(conn *net.TCPConn, q dns.Question) {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = conn.Close() })

	pending := make(chan struct{}, pendingPerConn)
	answers := make(chan []byte, pendingPerConn) // has room for all that are pending
	d.running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case b := <-answers:
				_ = conn.SetWriteDeadline(time.Now().Add(idleConn))
				if b == nil { // what deserves no answer is no DNS
					cancel()
				} else if _, err := conn.Write(framed(b)); err != nil {
					cancel()
				}
				<-pending
			}
		}
	})
	begin := func() bool {
		select {
		case pending <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for begin() {
		_ = conn.SetReadDeadline(time.Now().Add(idleConn))
		b, err := readFramed(conn, dns.MaxQuery)
		if errors.Is(err, io.EOF) { // it has asked all, and hears all
			for range pendingPerConn - 1 {
				begin()
			}
			return
		}
		q.Payload = b
		if err != nil || !d.enqueue(query{q, func(b []byte) { answers <- b }}) {
			return
		}
	}
}

// framed is a message as it goes by TCP: behind its length (RFC 1035 4.2.2).
func framed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)
}

// readFramed reads a message of at most limit bytes.
func readFramed(r io.Reader, limit int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > limit {
		return nil, errors.New("the message is too long")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, errors.New("the message ends before its end")
	}
	return b, nil
}
