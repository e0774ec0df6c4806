package packet

// A Reason says why a frame went the way it went. There is one enum for the
// whole data path: it names the counters of `show drops`, the lines of
// `trace`, and what tests expect.
type Reason uint8

// The order is the order of the path: parse, guard, look up, admit, gateway,
// emit. The names and sentences are in the table below.
const (
	OK Reason = iota // not decided yet; no frame keeps it

	// 1 parse: malformed frames.
	Truncated
	BadVNet
	TooManyTags
	BadARP
	BadIPv4
	BadIPv6
	BadFragment
	BadTransport

	// 2 guard: sources a port may not use, and ports that are joined behind our back.
	Loop
	WrongVLAN
	BadSourceMAC
	SpoofedMAC
	SpoofedAddress
	SpoofedGateway
	SpoofedNeighbour
	AddressLimit
	LoopbackAddress
	RogueRouter
	RogueDHCP

	// 3 look up: why it goes where it goes.
	KnownMAC
	UnknownMAC
	ToGroup
	HubMode
	SamePort
	ReservedGroup

	// 4 admit.
	Isolated
	ICC
	FloodLimit
	Oversize

	// 5 gateway, in the order of its steps.
	ForGateway
	ForHost
	DNSBusy
	DHCPBusy
	NotUnderstood
	NotForUs
	Martian
	Refused
	TTLExceeded
	OtherNetwork
	EgressDenied
	Routed
	NotTranslatable
	NoFlow
	Filtered
	FlowBudget
	FlowTableFull
	PortsExhausted
	FirstFragment
	FragmentOrphan
	BadQuote
	NoRoute
	FragNeeded
	NextHop
	HostUnreachable
	HoldFull
	NotCarried
	PingForbidden
	SocketBudget

	// 6 emit: why a copy did not reach its egress.
	EgressDown
	EgressGone
	EgressFull
	EgressSegments
	EgressRefused
	RateLimit
	SlowReceiver

	NumReasons = iota
)

// A reasonText names a reason and explains it to a person.
type reasonText struct {
	name string // in counters, JSON and trace lines
	why  string // a sentence that explains it
	try  string // a sentence that says what to try; empty when all is well
}

