package nat

import (
	"math/bits"

	"fairlead/packet"
)

// A pool is the ports of one outside address and protocol: who has which.
type pool struct {
	owner    [1 << 16]uint32 // the mapping's number; 0 is free, published is a rule's
	taken    portSet         // those that are not free
	reserved int             // ports of rules
	used     int             // ports of mappings
	borrowed int             // those of them beyond the guaranteed shares
	held     []uint16        // by the dense index of a container
	share    int             // guaranteed to each container
	common   int             // for whoever comes first, less what is reserved
	first    int
}

type poolKey struct {
	uplink  packet.NetworkID
	outside packet.Addr
	proto   packet.Proto
}

// published marks the port of a rule in a pool.
const published = ^uint32(0)

// firstPort is the lowest outside port of a protocol: of TCP and UDP 1024, since
// those below are where services are expected. Identifiers of ICMP have no such
// order, but 0 stands for who answers.
func firstPort(p packet.Proto) int {
	if p == packet.ProtoTCP || p == packet.ProtoUDP {
		return leastPort
	}
	return 1
}

const leastPort = 1024

// poolOf returns the pool of an address and protocol, and makes it.
func (t *Table) poolOf(key poolKey) *pool {
	p := t.maps.pools[key]
	if p == nil {
		p = t.newPool(key)
		t.maps.pools[key] = p
	}
	return p
}

func (t *Table) newPool(key poolKey) *pool {
	p := &pool{first: firstPort(key.proto)}
	ports := len(p.owner) - p.first
	p.share = ports / 2 / t.config.MaxContainers
	p.common = ports - p.share*t.config.MaxContainers
	t.rules.reservedPorts(key.outside, key.proto, func(port uint16) { p.reserve(port) })
	return p
}

// admits reports whether a container may have one more port.
func (p *pool) admits(c packet.ContainerID) bool {
	if p.used+p.reserved >= len(p.owner)-p.first {
		return false
	}
	i := int(c & 0xffff)
	return i >= len(p.held) || int(p.held[i]) < p.share || p.borrowed < p.common-p.reserved
}

func (p *pool) take(c packet.ContainerID, port uint16, mapping uint32) {
	i := int(c & 0xffff)
	for len(p.held) <= i {
		p.held = append(p.held, 0)
	}
	if int(p.held[i]) >= p.share {
		p.borrowed++
	}
	p.held[i]++
	p.used++
	p.setOwner(port, mapping)
}

func (p *pool) setOwner(port uint16, owner uint32) {
	p.owner[port] = owner
	p.taken.set(port, owner != 0)
}

func (p *pool) release(c packet.ContainerID, port uint16, owner uint32) {
	i := int(c & 0xffff)
	p.held[i]--
	if int(p.held[i]) >= p.share {
		p.borrowed--
	}
	p.used--
	p.setOwner(port, 0)
	if owner == published {
		p.reserve(port)
	}
}

// reserve keeps a rule's port from being given to a mapping. One that has it
// keeps it; it is reserved when that ends.
func (p *pool) reserve(port uint16) {
	if p.owner[port] == 0 {
		p.setOwner(port, published)
		if int(port) >= p.first {
			p.reserved++
		}
	}
}

func (p *pool) unreserve(port uint16) {
	if p.owner[port] == published {
		p.setOwner(port, 0)
		if int(port) >= p.first {
			p.reserved--
		}
	}
}

// choosePort picks an outside port for an endpoint: its own if that is free
// (port preservation), else one by RFC 6056: a start nobody can predict, and from
// there the next free one, of the same parity if there is one (RFC 4787 REQ-4).
// usable says whether flows could be told apart with that port.
//
// Nothing is made for it: a packet that is refused later costs no memory. While there is
// no pool all ports are free but those of rules.
func (t *Table) choosePort(e *endpoint, usable func(port uint16) bool) (uint16, bool) {
	taken := &noneTaken
	p := t.maps.pools[poolKey{e.uplink, e.outside, e.proto}]
	if p != nil {
		if taken = &p.taken; !p.admits(e.container) {
			return 0, false
		}
	}
	free := func(port uint16) bool {
		return (p != nil || !t.rules.reserves(e.outside, e.proto, port)) && usable(port)
	}
	if int(e.port) >= firstPort(e.proto) && !taken.has(e.port) && free(e.port) {
		return e.port, true
	}
	start := int(mix(t.hashEndpoint(e)^t.maps.made, t.seed[3]) % (1<<16 - 1024))
	for _, parity := range [2]uint16{e.port & 1, ^e.port & 1} {
		for port := range taken.others(1024+start, parity) {
			if free(port) {
				return port, true
			}
		}
	}
	return 0, false
}

// portSet has a bit for each port.
type portSet [1 << 16 / 64]uint64

// noneTaken is that of an address that has no pool. Nobody writes to it.
var noneTaken portSet

func (s *portSet) has(port uint16) bool { return s[port/64]&(1<<(port%64)) != 0 }

func (s *portSet) set(port uint16, to bool) {
	if to {
		s[port/64] |= 1 << (port % 64)
	} else {
		s[port/64] &^= 1 << (port % 64)
	}
}

// others yields the ports that are not in the set, of a parity, from 1024 on, beginning
// with those that follow on start.
func (s *portSet) others(start int, parity uint16) func(yield func(uint16) bool) {
	even := uint64(0x5555555555555555) << parity
	const first, words = 1024 / 64, 1<<16/64 - 1024/64
	return func(yield func(uint16) bool) {
		before := uint64(1)<<(start%64) - 1 // the ports of the first word that come last
		for i := range words + 1 {
			word := first + (start/64-first+i)%words
			bits64 := ^s[word] & even
			switch i {
			case 0:
				bits64 &^= before
			case words:
				bits64 &= before
			}
			for ; bits64 != 0; bits64 &= bits64 - 1 {
				if !yield(uint16(word*64 + bits.TrailingZeros64(bits64))) {
					return
				}
			}
		}
	}
}
