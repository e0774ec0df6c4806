package network

import (
	"fmt"
	"net/netip"
	"sync"

	gw "fairlead/gateway"
)

// A pool hands out the addresses of a subnet, lowest first, as Docker does. It
// is bounded by the subnet.
type pool struct {
	subnet        netip.Prefix
	gateway, last netip.Addr
	first, end    netip.Addr            // of the range the lowest is looked for in, end included
	aux           map[netip.Addr]string // who has what is kept from containers

	mu    sync.Mutex
	taken map[netip.Addr]bool
	next  netip.Addr // no address of the range below it is free
}

// newPool returns the pool of a subnet; that of a nil Pool has all of it.
func newPool(gateway netip.Prefix, limits *Pool) *pool {
	subnet := gateway.Masked()
	p := &pool{
		subnet: subnet, gateway: gateway.Addr(), last: gw.Broadcast(subnet),
		first: subnet.Addr(), end: gw.Broadcast(subnet),
		taken: make(map[netip.Addr]bool),
	}
	if limits != nil {
		if limits.Range.IsValid() {
			p.first, p.end = limits.Range.Addr(), gw.Broadcast(limits.Range)
		}
		p.aux = make(map[netip.Addr]string, len(limits.Aux))
		for name, a := range limits.Aux {
			p.aux[a] = name
		}
	}
	p.next = p.first
	return p
}

// take reserves want, or the lowest free address when want is the zero Addr.
func (p *pool) take(want netip.Addr) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !want.IsValid() {
		return p.lowestLocked()
	}
	switch {
	case !p.subnet.Contains(want):
		return want, fmt.Errorf("address %s is not in the subnet %s", want, p.subnet)
	case want == p.gateway:
		return want, fmt.Errorf("address %s is the gateway's", want)
	case want == p.subnet.Addr() || want == p.last:
		return want, fmt.Errorf("address %s is the network or broadcast address of %s", want, p.subnet)
	case p.aux[want] != "":
		return want, fmt.Errorf("address %s is kept for %s (--aux-address)", want, p.aux[want])
	case p.taken[want]:
		return want, fmt.Errorf("address %s is already in use", want)
	}
	p.taken[want] = true
	return want, nil
}

// usable reports whether a container can have an address of the subnet.
func (p *pool) usable(a netip.Addr) bool {
	return a != p.gateway && a != p.subnet.Addr() && a != p.last && p.aux[a] == ""
}

func (p *pool) lowestLocked() (netip.Addr, error) {
	for a := p.next; a.Compare(p.end) <= 0; a = a.Next() {
		if p.usable(a) && !p.taken[a] {
			p.taken[a] = true
			p.next = a.Next()
			return a, nil
		}
	}
	p.next = p.end.Next()
	within := p.subnet.String()
	if p.first != p.subnet.Addr() || p.end != p.last {
		within = fmt.Sprintf("the range from %s to %s", p.first, p.end)
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free; %d containers have one", within, len(p.taken))
}

// give makes an address free again.
func (p *pool) give(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, a)
	if a.Less(p.next) && !a.Less(p.first) {
		p.next = a
	}
}
