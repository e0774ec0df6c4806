// Package dhcp is DHCP for IPv4 (RFC 2131, 2132): a client, which gets an uplink or
// a container its address, and the server of a network.
//
// It holds no sockets, goroutines, clocks or locks: messages and time are
// arguments, and whoever owns a Client or a Server serialises its use. What goes
// between the UDP header and us is the business of github.com/insomniacslk/dhcp's
// codec.
//
//	client.go      Client: the states of RFC 2131 4.4
//	message.go     what it says and hears
//	server.go      Server: what becomes of each message, RFC 2131 4.3
//	leases.go      who has which address until when, and who may have which
//	reply.go       what is told
//	serverbook.go  the leases for others: to be shown, kept and restored
package dhcp
