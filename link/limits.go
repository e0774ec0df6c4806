package link

import "fairlead/packet"

// Limits are the bounds of a link.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "frames that one call reads or writes", Most: most(packet.BatchFrames, "frames"), Beyond: "the next call has them"},
		{What: "packets that a textbook wire cuts one frame into", Most: most(maxSegments, "packets"), Beyond: "the copy is dropped", Reasons: []packet.Reason{packet.EgressSegments}},
	}
}
