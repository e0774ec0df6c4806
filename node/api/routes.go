package api

// A Route is one request a node answers. The list is what the node serves and
// what the OpenAPI description is made from.
type Route struct {
	Method, Path string
	Summary      string
	Query        []string // names of query parameters
	In, Out      any      // zero values of the bodies; nil is none
	// Upgrade: the request asks for Protocol, In is the message behind 101 and
	// Out its answer.
	Upgrade bool
	// Stream: the answer is a stream: of Out as JSON lines, or of raw bytes.
	Stream bool
}

// Routes are all of them.
var Routes = []Route{
	{Method: "GET", Path: "/v1/version", Summary: "what runs here", Out: VersionInfo{}},
	{Method: "GET", Path: "/v1/openapi.json", Summary: "this description"},
	{Method: "POST", Path: "/v1/up", Summary: "stay after the last container; set up the default network", In: UpRequest{}},
	{Method: "POST", Path: "/v1/down", Summary: "end the node", In: DownRequest{}, Out: DownAnswer{}},
	{Method: "POST", Path: "/v1/replace", Summary: "hand everything over to another node, the caller; see docs/restart.md", In: Replace{}, Out: Handed{}, Upgrade: true},

	{Method: "GET", Path: "/v1/containers", Summary: "list containers", Out: []Container{}},
	{Method: "POST", Path: "/v1/containers", Summary: "reserve a name and an address", In: CreateRequest{}, Out: Created{}},
	{Method: "GET", Path: "/v1/containers/{id}", Summary: "inspect a container", Out: Inspect{}},
	{Method: "DELETE", Path: "/v1/containers/{id}", Summary: "give a reservation back, or take a foreign namespace off its network"},
	{Method: "POST", Path: "/v1/containers/{id}/attach", Summary: "hand over the descriptors of a container", In: Attach{}, Out: Done{}, Upgrade: true},
	{Method: "POST", Path: "/v1/containers/{id}/exec", Summary: "run another command in a container", In: Exec{}, Out: Done{}, Upgrade: true},
	{Method: "POST", Path: "/v1/containers/{id}/kill", Summary: "send a signal", In: SignalRequest{}},
	{Method: "POST", Path: "/v1/containers/{id}/stop", Summary: "send a signal, kill after a time-out", In: SignalRequest{}},
	{Method: "POST", Path: "/v1/containers/{id}/rename", Summary: "give a container another name", In: RenameRequest{}},
	{Method: "POST", Path: "/v1/containers/{id}/update", Summary: "change a container's rates", In: UpdateRequest{}},
	{Method: "GET", Path: "/v1/containers/{id}/wait", Summary: "wait for the end", Out: Exit{}},
	{Method: "GET", Path: "/v1/containers/{id}/logs", Summary: "output of a detached container", Query: []string{"follow", "tail"}, Stream: true},
	{Method: "GET", Path: "/v1/containers/{id}/ports", Summary: "published ports, and what listens inside", Out: Ports{}},
	{Method: "POST", Path: "/v1/containers/{id}/ports", Summary: "publish ports, or a whole outside address", In: PublishRequest{}, Out: Ports{}},
	{Method: "DELETE", Path: "/v1/containers/{id}/ports", Summary: "withdraw published ports (port may be repeated), or an address", Query: []string{"port", "address"}, Out: Ports{}},

	{Method: "GET", Path: "/v1/uplinks", Summary: "ways out of the networks", Out: []Uplink{}},
	{Method: "POST", Path: "/v1/uplinks", Summary: "hand over a link that leads outside", In: UplinkRequest{}, Out: Done{}, Upgrade: true},
	{Method: "POST", Path: "/v1/uplinks/check", Summary: "whether ways out could be added, and what would be lost; nothing is changed", In: UplinksCheck{}, Out: UplinksChecked{}},
	{Method: "POST", Path: "/v1/uplinks/host", Summary: "use this host's sockets as a way out", Query: []string{"network"}},
	{Method: "DELETE", Path: "/v1/uplinks/{name}", Summary: "remove an uplink; host is a network's", Query: []string{"network"}},

	{Method: "POST", Path: "/v1/listeners", Summary: "hand in a socket bound to a port that takes a right, for -p", In: ListenerRequest{}, Out: Done{}, Upgrade: true},

	{Method: "GET", Path: "/v1/networks", Summary: "list networks", Out: []NetworkInspect{}},
	{Method: "POST", Path: "/v1/networks", Summary: "make a network", In: NetworkCreate{}, Out: NetworkCreated{}},
	{Method: "GET", Path: "/v1/networks/{name}", Summary: "inspect a network", Out: NetworkInspect{}},
	{Method: "POST", Path: "/v1/networks/{name}/host-link", Summary: "hand over a TAP of this host's, with the gateway's address and MAC, as the host's own link", In: HostLinkRequest{}, Out: Done{}, Upgrade: true},
	{Method: "DELETE", Path: "/v1/networks/{name}/host-link", Summary: "remove the host's own link"},
	{Method: "POST", Path: "/v1/networks/{name}", Summary: "change a network while it is used", In: NetworkRequest{}, Out: NetworkChanged{}},
	{Method: "DELETE", Path: "/v1/networks/{name}", Summary: "remove a network nobody is on"},
	{Method: "POST", Path: "/v1/networks/{name}/connect", Summary: "connect a container that runs", In: ConnectRequest{}},
	{Method: "POST", Path: "/v1/networks/{name}/disconnect", Summary: "take a container, or what was hung in, off a network", In: DisconnectRequest{}},

	{Method: "GET", Path: "/v1/switches", Summary: "switches, ports and counters", Out: []Switch{}},
	{Method: "GET", Path: "/v1/macs", Summary: "MAC tables", Query: []string{"network"}, Out: []MAC{}},
	{Method: "POST", Path: "/v1/macs", Summary: "add a static MAC", In: MACRequest{}, Out: MAC{}},
	{Method: "DELETE", Path: "/v1/macs", Summary: "forget learned MACs, with all also static ones", Query: []string{"network", "all"}, Out: Flushed{}},
	{Method: "DELETE", Path: "/v1/macs/{mac}", Summary: "forget one MAC", Query: []string{"network", "vlan"}},
	{Method: "GET", Path: "/v1/arp", Summary: "the gateways' ARP tables", Query: []string{"network"}, Out: []Neighbour{}},
	{Method: "POST", Path: "/v1/arp", Summary: "add a static neighbour", In: NeighbourRequest{}, Out: Neighbour{}},
	{Method: "DELETE", Path: "/v1/arp", Summary: "forget learned neighbours, with all also those that were added", Query: []string{"network", "all"}, Out: NeighboursFlushed{}},
	{Method: "DELETE", Path: "/v1/arp/{ip}", Summary: "forget one neighbour", Query: []string{"network"}},
	{Method: "GET", Path: "/v1/leases", Summary: "addresses lent by DHCP", Out: []Lease{}},
	{Method: "GET", Path: "/v1/drops", Summary: "dropped and failed frames by port and reason", Out: []Drop{}},
	{Method: "GET", Path: "/v1/nat", Summary: "rules of NAT with counters", Out: []NATRule{}},
	{Method: "GET", Path: "/v1/flows", Summary: "tracked connections", Out: []Flow{}},
	{Method: "GET", Path: "/v1/rules", Summary: "what may pass and what not, with counters", Out: []FilterRule{}},
	{Method: "GET", Path: "/v1/rules/added", Summary: "rules by which containers may reach others where they may not by themselves", Out: []Rule{}},
	{Method: "POST", Path: "/v1/rules", Summary: "let a container reach another", In: RuleRequest{}, Out: Rule{}},
	{Method: "DELETE", Path: "/v1/rules/{number}", Summary: "take an added rule away"},
	{Method: "GET", Path: "/v1/routes", Summary: "routing tables", Out: []IPRoute{}},
	{Method: "GET", Path: "/v1/names", Summary: "names of containers as this host may ask for them", Out: Names{}},
	{Method: "GET", Path: "/v1/trace", Summary: "each frame and the decision on it", Query: []string{"container"}, Out: TraceLine{}, Stream: true},
	{Method: "GET", Path: "/v1/check", Summary: "hold the conservation law against the counters", Out: Check{}},
}
