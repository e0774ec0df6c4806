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

	mu    sync.Mutex
	taken map[netip.Addr]bool
	next  netip.Addr // no address below it is free
}

func newPool(gateway netip.Prefix) *pool {
	p := &pool{
		subnet: gateway.Masked(), gateway: gateway.Addr(), last: gw.Broadcast(gateway),
		taken: make(map[netip.Addr]bool),
	}
	p.next = p.subnet.Addr().Next()
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
	case p.taken[want]:
		return want, fmt.Errorf("address %s is already in use", want)
	}
	p.taken[want] = true
	return want, nil
}

func (p *pool) lowestLocked() (netip.Addr, error) {
	for a := p.next; a.Less(p.last); a = a.Next() {
		if a != p.gateway && !p.taken[a] {
			p.taken[a] = true
			p.next = a.Next()
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free; %d containers have one", p.subnet, len(p.taken))
}

// give makes an address free again.
func (p *pool) give(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, a)
	if a.Less(p.next) {
		p.next = a
	}
}
