package packet

// A Verdict says what becomes of a frame. Every frame read gets exactly one;
// the conservation law counts by them.
type Verdict uint8

const (
	Drop    Verdict = iota // goes nowhere; Decision.Reason says why
	Unicast                // one copy, to Decision.Egress
	Flood                  // a copy to every other port that may have one
	Gateway                // ends at the gateway, which may originate an answer
	Hold                   // waits for what Decision.HoldKey names, and is decided on again then

	NumVerdicts = iota
)

var verdictNames = [NumVerdicts]string{"drop", "unicast", "flood", "gateway", "hold"}

func (v Verdict) String() string { return name(verdictNames[:], int(v)) }

// A Learning says what the MAC table has to take from a frame's source.
type Learning uint8

const (
	LearnNothing Learning = iota // known here and fresh
	LearnNew                     // not in the table
	LearnMoved                   // in the table behind another port
	LearnRefresh                 // known here, its age is due
)

// An Origin names a frame the router makes because of one it got.
type Origin uint8

const (
	OriginNone             Origin = iota
	OriginARPReply                // RFC 826
	OriginEchoReply               // RFC 792 type 0
	OriginNetUnreachable          // RFC 792 type 3 code 0
	OriginHostUnreachable         // RFC 792 type 3 code 1
	OriginProtoUnreachable        // RFC 792 type 3 code 2
	OriginPortUnreachable         // RFC 792 type 3 code 3
	OriginFragNeeded              // RFC 1191: type 3 code 4, with Decision.MTU
	OriginProhibited              // RFC 1812: type 3 code 13
	OriginTimeExceeded            // RFC 792 type 11 code 0
	OriginReset                   // RFC 9293 3.10.7.1: a TCP reset
	OriginARPRequest              // RFC 826: who has the next hop? asked at Decision.To

	NumOrigins = iota
)

var originNames = [NumOrigins]string{"", "ARP reply", "echo reply", "ICMP net unreachable", "ICMP host unreachable",
	"ICMP protocol unreachable", "ICMP port unreachable", "ICMP fragmentation needed", "ICMP administratively prohibited",
	"ICMP time exceeded", "TCP reset", "ARP request"}

func (o Origin) String() string { return name(originNames[:], int(o)) }

// IsICMPError reports whether the frame is an ICMP error about the other.
func (o Origin) IsICMPError() bool { return OriginNetUnreachable <= o && o <= OriginTimeExceeded }

// A Place is a port on some network of the node. Uplinks are networks of one
// port in this sense. The zero Place is nowhere.
type Place struct {
	Network NetworkID
	Port    PortID
}

// A NATKind says by which kind of rule a connection is translated.
type NATKind uint8

const (
	NATNone       NATKind = iota // not translated
	NATMasquerade                // source → the uplink's address
	NATPublish                   // destination → the container behind a published port
	NATHairpin                   // both: a container meets a published port from inside
	NATOneToOne                  // an outside address of the container's own
	NATRedirect                  // both: a port of the gateway's leads to a service on the host's loopback

	NumNATKinds = iota
)

var natNames = [NumNATKinds]string{"none", "masquerade", "publish", "hairpin", "one-to-one", "redirect"}

func (k NATKind) String() string { return name(natNames[:], int(k)) }

// Hidden says why a container does not see a client from outside by the client's
// own address and port. Where its answer would not come back to the router it
// sees the gateway in the client's place.
type Hidden uint8

const (
	HiddenNot            Hidden = iota
	HiddenLoopback              // the client is on the host's loopback, whose addresses stay there
	HiddenInSubnet              // its address is in a subnet of the container's, which would answer there
	HiddenNoDefaultRoute        // the network is internal, or the container's default route is on another
	HiddenFamily                // the client speaks IPv6, the container IPv4
	HiddenPortTaken             // its address is seen, with another port: that one is taken

	NumHidden = iota
)

var hiddenNames = [NumHidden]string{"", "loopback", "in-subnet", "no-default-route", "other-family", "port-taken"}

func (h Hidden) String() string { return name(hiddenNames[:], int(h)) }

var hiddenWhys = [NumHidden]string{"", "it is on the host's loopback", "its address is in a subnet of the container's",
	"the container's default route does not lead here", "it speaks IPv6", "another connection has its address and port"}

// Why is a clause that explains it.
func (h Hidden) Why() string { return name(hiddenWhys[:], int(h)) }

// StandIn is an IPv4 address for a client that has none, the nth of 2^23. Nobody
// but the router sees it: it is one of the host's loopback and hidden as such,
// under its own name.
func StandIn(n uint32) Addr {
	return AddrFrom4([4]byte{127, 0x80 | byte(n>>16), byte(n >> 8), byte(n)})
}

