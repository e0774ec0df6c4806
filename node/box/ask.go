package box

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// What a node asks of the init of a container that runs, over the node channel.
// Init is another's process: each question has a deadline, what comes back is
// looked at, and the worst that a lie does is to the liar's own interface.

// A Link is an interface that an init made because it was asked to.
type Link struct {
	// FD is the other end, to be adopted by what it is: that of a TAP, or a
	// packet socket where the interface is one end of a veth pair. It is the
	// Link's until Take.
	FD    int
	Index int // of the interface, inside; init's word
	// PeerNetNS is what the kernel inside calls the namespace of a veth's other
	// end, link-netnsid; -1 of a TAP. Init's word, too.
	PeerNetNS int
	Warnings  []string // what is less than asked for
	Kept      int      // init's own copy of FD, by its number there; 0 is none

	session *Channel
}

// RequestLink asks for one more interface. It comes without carrier if it is a
// TAP: the node adopts FD, makes it a port and raises the carrier, and Await
// then says when the interface works inside.
func RequestLink(init *Channel, i *Interface, within time.Duration) (*Link, error) {
	if err := i.validate(); err != nil {
		return nil, err
	}
	l, err := requestLink(init, i, time.Now().Add(within))
	if err != nil {
		return nil, fmt.Errorf("make interface %s: %w", i.Name, err)
	}
	return l, nil
}

func requestLink(init *Channel, i *Interface, deadline time.Time) (*Link, error) {
	session, err := ask(init, &Message{Link: i}, deadline)
	if err != nil {
		return nil, err
	}
	m, fds, err := session.Recv()
	if err == nil && m.Ready != nil && len(fds) == 1 && isLink(fds[0]) {
		return &Link{
			FD: fds[0], Index: m.Ready.Index, PeerNetNS: m.Ready.PeerNetNS, Kept: m.Ready.KeptLink,
			Warnings: printableAll(m.Ready.Warnings), session: session,
		}, nil
	}
	discard(fds...)
	_ = session.Close()
	if err != nil {
		return nil, askError(err)
	}
	return nil, answerError(m)
}

// Await waits until the interface works inside: its carrier is seen there, and
// what it sends arrives.
func (l *Link) Await(within time.Duration) error {
	err := l.session.SetReadDeadline(time.Now().Add(within))
	if err != nil {
		return err
	}
	m, err := l.session.Hear()
	switch {
	case err != nil:
		return askError(err)
	case !m.Linked:
		return answerError(m)
	}
	return nil
}

// Take returns FD, which is the caller's from here on.
func (l *Link) Take() int {
	fd := l.FD
	l.FD = -1
	return fd
}

// Close lets go of what is still the Link's.
func (l *Link) Close() {
	_ = l.session.Close()
	closeAll([]int{l.Take()})
}

// RequestUnlink asks for an interface to be removed, by its index: its name may
// be another's by now. One that has gone already is as good. An init that does not
// answer in time does so when it goes on; until then the interface leads nowhere.
func RequestUnlink(init *Channel, index int, within time.Duration) error {
	return request(init, &Message{Unlink: index}, within, "remove interface %d", index)
}

// RequestKeep has an init that lives in the namespace of an interface, which
// another one made, keep a copy of its other end for a later node: the maker may
// end first. It returns the copy's number there.
func RequestKeep(init *Channel, index, fd int, within time.Duration) (kept int, err error) {
	session, err := ask(init, &Message{Keep: index}, time.Now().Add(within), fd)
	if err == nil {
		defer session.Close()
		var answer *Message
		if answer, err = session.Hear(); err != nil {
			err = askError(err)
		} else if answer.Ready == nil {
			err = answerError(answer)
		}
		if err == nil {
			return answer.Ready.KeptLink, nil
		}
	}
	return 0, fmt.Errorf("keep interface %d: %w", index, err)
}

// A DefaultRoute is where the packets go that no other route is for.
type DefaultRoute struct {
	Via   netip.Addr `json:"via"` // an IPv4 station; the zero Addr: nowhere, there is none
	Index int        `json:"index,omitempty"`
	// Missing leaves a default route that is there, whose ever it is.
	Missing bool `json:"missing,omitempty"`
}

// RequestDefaultRoute asks for this to be the IPv4 default route, in place of
// the one there was.
func RequestDefaultRoute(init *Channel, r DefaultRoute, within time.Duration) error {
	if err := r.validate(); err != nil {
		return err
	}
	return request(init, &Message{Default: &r}, within, "set the default route")
}

func (r *DefaultRoute) validate() error {
	if r.Via.IsValid() && (!r.Via.Is4() || r.Index <= 0) || r.Missing && !r.Via.IsValid() {
		return fmt.Errorf("a default route by %v and interface %d: it takes an IPv4 address and an interface", r.Via, r.Index)
	}
	return nil
}

// request asks for what has no answer but that it is done.
func request(init *Channel, m *Message, within time.Duration, what string, args ...any) error {
	session, err := ask(init, m, time.Now().Add(within))
	if err == nil {
		defer session.Close()
		var answer *Message
		if answer, err = session.Hear(); err != nil {
			err = askError(err)
		} else if !answer.Done {
			err = answerError(answer)
		}
	}
	if err != nil {
		return fmt.Errorf(what+": %w", append(args, err)...)
	}
	return nil
}

// ask sends a request, with fds and one end of a session, and returns the other.
func ask(init *Channel, m *Message, deadline time.Time, fds ...int) (*Channel, error) {
	if init == nil { // a node before this one had it
		return nil, errors.New("its init cannot be reached")
	}
	near, far, err := Pair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(far)
	session, err := NewChannel(near)
	if err != nil {
		return nil, err
	}
	if err = session.SetReadDeadline(deadline); err == nil {
		err = init.Send(m, append(fds, far)...)
	}
	if err != nil {
		_ = session.Close()
		return nil, err
	}
	return session, nil
}

// askError is why there is no answer.
func askError(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the container has ended, or its init does not know how")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the container's init does not answer")
	}
	return err
}

// answerError is why an answer is not the one that was asked for.
func answerError(m *Message) error {
	if m.Failure != nil && m.Failure.Text != "" {
		return errors.New(printable(m.Failure.Text))
	}
	return errors.New("the container's init answers something else")
}

// mostText bounds what is repeated of an init's words, in bytes.
const mostText = 512

// printable makes an init's words harmless to whoever's terminal shows them.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), mostText)], "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func printableAll(list []string) (clean []string) {
	const most = 8
	for _, s := range list[:min(len(list), most)] {
		clean = append(clean, printable(s))
	}
	return clean
}

// isLink reports whether a descriptor may be the end of a link: that of a
// /dev/net/tun or a packet socket. Whoever adopts it looks closer, and may close it
// at once.
func isLink(fd int) bool {
	switch kind, err := kindOf(fd, "", unix.AT_EMPTY_PATH); {
	case err != nil:
		return false
	case kind == unix.S_IFSOCK:
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		return err == nil && domain == unix.AF_PACKET
	default:
		return kind == unix.S_IFCHR
	}
}

// kindOf is S_IFSOCK of a socket, S_IFCHR of a /dev/net/tun, and 0 of all else. The
// question does not wait for a file system that a hostile process serves.
func kindOf(dir int, path string, flags int) (kind uint16, err error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return 0, err
	}
	kind = st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK || kind == unix.S_IFCHR && st.Rdev_major == 10 && st.Rdev_minor == 200 { // Documentation/admin-guide/devices.txt
		return kind, nil
	}
	return 0, nil
}
