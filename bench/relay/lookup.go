package relay

import "math/bits"

// Lookup joins two TAPs as Raw does, and for each frame reads two places in memory
// of which the second is known only from the first, as whoever has a table of flows
// must: an entry of an index of 16 MiB, and of the record it names a counter. The
// records have 128 bytes and are as many as there are flows, numbered by port and
// peer as the generator of workload scale-flows does.
//
// It is the bound of all that handle one frame after the other: the next lookup
// cannot begin before the frame has been read.
func Lookup(taps [2]int, flows int, crossed *Crossed) error {
	const entries = 1 << 22
	index := make([]uint32, entries)
	records := make([][16]uint64, 1<<bits.Len(uint(flows-1)))
	// An odd factor gives each flow a place of its own, neighbours far apart.
	place := func(i uint32) uint32 { return i * 0x9e3779b1 % entries }
	for i := range uint32(flows) {
		index[place(i)] = i * 0x85ebca6b % uint32(len(records))
	}
	for i := range records {
		records[i][0] = 1 // so that it is there
	}
	const peers, firstPort = 20, 10_000
	const dst, srcPort = 10 + 14 + 16, 10 + 14 + 20 // behind virtio-net header and Ethernet
	return raw(taps[:], func(frame []byte) {
		if len(frame) < srcPort+2 {
			return
		}
		port := uint32(frame[srcPort])<<8 | uint32(frame[srcPort+1])
		i := (port-firstPort)*peers + uint32(frame[dst+3]) - 1
		if i < uint32(flows) {
			records[index[place(i)]][0]++
		}
	}, 0, crossed)
}