// HostIPv6 stands for the addresses of IPv6 this host has, where such a client
// speaks to one. No container can name it: who publishes at an address of IPv6
// publishes at no address of IPv4.
var HostIPv6 = StandIn(1<<23 - 1)

// IsStandIn reports whether an address may be one that StandIn made.
func IsStandIn(a Addr) bool { return a.Is4() && a[12] == 127 && a[13] >= 0x80 }

// A Translation is what NAT does to one packet.
type Translation struct {
	Kind  NATKind
	Reply bool // the packet belongs to the answering direction of its flow
	New   bool // the flow does not exist yet: applying the decision makes it
	// Quoted is set on an ICMP error that concerns the flow: Before and After
	// are the tuple of the packet it quotes, and its own addresses follow.
	Quoted bool
	// ToMapping is set on a flow that no published port and no address of a
	// container's own has let in, but that its first packet went to the mapping of
	// a masqueraded connection.
	ToMapping bool
	// Hidden says whether the client's address or port is replaced.
	Hidden Hidden

	// Flow is the number of the flow; valid unless New.
	Flow uint32
	// Rule is the number of the rule the flow was made by.
	Rule uint32

	// Container is whose flow it is: who pays for it.
	Container ContainerID

	// Before and After are the packet's tuple on the network In, where it comes
	// from, and Out, where it goes. They are equal when the flow is tracked and
	// not translated.
	In, Out       NetworkID
	Before, After Tuple
}

// A Decision is all that forwarding has to say of one frame. Deciding reads
// tables and fills a Decision; it changes nothing. Carrying it out is the
// business of apply, so the same decision can be explained, traced and
// compared. It is flat and lives on the stack.
type Decision struct {
	Verdict Verdict
	Reason  Reason // why; never OK once decided

	// Egress is where a Unicast frame goes: a port of the frame's own network,
	// or with Routed of any.
	Egress Place

	// ToGateway is set on a flooded frame that the gateway hears as well.
	ToGateway bool
	// AtGateway is set on every frame that reached the gateway (step 5), which
	// has its part in applying the decision then.
	AtGateway bool

	// VLAN is that of the frame: its tag's or, without one, its port's; 0 is the
	// network's own, where the gateway is.
	VLAN uint16

	// Looped is set on a probe of the loop guard that came back: the port it had left
	// by.
	Looped PortID

	// NewAddr is set on a frame from an address its port has not sent from lately, where
	// those are counted.
	NewAddr bool

	// Learn is what the MAC table takes from the source address.
	Learn Learning

	// Admitted is the number of the rule that let a frame pass from one container
	// to another where they may not talk by themselves; 0 is none. Of a flooded
	// frame each copy has its own.
	Admitted uint32

	// Neighbour is set when the gateway takes the sender of an ARP packet into
	// its neighbour table.
	Neighbour bool

	// Query is set on a question that a service of the gateway's takes: DNS, DHCP.
	Query bool

	// EgressOwn and EgressRule are the rules of the egress policies that let a
	// connection begin or refused it: that of the container's own, which is asked
	// first, and that of the network's. 0 is none.
	EgressOwn, EgressRule uint16

	// Originate is what the router sends because of the frame: to the port it
	// came from, an ARP request to To.
	Originate Origin

	// Routed is set on a frame the router passes on, with all that follows. A
	// flooded frame may be Routed too: its copy for the gateway is then.
	Routed bool

	// ToHost is set on a routed frame that goes to the host by a link of its own. To
	// containers the host is the gateway, so the packet is where it was sent to: TTL
	// and MACs stay.
	ToHost bool

	// SrcMAC and DstMAC are those of the frame on the next link.
	SrcMAC, DstMAC MAC
	// NextHop is who has DstMAC: the destination, or the router behind the uplink.
	NextHop Addr
	// MTU is that of the next link: with OriginFragNeeded what the sender is
	// told; else, when it is not zero, the packet is cut into fragments of it.
	MTU uint16
	// NAT is the translation of the packet.
	NAT Translation

	// To is where an ARP request goes.
	To Place
	// HoldKey names what a held frame waits for, on the whole node. A flooded
	// frame is never held; its copy for the gateway is lost then.
	HoldKey uint64
}

// Refuse turns the decision into a drop for reason r.
func (d *Decision) Refuse(r Reason) { d.Verdict, d.Reason = Drop, r }

// RefuseCopy drops the gateway's copy of a frame for reason r. Of a flooded one
// the copies for others go on, and it stays flooded.
func (d *Decision) RefuseCopy(r Reason) {
	if d.Verdict != Flood {
		d.Refuse(r)
	}
}

// EndAtGateway has a frame end at the gateway; copies for others go on.
func (d *Decision) EndAtGateway() {
	if d.Verdict != Flood {
		d.Verdict, d.Reason = Gateway, ForGateway
	}
}

func name(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return "?"
	}
	return names[i]
}
