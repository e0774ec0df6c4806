package vswitch

import (
	"fmt"
	"time"

	"fairlead/packet"
)

// Limits are the bounds of a switch, and of what the switches of a node share.
func Limits() []packet.Limit {
	most, size := packet.Most, packet.MostBytes
	turn := fmt.Sprintf("%d frames, %s, %v", turnFrames, size(turnBytes), time.Duration(turnTime))
	return []packet.Limit{
		{What: "ports of a switch", Most: most(maxPorts, "ports"), Beyond: "the container is refused by name"},
		{What: "addresses in a switch's MAC table", Most: most(macSlots, "addresses"),
			Share:  "all that others leave; who has most makes room",
			Beyond: "of the two buckets an address may be in, the oldest entry of the port with most of the table goes; what is sent to an address that is not there is flooded"},
		{What: "addresses of a switch's MAC table that are added by hand", Most: most(maxStatic, "addresses"), Beyond: "`mac add` is refused"},
		{What: "what a port may have done before the next has its turn", Most: turn, Share: turn, Beyond: "it waits for its next turn"},
		{What: "time of a worker that a container wastes or that goes into writing to it, while others want it", Most: fmt.Sprintf("a %dth, counted over %v", shareOf, time.Duration(shareWindow)),
			Share: "each port its own", Beyond: "it is read later, and what is sent to it is dropped", Reasons: []packet.Reason{packet.SlowReceiver}},
		{What: "copies a second of frames that a port floods", Most: most(DefaultFloodLimit, "copies"), Share: "each port its own; `--opt flood-limit=N`",
			Beyond: "the frame is dropped", Reasons: []packet.Reason{packet.FloodLimit}},
		{What: "packets that wait for ARP or for a first fragment, on the node", Most: most(maxHeld, "packets"),
			Share:  most(maxHeldPerPort, "packets"),
			Beyond: "the oldest goes, of the port that has its share or of the one that has most", Reasons: []packet.Reason{packet.HoldFull}},
		{What: "bytes of a packet that waits", Most: size(maxHeldLen), Beyond: "it is dropped", Reasons: []packet.Reason{packet.HoldFull}},
		{What: "frames that wait for the end of a turn to be written together", Most: most(maxStaged, "frames"), Beyond: "those before are written at once"},
		{What: "packets that are joined to one frame", Most: fmt.Sprintf("%d packets, %d bytes; one of more than %d bytes is not copied", maxJoined, maxLength, maxCopied),
			Beyond: "another frame begins"},
	}
}
