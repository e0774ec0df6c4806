package policy

import "fairlead/packet"

// Limits are the bounds of a policy.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "rules in a file of `--egress allow:FILE`", Most: most(maxRules, "rules"), Share: "each network and container its own", Beyond: "the file is refused, with the line"},
		{What: "bytes of that file", Most: packet.MostBytes(maxFile), Beyond: "it is refused"},
		{What: "addresses that are open for one name of it", Most: most(maxLearned, "addresses"), Beyond: "the one whose time ends first is closed"},
	}
}
