package api

// NATRule is one line of GET /v1/nat, in the order the rules are tried.
type NATRule struct {
	Number  int    `json:"number"` // stays the rule's while it exists; a trace names it
	Network string `json:"network"`
	// Kind is none (what stays inside is not rewritten), masquerade, publish,
	// hairpin or one-to-one.
	Kind string `json:"kind"`

	// What the first packet of a connection has to be like. 0.0.0.0/0 and an
	// empty uplink are any.
	Proto       string `json:"proto"` // all, tcp, udp, icmp
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Port        uint16 `json:"port,omitempty"` // its destination port; 0 is any
	In          string `json:"in,omitempty"`   // uplink it comes from
	Out         string `json:"out,omitempty"`  // uplink it leaves by

	// To is what the rule writes: of a masquerade the new source address, else
	// the new destination. A hairpin's source becomes the address it met.
	To        string `json:"to,omitempty"`
	ToPort    uint16 `json:"to_port,omitempty"`
	Container string `json:"container,omitempty"` // whose published port or address it is

	Mappings int `json:"mappings"` // outside ports it holds at the moment

	// Flows are the connections made by the rule, ended ones included, and
	// Packets theirs in both directions. Of kinds none and hairpin, which are no
	// rules one can change, they are those of the connections there are now.
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Flow is one line of GET /v1/flows: a tracked connection.
type Flow struct {
	Number uint32 `json:"number"`
	Proto  string `json:"proto"` // tcp, udp, icmp
	State  string `json:"state,omitempty"`
	// TTL is until it is forgotten, if nothing comes; 0 is never: it ends with its
	// socket.
	TTL       float64 `json:"ttl_seconds"`
	Kind      string  `json:"kind"` // as NATRule.Kind, or redirect: to the host's loopback
	Rule      int     `json:"rule,omitempty"`
	Network   string  `json:"network"`
	Uplink    string  `json:"uplink,omitempty"`
	Container string  `json:"container"`
	// Socket is the address of this host's socket, of a flow that has one: what
	// others on this host see of it.
	Socket string `json:"socket,omitempty"`
	// Hidden is why the container does not see the client's own address, or port:
	// loopback, in-subnet, no-default-route, other-family or port-taken.
	Hidden    string `json:"hidden,omitempty"`
	Unreplied bool   `json:"unreplied"` // nothing has come back yet
	Assured   bool   `json:"assured"`   // both ends have shown that they mean it

	// Original is the direction of the first packet, Reply that of the answers,
	// each as it is before it is translated.
	Original FlowHalf `json:"original"`
	Reply    FlowHalf `json:"reply"`
}

// FlowHalf is one direction of a flow.
type FlowHalf struct {
	Source          string `json:"source"`
	Destination     string `json:"destination"`
	SourcePort      uint16 `json:"source_port"` // of ICMP both ports are the identifier
	DestinationPort uint16 `json:"destination_port"`
	Packets         uint64 `json:"packets"`
	Bytes           uint64 `json:"bytes"`
}

// FilterRule is one line of GET /v1/rules: what may pass. Rules are listed in
// the order of the packet's path; the first one that fits decides.
type FilterRule struct {
	Network string `json:"network"`
	// Chain is the step of the path: guard, admit, egress, forward, inbound.
	Chain  string `json:"chain"`
	Target string `json:"target"` // accept, drop, or reject: the sender is told

	Proto       string `json:"proto"` // all, tcp, udp, icmp
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Port        uint16 `json:"port,omitempty"`
	In          string `json:"in,omitempty"`  // container or uplink
	Out         string `json:"out,omitempty"` // container or uplink
	// Match is what else has to be so, in words; "established" is of a known
	// connection, or an error about one.
	Match string `json:"match,omitempty"`
	// Reason is the drop reason the rule counts under, as in GET /v1/drops.
	Reason string `json:"reason,omitempty"`

	Packets uint64 `json:"packets"`
	// Bytes is missing where only frames are counted.
	Bytes *uint64 `json:"bytes,omitempty"`
}

// IPRoute is one line of GET /v1/routes: most specific first, and of equal ones
// the first is taken.
type IPRoute struct {
	Network     string `json:"network"`
	Destination string `json:"destination"` // 0.0.0.0/0 is the default route
	Via         string `json:"via,omitempty"`
	Dev         string `json:"dev"`   // the network itself or an uplink
	Scope       string `json:"scope"` // link: reached directly; global: by way of Via
	Source      string `json:"source,omitempty"`
	MTU         int    `json:"mtu"`
	// State is up, no-address for an uplink that waits for one, or down when its
	// device has gone.
	State string `json:"state"`
}
