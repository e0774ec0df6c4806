// Package uplink has the ways out of a node. So far there is one: Raw, a
// station with an address and a MAC of its own on a real L2 network, behind the
// one port of a switch.
//
// To that switch a Raw is the gateway: it gets the frames for its MAC, and hears
// broadcasts. To the router it is the way to send a packet on, by the next hop's
// MAC. It answers ARP, learns its neighbours and asks for them, makes sure that
// its addresses are nobody else's (RFC 5227), and gets a lease by DHCP if it is
// told to. What else comes in goes to the router, through Inbound.
//
//	raw.go    Raw, its configuration, and what is asked for each packet
//	route.go  frames that came in: Route decides, Apply acts
//	tick.go   what is due: lease, claims, questions
//	show.go   its state, for people
//
// # Concurrency
//
// Everything may be called by any worker and any other goroutine. What is asked
// for each packet (Addr, Owns, Subnet, NextHop, MTU) is a snapshot behind an
// atomic pointer; a mutex guards the tables. Frames are sent after it is
// released.
//
// # Whom it believes
//
// Any station of the segment can lie by ARP and DHCP: say that it is the router,
// take an address of ours, give us a lease. That is so for every host, and the
// segment's switch has to prevent it. What we see to is that nobody can do more:
// what a liar makes us remember is bounded (1,024 neighbours, and those we asked
// for are not pushed out by those that make themselves known); an address is
// never given up for a conflict, only announced again, once in ten seconds; DHCP
// messages count only while we wait for one, with the number of our question;
// nobody outside the segment reaches any of this, because neither protocol is
// routed.
package uplink
