package arp

import "fairlead/packet"

// Limits are the bounds of a network's neighbour table.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "neighbours behind one port", Most: most(PerPort, "addresses"), Share: "each port its own",
			Beyond: "the port's own oldest goes, first of those nobody asked for"},
		{What: "addresses asked for that have not answered", Most: most(MaxAsking, "addresses for each container"), Share: most(MaxAsking, "addresses"),
			Beyond: "nobody is asked, and the packet is dropped", Reasons: []packet.Reason{packet.HostUnreachable}},
	}
}
