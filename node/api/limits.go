package api

import "fairlead/packet"

// Limits are the bounds of what a client says.
func Limits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "bytes of a request's body", Most: packet.MostBytes(MaxMessage), Beyond: "400, and the connection is closed"},
		{What: "descriptors with one message", Most: most(maxDescriptors, "descriptors"), Beyond: "the message is refused, and all are closed"},
		{What: "bytes of the words of an uplink", Most: packet.MostBytes(maxUplinkSpec), Beyond: "400"},
		{What: "routes and further addresses of an uplink", Most: most(maxUplinkRoutes, "routes") + ", " + most(maxUplinkAddrs, "addresses"), Beyond: "400"},
	}
}
