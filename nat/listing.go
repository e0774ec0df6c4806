package nat

import "fairlead/packet"

// A FlowInfo is a flow as people look at it.
type FlowInfo struct {
	Number    uint32
	Kind      packet.NATKind
	Rule      uint32
	Container packet.ContainerID

	// Forward is the tuple of the first packet, seen on the segment From; Reply
	// that of the answers, seen on To.
	From, To       packet.NetworkID
	Forward, Reply packet.Tuple
	// Inward is set when the first packet came from an uplink. Hidden says
	// whether the container sees another client than there is.
	Inward bool
	Hidden packet.Hidden

	// State is conntrack's name for where a TCP connection is, empty for other
	// protocols.
	State string
	// Unreplied and Assured are conntrack's: no answer came yet; both sides
	// have shown that they mean it.
	Unreplied, Assured bool
	// Expires is when the flow ends unless another packet comes, by the workers'
	// clock; Never is a connection that ends with its socket.
	Expires int64

	// Packets and Bytes are those of either direction, the first packet's first.
	Packets, Bytes [2]uint64
}

var stateNames = [...]string{unanswered: "SYN_SENT", opening: "SYN_RECV", open: "ESTABLISHED",
	halfClosed: "FIN_WAIT", closed: "TIME_WAIT", reset: "CLOSE"}

// Flows yields all flows whose time is not up at the time of the last Commit or
// Expire.
func (t *Table) Flows(yield func(FlowInfo) bool) {
	for more, next := true, uint32(0); more; {
		next, more = t.FlowsFrom(next, chunkLen, yield)
	}
}

// FlowsFrom yields those flows of Flows that are among the next few records, most
// of them, and returns where the rest begins, if there is any. So an owner need
// not keep others waiting while he lists many; a flow that stays meanwhile is
// yielded once.
func (t *Table) FlowsFrom(ref uint32, most int, yield func(FlowInfo) bool) (next uint32, more bool) {
	end := refOf(max(t.v4.used, t.v6.used), false)
	for ref = max(ref, refOf(1, false)); ref < end && most > 0; ref++ { // place 0 is empty
		used := t.v4.used
		if isV6(ref) {
			used = t.v6.used
		}
		if int(ref>>1) >= used {
			continue
		}
		most--
		if !t.body(ref).live {
			continue
		}
		if f := t.info(ref); f.Expires >= t.now && !yield(f) {
			return 0, false
		}
	}
	return ref, ref < end
}

func (t *Table) info(ref uint32) FlowInfo {
	b := t.body(ref)
	f := FlowInfo{Number: ref, Kind: b.kind, Rule: b.rule, Container: b.container, Inward: b.is(inward), Hidden: b.hidden}
	f.From, f.Forward = t.key(ref, 0)
	f.To, f.Reply = t.key(ref, 1)
	f.Expires = t.deadline(b, f.Forward.DstPort)
	for dir := range f.Packets {
		f.Packets[dir], f.Bytes[dir] = b.packets[dir].Load(), b.bytes[dir].Load()
	}
	s := b.state()
	f.Unreplied = b.seen[1].Load()&heardBit == 0
	switch b.proto {
	case packet.ProtoTCP:
		f.State = stateNames[s]
		f.Assured = b.assured()
	case packet.ProtoUDP:
		f.Assured = b.assured()
	}
	return f
}

// A MappingInfo is a mapping as people look at it.
type MappingInfo struct {
	Network     packet.NetworkID
	Container   packet.ContainerID
	Proto       packet.Proto
	Inside      packet.Addr
	InsidePort  uint16
	Uplink      packet.NetworkID
	Outside     packet.Addr
	OutsidePort uint16
	Flows       int
}

// Mappings yields all mappings.
func (t *Table) Mappings(yield func(MappingInfo) bool) {
	for n := 1; n < t.maps.used; n++ {
		if m := t.maps.at(uint32(n)); m.count > 0 && !yield(MappingInfo{m.network, m.container, m.proto,
			m.inside, m.insidePort, m.uplink, m.outside, m.outsidePort, int(m.count)}) {
			return
		}
	}
}

// Stats are the table's figures.
type Stats struct {
	Flows, Mappings int // there are now
	Retired         int // records that wait to be recycled

	// Since the beginning: Ended counts every end, of which Expired by time and
	// Evicted for another flow of the same container.
	Created, Ended, Expired, Evicted uint64
}

// Stats returns the table's figures.
func (t *Table) Stats() Stats {
	s := t.stats
	s.Flows, s.Mappings, s.Retired = int(t.live.Load()), t.maps.live, t.numRetired
	return s
}
