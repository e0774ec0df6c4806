// Package arp answers who-has, keeps tables of neighbours, asks for those that
// are missing (RFC 826, RFC 1122 2.3.2), and finds out whether an address is
// free before it is used (RFC 5227).
//
// It holds no sockets, goroutines, clocks or locks: bytes and time are
// arguments, and whoever owns a Table or a Claim serialises its use.
//
//	table.go  Table: neighbours, each port's share
//	ask.go    Table: questions, their repetition, and who did not answer
//	claim.go  Claim: probe, announce, defend
//	frame.go  the frames themselves
package arp
