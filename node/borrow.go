package node

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"fairlead/dhcp"
	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
)

// Addresses of somebody else's DHCP server (`--ip dhcp`), on a network that is part
// of a LAN. The node asks for them with the container's MAC before the container
// is made, so that it has its address like any other, whatever made its namespace;
// renews them as long as the container is there, and then gives them back.

// borrowWithin is how long a server has to lend an address.
const borrowWithin = 10 * time.Second

// A borrower asks for one container, or has its lease.
type borrower struct {
	client *dhcp.Client
	net    *network.Network
	told   chan dhcp.Lease // of capacity 1: the first lease
	had    dhcp.Lease
	kept   bool // the container is there, or was
	again  bool // had is a lease a node before has got, of which nothing was heard yet
}

// A borrowerKey is a station on a network.
type borrowerKey struct {
	network packet.NetworkID
	mac     packet.MAC
}

// lendsLocked reports whether a network's own server lends its addresses: not where
// it is told not to, and where a LAN is behind a port only when it is told so.
func (n *Node) lendsLocked(l *lan) bool {
	options := l.conf.Options.DHCP
	if options.Off || options.On {
		return options.On
	}
	for _, c := range n.containers {
		if c.isPlug() && !c.ending && c.onLocked(l) != nil {
			return false
		}
	}
	return true
}

// borrowAll gets the addresses that endpoints ask for, and writes them down as if
// they had been asked for by number. On networks that lend their addresses
// themselves there is nothing to be done. giveBack is for when nothing comes of it.
func (n *Node) borrowAll(list []api.EndpointRequest, hostname string) (with []api.EndpointRequest, giveBack func(), err error) {
	var got []borrowerKey
	giveBack = func() { n.dhcp.giveBack(got) }
	with = slices.Clone(list)
	for i := range with {
		w := &with[i]
		if !w.DHCP {
			continue
		}
		n.mu.Lock()
		l, err := n.lanLocked(w.Network)
		if err != nil || n.lendsLocked(l) {
			n.mu.Unlock()
			continue // whoever makes the container says what is wrong
		}
		net, id, name := l.net, l.number(), l.name
		n.mu.Unlock()
		key := borrowerKey{id, packet.MAC{2, 0x42}}
		if w.MAC == "" {
			_, _ = rand.Read(key.mac[2:]) // it does not return without
			w.MAC = key.mac.String()
		} else if key.mac, err = packet.ParseMAC(w.MAC); err != nil || key.mac.IsGroup() || key.mac.IsZero() {
			continue // refused there, too
		}
		lease, err := n.dhcp.borrow(key, net, hostname)
		if err == nil {
			got = append(got, key)
			if subnet := net.Config().Gateway.Masked(); lease.Addr.Masked() != subnet {
				err = fail(http.StatusConflict, "network %s is %s, and its DHCP server lends %s: make the network with --subnet %s", name, subnet, lease.Addr, lease.Addr.Masked())
			}
		} else {
			err = fail(http.StatusConflict, "network %s: %w", name, err)
		}
		if err != nil {
			giveBack()
			return nil, nil, err
		}
		w.IP = lease.Addr.Addr().String()
	}
	return with, giveBack, nil
}

// borrow waits until a server has lent an address.
func (d *lenders) borrow(key borrowerKey, net *network.Network, hostname string) (dhcp.Lease, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	b := &borrower{net: net, told: make(chan dhcp.Lease, 1)}
	b.client = dhcp.NewClient(dhcp.Config{MAC: key.mac, Host: hostname, Behalf: true, Seed: binary.LittleEndian.Uint64(seed[:])})
	taken := false
	d.call(func() {
		if taken = d.borrowers[key] != nil; !taken {
			d.borrowers[key] = b
			net.SetDHCPClient(func(message []byte) { d.hear(key.network, message) })
			b.client.Start(loop.Clock())
		}
	})
	if taken {
		return dhcp.Lease{}, fmt.Errorf("MAC address %s is already in use", key.mac)
	}
	select {
	case lease := <-b.told:
		return lease, nil
	case <-time.After(borrowWithin):
		d.giveBack([]borrowerKey{key})
		return dhcp.Lease{}, fmt.Errorf("no DHCP server has lent an address within %v; `fairlead network connect NETWORK if:NAME` joins a network to one that has a server", borrowWithin)
	case <-d.ctx.Done():
		return dhcp.Lease{}, api.ErrLeaving
	}
}

