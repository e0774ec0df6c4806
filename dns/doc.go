// Package dns answers and forwards what containers ask the gateway: the
// nameserver of every container is its gateway, by the gateway's own address or,
// on networks with names, by 127.0.0.11.
//
// It holds no sockets, goroutines, clocks or locks: messages and time are
// arguments, and whoever owns a Forwarder serialises its use. It says which
// upstream server to ask and how long to wait; whoever does so comes back with
// Answer or Failed. The wire format is the business of github.com/miekg/dns.
//
//	forwarder.go  Forwarder: queries in flight, from asker to upstream and back
//	message.go    what a query and an answer have to be
//	names.go      names that are answered here
//	zone.go       Zone: containers' names, and who sees which
//	servers.go    resolv.conf
//
// # As transparent as can be
//
// A query goes upstream as it came, with another id and a source port of its own
// (RFC 5452), and the answer comes back as it is, with the asker's id. So
// whatever the asker and the server know of and we do not, records, flags and
// EDNS options, works (RFC 5625). An asker without EDNS (RFC 6891) gets answers
// without, because the server was asked so; the size an asker takes by UDP is the
// one the server hears, and what is longer all the same is cut here, with TC.
// There is no cache: the host's resolvers have one.
//
// # Names of containers
//
// They are answered as Docker does: a container sees those of the networks it is
// on, with the network's name behind them or without, in any case; several
// addresses come in a new order each time. A name that is known is answered for
// every type, if need be with nothing. The host asks below Domain, where no name
// of a container can take the place of one outside.
//
// # What does not leave
//
// Names of our own, names of addresses of our own (reverse lookups), and whatever
// a container asks that has no way out, because its network is internal or its
// policy lets nothing out: a query is a way out too (CVE-2024-29018).
//
// # Bounds
//
// A container has at most Config.Containers queries in flight, all of them
// Config.Total; what is beyond is refused. Each ends within total. Identical
// queries are asked once, which also keeps whoever forges answers from having
// many to forge for (RFC 5452 section 5). A query is at most MaxQuery long.
package dns
