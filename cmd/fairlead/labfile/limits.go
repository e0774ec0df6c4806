package labfile

import (
	"fmt"

	"fairlead/packet"
)

// Limits are the bounds of the file of a lab. What is beyond one is refused, with
// line and column, before anything is changed.
func Limits() []packet.Limit {
	most, size := packet.Most, packet.MostBytes
	const refused = "the file is refused"
	return []packet.Limit{
		{What: "bytes of a lab's file", Most: size(MaxBytes), Beyond: refused},
		{What: "networks and containers of a lab", Most: fmt.Sprintf("%d networks, %d containers", maxNetworks, maxContainers), Beyond: refused},
		{What: "bytes that are said of one network, and of one container", Most: size(maxNetworkConfig) + " and " + size(maxContainerConfig), Beyond: refused},
		{What: "keys and values, those counted again that aliases repeat", Most: most(maxVisits, "of them"), Beyond: refused},
		{What: "merges (`<<`) within merges", Most: most(maxMerges, "of them"), Beyond: refused},
		{What: "bytes of a key, and of a text", Most: fmt.Sprintf("%d and %s", maxKey, size(maxText)), Beyond: refused},
		{What: "ports of the host that are held against one another", Most: most(maxPublished, "ports"), Beyond: "the node says which are taken"},
		{What: "errors of a file that are noted, and said", Most: fmt.Sprintf("%d and %d", maxNoted, maxErrors), Beyond: "the others are counted"},
	}
}
