package trace

import "fairlead/packet"

// Limits are the bounds of a recorder.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "frames that wait to be shown by `trace`", Most: most(ringLen, "records"), Beyond: "the oldest go, and how many is said"},
		{What: "bytes that are kept of a traced frame", Most: packet.MostBytes(headLen), Beyond: "the rest is not shown"},
		{What: "ports a flooded frame went to that are shown by name", Most: most(maxEgress, "ports"), Beyond: "they are counted"},
	}
}
