package sockets

import (
	"fmt"
	"time"

	"fairlead/packet"
)

// Limits are the bounds of an uplink of host sockets.
func Limits() []packet.Limit {
	most, size := packet.Most, packet.MostBytes
	return []packet.Limit{
		{What: "datagrams of containers that are put together of fragments", Most: most(pendingOfAll, "datagrams"), Share: fmt.Sprintf("%d datagrams, for %v", pendingOfOne, time.Duration(fragmentTime)),
			Beyond: "the container's own oldest is given up, else the oldest (`incomplete`)", Reasons: []packet.Reason{packet.FragmentOrphan}},
		{What: "clients by IPv6 that published UDP ports remember", Most: most(maxStandIns, "clients"), Beyond: "one that was not heard for long goes, and is a new client if it speaks again"},
		{What: "bytes on the way to a container, for each TCP connection", Most: size(maxWindow), Beyond: "they wait in the host's socket, and its peer's window closes"},
		{What: "bytes a container may send ahead, for each TCP connection", Most: size(maxOffer), Beyond: "its window is closed until the host's kernel has taken what there is"},
		{What: "times a segment is sent again to a container", Most: most(maxRetries, "times"), Beyond: "the connection is reset"},
		{What: "bytes of datagrams that wait in a socket for the worker", Most: size(receiveBuffer) + ", or `net.core.rmem_max`", Beyond: "the host's kernel drops them (`overrun`)"},
		{What: "connections to a published port that wait to be accepted", Most: fmt.Sprintf("%d, or `net.core.somaxconn`; %d are accepted in one turn", backlog, acceptAtOnce),
			Beyond: "the host's kernel answers no SYN"},
		{What: "datagrams that leave by one call, and that are read behind one", Most: fmt.Sprintf("%d and %d datagrams", maxTrain, maxAhead), Beyond: "the next call has them"},
	}
}
