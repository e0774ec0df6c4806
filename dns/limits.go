package dns

import (
	"fmt"

	"fairlead/packet"
)

// Limits are the bounds of the nameserver's messages. It keeps no answers: there
// is no cache to fill or to poison.
func Limits() []packet.Limit {
	size := packet.MostBytes
	return []packet.Limit{
		{What: "bytes of a query for a name", Most: size(MaxQuery), Beyond: "it gets no answer"},
		{What: "bytes of an answer", Most: fmt.Sprintf("%s by UDP, %d by TCP", size(MaxUDP), MaxTCP), Beyond: "it is cut short and says so (TC), and is asked for again by TCP"},
		{What: "servers of resolv.conf, and tries at each", Most: fmt.Sprintf("%d servers, %d tries", maxServers, maxAttempts), Beyond: "further ones are not used (resolv.conf(5))"},
	}
}
