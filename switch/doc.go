// Package vswitch is one L2 segment: ports, a MAC table and THE forwarding
// path. (The folder is named switch, as the owner wants it; the word is taken
// in Go.)
//
// # The packet's path
//
// A worker that is told a port has frames gives it a turn (Port.Ready): it
// reads a batch, decides on each frame (forward.go), carries the decisions out
// (apply.go) and flushes what it staged before it reads again. Before the first
// frame of a batch is decided on, the gateway may bring from memory what deciding on
// all of them will read (Gateway.Prefetch).
//
//	             ┌──────────────── forward.go decides ────────────────┐
//	read ──▶ 1 parse ▶ 2 guard ▶ 3 look up ▶ 4 admit ▶ 5 gateway ▶ 6 emit ──▶ apply.go acts ──▶ write
//	                                ▲                      │
//	                                └── answers, and what ─┘
//	                                    comes back from an uplink, leave by 3 and 6
//
//	1 parse    one pass over the headers; malformed frames end here
//	           in which VLAN is it, and is the port in that?
//	2 guard    may this port use this source MAC, this source address? is it joined to
//	           another one behind our back (loopGuard)?
//	3 look up  the gateway's MAC → 5; a known MAC → its port; groups and
//	           unknown MACs → every other port (flood); hub mode floods all
//	4 admit    MTU, flood limit, isolation, and where containers may not talk to
//	           one another the links and rules that open something (policy.Admit);
//	           of a flood asked for each copy, and for what the gateway sends back
//	5 gateway  package gateway answers or refuses (5.1 … 5.7)
//	6 emit     the egress set is in the Decision
//
// The host's own link, where a network has one, is a port with the gateway's MAC:
// frames for that MAC get to it by step 5, groups by the flood, and nothing else.
//
// Deciding reads tables and changes nothing; apply alone writes tables, counts
// and hands frames to queues. A frame is learned from after it was decided on
// and before the next one of its batch is, so frames of one batch see each
// other's effects in order.
//
// # Conservation law
//
// Counted in frames as read, a segmentation-offload frame being one, and
// compared at rest (Totals.Check):
//
//	ingress, every port  read + resumed = unicast + flooded + gateway + held + Σ dropped[reason]
//	copies, whole node   Σ unicast + Σ fan-out + originated + split = Σ (written + Σ failed[reason])
//	hold, whole node     Σ held = Σ resumed + holding
//
// A frame that is routed to another network is counted as unicast where it was
// read and as written where it leaves, so copies add up over all switches of
// the same Lanes. A held frame is decided on twice: first to wait, and then for
// good. Where a packet is cut into fragments, split counts the pieces but one.
//
// # Joining
//
// Small frames of a flow that were read together leave together, as one frame with
// segmentation offload, where both switches have been told so (Switch.SetJoin) and
// the link takes that: see joiner. It is done last, in Port.deliver, so everything
// before, limits, rates and recorders, has each packet by itself, and so do all
// counters: written counts what was read. How many went along with another, joined
// says. If the write of a train fails, all its frames have failed. Who makes trains of
// what it reads for any of the switches asks Lanes.Joins.
//
// # Rates
//
// A container may be held to rates (Limit). What it sends too fast waits in its
// link: the port is not read meanwhile. What it is sent too fast is a copy that
// failed.
//
// # Shares of time
//
// Where many want one worker, nobody may have it for what nobody needs. What goes into
// reading frames that are refused or answered, into the copies of floods, and into
// writes that take longer than a write may, is charged to who causes it: see account.
//
// # Concurrency
//
// A port's reads happen on one worker, its home. Anyone may write a queue. The
// port list and the MAC table's readers take no lock: the list, and with it what
// may pass, is a snapshot behind an atomic pointer, the table's slots are atomic
// words. AddPort, RemovePort and the show functions may be called from any
// goroutine that is not a worker. A removed port leaves epoll, then the snapshot,
// then every worker passes a turn, and only then its queue is closed, off the
// workers: closing the last descriptor of a TAP takes the kernel 16 ms.
package vswitch
