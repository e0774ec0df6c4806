package policy

import (
	"sync/atomic"

	"fairlead/packet"
)

// Bound are the MACs and addresses that ports of a network are held to, so that
// nobody else there may use them. Any worker may ask; Set replaces them whole. Of
// a nil Bound nothing is anybody's.
type Bound struct{ now atomic.Pointer[identities] }

type identities struct {
	macs  map[packet.MAC]bool
	addrs map[packet.Addr]bool
}

// Set has them be those of the guards that are strict.
func (b *Bound) Set(guards []*Guard) {
	ids := &identities{make(map[packet.MAC]bool), make(map[packet.Addr]bool)}
	for _, g := range guards {
		if !g.Strict {
			continue
		}
		ids.macs[g.MAC] = true
		for _, a := range g.Addrs {
			ids.addrs[a] = true
		}
	}
	b.now.Store(ids)
}

func (b *Bound) hasMAC(m packet.MAC) bool {
	ids := b.load()
	return ids != nil && ids.macs[m]
}

func (b *Bound) hasAddr(a packet.Addr) bool {
	ids := b.load()
	return ids != nil && ids.addrs[a]
}

func (b *Bound) load() *identities {
	if b == nil {
		return nil
	}
	return b.now.Load()
}
