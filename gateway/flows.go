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
const expireAtOnce = 256

// recycleAt is how many flows that ended have their records recycled at once.
// While fewer wait they wait for tick.
const recycleAt = 64

// key is the tuple a packet's flow is found by. It is not complete, and key
// returns false, when the packet is a later fragment and the first one was not
// seen yet.
func (r *Router) key(f *packet.Frame) (packet.Tuple, bool) {
	k := f.Tuple()
	if !f.Flags.Has(packet.LaterFragment) || !hasPorts(f.Proto) {
		return k, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var ok bool
	k.SrcPort, k.DstPort, ok = r.fragments.Ports(f.Network, f, f.Time)
	return k, ok
}

// find fills in the translation of a packet whose flow there is, or of an ICMP
// error about one.
func (r *Router) find(f *packet.Frame, k packet.Tuple, d *packet.Decision) bool {
	if isOtherICMP(f) {
		return isError(f) && r.findQuoted(f, d)
	}
	flow, ok := r.flows.Find(f.Network, &k, f.Time, tcpFlags(f))
	if ok {
		d.NAT = r.flows.Translation(flow)
	}
	return ok
}

// findQuoted finds the flow an ICMP error is about (RFC 5508 REQ-3 to REQ-6). A
// container speaks of what was sent to it: else one could end the connections of
// another, in our name.
func (r *Router) findQuoted(f *packet.Frame, d *packet.Decision) bool {
	about, ok := f.Quoted()
	if !ok {
		return false
	}
	if g := r.plugs.Load().gateway(f.Network); g != nil && !g.unguarded && f.Tuple().Src != about.Dst {
		return false
	}
	k := about.Reverse()
	flow, ok := r.flows.Find(f.Network, &k, f.Time, 0)
	if !ok {
		return false
	}
	t := r.flows.Translation(flow)
	t.Quoted, t.Before, t.After = true, t.Before.Reverse(), t.After.Reverse()
	d.NAT = t
	return true
}

// begin plans the flow of a packet that begins one, has a fragment wait for the
// first one of its datagram, or refuses the packet.
func (r *Router) begin(f *packet.Frame, k packet.Tuple, complete bool, d *packet.Decision) bool {
	switch {
	case !complete:
		r.await(f, d)
		return false
	case isError(f):
		d.RefuseCopy(packet.BadQuote) // no error is sent about an error
		return false
	case isOtherICMP(f):
		d.RefuseCopy(packet.NotTranslatable)
		return false
	case !begins(f, k):
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
		d.EndAtGateway() // an address of ours with nothing behind it: ours to answer
		d.Originate = packet.OriginEchoReply
	default:
		r.refuse(f, d, reason, answerTo(reason, f))
	}
	return false
}

// await has a later fragment wait for the first one.
func (r *Router) await(f *packet.Frame, d *packet.Decision) {
	switch {
	case f.Flags.Has(packet.Resumed):
		d.RefuseCopy(packet.FragmentOrphan)
	case d.Verdict != packet.Flood:
		d.Verdict, d.Reason, d.HoldKey = packet.Hold, packet.FirstFragment, r.fragments.Key(f.Network, f)
	}
}

// planLocked plans a flow by where its first packet came in.
func (r *Router) planLocked(f *packet.Frame, k packet.Tuple) (nat.Plan, packet.Reason) {
	p := r.plugs.Load()
	if g := p.gateway(f.Network); g != nil {
		if g.isHost(f.Port) {
			return g.planHostLocked(f, k)
		}
		return g.planLocked(f.Container, k)
	}
	if p.uplink(f.Network) != nil {
		return r.flows.PlanIn(f.Network, k)
	}
	return nat.Plan{}, packet.NoRoute // unplugged just now
}

// commit makes the flow that was planned for a packet. The plan is made again:
// another worker may have taken its port meanwhile. If by now another way is
// right, because rules or uplinks were changed, there is none for this packet:
// all else was decided for the way it had.
func (r *Router) commit(f *packet.Frame, d *packet.Decision, out packet.Out) packet.Reason {
	r.mu.Lock()
	plan, reason := r.planLocked(f, d.NAT.Before)
	if reason == packet.OK && (plan.Out != d.NAT.Out || plan.After.Dst != d.NAT.After.Dst) {
		reason = packet.NoRoute
	}
	if reason == packet.OK {
		var flow nat.Flow
		if flow, reason = r.flows.Commit(plan, f.Time); reason == packet.OK {
			d.NAT = r.flows.Translation(flow)
			d.NAT.New = true
			r.syns.Cancel(d.NAT.Out, d.NAT.After)
		}
	}
	r.mu.Unlock()
	r.recycle(recycleAt)
	r.wake(f.Time, f.Time+expireEvery, out)
	return reason
}

// firstFragment takes down the ports of a datagram whose first fragment is
// about to be passed on or answered, and has the others go on.
func (r *Router) firstFragment(f *packet.Frame, out packet.Out) {
	r.mu.Lock()
	r.fragments.Learn(f.Network, f, f.Time)
	key := r.fragments.Key(f.Network, f)
	r.mu.Unlock()
	out.Resume(key)
}

// unsolicited takes down a SYN from outside that met a port in use by somebody
// else. It is answered later, if nothing has come of it (RFC 5382 REQ-4).
func (r *Router) unsolicited(f *packet.Frame, out packet.Out) {
	r.mu.Lock()
	r.syns.Add(f, f.Time)
	next, _ := r.syns.Next()
	r.mu.Unlock()
	r.wake(f.Time, next, out)
}

// wake has tick called at a time or sooner, by whichever gateway does that.
// Most calls find that it will be: to wake another worker costs a system call,
// which is much for each new flow.
func (r *Router) wake(now, at int64, out packet.Out) {
	r.mu.Lock()
	n := r.ticking
	if at == 0 || now < r.due && r.due <= at {
		n = 0
	}
	if n != 0 {
		r.due = at
	}
	r.mu.Unlock()
	if n != 0 {
		out.Wake(n, at)
	}
}

// tick ends flows whose time is up and answers SYNs that nothing came of. It
// returns when it is to be called again; 0 is when something happens first.
func (r *Router) tick(now int64, out packet.Out) (next int64) {
	r.mu.Lock()
	r.syns.Due(now, func(f *packet.Frame) {
		n := icmpError(f, out.Room(), r.self(f, packet.OriginPortUnreachable), packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0)
		out.Originate(packet.Place{Network: f.Network, Port: f.Port}, n)
	})
	if r.flows.Expire(now, expireAtOnce) {
		next = now + 1 // the rest in the next turn
	} else if _, waiting := r.syns.Next(); waiting || r.flows.Stats().Flows > 0 {
		next = now + expireEvery
	}
	r.due = next
	r.mu.Unlock()
	r.recycle(1)
	return next
}

// recycle has the records of flows that ended used again, if there are so many,
// once no worker can be looking at them.
func (r *Router) recycle(least int) {
	r.mu.Lock()
	ended := r.flows.Retired()
	again := !r.recycling && ended >= least
	r.recycling = r.recycling || again
	r.mu.Unlock()
	if !again {
		return
	}
	r.grace(func() {
		r.mu.Lock()
		r.recycling = false
		r.flows.Recycle(ended)
		r.mu.Unlock()
		r.recycle(recycleAt) // what ended meanwhile
	})
}
