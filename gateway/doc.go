// Package gateway is the router of one network: step 5 of the packet's path.
//
//	5.1 for me?     ARP for its address, ping to it; a claim to it never gets
//	                here, the guard refused it in step 2
//	5.7 uplink      there is none yet: what is meant for outside ends as
//	                no-uplink, with ICMP net unreachable for the sender
//
// The steps between them (TTL, egress policy, NAT, MTU, next hop) come with the
// first uplink and have their numbers reserved in Route.
//
// Route decides and changes nothing; Apply does what Route decided: it takes
// neighbours into the table and makes the answers. Both may be called by any
// worker at any time; a mutex guards the neighbour table, which every ARP packet
// that is heard touches, and the ICMP rates, which refused packets touch.
package gateway
