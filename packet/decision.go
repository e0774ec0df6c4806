package packet

// A Verdict says what becomes of a frame. Every frame read gets exactly one;
// the conservation law counts by them.
type Verdict uint8

const (
	Drop    Verdict = iota // goes nowhere; Decision.Reason says why
	Unicast                // one copy, to Decision.Egress
	Flood                  // a copy to every other port that may have one
	Gateway                // ends at the gateway, which may originate an answer

	NumVerdicts = iota
)

var verdictNames = [NumVerdicts]string{"drop", "unicast", "flood", "gateway"}

func (v Verdict) String() string { return name(verdictNames[:], int(v)) }

// A Learning says what the MAC table has to take from a frame's source.
type Learning uint8

const (
	LearnNothing Learning = iota // known here and fresh
	LearnNew                     // not in the table
	LearnMoved                   // in the table behind another port
	LearnRefresh                 // known here, its age is due
)

// An Origin names a frame the gateway makes in answer to one it got.
type Origin uint8

const (
	OriginNone           Origin = iota
	OriginARPReply              // RFC 826
	OriginEchoReply             // RFC 792 type 0
	OriginNetUnreachable        // RFC 792 type 3 code 0

	NumOrigins = iota
)

var originNames = [NumOrigins]string{"", "ARP reply", "echo reply", "ICMP net unreachable"}

func (o Origin) String() string { return name(originNames[:], int(o)) }

// A Decision is all that forwarding has to say of one frame. Deciding reads
// tables and fills a Decision; it changes nothing. Carrying it out is the
// business of apply, so the same decision can be explained, traced and
// compared. It is flat and lives on the stack.
type Decision struct {
	Verdict Verdict
	Reason  Reason // why; never OK once decided

	// Egress is where a Unicast frame goes.
	Egress PortID

	// ToGateway is set on a flooded frame that the gateway hears as well.
	ToGateway bool

	// Learn is what the MAC table takes from the source address.
	Learn Learning

	// Neighbour is set when the gateway takes the sender of an ARP packet into
	// its neighbour table.
	Neighbour bool

	// Originate is what the gateway sends in answer, at the port it came from.
	Originate Origin
}

// Refuse turns the decision into a drop for reason r.
func (d *Decision) Refuse(r Reason) { d.Verdict, d.Reason = Drop, r }

func name(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return "?"
	}
	return names[i]
}
