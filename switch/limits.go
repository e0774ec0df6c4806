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
		{What: "time of a worker that goes into reading what is sent on to nobody, while others want it", Most: futileShare.String(), Share: "each port its own",
			Beyond: "it is read later. Not so of the ports of a hub, and of those with many behind them: an uplink, the host's link, a LAN"},
		{What: "time that goes into the copies of what a port floods, while others want it", Most: floodShare.String(), Share: "each port its own",
			Beyond: "the frame is dropped. The same ports excepted", Reasons: []packet.Reason{packet.FloodLimit}},
		{What: fmt.Sprintf("time that writing to a port takes beyond %v a packet, while others want it", time.Duration(fairPacket)), Most: slowShare.String(),
			Share:  "each port its own; by one sender " + causeShare.String(),
			Beyond: fmt.Sprintf("what is sent to it is dropped, after long writes for %d times as long, whether others want it or not; of more than %v the log tells, and `show switch -v` how long it goes on. A single write is the kernel's and ends when it ends; %d are made before the first is measured. The same ports excepted", slowShare.of, time.Duration(longWrite), fewAtOnce), Reasons: []packet.Reason{packet.SlowReceiver}},
		{What: "the same time where a port sends by an uplink, to the host's link or to a LAN, as it takes to open a connection by sockets", Most: outsideShare.String(), Share: "each port its own",
			Beyond: "the port is read later (`show switch -v` says how often)"},
		{What: "copies a second of frames that a port floods", Most: most(DefaultFloodLimit, "copies"), Share: "each port its own; `--opt flood-limit=N`",
			Beyond: "the frame is dropped", Reasons: []packet.Reason{packet.FloodLimit}},
		{What: "floods and moved stations of a port until it is sent a probe of the loop guard", Most: fmt.Sprintf("%d in %v", loopSigns, time.Duration(loopWindow)),
			Share: "each port its own", Beyond: "a port by which the probe comes back is blocked", Reasons: []packet.Reason{packet.Loop}},
		{What: "time a port is blocked by the loop guard", Most: fmt.Sprintf("%v, then twice as long each time, up to %v", firstBlock, longestBlock), Share: "each port its own; the host's and that of a LAN only for another such",
			Beyond: "it is open until the loop is found again"},
		{What: "packets that wait for ARP or for a first fragment, on the node", Most: most(maxHeld, "packets"),
			Share:  most(maxHeldPerPort, "packets"),
			Beyond: "the oldest goes, of the port that has its share or of the one that has most", Reasons: []packet.Reason{packet.HoldFull}},
		{What: "bytes of a packet that waits", Most: size(maxHeldLen), Beyond: "it is dropped", Reasons: []packet.Reason{packet.HoldFull}},
		{What: "frames that wait for the end of a turn to be written together", Most: most(maxStaged, "frames"), Beyond: "those before are written at once"},
		{What: "packets that are joined to one frame", Most: fmt.Sprintf("%d packets, %d bytes; one of more than %d bytes is not copied", maxJoined, maxLength, maxCopied),
			Beyond: "another frame begins"},
	}
}
