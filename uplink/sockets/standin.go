package sockets

import "fairlead/packet"

// maxStandIns bounds the clients of IPv6 that are known by published UDP ports.
const maxStandIns = 4096

// A client is who speaks to a published UDP port by IPv6, and to which address.
type client struct {
	addr, local packet.Addr
	at          localAddr // the published port's
	zone        uint32
	port        uint16
}

// A standIn is a client and whether it was heard since it was last looked at.
type standIn struct {
	client client
	heard  bool
}

// A standIns is the clients of IPv6, each with an address of its own. There are
// at most maxStandIns; one that was not heard for longest, or nearly so (the
// second-chance algorithm), makes room for another.
type standIns struct {
	byClient map[client]int
	list     []standIn
	next     int // who is looked at first
}

// standIn returns the address that stands for a client. If it stood for another,
// replaced is what that one sent, but for the address it was sent to.
func (t *standIns) standIn(c client) (shown packet.Addr, replaced packet.Tuple) {
	i, ok := t.byClient[c]
	switch {
	case ok:
		t.list[i].heard = true
		return packet.StandIn(uint32(i)), packet.Tuple{}
	case t.byClient == nil:
		t.byClient = make(map[client]int)
		fallthrough
	case len(t.list) < maxStandIns:
		i = len(t.list)
		t.list = append(t.list, standIn{})
	default:
		for t.list[t.next].heard {
			t.list[t.next].heard = false
			t.next = (t.next + 1) % maxStandIns
		}
		i = t.next
		t.next = (t.next + 1) % maxStandIns
		old := &t.list[i].client
		delete(t.byClient, *old)
		replaced = packet.Tuple{Src: packet.StandIn(uint32(i)), SrcPort: old.port, DstPort: old.at.port, Proto: packet.ProtoUDP}
	}
	t.byClient[c] = i
	t.list[i] = standIn{client: c}
	return packet.StandIn(uint32(i)), replaced
}

// shown returns the address that stands for a client if there is one.
func (t *standIns) shown(c client) (packet.Addr, bool) {
	i, ok := t.byClient[c]
	if !ok {
		return packet.Addr{}, false
	}
	return packet.StandIn(uint32(i)), true
}

// client returns the client an address and port stand for, nil when it is none.
// It is valid until the next standIn.
func (t *standIns) client(a packet.Addr, port uint16) *client {
	if !packet.IsStandIn(a) {
		return nil
	}
	i := int(a[13]&127)<<16 | int(a[14])<<8 | int(a[15])
	if i >= len(t.list) || t.list[i].client.port != port {
		return nil
	}
	return &t.list[i].client
}
