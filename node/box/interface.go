package box

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// OpenInterface opens a packet socket on an interface of the caller's network
// namespace, for a port of a network: its containers become stations of the LAN
// there. It needs CAP_NET_RAW.
//
// The interface stays this host's, too. The port hears all of the LAN but what is
// for the host's own MAC, and nothing of what the host sends: to one another host
// and containers are not there, as with a macvlan. The filter is locked.
func OpenInterface(name string) (*Uplink, error) {
	u, err := openInterface(name)
	if err != nil {
		return nil, fmt.Errorf("open if:%s: %w", name, err)
	}
	return u, nil
}

func openInterface(name string) (*Uplink, error) {
	if err := uplinkName(name); err != nil {
		return nil, err
	}
	u, err := newUplink(name)
	if err != nil {
		return nil, err
	}
	if u.FD, err = packetSocket(); errors.Is(err, unix.EPERM) {
		return nil, &Remedy{unix.EPERM, "a packet socket takes CAP_NET_RAW", lendRaw + " fairlead network connect …"}
	} else if err != nil {
		return nil, err
	}
	err = lockFilter(u.FD, othersFilter())
	if err == nil {
		err = listenToAll(u.FD, u.Index)
	}
	if err == nil {
		err = bindPacket(u.FD, u.Index)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// lendRaw lends a plain user's command the right to open packet sockets.
const lendRaw = "sudo --preserve-env=XDG_RUNTIME_DIR,FAIRLEAD_DIR setpriv --reuid $(id -u) --regid $(id -g) --init-groups --inh-caps +net_raw --ambient-caps +net_raw"

// othersFilter lets pass what is not for the MAC of the interface itself, whatever
// that is at the moment.
func othersFilter() []unix.SockFilter {
	const packetType = 1<<32 - 0x1000 + 4 // SKF_AD_OFF + SKF_AD_PKTTYPE of linux/filter.h
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: packetType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_HOST, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// TakeVeth takes one end of a veth pair that somebody else made, for a port of a
// network. It moves the end into an empty network namespace, so that no host's
// stack sees its frames any more: the pair goes with the port. It needs root of
// the namespace it is called in. Segments of tunnels behind the other end are
// lost unless they are turned off there; see wordless.
func TakeVeth(name string) (*Uplink, error) {
	u, err := takeVeth(name)
	if err != nil {
		return nil, fmt.Errorf("take veth:%s: %w", name, err)
	}
	return u, nil
}

func takeVeth(name string) (*Uplink, error) {
	if err := uplinkName(name); err != nil {
		return nil, err
	}
	u, err := newUplink(name)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	l, err := h.LinkByIndex(u.Index)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	if l.Type() != "veth" {
		return nil, fmt.Errorf("interface %s is no end of a veth pair but %s: `if:%[1]s` makes it a port and leaves it here", name, l.Type())
	}
	u.taken, u.wasUp = true, l.Attrs().Flags&net.FlagUp != 0
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	err = inNursery(func() error {
		if err := quietNursery(); err != nil {
			return err
		}
		nursery, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer nursery.Close()
		if err := h.LinkSetNsFd(l, int(nursery.Fd())); err != nil {
			return fmt.Errorf("move it into an empty namespace: %w", err)
		}
		inside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer inside.Close()
		if u.FD, err = listenAt(inside, name); err != nil {
			err = errors.Join(err, moveBack(inside, name, home))
		}
		return err
	})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("%w: it takes root of this network namespace (sudo)", err)
	} else if err != nil {
		return nil, err
	}
	return u, nil
}

// GiveBack undoes TakeVeth where the node did not take the end: it is where it was,
// and up if it was. Addresses it had are lost. The caller's thread is in the network
// namespace it is to be in, and the Uplink has not been closed. Of any other Uplink
// nothing was taken.
func (u *Uplink) GiveBack() error {
	if !u.taken {
		return nil
	}
	if err := u.giveBack(); err != nil {
		return fmt.Errorf("give veth:%s back: %w", u.Name, err)
	}
	return nil
}

func (u *Uplink) giveBack() error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	err = inNurseryOf(u.FD, func(h *netlink.Handle) error { return moveBack(h, u.Name, home) })
	if err != nil || !u.wasUp {
		return err
	}
	l, err := netlink.LinkByName(u.Name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	return err
}

// moveBack moves an end out of a nursery, without what listenAt set there that does
// not go with the move.
func moveBack(nursery *netlink.Handle, name string, home *os.File) error {
	l, err := nursery.LinkByName(name)
	if err == nil {
		err = nursery.LinkSetARPOn(l)
	}
	if err == nil {
		err = nursery.LinkSetNsFd(l, int(home.Fd()))
	}
	if err != nil {
		return fmt.Errorf("move it back: %w", err)
	}
	return nil
}
