package gateway

import (
	"fairlead/nat"
	"fairlead/packet"
)

// expireEvery is how often the router looks after flows, fragments and
// unanswered connections, while there are any.
const expireEvery = int64(1e9)

// expireAtOnce bounds how many flows one look may go through, so that no frame
// waits for it longer than a turn may take.
const expireAtOnce = 4096

// key is the tuple by which a packet's flow is found. It returns false when d
// is decided: the protocol has nothing to translate, or the packet is a later
// fragment and has to wait for the first.
func (r *Router) key(f *packet.Frame, d *packet.Decision) (packet.Tuple, bool) {
	k := f.Tuple()
	switch f.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
	case packet.ProtoICMP:
		if f.L4 != 0 && k.SrcPort == 0 && k.DstPort == 0 && !echo(f) {
			r.refuse(f, d, packet.NotTranslatable, packet.OriginNone)
			return k, false
		}
	default:
		r.refuse(f, d, packet.NotTranslatable, packet.OriginProtoUnreachable)
		return k, false
	}
	if !f.Flags.Has(packet.LaterFragment) {
		return k, true
	}
	r.mu.Lock()
	src, dst, ok := r.fragments.Ports(f.Network, f, f.Time)
	r.mu.Unlock()
	if ok {
		k.SrcPort, k.DstPort = src, dst
		return k, true
	}
	switch {
	case f.Resumed:
		refuse(d, packet.FragmentOrphan)
	case d.Verdict != packet.Flood:
		d.Verdict, d.Reason, d.HoldKey = packet.Hold, packet.FirstFragment, r.fragments.Key(f.Network, f)
	}
	return k, false
}

// known fills in the translation of a packet whose flow there is.
func (r *Router) known(f *packet.Frame, k packet.Tuple, d *packet.Decision) bool {
	flow, ok := r.flows.Find(f.Network, k, f.Time, tcpFlags(f))
	if ok {
		d.NAT = r.flows.Translation(flow)
	}
	return ok
}

// begin plans the flow of a packet that begins one, or refuses it.
func (r *Router) begin(f *packet.Frame, k packet.Tuple, d *packet.Decision) bool {
	if !begins(f) {
		r.refuse(f, d, packet.NoFlow, answerTo(packet.NoFlow, f))
		return false
	}
	r.mu.Lock()
	plan, reason := r.planLocked(f, k)
	r.mu.Unlock()
	switch {
	case reason == packet.OK:
		d.NAT = plan.Translation
		return true
	case reason == packet.Refused && isEcho(f):
		take(d) // an address of ours with nothing behind it: ours to answer
		d.Originate = packet.OriginEchoReply
	default:
		r.refuse(f, d, reason, answerTo(reason, f))
	}
	return false
}

// planLocked plans a flow by where its first packet came in.
func (r *Router) planLocked(f *packet.Frame, k packet.Tuple) (nat.Plan, packet.Reason) {
	if g := r.plugs.Load().gateway(f.Network); g != nil {
		return g.planLocked(f.Container, k)
	}
	return r.flows.PlanIn(f.Network, k)
}

// commit makes the flow that was planned for a packet. The plan is made again:
// another worker may have taken its port meanwhile.
func (r *Router) commit(f *packet.Frame, d *packet.Decision, out packet.Out) packet.Reason {
	r.mu.Lock()
	plan, reason := r.planLocked(f, d.NAT.Before)
	if reason == packet.OK {
		var flow nat.Flow
		if flow, reason = r.flows.Commit(plan, f.Time); reason == packet.OK {
			d.NAT = r.flows.Translation(flow)
			d.NAT.New = true
			r.syns.Cancel(d.NAT.Out, d.NAT.After)
		}
	}
	r.mu.Unlock()
	r.wake(f.Time+expireEvery, out)
	return reason
}

// echo reports whether an ICMP message is a request or an answer of echo.
func echo(f *packet.Frame) bool {
	t := packet.ICMP(f.Ether()[f.L4:]).Type()
	return t == packet.ICMPEcho || t == packet.ICMPEchoReply
}

// firstFragment takes down the ports of a datagram whose first fragment is
// about to be passed on, and has the others go on.
func (r *Router) firstFragment(f *packet.Frame, out packet.Out) {
	r.mu.Lock()
	r.fragments.Learn(f.Network, f, f.Time)
	key := r.fragments.Key(f.Network, f)
	r.mu.Unlock()
	out.Resume(key)
}

// translateError finds the flow an ICMP error is about (RFC 5508 REQ-3 to
// REQ-6). It returns false when d is decided. An error about an error is never
// sent, so whatever is wrong with it stays unsaid.
func (r *Router) translateError(f *packet.Frame, d *packet.Decision) bool {
	about, ok := f.Quoted()
	if ok {
		if flow, known := r.flows.Find(f.Network, about.Reverse(), f.Time, 0); known {
			t := r.flows.Translation(flow)
			t.Quoted, t.Before, t.After = true, t.Before.Reverse(), t.After.Reverse()
			d.NAT = t
			return true
		}
	}
	refuse(d, packet.BadQuote)
	return false
}

// unsolicited takes down a SYN from outside that met a port in use by somebody
// else. It is answered later, if nothing has come of it (RFC 5382 REQ-4).
func (r *Router) unsolicited(f *packet.Frame, out packet.Out) {
	r.mu.Lock()
	r.syns.Add(f, f.Time)
	next, _ := r.syns.Next()
	r.mu.Unlock()
	r.wake(next, out)
}

// wake has tick called at a time or sooner, by whichever gateway does that.
func (r *Router) wake(at int64, out packet.Out) {
	r.mu.Lock()
	n := r.ticking
	r.mu.Unlock()
	if at != 0 && n != 0 {
		out.Wake(n, at)
	}
}

// tick ends flows whose time is up and answers SYNs that nothing came of. It
// returns when it is to be called again; 0 is when something happens first.
func (r *Router) tick(now int64, out packet.Out) (next int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.syns.Due(now, func(f *packet.Frame) {
		n := icmpError(f, out.Room(), r.self(f), packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0)
		out.Originate(packet.Place{Network: f.Network, Port: f.Port}, n)
	})
	if r.flows.Expire(now, expireAtOnce) {
		return now + 1 // the rest in the next turn
	}
	r.recycle()
	if _, waiting := r.syns.Next(); waiting || r.flows.Stats().Flows > 0 {
		return now + expireEvery
	}
	return 0
}

// recycle has the memory of ended flows used again once no worker can be
// looking at it.
func (r *Router) recycle() {
	n := r.flows.Retired()
	if n == 0 || r.recycling {
		return
	}
	r.recycling = true
	r.grace(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.recycling = false
		r.flows.Recycle(n)
	})
}
