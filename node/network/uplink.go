package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fairlead/gateway"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/policy"
	vswitch "fairlead/switch"
	"fairlead/uplink"
)

// readyWait is longer than an uplink probes for its addresses, and releaseWait
// than a worker's turn takes.
const (
	readyWait   = time.Second
	releaseWait = 100 * time.Millisecond
)

// AddUplink makes a link a way out, which networks may then use. It returns when
// the uplink's addresses are known to be nobody else's, or are somebody's (see
// Uplink.State); for a lease it does not wait. The queue is the router's in every
// case: after an error it is closed.
func (r *Router) AddUplink(conf UplinkConfig, queue vswitch.Queue) (*Uplink, error) {
	conf.MTU = cmp.Or(conf.MTU, DefaultMTU)
	u, err := r.addUplink(conf, func(id packet.NetworkID) (end, vswitch.Queue, error) {
		raw, err := uplink.New(uplink.Config{
			Network: id, Name: conf.Name, MAC: conf.MAC, MTU: conf.MTU,
			Addr: conf.Addr, Gateway: conf.Gateway, Extra: conf.Extra, Routes: conf.Routes, DHCP: conf.DHCP,
			SharedMAC: conf.SharedMAC, Held: conf.Held, Avoid: r.subnets(),
		}, inbound{r.rt.Inbound(id), r, id})
		return raw, queue, err
	})
	if err != nil {
		_ = queue.Close()
		return nil, err
	}
	if !conf.DHCP && !conf.Held {
		select {
		case <-u.raw.Ready():
		case <-time.After(readyWait):
		}
	}
	return u, nil
}

// addUplink gives an uplink a number and a segment. made makes its far end, and
// the queue of its port.
func (r *Router) addUplink(conf UplinkConfig, made func(packet.NetworkID) (end, vswitch.Queue, error)) (*Uplink, error) {
	r.adding.Lock()
	defer r.adding.Unlock()
	id, err := r.number(conf.Name)
	if err != nil {
		return nil, err
	}
	e, queue, err := made(id)
	if err != nil {
		return nil, err
	}
	// The uplink's MTU is for what leaves. A neighbour with a larger one sends
	// what is larger, and a segment of one port has nobody it would not fit.
	segment := vswitch.Config{ID: id, Name: conf.Name, MTU: maxPacket, Gateway: e}
	u := &Uplink{Uplink: e, end: e, conf: conf, sw: vswitch.New(segment, r.lanes)}
	u.sw.SetJoin(true) // where the networks have it so
	u.raw, _ = e.(*uplink.Raw)
	r.rt.PlugUplink(e)
	port, err := u.sw.AddPort(vswitch.PortConfig{
		Name: conf.Name, Queue: queue, FloodLimit: -1, Guard: policy.Guard{Trusted: u.Sockets() != nil},
		Lost: func(_ *vswitch.Port, err error) {
			if conf.Lost != nil {
				conf.Lost(err)
			}
		},
	})
	if err != nil {
		r.rt.UnplugUplink(id)
		u.sw.Close()
		return nil, fmt.Errorf("uplink %s: %w", conf.Name, err)
	}
	if s := u.Sockets(); s != nil {
		s.SetPort(port.ID())
	}
	if q, ok := queue.(interface{ SetCarrier(bool) error }); ok {
		_ = q.SetCarrier(true) // a link that has no say in its carrier is up by itself
	}
	u.sw.Wake() // probe, announce, ask for a lease
	r.mu.Lock()
	defer r.mu.Unlock()
	r.numbers[id] = true
	r.uplinks = append(r.uplinks, u)
	return u, nil
}

// number finds one that is free, for an uplink of a new name.
func (r *Router) number(name string) (packet.NetworkID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.findLocked(name) != nil {
		return 0, fmt.Errorf("uplink %s: there is one of this name already", name)
	}
	for id := firstUplink; id < firstUplink+maxUplinks; id++ {
		if !r.numbers[id] {
			return id, nil
		}
	}
	return 0, fmt.Errorf("uplink %s: there are %d uplinks, which is all a node can have", name, maxUplinks)
}

// maxPacket is the largest packet IPv4 can write the length of.
const maxPacket = 65535

// subnets are those of all networks.
func (r *Router) subnets() (list []netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.networks {
		list = append(list, n.conf.Gateway.Masked())
	}
	return list
}

// inbound is the router as an uplink sees it, which is told of lost addresses
// too.
type inbound struct {
	*gateway.Inbound
	r       *Router
	network packet.NetworkID
}

// AddressGone ends the flows across an address that is the uplink's no more: a
// lease has ended. That takes milliseconds, so the worker does not wait for it.
func (in inbound) AddressGone(a packet.Addr) {
	go in.r.Flows(func(t *nat.Table) { t.FlushAddress(in.network, a) })
}

// RemoveUplink takes an uplink off all networks and closes its link.
func (r *Router) RemoveUplink(name string) error {
	r.mu.Lock()
	u := r.findLocked(name)
	if u == nil {
		r.mu.Unlock()
		return fmt.Errorf("no uplink %s", name)
	}
	r.uplinks = slices.DeleteFunc(r.uplinks, func(x *Uplink) bool { return x == u })
	r.leaving[u.sw] = true
	for _, n := range r.networks {
		n.dropUplinkLocked(u)
	}
	r.mu.Unlock()
	released := u.end.Stop()
	u.sw.Wake()
	select {
	case <-released:
	case <-time.After(releaseWait):
	}
	r.rt.UnplugUplink(u.Network())
	u.sw.Close()
	r.retire(u.sw)
	r.mu.Lock()
	delete(r.numbers, u.Network()) // nothing speaks of it any more
	r.mu.Unlock()
	return nil
}

// Close takes all uplinks off. Networks are closed before.
func (r *Router) Close() {
	for _, u := range r.Uplinks() {
		_ = r.RemoveUplink(u.conf.Name)
	}
}
