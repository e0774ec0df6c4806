// Package arp answers who-has and keeps the gateway's neighbour table
// (RFC 826).
//
// It holds no sockets, goroutines, clocks or locks: bytes and time are
// arguments, and whoever owns a Table serialises its use.
package arp

import (
	"time"

	"fairlead/packet"
)

// An Entry is one neighbour.
type Entry struct {
	Addr      [4]byte
	MAC       packet.MAC
	Port      packet.PortID
	Container packet.ContainerID
	Seen      int64 // nanoseconds of the worker's clock
}

// Limits of a Table. A container has one address, rarely a few, and nothing
// but its own entries suffers when it claims more.
const (
	// PerPort is each port's share: beyond it the port's own oldest entry goes.
	PerPort = 16
	// MaxAge is how long an entry is good without being heard again; the order
	// of magnitude of RFC 1122 2.3.2.1.
	MaxAge = int64(5 * time.Minute)
)

// A Table maps IPv4 addresses to neighbours. It is bounded by PerPort entries
// for each port that exists; entries older than MaxAge count as absent.
type Table struct {
	entries map[[4]byte]Entry
	byPort  map[packet.PortID]*share
}

// A share is what one port has in the table, oldest first.
type share struct {
	addrs [PerPort][4]byte
	n     int
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{
		entries: make(map[[4]byte]Entry),
		byPort:  make(map[packet.PortID]*share),
	}
}

// Lookup finds a neighbour that was heard within MaxAge.
func (t *Table) Lookup(now int64, addr [4]byte) (Entry, bool) {
	e, ok := t.entries[addr]
	return e, ok && now-e.Seen <= MaxAge
}

// Learn takes what an ARP packet said: a new neighbour, a moved one, or one
// that is still there.
func (t *Table) Learn(e Entry) {
	if old, ok := t.entries[e.Addr]; ok && old.Port == e.Port {
		t.entries[e.Addr] = e
		return
	} else if ok {
		t.remove(e.Addr)
	}
	s := t.byPort[e.Port]
	if s == nil {
		s = new(share)
		t.byPort[e.Port] = s
	}
	if s.n == PerPort {
		t.remove(s.addrs[0])
	}
	s.addrs[s.n] = e.Addr
	s.n++
	t.entries[e.Addr] = e
}

// remove takes one entry out of both maps.
func (t *Table) remove(addr [4]byte) {
	s := t.byPort[t.entries[addr].Port]
	for i := 0; i < s.n; i++ {
		if s.addrs[i] == addr {
			copy(s.addrs[i:s.n], s.addrs[i+1:s.n])
			s.n--
			break
		}
	}
	delete(t.entries, addr)
}

// FlushPort forgets everything a port has said.
func (t *Table) FlushPort(port packet.PortID) {
	s := t.byPort[port]
	if s == nil {
		return
	}
	for _, addr := range s.addrs[:s.n] {
		delete(t.entries, addr)
	}
	delete(t.byPort, port)
}

// Entries returns the neighbours heard within MaxAge, in no order: whoever has
// to serialise the use of the table can sort them afterwards.
func (t *Table) Entries(now int64) []Entry {
	var list []Entry
	for _, e := range t.entries {
		if now-e.Seen <= MaxAge {
			list = append(list, e)
		}
	}
	return list
}

// Answer writes into dst the reply to a request for the address it asks for:
// "that is at mac". dst must be the length of a and may be a itself.
func Answer(dst, a packet.ARP, mac packet.MAC) {
	asker, askerIP, ip := a.SenderMAC(), a.SenderIP(), a.TargetIP()
	copy(dst, a[:8]) // hardware and protocol type and length stay
	dst.SetOp(packet.ARPReply)
	dst.SetSenderMAC(mac)
	dst.SetSenderIP(ip)
	dst.SetTargetMAC(asker)
	dst.SetTargetIP(askerIP)
}
