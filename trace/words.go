package trace

import (
	"fmt"
	"strings"

	"fairlead/packet"
)

// Names gives numbers a name for people.
type Names struct {
	// Port is the container at a port, or the uplink.
	Port func(packet.Place) string
	// Route describes the route to dst by which a packet gets from one network
	// or uplink to another, as `ip route` does; it is empty when there is none
	// any more.
	Route func(from, to packet.NetworkID, dst packet.Addr) string
	// Rule describes a rule of the admission on a network; it is empty when there
	// is none of that number any more.
	Rule func(n packet.NetworkID, number uint32) string
}

// Line is the record in one line: port in, ports out, what it is, verdict,
// reason, and behind a semicolon what a router does with it.
func (r *Record) Line(names Names) string {
	d := &r.Decision
	line := fmt.Sprintf("%s  %s → %s  %s  %s (%s)", r.Wall.Format("15:04:05.000000"),
		names.Port(r.in()), r.To(names), r.Summary(), d.Verdict, d.Reason)
	if r.frame.Flags.Has(packet.Resumed) {
		line += "; after waiting"
	}
	if d.NAT.Before != d.NAT.After {
		line += fmt.Sprintf("; %s: %s", kindWords(&d.NAT), changed(&d.NAT))
	}
	if d.Routed && d.MTU != 0 {
		line += fmt.Sprintf("; in fragments of %d", d.MTU)
	}
	if d.Originate.IsICMPError() || d.Originate == packet.OriginReset || d.Originate == packet.OriginARPRequest {
		line += "; " + r.originWords(names)
	}
	return line
}

// in is where the frame came in.
func (r *Record) in() packet.Place { return packet.Place{Network: r.Network, Port: r.Port} }

// To names where the frame went.
func (r *Record) To(names Names) string {
	named, more := r.Out()
	var to []string
	for _, p := range named {
		to = append(to, names.Port(p))
	}
	if more > 0 {
		to = append(to, fmt.Sprintf("and %d more", more))
	}
	d := &r.Decision
	if d.Verdict == packet.Gateway || d.Verdict == packet.Flood && d.ToGateway && !d.Routed {
		to = append(to, r.router())
	}
	switch {
	case d.Verdict == packet.Hold:
		return "nowhere yet"
	case len(to) == 0:
		return "nowhere"
	}
	return strings.Join(to, ", ")
}

// router is what step 5 is on the frame's network.
func (r *Record) router() string {
	if r.FromUplink() {
		return "router"
	}
	return "gateway"
}

// originWords says what is sent because of the frame, and to whom.
func (r *Record) originWords(names Names) string {
	d := &r.Decision
	switch d.Originate {
	case packet.OriginARPRequest:
		return fmt.Sprintf("asks who has %s on %s", d.NextHop, names.Port(d.To))
	case packet.OriginFragNeeded:
		return fmt.Sprintf("%s (MTU %d) to %s", d.Originate, d.MTU, names.Port(r.in()))
	}
	return fmt.Sprintf("%s to %s", d.Originate, names.Port(r.in()))
}

// changed is the tuple behind NAT.
func changed(nat *packet.Translation) string {
	if nat.Quoted {
		return "quotes " + tupleWords(nat.After)
	}
	return tupleWords(nat.After)
}
