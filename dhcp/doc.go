// Package dhcp is the client's side of DHCP for IPv4 (RFC 2131, 2132): a lease
// for an uplink's address.
//
// It holds no sockets, goroutines, clocks or locks: messages and time are
// arguments, and whoever owns a Client serialises its use. What goes between
// the UDP header and us is the business of github.com/insomniacslk/dhcp's codec.
//
//	client.go   Client: the states of RFC 2131 4.4
//	message.go  what is said and heard
package dhcp
