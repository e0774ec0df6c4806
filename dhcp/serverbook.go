package dhcp

import (
	"encoding/hex"
	"net/netip"
	"slices"

	"fairlead/packet"
)

// A Binding is a lease as others see it.
type Binding struct {
	ID        string // hexadecimal: the client identifier; empty if the MAC is all there is
	MAC       packet.MAC
	Addr      netip.Addr
	Container packet.ContainerID // behind whose port it is, 0 when that is nobody's
	Name      string             // what the station calls itself
	State     string
	Reserved  bool  // nobody else gets it
	Fixed     bool  // it is the station's also without the lease
	Until     int64 // 0 is for good
}

var leaseWords = [...]string{"released", "probing", "offered", "bound", "declined"}

// Bindings lists the leases by address, those that are only remembered left out.
func (s *Server) Bindings() []Binding {
	list := make([]Binding, 0, len(s.leases))
	for _, l := range s.leases {
		if l.state == leaseReleased {
			continue
		}
		b := Binding{MAC: l.mac, Addr: l.addr, Container: l.id.container, Name: l.name, State: leaseWords[l.state],
			Reserved: s.reserved[l.addr] != nil, Fixed: l.fixed(), Until: l.until}
		if l.id.by == 'c' {
			b.ID = hex.EncodeToString([]byte(l.id.is))
		}
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b Binding) int { return a.Addr.Compare(b.Addr) })
	return list
}

// Changes grows whenever a lease begins, is renewed or ends.
func (s *Server) Changes() uint64 { return s.changes }

// Restore has a lease be there again that a server before this one has lent to a
// station on no container's port. It returns false when that cannot be.
func (s *Server) Restore(b Binding) bool {
	id, err := hex.DecodeString(b.ID)
	l := &lease{id: identity{by: 'm', is: string(b.MAC[:])}, mac: b.MAC, name: hostName(b.Name)}
	if len(id) > 0 {
		l.id = identity{by: 'c', is: string(id)}
	}
	h := s.reserved[b.Addr]
	if h != nil && (h.ID != "" && h.ID != string(id) || h.ID == "" && h.MAC != b.MAC) {
		return false
	}
	if err != nil || len(id) > 255 || s.leases[l.id] != nil || len(s.leases) >= maxLeases || !s.take(l, b.Addr, h) {
		return false
	}
	s.leases[l.id] = l
	s.set(l, leaseBound, b.Until)
	return true
}

// Forget ends the leases of a container that has gone, and of the stations behind
// it.
func (s *Server) Forget(c packet.ContainerID) {
	for _, l := range s.leases {
		if l.id.container == c && c != 0 {
			s.drop(l)
		}
	}
}

// Close gives all addresses back.
func (s *Server) Close() {
	for _, l := range s.leases {
		s.drop(l)
	}
	for a := range s.reserved {
		s.segment.Give(a)
	}
	clear(s.reserved)
}
