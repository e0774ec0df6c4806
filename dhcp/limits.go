package dhcp

import (
	"fmt"

	"fairlead/packet"
)

// Limits are the bounds of a network's DHCP server.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "leases of a network", Most: most(maxLeases, "stations"),
			Share:  fmt.Sprintf("a quarter of the addresses, %d at most", maxPerContainer),
			Beyond: "a lease that has ended is forgotten, the sender's own first; else the station gets no offer"},
		{What: "addresses that are looked at to find a free one", Most: most(maxTries, "addresses"), Beyond: "the station gets no offer"},
		{What: "bytes of a DHCP message", Most: packet.MostBytes(maxMessage), Beyond: "it is ignored"},
	}
}