// resume asks for the lease of a container that a node before has got, whose address
// that is until a server says otherwise.
func (d *lenders) resume(key borrowerKey, net *network.Network, hostname string, addr netip.Prefix) {
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	b := &borrower{net: net, told: make(chan dhcp.Lease, 1), again: true, had: dhcp.Lease{Addr: addr}}
	b.client = dhcp.NewClient(dhcp.Config{MAC: key.mac, Host: hostname, Behalf: true, Seed: binary.LittleEndian.Uint64(seed[:])})
	d.call(func() {
		d.borrowers[key] = b
		net.SetDHCPClient(func(message []byte) { d.hear(key.network, message) })
		b.client.Start(loop.Clock())
	})
}

// drop ends the lease of a container that was there.
func (d *lenders) drop(key borrowerKey) {
	if b := d.borrowers[key]; b != nil && b.kept {
		d.end(key)
	}
}

// giveBack ends leases that nobody has come to use.
func (d *lenders) giveBack(list []borrowerKey) {
	d.call(func() {
		for _, key := range list {
			if b := d.borrowers[key]; b != nil && !b.kept {
				d.end(key)
			}
		}
	})
}

// end gives one back.
func (d *lenders) end(key borrowerKey) {
	b := d.borrowers[key]
	now := loop.Clock()
	b.client.Stop(now)
	b.kept = false
	b.next(key, now)
	delete(d.borrowers, key)
	for other := range d.borrowers {
		if other.network == key.network {
			return
		}
	}
	b.net.SetDHCPClient(nil)
}

// hear takes what a server says. It runs on a worker.
func (d *lenders) hear(id packet.NetworkID, b []byte) {
	select {
	case d.heard <- heard{id, b}:
	default: // the client asks again
	}
}

// heard is what a server has said on a network.
type heard struct {
	network packet.NetworkID
	message []byte
}

// answer gives it to whom it is for.
func (d *lenders) answer(h heard) {
	now := loop.Clock()
	for key, b := range d.borrowers {
		if key.network == h.network && b.client.Receive(now, h.message) {
			b.next(key, now)
		}
	}
}

// next does what is due for a borrower, and returns when to come again.
func (b *borrower) next(key borrowerKey, now int64) (due int64) {
	m, due := b.client.Next(now)
	if m != nil {
		b.net.SayDHCP(key.mac, m.Payload)
	}
	lease := b.client.Lease()
	switch {
	case b.again && !lease.Addr.IsValid(): // it uses the address meanwhile, whose lease may still last
	case lease.Addr == b.had.Addr:
	case !b.had.Addr.IsValid():
		select {
		case b.told <- lease:
		default:
		}
	case b.kept:
		slog.Error("the DHCP server has taken a container's address back", "address", b.had.Addr, "mac", key.mac, "now", lease.Addr)
	}
	if lease.Addr.IsValid() {
		b.had, b.again = lease, false
	}
	return due
}

// borrowFor gets the addresses that a new container asks for, likewise.
func (n *Node) borrowFor(req *api.CreateRequest) (giveBack func(), err error) {
	if (&container{req: *req}).isPlug() {
		return func() {}, nil
	}
	list, giveBack, err := n.borrowAll(req.Networks, req.Hostname)
	if err == nil {
		req.Networks = list
	}
	return giveBack, err
}

// connectWithLease connects one, with the address that is asked for first.
func (n *Node) connectWithLease(ref string, req api.EndpointRequest) error {
	list, giveBack, err := n.borrowAll([]api.EndpointRequest{req}, "")
	if err != nil {
		return err
	}
	if err = n.connect(ref, list[0]); err != nil {
		giveBack()
	}
	return err
}
