package sockets

import "fairlead/packet"

// udpEndpoint returns the socket of the mapping a datagram leaves by.
func (s *Sockets) udpEndpoint(*packet.Frame, packet.Tuple) (endpoint, packet.Reason) {
	return nil, packet.EgressRefused
}
