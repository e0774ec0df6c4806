package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// Protocol is the name of what an upgraded connection speaks: messages of one
// line of JSON, each in one sendmsg with the descriptors that belong to it.
const Protocol = "fairlead-fd"

// Bounds of one message. Eight descriptors are more than any message needs.
const (
	MaxMessage     = 256 << 10
	maxDescriptors = 8
)

// SendMessage sends msg as one line of JSON, and fds with its first byte. fds
// stay the caller's.
func SendMessage(conn *net.UnixConn, msg any, fds []int) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(b, rights, nil)
	if err != nil || n == len(b) {
		return err // writing nothing more would fail when the peer has read all and left
	}
	_, err = conn.Write(b[n:])
	return err
}

// A Source is what messages are read from: a *net.UnixConn, or what counts the reads of one.
type Source interface {
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
}

// ReceiveMessage reads one line of JSON into msg, strictly as Decode does, and returns
// the descriptors that came along, close-on-exec and the caller's. After an error there
// are none. They are plain numbers: an os.File would put a non-blocking one into the
// runtime's poller, and workers have an epoll of their own.
func ReceiveMessage(conn Source, msg any) (fds []int, err error) {
	return receive(conn, func(line []byte) error { return Decode(bytes.NewReader(line), msg) })
}

// ReceiveNews is ReceiveMessage for what another version may say: fields nobody knows
// are passed over. After an error msg has what could be read all the same, so that who
// finds a version in it need not call malformed what is only later.
func ReceiveNews(conn Source, msg any) (fds []int, err error) {
	return receive(conn, func(line []byte) error {
		if err := json.Unmarshal(line, msg); err != nil {
			return fmt.Errorf("malformed JSON: %w", err)
		}
		return nil
	})
}

// receive reads one line, and has decode read what it says.
func receive(conn Source, decode func(line []byte) error) (fds []int, err error) {
	defer func() {
		if err != nil {
			CloseAll(fds)
			fds = nil
		}
	}()
	var line []byte
	chunk := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for !bytes.HasSuffix(line, []byte{'\n'}) {
		n, oobn, flags, _, err := conn.ReadMsgUnix(chunk, oob)
		more, perr := parseRights(oob[:oobn])
		fds = append(fds, more...)
		switch {
		case errors.Is(err, io.EOF):
			return fds, io.ErrUnexpectedEOF
		case err != nil:
			return fds, err
		case perr != nil:
			return fds, perr
		case flags&unix.MSG_CTRUNC != 0 || len(fds) > maxDescriptors:
			return fds, fmt.Errorf("more than %d descriptors in one message", maxDescriptors)
		}
		if line = append(line, chunk[:n]...); len(line) > MaxMessage {
			return fds, fmt.Errorf("a message is longer than %d bytes", MaxMessage)
		}
	}
	return fds, decode(line)
}

// Decode reads one JSON value strictly: a field nobody knows is refused by its
// name rather than silently without effect, and so is what follows the value.
func Decode(r io.Reader, v any) error {
	bounded := &io.LimitedReader{R: r, N: MaxMessage + 1}
	d := json.NewDecoder(bounded)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, rest := d.Token(); !errors.Is(rest, io.EOF) {
			err = errors.New("something follows it")
		}
	} else if errors.Is(err, io.EOF) {
		err = errors.New("there is nothing")
	} else if strings.HasPrefix(err.Error(), "json: unknown field ") { // the package has no type for it
		err = fmt.Errorf("%w; `fairlead version` says whether the node is older than the program", err)
	}
	if bounded.N <= 0 {
		err = fmt.Errorf("it is longer than %d bytes", MaxMessage)
	}
	if err != nil {
		return fmt.Errorf("malformed JSON: %w", err)
	}
	return nil
}

// parseRights takes the descriptors out of control messages.
func parseRights(oob []byte) (fds []int, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	for i := range msgs {
		if more, err := unix.ParseUnixRights(&msgs[i]); err == nil { // else not descriptors
			fds = append(fds, more...)
		}
	}
	return fds, nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
