package link_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"fairlead/test/lab"

	"fairlead/link"
	"fairlead/link/linktest"
	"fairlead/packet"
	"fairlead/packet/packettest"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A namespace is a network namespace of the test's own: a thread that entered
// it and ends with the test, and the namespace with it.
type namespace struct {
	t     testing.TB
	calls chan func()
	nl    *netlink.Handle
	once  sync.Once // end
}

// newNamespace makes one, or ends the test where it is not allowed to.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	ns := &namespace{t: t, calls: make(chan func())}
	started := make(chan error)
	go func() {
		// Never unlocked: the thread must not run anything else afterwards.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		started <- err
		if err != nil {
			return
		}
		for call := range ns.calls {
			call()
		}
	}()
	needs(t, "make a network namespace", <-started, "unshare -rn go test ./link")
	ns.do(func() (err error) {
		// Less noise; the tests do not depend on it.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		ns.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	t.Cleanup(ns.end)
	return ns
}

// end lets go of the namespace, which ends with the last that holds it.
func (ns *namespace) end() {
	ns.once.Do(func() {
		ns.nl.Close()
		close(ns.calls)
	})
}

// do calls fn on a thread inside; an error ends the test.
func (ns *namespace) do(fn func() error) {
	ns.t.Helper()
	if err := ns.try(fn); err != nil {
		ns.t.Fatal(err)
	}
}

// try calls fn on a thread inside.
func (ns *namespace) try(fn func() error) error {
	done := make(chan error)
	ns.calls <- func() { done <- fn() }
	return <-done
}

// tap makes a TAP inside, with carrier, closed at the end of the test.
func (ns *namespace) tap(name string) *link.TAP {
	ns.t.Helper()
	var q *link.TAP
	err := ns.try(func() (err error) {
		q, err = link.CreateTAP(link.TAPConfig{Name: name})
		return err
	})
	needs(ns.t, "open /dev/net/tun", err, "sudo sh -c 'modprobe tun; chmod 666 /dev/net/tun'")
	ns.t.Cleanup(func() { _ = q.Close() })
	must(ns.t, q.SetCarrier(true))
	return q
}

// wire makes a textbook wire inside, as tap does.
func (ns *namespace) wire(name string) *link.Wire {
	ns.t.Helper()
	var q *link.Wire
	err := ns.try(func() (err error) {
		q, err = link.CreateWire(link.WireConfig{Name: name})
		return err
	})
	must(ns.t, err)
	ns.t.Cleanup(func() { _ = q.Close() })
	must(ns.t, q.SetCarrier(true))
	return q
}

// up sets an interface up.
func (ns *namespace) up(name string) {
	ns.t.Helper()
	must(ns.t, ns.nl.LinkSetUp(ns.link(name)))
}

func (ns *namespace) link(name string) netlink.Link {
	ns.t.Helper()
	l, err := ns.nl.LinkByName(name)
	must(ns.t, err)
	return l
}

// bridged connects two interfaces by a bridge of the kernel and waits until it
// forwards, so that what is written to one queue is read from the other.
func (ns *namespace) bridged(a, b linktest.Queue, names ...string) {
	ns.t.Helper()
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &off}
	br.Name = "br0"
	must(ns.t, ns.nl.LinkAdd(br))
	for _, name := range names {
		must(ns.t, ns.nl.LinkSetMaster(ns.link(name), br))
		ns.up(name)
	}
	ns.up("br0")
	settle(ns.t, a, b)
	settle(ns.t, b, a)
}

// settle writes to a until b hears it.
func settle(t testing.TB, a, b linktest.Queue) {
	t.Helper()
	probe := []*packet.Frame{{B: packettest.Ethernet(packet.MAC{2, 1}, packet.MAC{2, 2}, 0x88b5, make([]byte, 46))}}
	batch := packet.NewBatch()
	for range 500 {
		_, _ = a.WriteBatch(probe) // ErrDown at first
		for heard := false; ; {
			n, err := b.ReadBatch(batch)
			must(t, err)
			for _, f := range batch.Frames {
				heard = heard || packet.Ethernet(f.Ether()).Type() == 0x88b5
			}
			batch.Reset()
			if n == 0 && heard {
				return
			}
			if n == 0 {
				break
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the bridge does not forward within 5 s")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needTAP ends a test at its start where it cannot make namespaces and TAPs.
func needTAP(t testing.TB) {
	t.Helper()
	newNamespace(t).tap("tap0")
}

// needs ends a test that this machine does not let run.
func needs(t testing.TB, what string, err error, help string) {
	t.Helper()
	switch {
	case err == nil:
		return
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist):
		t.Fatalf("cannot %s: %v", what, err)
	}
	lab.NotRun(t, fmt.Sprintf("cannot %s: %v", what, err), help)
}
