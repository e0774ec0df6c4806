package box

import "fairlead/packet"

// Limits are the bounds of a container's init, and of what is kept of its output.
func Limits() []packet.Limit {
	most, size := packet.Most, packet.MostBytes
	return []packet.Limit{
		{What: "commands of `exec` that run in a container", Most: most(maxSessions, "commands"), Share: "each container its own", Beyond: "`exec` is refused"},
		{What: "bytes of a message to or from an init", Most: size(MaxMessage), Beyond: "`run` or `exec` is refused: the arguments are too long"},
		{What: "descriptors with a message to or from an init", Most: most(maxDescriptors, "descriptors"), Beyond: "the message is refused, and all are closed"},
		{What: "bytes of a detached container's log", Most: size(DefaultLogLimit) + ", and as many of the log before", Share: "each container its own", Beyond: "the log before goes"},
		{What: "links that an init keeps for the next node", Most: most(maxKept, "links"), Share: "each container its own", Beyond: "a further one goes with the node"},
		{What: "bytes of what an init says of an error", Most: size(mostText), Beyond: "it is cut off"},
		{What: "bytes that wait at a packet socket, in either direction", Most: size(packetBuffer) + ", or `net.core.rmem_max`", Share: "each link its own", Beyond: "the kernel drops them (`show switch -v` says how many)"},
	}
}
