package uplink

import "fairlead/packet"

// Limits are the bounds of an uplink that is a link.
func Limits() []packet.Limit {
	return []packet.Limit{
		{What: "neighbours of an uplink", Most: packet.Most(maxNeighbours, "addresses"), Beyond: "the oldest goes, first of those nobody asked for"},
	}
}
