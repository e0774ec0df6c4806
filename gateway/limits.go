package gateway

import (
	"fmt"

	"fairlead/packet"
)

// Limits are the bounds of the router, and of what it answers itself.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "ICMP errors and resets that the router sends about one port's packets", Most: fmt.Sprintf("%d a second, %d at once", errorsPerSecond, errorsBurst),
			Share: "each port its own", Beyond: "the packet is dropped in silence, under the reason it has anyway"},
		{What: "bytes of a question to the gateway", Most: packet.MostBytes(maxQuestion), Beyond: "it is dropped", Reasons: []packet.Reason{packet.NotUnderstood}},
		{What: "answers of names and DHCP that wait for the worker, for each network", Most: most(maxAnswers, "answers"), Share: most(answersPerContainer, "answers"),
			Beyond: "the answer is lost, and whoever asked asks again"},
		{What: "addresses that are asked for whether somebody has them, for each network", Most: most(maxProbes, "addresses"), Beyond: "it is as if nobody answered"},
		{What: "flows that are expired, or ended for an address that went, before others have a turn", Most: fmt.Sprintf("%d and %d flows", expireAtOnce, endAtOnce),
			Beyond: "they wait for the next turn"},
	}
}
