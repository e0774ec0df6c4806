package policy

import (
	"fmt"

	"fairlead/packet"
)

// Limits are the bounds of a policy.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "link-local addresses of IPv6 a container sends from, but for the one its MAC forms", Most: fmt.Sprintf("%d at once, then %d a second", mostLinkLocals, newLinkLocals),
			Share: "each port its own; not with guard=off", Beyond: "the frame is dropped", Reasons: []packet.Reason{packet.AddressLimit}},
		{What: "rules in a file of `--egress allow:FILE`", Most: most(maxRules, "rules"), Share: "each network and container its own", Beyond: "the file is refused, with the line"},
		{What: "bytes of that file", Most: packet.MostBytes(maxFile), Beyond: "it is refused"},
		{What: "addresses that are open for one name of it", Most: most(maxLearned, "addresses"), Beyond: "the one whose time ends first is closed"},
	}
}
