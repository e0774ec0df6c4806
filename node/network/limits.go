package network

import "fairlead/packet"

// Limits are the bounds of a node's networks.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "networks of a node", Most: most(int(MaxNetworks), "networks"), Beyond: "`network create` is refused"},
		{What: "segments of uplinks, those included that are just going", Most: most(int(maxUplinks), "segments"), Beyond: "the uplink is refused"},
		{What: "reservations of DHCP of a network, and routes it tells", Most: most(maxHosts, "of each"), Beyond: "`network create` is refused"},
		{What: "neighbours of a network that are added by hand", Most: most(maxNeighbours, "addresses"), Beyond: "`arp add` is refused"},
	}
}
