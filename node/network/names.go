package network

import (
	"fairlead/gateway"
	"fairlead/packet"
)

// SetDNS has the questions answered that containers put to port 53 of the
// gateway.
func (n *Network) SetDNS(d gateway.DNS) { n.gw.SetDNS(d, n.sw.Wake) }

// SetDHCP has the messages answered that stations send to a DHCP server.
func (n *Network) SetDHCP(d gateway.DHCP) { n.gw.SetDHCP(d, n.sw.Wake) }

// SetDHCPClient has fn hear what other DHCP servers of the network say to everybody,
// on a worker, and SayDHCP sends them a message from a station.
func (n *Network) SetDHCPClient(fn func(message []byte)) { n.gw.SetDHCPClient(fn) }

func (n *Network) SayDHCP(from packet.MAC, message []byte) {
	n.gw.SayDHCP(from, message)
	n.sw.Wake()
}

// SetServices says at which port of the host's loopback the node answers DNS over
// TCP.
func (r *Router) SetServices(dnsTCP uint16) { r.rt.SetServices(dnsTCP) }

// Closed reports whether a policy lets a container open no connection at all.
func (n *Network) Closed(c packet.ContainerID) bool { return n.gw.Closed(c) }

// WantsName and LearnName tell the policies which addresses a container is about
// to hear for a name. See gateway.Gateway.
func (n *Network) WantsName(c packet.ContainerID, name string) bool { return n.gw.WantsName(c, name) }

func (n *Network) LearnName(c packet.ContainerID, name string, a packet.Addr, until int64) {
	n.gw.LearnName(c, name, a, until)
}
