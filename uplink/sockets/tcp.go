package sockets

import "fairlead/packet"

// newConn returns the connection that a SYN begins.
func (s *Sockets) newConn(*packet.Frame, packet.Tuple) (endpoint, packet.Reason) {
	return nil, packet.EgressRefused
}
