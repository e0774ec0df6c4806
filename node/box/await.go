package box

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Await is an interface somebody waits for.
type Await struct {
	Name   string        `json:"name"`
	Within time.Duration `json:"within"` // 0: as long as it takes
}

// AwaitInterface waits until there is an interface of that name in a namespace,
// up and with somebody at its other end, and its IPv6 link-local address can be
// used. A nil target is the caller's own namespace; any other takes the rights of
// AttachForeign.
func AwaitInterface(ctx context.Context, t *Target, a Await) error {
	if !validInterfaceName(a.Name) {
		return fmt.Errorf("%q is no name for an interface (1 to 15 characters, no / : or space)", a.Name)
	}
	if t == nil {
		return a.here(ctx)
	}
	err := withHelper(*t, func(channel *Channel, target int) error {
		stop := context.AfterFunc(ctx, func() { _ = channel.Close() })
		defer stop()
		if a.Within > 0 { // the helper says so itself; this is for one that cannot
			if err := channel.SetReadDeadline(time.Now().Add(a.Within + readyTimeout)); err != nil {
				return err
			}
		}
		if err := channel.Send(&Message{Await: &a}, target); err != nil {
			return err
		}
		m, err := channel.Hear()
		switch {
		case err != nil:
			return fmt.Errorf("the join helper: %w", err)
		case m.Done:
			return nil
		}
		return answerError(m)
	})
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // the channel may have been closed under whatever was done with it
	}
	if err != nil {
		return fmt.Errorf("%v: %w", *t, err)
	}
	return nil
}

// in waits in a namespace, which the calling thread enters.
func (a *Await) in(target int) error {
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace: %w", err)
	}
	return a.here(context.Background())
}

// lookAgain is how long it takes until who waits sees that he need not. What he
// waits for the kernel says at once.
const lookAgain = time.Second

func (a *Await) here(ctx context.Context) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	events, err := watchLinks()
	if err != nil {
		return err
	}
	defer events.Close()
	for began := time.Now(); ; {
		l, err := h.LinkByName(a.Name)
		if err == nil && runs(l) && linkLocalReady(h, l) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		left := time.Hour
		if a.Within > 0 {
			left = a.Within - time.Since(began)
		}
		switch {
		case left > 0:
		case err != nil:
			return fmt.Errorf("there is no interface %s after %v", a.Name, a.Within)
		case !runs(l):
			return fmt.Errorf("interface %s is not up after %v", a.Name, a.Within)
		default:
			return fmt.Errorf("interface %s: its IPv6 link-local address is not usable after %v", a.Name, a.Within)
		}
		if err := events.next(min(left, lookAgain)); err != nil {
			return err
		}
	}
}
