package nat

import (
	"fmt"
	"time"

	"fairlead/packet"
)

// Limits are the bounds of a node's NAT.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "connections through the router", Most: fmt.Sprintf("%d flows (`--opt flows=N`, up to %d)", defaultFlows, maxFlows),
			Share:   fmt.Sprintf("an eighth (`--opt flows-per-container=N`); for each of %d containers half of the table divided by their number is kept free", defaultContainers),
			Beyond:  "the container's oldest connection goes that was never answered or is over; if there is none, the new one is refused",
			Reasons: []packet.Reason{packet.FlowBudget, packet.FlowTableFull}},
		{What: "ports of an uplink's address, for each protocol", Most: fmt.Sprintf("%d ports, from %d on, but those that are published", 1<<16-leastPort, leastPort),
			Share:  "for each of the same containers half of the ports divided by their number is kept free; of the rest whoever comes first",
			Beyond: "the connection is refused", Reasons: []packet.Reason{packet.PortsExhausted}},
		{What: "datagrams whose first fragment is remembered", Most: most(fragmentSets*fragmentWays, "datagrams"),
			Share:  fmt.Sprintf("%d of one source whatever another one does, %d while nobody else has them; with `guard=off` a container may be many sources", fragmentShare, fragmentWays),
			Beyond: fmt.Sprintf("of a source that has %d or more its own oldest goes, else the oldest of the %d in its set", fragmentShare, fragmentWays), Reasons: []packet.Reason{packet.FragmentOrphan}},
		{What: "unsolicited SYNs that wait for an answer", Most: most(maxSYNs, "SYNs"), Share: fmt.Sprintf("%d of one source, for %v", synsPerSource, time.Duration(synSilence)),
			Beyond: "it gets no answer", Reasons: []packet.Reason{packet.Filtered}},
		{What: "connections of a mapping that are looked at for one sender", Most: most(filterLook, "flows"), Beyond: "older ones do not let a sender in", Reasons: []packet.Reason{packet.Filtered}},
	}
}
