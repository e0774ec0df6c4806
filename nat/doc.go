// Package nat is the connection tracker: one table of flows for the whole node,
// and what is translated in them. A flow is what the kernel's conntrack calls a
// connection, both of its directions; most are translated (masquerade,
// published port, hairpin, one-to-one), and a flow that is not works as well.
//
// # Keys
//
// Networks may use the same addresses, so a flow is keyed by the segment on
// which a packet is seen (its scope: a network, or an uplink, which is a network
// of one port) and the packet's tuple. A flow has two such keys: of the packets
// in the direction of the first one, and of the answers, on whatever segment
// those come in. A translation is the difference between the one key and the
// reverse of the other, so nothing else is kept of it.
//
// For ICMP echo the identifier is the port of who asks and 0 that of who answers
// (packet.Tuple).
//
// # Mappings
//
// A masqueraded endpoint keeps its outside port towards everybody
// (endpoint-independent mapping, RFC 4787 REQ-1, RFC 5382 REQ-1), and is reached
// there from addresses it talks to (address-dependent filtering, RFC 4787
// REQ-8). A mapping lives as long as one of its flows.
//
// # Bounds and shares
//
// Config.Flows bounds the flows of the node, Config.PerContainer those of one
// container. Half of the flows, divided by Config.MaxContainers, are each
// container's guaranteed share: it has that many whatever the others do. The
// other half is for whoever comes first. The outside ports of an address and
// protocol are shared out in the same way.
//
// A container that can have no more (at its bound, or beyond its share while
// nothing is left that is for whoever comes first) gives up the oldest of its own
// flows that has ended or is not assured (a handshake, or of UDP and ICMP a
// second question after the answer), else the oldest that somebody outside began
// without a handshake; has it none, it is refused. Nobody else is touched.
//
// Flows that begin outside may take seven eighths of what a container may have,
// and give up only their like: whoever is out there, an eighth is left for what
// the container begins itself, and nothing that it began goes for them.
//
// # Concurrency
//
// Find, Translation, Seen and Prefetch may be called by any worker at any time: the index
// consists of atomic words, a record is written before the index names it, and
// Seen writes only atomic words of the packet's own direction. Everything else (planning, committing, ending,
// expiring, rules, lists) is for one at a time: the owner of the table holds a
// lock of its own.
//
// A flow that ended keeps its record until Recycle, because a worker may be
// about to use it. The owner asks Retired how many there are, lets every worker
// pass a turn (loop.Grace), and recycles that many. Some records are set aside for
// that for each container; what it needs beyond those counts as its flows do.
//
// There are no clocks: time is an argument, nanoseconds of the workers' clock.
// Planning takes the last time that Commit or Expire was told.
package nat
