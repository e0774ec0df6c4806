// Package gateway is the router of a node: step 5 of the packet's path.
//
// A Router joins networks of containers, each by a Gateway, and uplinks, each by
// the Inbound it gets. A packet comes in at one side and leaves by another:
//
//	            5.1 for me?      ARP for the gateway's address, ping, DNS, DHCP
//	            5.2 TTL          used up: ICMP time exceeded
//	            5.3 egress       policy, of what begins a connection
//	inside ───▶ 5.4 NAT ◀─────── from an uplink: a flow, a published port, or
//	                │            refused. 5.1 and 5.2 are done there as well
//	            5.5 MTU          too large: ICMP fragmentation needed, or cut
//	            5.6 next hop     who is it, and what is its MAC? Wait and ask
//	            5.7 uplink       out by it, or back to step 6 of a network
//
// route.go is the path of packets from inside, inbound.go that from outside,
// pass.go what they share; all decide and change nothing. Apply does what was
// decided: it makes flows, edits frames, asks for neighbours and sends answers
// (answer.go).
//
// A network may have a link to the host, who has the gateway's MAC and address
// then (host.go). What of that address is neither the gateway's nor a published
// port goes to the host in step 5.4, as it is; frames from the host are seen here
// only so that the answers to them find back.
//
// # Concurrency
//
// Everything may be called by any worker at any time. Packets of known flows
// find them without a lock (package nat). A mutex of the Router guards new
// flows, rules, fragments and the rates of answers, one of each Gateway its
// neighbours. What is plugged in is a snapshot behind an atomic pointer.
//
// # Bounds
//
// Flows and ports are bounded by package nat, with a share for each container;
// neighbours by package arp; answers by a rate for each port, those of services
// by a share for each container (local.go); packets that wait by the switch.
package gateway
