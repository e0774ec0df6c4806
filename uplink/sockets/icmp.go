package sockets

import "fairlead/packet"

// pingEndpoint returns the ping socket of an identifier.
func (s *Sockets) pingEndpoint(*packet.Frame, packet.Tuple) (endpoint, packet.Reason) {
	return nil, packet.EgressRefused
}
