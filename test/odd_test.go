package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// The parts of this file are the two ends of TCP connections that do what few
// do. A connection begins with a line that says what:
//
//	count  the server reads to the end and answers with how much it was, on a
//	       connection half of which is closed
//	stall  the same, but first it does not read: the window becomes zero
//	reset  the server answers with a reset
//	watch  the client sends a reset, and the server remembers how it ended
//	ended  the server answers with that

// stall is longer than a sender waits before it probes a window of zero.
const stall = 600 * time.Millisecond

// odd does each of them with an oddServer:
//
//	ADDRESS:PORT
func odd(args []string) error {
	for _, way := range []string{"count", "stall"} {
		if err := halfClose(args[0], way); err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
	}
	if answer, err := say(args[0], "reset"); !errors.Is(err, syscall.ECONNRESET) {
		return errors.Join(fmt.Errorf("reset by the server: the client saw %q", answer), err)
	}
	conn, err := net.Dial("tcp4", args[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(conn, "watch")
	// Before the line is there a reset would take it away.
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		return fmt.Errorf("the server that is to watch says %q: %w", answer, err)
	}
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	conn.Close()
	if answer, err := say(args[0], "ended"); err != nil || answer != "reset\n" {
		return errors.Join(fmt.Errorf("reset by the client: the server saw %q", answer), err)
	}
	fmt.Println("all is well")
	return nil
}

// say sends one line and reads the answer to its end.
func say(addr, line string) (answer string, err error) {
	conn, err := net.DialTimeout("tcp4", addr, 5*time.Second)
	if err != nil {
		return "", errors.New("connect: " + err.Error()) // a reset here is none that was asked for
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	fmt.Fprintln(conn, line)
	b, err := io.ReadAll(conn)
	return string(b), err
}

// halfClose sends what does not fit into any buffer, closes its half, and reads
// how much that was.
func halfClose(addr, way string) error {
	const size = 32 << 20 // a socket of the host's on the way takes some, too
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	start := time.Now()
	fmt.Fprintln(conn, way)
	if _, err := sendStream(conn, size); err != nil {
		return err
	}
	if took := time.Since(start); way == "stall" && took < stall {
		return fmt.Errorf("%d bytes were sent in %v, so the window was never zero", size, took)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if want := fmt.Sprintln(size); err == nil && string(answer) != want {
		err = fmt.Errorf("the server answers %q, want %q", answer, want)
	}
	return err
}

// oddServer is the other end of odd:
//
//	ADDRESS:PORT
func oddServer(args []string) error {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	ended := make(chan error, 10)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go oddly(conn.(*net.TCPConn), ended)
	}
}

// oddly serves one connection.
func oddly(conn *net.TCPConn, ended chan error) {
	defer conn.Close()
	_ = conn.SetReadBuffer(64 << 10)
	r := bufio.NewReader(conn)
	way, err := r.ReadString('\n')
	if err != nil {
		return
	}
	switch way {
	case "stall\n":
		time.Sleep(stall)
		fallthrough
	case "count\n":
		n, _ := io.Copy(io.Discard, r)
		fmt.Fprintln(conn, n)
	case "reset\n":
		_ = conn.SetLinger(0)
	case "watch\n":
		fmt.Fprintln(conn, "watching")
		_, err := r.ReadByte()
		ended <- err
	case "ended\n":
		select {
		case err := <-ended:
			if errors.Is(err, syscall.ECONNRESET) {
				fmt.Fprintln(conn, "reset")
			} else {
				fmt.Fprintln(conn, err)
			}
		case <-time.After(5 * time.Second):
			fmt.Fprintln(conn, "nothing ended")
		}
	}
}