var reasons = [NumReasons]reasonText{
	OK: {"ok", "The frame has not been decided on.", ""},

	Truncated: {"truncated", "The frame ends before the headers it announces.",
		"Look at the sender: it wrote a cut-off frame."},
	BadVNet: {"bad-vnet-header", "The virtio-net header contradicts the frame behind it.",
		"Look at the program that writes to this link; a kernel never does that."},
	TooManyTags: {"too-many-tags", "The frame carries more than two VLAN tags.",
		"Remove a level of 802.1Q nesting in the container."},
	BadARP: {"bad-arp", "The ARP packet is not Ethernet and IPv4 (RFC 826), or is too short.",
		"Look at the sender with `tcpdump -e arp`."},
	BadIPv4: {"bad-ipv4", "The IPv4 header lies about its version, its length or the datagram's.",
		"Look at the sender: RFC 791 wants IHL >= 5 and a total length that fits the frame."},
	BadIPv6: {"bad-ipv6", "The IPv6 header or one of its extension headers lies about its length.",
		"Look at the sender: RFC 8200 wants a payload length that fits the frame and at most eight extension headers."},
	BadFragment: {"bad-fragment", "The fragment reaches beyond 65,535 bytes, is empty, breaks the rule of eight bytes, or is cut from another fragment.",
		"Look at the sender: this is how a ping of death looks."},
	BadTransport: {"bad-transport", "The TCP, UDP or ICMP header is cut off or lies about its length.",
		"Look at the sender: scanners send such packets, kernels do not."},

	Loop: {"loop", "The port leads back to this switch by another one, so it is blocked for a time (loop guard).",
		"Find what joins the two, such as a bridge inside a container: `fairlead show switch -v` names both; `--opt loop-guard=off` at the network's making leaves it to you."},
	WrongVLAN: {"wrong-vlan", "The frame is in a VLAN the port is not in, or has a tag where the port takes none (an access port), or is for who is in another one.",
		"`fairlead show switch -v` says which VLANs each port is in; `--opt vlan=N` or `--opt trunk=N,N-N` of `fairlead run` and `network connect` puts a container into one."},
	BadSourceMAC: {"bad-source-mac", "The source MAC is zero or a group address, which no station can have (IEEE 802.3).",
		"Give the interface a MAC whose first byte is even."},
	SpoofedMAC: {"spoofed-mac", "The source MAC is not the one this port was given, or, of a port with a LAN behind it, is a container's.",
		"Start the container with `--mac`, or on a network that was made with `--opt guard=off` (the default one by `fairlead up`)."},
	SpoofedAddress: {"spoofed-address", "The source address (or the ARP sender address) is not the one this port was given, or, of a port with a LAN behind it, is a container's.",
		"Start the container with `--ip`, or on a network that was made with `--opt guard=off` (the default one by `fairlead up`)."},
	SpoofedGateway: {"spoofed-gateway", "A container uses the gateway's MAC or address as its own.",
		"Take the gateway's address off the interface in that container; this is refused with any guard."},
	SpoofedNeighbour: {"spoofed-neighbour", "A message of IPv6 neighbour discovery announces an address or a MAC that is somebody else's, or it cannot be read.",
		"Start the container with `--mac`, or on a network that was made with `--opt guard=off` (the default one by `fairlead up`)."},
	AddressLimit: {"address-limit", "The container has sent from many link-local addresses of IPv6 already, each of which others have to remember and to ask for, and this is a further one.",
		"Look at what gives its interface ever new addresses: it may have eight, and one more each second. On a network that was made with `--opt guard=off` it may have any."},
	LoopbackAddress: {"loopback-address", "A frame carries an address of 127.0.0.0/8 or ::1, which must not leave a host (RFC 1122, 4291).",
		"Bind the service to the container's own address instead."},
	RogueRouter: {"rogue-router", "A container says that it is a router, or sends others another way (a router advertisement or a redirect, of IPv6 or IPv4); only the gateway is one here.",
		"Stop radvd or what else sends it; if it is meant to be a router, have its network made with `--opt guard=off` (the default one by `fairlead up`)."},
	RogueDHCP: {"rogue-dhcp", "A container sends to where DHCP clients listen (UDP port 68, 546 by IPv6); only the gateway lends addresses here.",
		"Stop that server; if it is meant to lend addresses, have its network made with `--opt guard=off` (the default one by `fairlead up`)."},

	KnownMAC:   {"known-mac", "The MAC table says which port the destination is behind.", ""},
	UnknownMAC: {"unknown-mac", "The MAC table does not know the destination, so every port gets a copy.", ""},
	ToGroup:    {"to-group", "The destination is a broadcast or multicast address, so every port gets a copy.", ""},
	HubMode:    {"hub-mode", "The switch plays a hub: every port gets a copy of everything.", ""},
	SamePort: {"same-port", "The destination is behind the port the frame came from.",
		"Nothing: the stations can hear one another without the switch."},
	ReservedGroup: {"reserved-group", "The destination is one of 01:80:c2:00:00:00-0f, which a bridge must not forward (IEEE 802.1D).",
		"Nothing: spanning tree, pause and LLDP frames end at the first bridge."},

	Isolated: {"isolated", "Both ports are isolated, and isolated ports do not hear one another.",
		"Take the isolation off one of the two containers."},
	ICC: {"icc", "The network does not let its containers talk to one another (icc=off), and no link or rule opens this.",
		"Open it with a rule, `fairlead rule add --network NETWORK FROM TO:PORT`; `fairlead rule ls` shows what there is."},
	FloodLimit: {"flood-limit", "The port has more copies of flooded frames made per second than it may, or has had its share of the worker's time for them while others wanted that.",
		"Make the network with a higher `--opt flood-limit=N` (the default one by `fairlead up`), or find out what the container broadcasts."},
	Oversize: {"oversize", "The packet is larger than the MTU of the network.",
		"Set the interface's MTU back, or make the network with a larger one: `--opt mtu=N` (the default one by `fairlead up`)."},

	ForGateway: {"for-gateway", "The frame is addressed to the gateway itself.", ""},
	ForHost:    {"for-host", "The frame goes to the host, which has the gateway's address too, by its own link to the network.", ""},
	DNSBusy: {"dns-busy", "The container, or the node, has as many questions for names under way as it may.",
		"Find out who asks so much with `fairlead trace`, and whether the host's name servers answer."},
	DHCPBusy: {"dhcp-busy", "The node has as many DHCP messages waiting as it may, of this container or of all.",
		"Find out who asks so much with `fairlead trace`."},
	NotUnderstood: {"not-understood", "The gateway got a frame it has no use for.",
		"Nothing: the gateway answers ARP, ping, DNS and DHCP, and routes IPv4."},
	NotForUs: {"not-for-us", "A packet from outside is for an address that is not the uplink's; networks of containers cannot be entered by their own addresses.",
		"Publish the port: `fairlead publish NAME HOST:CONTAINER`."},
	Martian: {"martian", "The source or destination is an address no router may pass on: 0/8, 127/8, 240/4, a group, a broadcast (RFC 1812 5.3.7).",
		"Look at the sender's address and routes."},
	Refused: {"refused", "Nothing is published at this address and port, so the connection is refused as a host does it.",
		"Publish the port: `fairlead publish NAME HOST:CONTAINER`."},
	TTLExceeded: {"ttl-exceeded", "The time to live is used up (RFC 1812 5.3.1); the sender is told, which is how traceroute works.",
		"If nobody traces a route: look for a loop in the routes."},
	OtherNetwork: {"other-network", "The address belongs to another network of this node, and networks are kept apart; only what its containers publish is reached.",
		"Connect the container to that network too, `fairlead network connect NETWORK NAME`, or have both routed: `fairlead network set NETWORK --opt routed=on`."},
	EgressDenied: {"egress-denied", "The egress policy of the network, or of the container, does not let it reach this address or port.",
		"Look at `fairlead show rules`, and at what `--egress` was set to."},
	Routed: {"routed", "The packet is passed on by the routing table.", ""},
	NotTranslatable: {"not-translatable", "NAT knows the ports of TCP, UDP and ICMP echo; this protocol has none it could translate.",
		"Use TCP or UDP, for example a tunnel over UDP."},
	NoFlow: {"no-flow", "The packet belongs to a connection this node does not know, and is none that begins one.",
		"Nothing: the sender is told to begin again."},
	Filtered: {"filtered", "The port is in use by a connection of a container, and this sender is not who the container talks to (RFC 4787 REQ-8).",
		"Publish the port if it is meant to be reached: `fairlead publish NAME HOST:CONTAINER`."},
	FlowBudget: {"flow-budget", "The container has as many connections as it may have at once.",
		"Find out what opens them with `fairlead show flows`, or raise it: `fairlead up --opt flows-per-container=N`."},
	FlowTableFull: {"flow-table-full", "The node has as many connections as its table holds.",
		"Find out what opens them with `fairlead show flows`, or raise it: `fairlead up --opt flows=N`."},
	PortsExhausted: {"ports-exhausted", "No port of the uplink's address is left for another connection of this container.",
		"Find out what opens them with `fairlead show flows`, or give the network a second uplink."},
	FirstFragment: {"first-fragment", "A later fragment waits for the first one, which has the ports.", ""},
	FragmentOrphan: {"fragment-orphan", "The first fragment of the datagram did not come in time, or was refused.",
		"Look for packet loss, or send smaller datagrams."},
	BadQuote: {"bad-quote", "An ICMP error quotes a packet that belongs to no known connection, or not enough of it.",
		"Nothing: an error about a connection that has ended, or a forged one."},
	NoRoute: {"no-route", "The routing table has no way to the destination.",
		"Give the network an uplink: `fairlead network set NET --uplink tap:NAME,ip=ADDRESS/LENGTH,gw=ADDRESS`."},
	FragNeeded: {"frag-needed", "The packet is larger than the next link's MTU and may not be cut; the sender is told the MTU (RFC 1191).",
		"Nothing: the sender sends smaller packets from now on."},
	NextHop: {"next-hop", "The packet waits until the next hop has said its MAC (RFC 826).", ""},
	HostUnreachable: {"host-unreachable", "The next hop does not answer ARP, or the container has made us ask for as many that do not as it may.",
		"Look whether it is up, and whether the uplink's address and gateway are right: `fairlead show routes`."},
	HoldFull: {"hold-full", "Of all packets that wait for ARP or a first fragment this was the oldest when there was no more room, or it is too large to be kept.",
		"Nothing: the sender repeats it."},
	NotCarried: {"not-carried", "Host sockets carry TCP, UDP and ICMP echo, and nothing else.",
		"Give the network a raw uplink: `fairlead network set NETWORK --uplink tap:NAME,…`."},
	PingForbidden: {"ping-forbidden", "The host lets this user have no ping sockets.",
		"Let it, as root: `sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"`."},
	SocketBudget: {"socket-budget", "The container has as many host sockets as it may, or all containers together have.",
		"Find out what opens them with `fairlead show flows`. A higher `ulimit -n` helps unless the container has 1,024, which is fixed; an uplink that is a link takes none: `fairlead network set NETWORK --uplink tap:NAME,…`."},

	EgressDown: {"egress-down", "The interface at the other end is down.",
		"Set it up in the container: `ip link set eth0 up`."},
	EgressGone: {"egress-gone", "The interface at the other end was just removed.",
		"Nothing: its port goes within a second."},
	EgressFull: {"egress-full", "The link took no further frame at that moment.",
		"Look at what the receiving container does with its time."},
	EgressSegments: {"egress-segments", "The segment train would leave a textbook wire as more packets than one frame may cost.",
		"Give the connection a larger MSS, or that container its offloads."},
	EgressRefused: {"egress-refused", "The kernel refused the frame.",
		"If it was to leave by host sockets, look at the host's firewall and routes; else report it: the frame was checked before."},
	RateLimit: {"rate-limit", "The container is sent more than its rate lets it receive.",
		"Raise it: `fairlead update --rate-in RATE NAME`."},
	SlowReceiver: {"slow-receiver", "The container takes so long to receive a packet that others would wait for it: its network stack runs inside our write, and it or the sender has used up its share of that time.",
		"Look at its firewall inside, `nft list ruleset`: thousands of rules that each packet is held against belong in a set or a map. `fairlead show switch -v` says how long it is sent nothing. If only one sender's frames fail, look at what that sends."},
}

// String is the name of the reason in counters, JSON and trace lines.
func (r Reason) String() string {
	if int(r) >= len(reasons) {
		return "?"
	}
	return reasons[r].name
}

// Error makes a Reason an error, so that a queue can say in one word why it
// did not take a frame, without an allocation.
func (r Reason) Error() string { return r.String() }

// Why is one sentence that explains the reason.
func (r Reason) Why() string {
	if int(r) >= len(reasons) {
		return ""
	}
	return reasons[r].why
}

// Try is one sentence that says what a user can do about it, empty when there
// is nothing to mend.
func (r Reason) Try() string {
	if int(r) >= len(reasons) {
		return ""
	}
	return reasons[r].try
}

// A Tally is how often something came up, and when it last did. That moment is
// the one of the frame or of the turn (nanoseconds of the worker's clock), so
// that nobody asks a clock for it.
type Tally struct {
	N    uint64
	Last int64
}

// Add counts n more at a moment, which may be before others that were counted.
func (t *Tally) Add(n uint64, at int64) {
	t.N += n
	t.Last = max(t.Last, at)
}
