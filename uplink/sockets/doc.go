// Package sockets is the way out that needs no rights: it translates between
// frames and ordinary sockets of the host.
//
// To the node it is an uplink like a raw one: a segment with one port. What
// leaves the networks arrives there masqueraded to the host's address, so every
// connection of every container has a tuple of its own, and WriteBatch turns it
// into calls on a socket. What the sockets have for the containers comes out of
// ReadBatch as frames, goes through the router, and is translated back. So NAT's
// table of flows is the one table, and trace, rules and counters know nothing of
// sockets.
//
//	sockets.go  Sockets: the queue a port reads and writes
//	uplink.go   Sockets as the switch and the router see it
//	flow.go     flow number → endpoint, descriptors, and what each container may have
//	frame.go    headers of the frames it makes
//	tcp.go      a TCP connection and its life; tcpin.go what comes from the
//	            container, tcpout.go what goes there, tcpframe.go its segments
//	shared.go   what sockets of datagrams have in common; datagram.go their messages
//	udp.go      UDP from the containers; udpin.go towards them, ahead.go several at once
//	icmp.go     echo by ping sockets
//	errqueue.go what the host says of a packet, as an ICMP error
//	reassemble.go  fragments of containers
//	listen.go   published ports: TCP; udplisten.go and standin.go of UDP
//	handover.go connections that go on in another process
//	sys.go      system calls; tcpsys.go those of connections
//
// # Endpoints
//
// An endpoint is one socket of the host and the protocol's state: a TCP
// connection, the UDP socket of one mapping (or of one published port), the ping
// socket of one identifier. The router has written the flow's number into the
// frame (packet.Frame.Flow); the endpoint is found by it, and the tuple says
// whether it is still the same flow. When NAT ends a flow its endpoint hears
// FlowEnded, and when an endpoint is done it ends the flow.
//
// # Memory
//
// Payload is in the host's socket buffers or in the frame at hand, never in
// memory of this package: towards a container a socket is read by MSG_PEEK
// straight into the frame, and what the container has acknowledged is discarded;
// from a container sendmsg takes the bytes out of the frame. So memory is bounded
// by the number of descriptors. Two things are kept, both bounded: fragments of
// containers until their datagram is whole, and what was read ahead of one socket.
//
// # Concurrency
//
// One mutex guards everything. Sockets have their events on one worker, the one
// that reads the port; WriteBatch may be called by any. The mutex is never held
// when the router is called.
package sockets
