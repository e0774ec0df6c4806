package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ask sends numbered datagrams from a port of its own, one at a time, and prints
// which were answered, or with what error that ended:
//
//	[ADDRESS:]PORT ADDRESS:PORT COUNT [nosum] [options]
//
// With nosum the datagrams have no checksum, with options the packets have IP
// options (RFC 791: no operation, record route).
func ask(args []string) error {
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return oddities(raw, args[3:]) }}
	network, local := "udp4", args[0]
	switch {
	case strings.HasPrefix(local, "["):
		network = "udp6"
	case !strings.Contains(local, ":"):
		local = ":" + local
	}
	if d.LocalAddr, err = net.ResolveUDPAddr(network, local); err != nil {
		return err
	}
	conn, err := d.DialContext(context.Background(), network, args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	answers, b := []string{}, make([]byte, 1500)
	for i := range count {
		if _, err := fmt.Fprintf(conn, "%d", i); err != nil {
			answers = append(answers, err.Error())
			break
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		n, err := conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			answers = append(answers, "silence")
			continue
		} else if err != nil {
			answers = append(answers, err.Error())
			break
		}
		answers = append(answers, string(b[:n]))
	}
	fmt.Println(strings.Join(answers, " "))
	return nil
}

// persist asks again and again from the same port, whatever happens, and prints
// the answers:
//
//	PORT ADDRESS:PORT
func persist(args []string) error {
	local, err := net.ResolveUDPAddr("udp4", ":"+args[0])
	if err != nil {
		return err
	}
	d := net.Dialer{LocalAddr: local}
	conn, err := d.Dial("udp4", args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	for b := make([]byte, 1500); ; time.Sleep(10 * time.Millisecond) {
		_, _ = conn.Write([]byte("?")) // an error is about the one before
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := conn.Read(b); err == nil {
			fmt.Printf("%s\n", b[:n])
		}
	}
}

// oddities makes a socket send what few do.
func oddities(raw syscall.RawConn, which []string) error {
	var oerr error
	err := raw.Control(func(fd uintptr) {
		for _, oddity := range which {
			switch oddity {
			case "nosum":
				oerr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
			case "options":
				route := append([]byte{1, 7, 39, 4}, make([]byte, 36)...)
				oerr = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, string(route))
			default:
				oerr = fmt.Errorf("nobody knows how to send %q", oddity)
			}
			if oerr != nil {
				return
			}
		}
	})
	return errors.Join(err, oerr)
}

// who answers every datagram with a name and who asked:
//
//	NAME ADDRESS:PORT
func who(args []string) error {
	conn, err := net.ListenPacket("udp4", args[1])
	if err != nil {
		return err
	}
	fmt.Println("answering")
	b := make([]byte, 1500)
	for {
		_, from, err := conn.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(fmt.Appendf(nil, "%s:%v", args[0], from), from); err != nil {
			return err
		}
	}
}

// pieces asks a UDP echo server by datagrams that are fragments in every order:
//
//	ADDRESS:PORT [nosum]
func pieces(args []string) error {
	conn, err := net.Dial("udp4", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("make a raw socket: %w", err)
	}
	defer unix.Close(raw)
	from, to := conn.LocalAddr().(*net.UDPAddr), conn.RemoteAddr().(*net.UDPAddr)
	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}, {2, 2, 0, 0, 1, 1}}
	for i, order := range orders {
		payload := pool()[i*5000 : i*5000+3000]
		frags := fragments(datagram(from, to, payload, len(args) > 1), from, to, uint16(0x4000+i))
		for _, n := range order {
			sa := &unix.SockaddrInet4{Addr: [4]byte(to.IP.To4())}
			if err := unix.Sendto(raw, frags[n], 0, sa); err != nil {
				return fmt.Errorf("send fragment %d: %w", n, err)
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		echo := make([]byte, 4000)
		n, err := conn.Read(echo)
		if err != nil {
			return fmt.Errorf("fragments in the order %v: %w", order, err)
		}
		if string(echo[:n]) != string(payload) {
			return fmt.Errorf("fragments in the order %v: other bytes came back", order)
		}
	}
	fmt.Println("all orders came back")
	return nil
}

// datagram is a UDP header and a payload.
func datagram(from, to *net.UDPAddr, payload []byte, nosum bool) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b[0:], uint16(from.Port))
	binary.BigEndian.PutUint16(b[2:], uint16(to.Port))
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	if nosum {
		return b
	}
	// The pseudo-header of RFC 768, and all of the datagram.
	sum := uint32(17) + uint32(len(b))
	for _, part := range [][]byte{from.IP.To4(), to.IP.To4(), b} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
		if len(part)%2 == 1 {
			sum += uint32(part[len(part)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff {
		sum = 0 // whose complement is the sum 0 that is there
	}
	binary.BigEndian.PutUint16(b[6:], ^uint16(sum))
	return b
}

// fragments cuts a datagram into three, each with an IP header whose checksum
// the kernel writes.
func fragments(b []byte, from, to *net.UDPAddr, id uint16) (list [][]byte) {
	for at := 0; at < len(b); at += 1200 {
		part := b[at:min(at+1200, len(b))]
		h := make([]byte, 20, 20+len(part))
		h[0], h[8], h[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(part)))
		binary.BigEndian.PutUint16(h[4:], id)
		field := uint16(at / 8)
		if at+len(part) < len(b) {
			field |= 1 << 13 // more fragments
		}
		binary.BigEndian.PutUint16(h[6:], field)
		copy(h[12:], from.IP.To4())
		copy(h[16:], to.IP.To4())
		list = append(list, append(h, part...))
	}
	return list
}

// crowd has many connections at once, from ports everybody uses, and asks each
// of them for a page:
//
//	ADDRESS:PORT COUNT
func crowd(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conns := make([]net.Conn, count)
	for i := range conns {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 20000 + i}, Timeout: 5 * time.Second}
		if conns[i], err = d.Dial("tcp4", args[0]); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		defer conns[i].Close()
	}
	for i, conn := range conns {
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		page, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(page), "Hello") {
			return fmt.Errorf("connection %d: %q, %w", i, page, err)
		}
	}
	fmt.Printf("%d connections\n", count)
	return nil
}
