package nat

import (
	"encoding/binary"

	"fairlead/packet"
)

// A mapping is an inside endpoint's outside port: 64 bytes. It lives as long as
// its flows. Only the owner of the table uses it.
type mapping struct {
	inside, outside         packet.Addr
	network, uplink         packet.NetworkID
	container               packet.ContainerID
	insidePort, outsidePort uint16
	flows                   list // by linkMapping
	count                   uint32
	proto                   packet.Proto

	// primary is set on the one mapping an endpoint's new flows use. There are
	// others only where two flows would come out as one.
	primary bool
}

// mappings are all of them, with an index by endpoint and the pools of ports.
type mappings struct {
	index  index // of primary ones by endpoint
	chunks []*[mapChunk]mapping
	used   int
	free   []uint32
	live   int
	made   uint64 // since the beginning
	pools  map[poolKey]*pool
}

const mapChunk = 512 // 32 KiB

func (m *mappings) init(bound int) {
	m.index.init(bound)
	m.chunks = make([]*[mapChunk]mapping, bound/mapChunk+2)
	m.used = 1 // 0 is none
	m.pools = make(map[poolKey]*pool)
}

func (m *mappings) at(n uint32) *mapping { return &m.chunks[n/mapChunk][n%mapChunk] }

// An endpoint is who has a mapping, and where: what RFC 4787 calls X:x.
type endpoint struct {
	network   packet.NetworkID
	container packet.ContainerID
	addr      packet.Addr
	port      uint16
	proto     packet.Proto
	uplink    packet.NetworkID
	outside   packet.Addr
}

func (m *mapping) endpoint() endpoint {
	return endpoint{m.network, m.container, m.inside, m.insidePort, m.proto, m.uplink, m.outside}
}

func (t *Table) hashEndpoint(e *endpoint) uint64 {
	h := mix(t.seed[1]^binary.BigEndian.Uint64(e.addr[:]), t.seed[2]^binary.BigEndian.Uint64(e.addr[8:]))
	h = mix(h^binary.BigEndian.Uint64(e.outside[:]), t.seed[3]^binary.BigEndian.Uint64(e.outside[8:]))
	h = mix(h^t.seed[0], uint64(e.network)<<32|uint64(e.container))
	return mix(h^t.seed[1], t.seed[2]^(uint64(e.uplink)<<32|uint64(e.port)<<16|uint64(e.proto)))
}

// findMapping returns the primary mapping of an endpoint, 0 if it has none.
func (t *Table) findMapping(e *endpoint) uint32 {
	h := t.hashEndpoint(e)
	a, b := t.maps.index.pair(h)
	for m := match(a, b, h); m != 0; m &= m - 1 {
		if n := numberAt(a, b, h, m); n-1 < maxNumber && t.maps.at(n).endpoint() == *e {
			return n
		}
	}
	return 0
}

// makeMapping gives an endpoint an outside port that is free. 0 means that the
// index is full.
func (t *Table) makeMapping(e *endpoint, port uint16) uint32 {
	m := &t.maps
	var n uint32
	primary := t.findMapping(e) == 0
	if k := len(m.free); k > 0 {
		n = m.free[k-1]
	} else {
		n = uint32(m.used)
	}
	if primary && !m.index.add(t.hashEndpoint(e), n) {
		return 0
	}
	if k := len(m.free); k > 0 {
		m.free = m.free[:k-1]
	} else {
		if m.chunks[n/mapChunk] == nil {
			m.chunks[n/mapChunk] = new([mapChunk]mapping)
		}
		m.used++
	}
	*m.at(n) = mapping{inside: e.addr, outside: e.outside, network: e.network, uplink: e.uplink, container: e.container,
		insidePort: e.port, outsidePort: port, proto: e.proto, primary: primary}
	t.poolOf(poolKey{e.uplink, e.outside, e.proto}).take(e.container, port, n)
	m.live++
	m.made++
	return n
}

// dropMapping frees a mapping and its port.
func (t *Table) dropMapping(n uint32) {
	m := t.maps.at(n)
	if m.primary {
		e := m.endpoint()
		t.maps.index.remove(t.hashEndpoint(&e), n)
	}
	key := poolKey{m.uplink, m.outside, m.proto}
	owner := uint32(0)
	if t.rules.reserves(key.outside, key.proto, m.outsidePort) {
		owner = published
	}
	t.maps.pools[key].release(m.container, m.outsidePort, owner)
	*m = mapping{}
	t.maps.free = append(t.maps.free, n)
	t.maps.live--
}

// join and leave keep the list of a mapping's flows; the last one out drops it.
func (t *Table) join(n, ref uint32) {
	m := t.maps.at(n)
	t.append(&m.flows, linkMapping, ref)
	m.count++
}

func (t *Table) leave(n, ref uint32) {
	m := t.maps.at(n)
	t.unlink(&m.flows, linkMapping, ref)
	if m.count--; m.count == 0 {
		t.dropMapping(n)
	}
}

// filterLook bounds how many flows of a mapping are looked at to see whether it
// talks to an address.
const filterLook = 64

// talksTo is address-dependent filtering (RFC 4787 REQ-8, RFC 5382 REQ-3): one
// of the mapping's flows, of the newest filterLook, is with that address and goes
// on.
func (t *Table) talksTo(n uint32, a packet.Addr) bool {
	ref := t.maps.at(n).flows.tail
	for look := 0; ref != 0 && look < filterLook; look++ {
		b := t.body(ref)
		_, k := t.key(ref, 0)
		remote := k.Dst
		if b.is(inward) {
			remote = k.Src
		}
		if remote == a && t.counts(ref) {
			return true
		}
		ref = b.links[linkMapping].prev
	}
	return false
}
