package main

import (
	"strconv"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// openOptions are those of a segment behind one of whose ports are many
// stations: any source may be used, and a table that is too small floods
// without a bound.
var openOptions = map[string]string{"guard": "off", "flood-limit": "0"}

// macs is how many small frames cross to many stations, all of which are behind
// one port, in random order.
func macs() *workload {
	w := &workload{name: "scale-macs", unit: "k/s", what: "60-byte frames to 16, 1,000, 8,000 and 100,000 MAC addresses behind one port, in random order; " +
		"the table of fairlead holds 8,192, and what it does not know it floods"}
	counts := map[string]int{}
	var paths []*path
	for _, n := range []int{16, 1000, 8000, 100_000} {
		ours, kernel := portPath("fairlead", n, process("fairlead-open", tap, tap)), portPath("kernel", n, kernelBridge)
		counts[ours.name], counts[kernel.name] = n, n
		ours.standsBy(n != heldByAll)
		kernel.standsBy(n != heldByAll)
		paths = append(paths, ours, kernel)
	}
	for _, p := range sizedPeers(heldByAll) {
		counts[p.name] = heldByAll
		paths = append(paths, p)
	}
	w.takes = func(o *options) time.Duration { return o.takeTurns(paths) }
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.turns(l, o, r, paths, func(l *lab, c *cable) func() (sample, error) {
			n := counts[c.name]
			near := packettest.Station{MAC: c.mac(l, 0), IP: addrs[0]}
			far := func(i int) packettest.Station { return packettest.Station{MAC: station(i), IP: nobody} }
			hello := newSpray(l, c.ends[1], n, func(i int) []byte { return small(far(i), near, 9, 9) })
			s := newSpray(l, c.ends[0], n, func(i int) []byte { return small(near, far(i), 1024, 9) })
			return func() (sample, error) {
				if err := hello.once(c.received(0)); err != nil { // so that all are known
					return sample{}, err
				}
				return s.measure(c, time.Duration(o.lasts(c.path))*time.Second)
			}
		})
		r.holdPeers(w, map[string]*figure{"fairlead": figures["fairlead-"+strconv.Itoa(heldByAll)]}, peerBar)
	}
	return w
}

// heldByAll is how many MAC addresses the tables of all switches hold.
const heldByAll = 1000

// station is the MAC address of station number i.
func station(i int) packet.MAC {
	return packet.MAC{0x02, 0x6d, 0, byte(i >> 16), byte(i >> 8), byte(i)}
}
