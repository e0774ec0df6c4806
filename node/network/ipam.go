package network

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	gw "fairlead/gateway"
)

// A Pool says which addresses of a subnet containers are given.
type Pool struct {
	// Range is where the lowest free address is looked for; the zero Prefix is
	// the whole subnet. By hand any other may be had.
	Range netip.Prefix
	// Aux are addresses containers do not get, by the name of who has them.
	Aux map[string]netip.Addr
}

// Taken is a subnet that is in use, and what people call its user.
type Taken struct {
	Prefix netip.Prefix
	By     string // network lab; the route 10.0.0.0/8 dev tun0 of this host
}

// pools are Docker's default address pools in its order, each as a network gets
// it: 172.17.0.0/16 to 172.31.0.0/16, then sixteen of 192.168.0.0/16.
func pools() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for i := 17; i < 32; i++ {
			if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16)) {
				return
			}
		}
		for i := 0; i < 256; i += 16 {
			if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i)}), 20)) {
				return
			}
		}
	}
}

// FreePool returns the first of Docker's pools that overlaps nothing, as the
// address of its gateway with the length of the subnet.
func FreePool(taken []Taken) (gateway netip.Prefix, err error) {
	for p := range pools() {
		if overlaps(p, taken) == nil {
			return firstOf(p), nil
		}
	}
	return netip.Prefix{}, errors.New("all predefined address pools have been fully subnetted; say which one it is to have: --subnet 10.1.0.0/16")
}

// firstOf is the first address of a subnet, with its length.
func firstOf(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits())
}

// overlaps finds who has a part of a subnet, nil if nobody has.
func overlaps(subnet netip.Prefix, taken []Taken) *Taken {
	i := slices.IndexFunc(taken, func(t Taken) bool { return t.Prefix.Overlaps(subnet) })
	if i < 0 {
		return nil
	}
	return &taken[i]
}

// CheckFree refuses a subnet of which somebody has a part, in Docker's words and
// by name.
func CheckFree(subnet netip.Prefix, taken []Taken) error {
	t := overlaps(subnet, taken)
	if t == nil {
		return nil
	}
	err := fmt.Errorf("invalid pool request: Pool overlaps with other one on this address space: %s and %s", subnet, t.By)
	if free, full := FreePool(taken); full == nil {
		err = fmt.Errorf("%w; --subnet %s is free", err, free.Masked())
	}
	return err
}

// Addresses are what a network is asked to have.
type Addresses struct {
	Subnet  netip.Prefix // the zero Prefix is the first free pool
	Gateway netip.Addr   // the zero Addr is the first one
	Pool
}

// Choose makes of what is asked for what a network gets: its gateway with the
// length of the subnet, and a Pool if there is something to say in it.
func (a *Addresses) Choose(taken []Taken) (gateway netip.Prefix, pool *Pool, err error) {
	if !a.Subnet.IsValid() {
		switch {
		case a.Gateway.IsValid():
			return gateway, nil, fmt.Errorf("gateway %s: a network with a gateway of its own needs a subnet, --subnet", a.Gateway)
		case a.Range.IsValid():
			return gateway, nil, fmt.Errorf("ip-range %s: a network with a range of addresses needs a subnet, --subnet", a.Range)
		case len(a.Aux) > 0:
			return gateway, nil, errors.New("aux-address: a network that keeps addresses needs a subnet, --subnet")
		}
		gateway, err = FreePool(taken)
		return gateway, nil, err
	}
	if a.Subnet != a.Subnet.Masked() {
		return gateway, nil, fmt.Errorf("invalid subnet %s: it should be %s", a.Subnet, a.Subnet.Masked())
	}
	gateway = firstOf(a.Subnet)
	if a.Gateway.IsValid() {
		if !a.Subnet.Contains(a.Gateway) {
			return gateway, nil, fmt.Errorf("no matching subnet for gateway %s: it is not in %s", a.Gateway, a.Subnet)
		}
		gateway = netip.PrefixFrom(a.Gateway, a.Subnet.Bits())
	}
	if err := checkGateway(gateway); err != nil {
		return gateway, nil, err
	}
	if a.Range.IsValid() || len(a.Aux) > 0 {
		pool = &a.Pool
	}
	if err := pool.check(gateway); err != nil {
		return gateway, nil, err
	}
	return gateway, pool, CheckFree(a.Subnet, taken)
}

// check refuses a pool that does not lie in its subnet, or has nothing in it.
func (p *Pool) check(gateway netip.Prefix) error {
	if p == nil {
		return nil
	}
	subnet := gateway.Masked()
	if r := p.Range; r.IsValid() {
		switch {
		case r != r.Masked():
			return fmt.Errorf("invalid ip-range %s: it should be %s", r, r.Masked())
		case r.Bits() < subnet.Bits() || !subnet.Contains(r.Addr()):
			return fmt.Errorf("no matching subnet for range %s: it is not in %s", r, subnet)
		}
	}
	has := map[netip.Addr]string{gateway.Addr(): "the gateway"}
	for _, name := range p.auxNames() {
		a := p.Aux[name]
		switch {
		case !subnet.Contains(a):
			return fmt.Errorf("no matching subnet for aux-address %s: %s is not in %s", name, a, subnet)
		case a == subnet.Addr() || a == gw.Broadcast(subnet):
			return fmt.Errorf("aux-address %s: %s is the network or broadcast address of %s", name, a, subnet)
		case has[a] != "":
			return fmt.Errorf("aux-address %s: %s is that of %s", name, a, has[a])
		}
		has[a] = "aux-address " + name
	}
	return nil
}

func (p *Pool) auxNames() (names []string) {
	for name := range p.Aux {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
