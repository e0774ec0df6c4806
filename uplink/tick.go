package uplink

import (
	"net/netip"
	"slices"

	"fairlead/arp"
	"fairlead/dhcp"
	"fairlead/packet"
)

// An agenda is what a Tick found due. It is collected under the mutex and
// carried out without.
type agenda struct {
	message *dhcp.Message
	server  packet.MAC // of the message, when it is not for everybody
	claims  []arpRequest
	ask     [][4]byte
	failed  [][4]byte
	gone    []packet.Addr
	next    int64
	stopped chan struct{}
}

// An arpRequest is a probe or an announcement.
type arpRequest struct{ sender, target [4]byte }

// at has the next Tick come at a time or sooner; zero is never.
func (a *agenda) at(due int64) {
	if due != 0 && (a.next == 0 || due < a.next) {
		a.next = due
	}
}

// Tick does what is due. See vswitch.Gateway.
func (u *Raw) Tick(now int64, out packet.Out) {
	var a agenda
	u.mu.Lock()
	u.startLocked(now)
	u.leaseLocked(now, &a)
	u.claimsLocked(now, &a)
	u.probesLocked(now, &a)
	a.at(u.neighbours.Tick(now,
		func(addr [4]byte) { a.ask = append(a.ask, addr) },
		func(addr [4]byte) { a.failed = append(a.failed, addr) }))
	u.publishLocked(&a)
	a.stopped, u.stopping = u.stopping, nil
	ready := u.isReadyLocked()
	u.mu.Unlock()

	if a.message != nil {
		u.originate(datagram(out.Room(), u.conf.MAC, a.server, a.message), out)
	}
	for _, r := range a.claims {
		u.originate(arp.Request(out.Room(), u.conf.MAC, r.sender, r.target), out)
	}
	for _, addr := range a.ask {
		u.ask(addr, out)
	}
	for _, addr := range a.failed {
		out.Resume(packet.ARPKey(u.conf.Network, addr))
	}
	if in, ok := u.inbound.(interface{ AddressGone(packet.Addr) }); ok {
		for _, addr := range a.gone {
			in.AddressGone(addr)
		}
	}
	if a.next != 0 {
		out.Wake(u.conf.Network, a.next)
	}
	if a.stopped != nil {
		close(a.stopped)
	}
	if ready {
		u.readyOnce.Do(func() { close(u.ready) })
	}
}

// isReadyLocked is true from when it is known of each address whether it is
// ours.
func (u *Raw) isReadyLocked() bool {
	for i := range u.claims {
		if s := u.claims[i].State(); s == arp.Probing || s == arp.Unclaimed {
			return false
		}
	}
	return true
}

// startLocked is the first Tick's.
func (u *Raw) startLocked(now int64) {
	if u.started {
		return
	}
	u.started, u.without = true, now
	begin := (*arp.Claim).Start
	if u.conf.Held {
		begin = (*arp.Claim).Hold
	}
	if u.client != nil {
		u.client.Start(now)
	} else {
		begin(&u.claims[0], now, u.conf.Addr.Addr().As4(), u.conf.MAC)
	}
	for i, extra := range u.conf.Extra {
		begin(&u.claims[1+i], now, extra.As4(), u.conf.MAC)
	}
}

// leaseLocked lets the DHCP client do what is due, and the claim of the main
// address follow its lease.
func (u *Raw) leaseLocked(now int64, a *agenda) {
	if u.client == nil {
		return
	}
	if rival, ok := u.claims[0].Rival(now); ok && u.claims[0].State() == arp.Conflicting {
		u.declined = conflict{addr: netip.AddrFrom4(u.claims[0].Addr()), mac: rival, at: now}
		u.client.Decline(now)
	}
	if u.stopping != nil {
		u.client.Stop(now)
	}
	var due int64
	a.message, due = u.client.Next(now)
	a.server = u.server
	a.at(due)

	lease, old := u.client.Lease(), u.lease
	u.lease = lease
	if lease.Addr == old.Addr {
		return
	}
	u.neighbours, u.without = arp.NewTableOf(maxNeighbours), now
	if lease.Addr.IsValid() && !u.avoids(lease.Addr) {
		u.claims[0].Start(now, lease.Addr.Addr().As4(), u.conf.MAC)
	} else {
		u.claims[0].Stop()
	}
}

// avoids reports whether a subnet is one we have already.
func (u *Raw) avoids(p netip.Prefix) bool { return slices.ContainsFunc(u.conf.Avoid, p.Overlaps) }

// claimsLocked probes for addresses, announces and defends them.
func (u *Raw) claimsLocked(now int64, a *agenda) {
	for i := range u.claims {
		send, sender, due := u.claims[i].Tick(now)
		if send {
			a.claims = append(a.claims, arpRequest{sender, u.claims[i].Addr()})
		}
		a.at(due)
	}
}

// probesLocked asks for addresses that are not to be ours yet: their claims end
// where others begin to announce.
func (u *Raw) probesLocked(now int64, a *agenda) {
	u.probes = slices.DeleteFunc(u.probes, func(p *probe) bool {
		if p.claim.State() == arp.Unclaimed {
			p.claim.Start(now, p.addr.As4(), u.conf.MAC)
		}
		send, sender, due := p.claim.Tick(now)
		switch p.claim.State() {
		case arp.Claimed:
			p.told <- nil
			return true
		case arp.Conflicting:
			rival, _ := p.claim.Rival(now)
			p.told <- inUse(p.addr, rival)
			return true
		}
		if send {
			a.claims = append(a.claims, arpRequest{sender, p.claim.Addr()})
		}
		a.at(due)
		return false
	})
}

// publishLocked forms the facts packets are decided by from now on. An address
// is ours once it is claimed, not while it is probed for (RFC 5227 2.1).
func (u *Raw) publishLocked(a *agenda) {
	k, old := &facts{mtu: u.conf.MTU}, u.facts.Load()
	for i := range u.claims {
		if u.claims[i].State() == arp.Claimed {
			k.owned = append(k.owned, packet.AddrFrom4(u.claims[i].Addr()))
		}
	}
	if u.lease.MTU != 0 {
		k.mtu = min(k.mtu, u.lease.MTU)
	}
	if u.claims[0].State() == arp.Claimed {
		prefix, router := u.conf.Addr, u.conf.Gateway
		if u.client != nil {
			prefix, router = u.lease.Addr, u.lease.Router
		}
		k.addr, k.subnet, k.nextHop = packet.AddrFromNetip(prefix.Addr()), prefix.Masked(), packet.AddrFromNetip(router)
	}
	u.facts.Store(k)
	for _, addr := range old.owned {
		if !slices.Contains(k.owned, addr) {
			a.gone = append(a.gone, addr)
		}
	}
}

// Stop has the next Tick give a lease back, and returns what is closed when it
// has. Whoever closes the uplink's port calls it, wakes the switch and waits a
// moment.
func (u *Raw) Stop() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	stopped := make(chan struct{})
	if u.stopping != nil || u.client == nil || !u.started {
		close(stopped)
		return stopped
	}
	u.stopping = stopped
	return stopped
}

// everybody is the limited broadcast address.
var everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// datagram writes a frame with a DHCP client's message into buf. A message to a
// server goes to the station the lease came from, the server itself or a relay
// that is a router: both take it where it belongs. So no next hop has to be
// asked for.
func datagram(buf []byte, src, server packet.MAC, m *dhcp.Message) int {
	const headers = packet.VNetLen + packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen
	n := headers + len(m.Payload)
	clear(buf[:headers])
	ether := packet.Ethernet(buf[packet.VNetLen:n])
	ether.SetDst(server)
	if m.Dst == everybody {
		ether.SetDst(packet.BroadcastMAC)
	}
	ether.SetSrc(src)
	ether.SetType(packet.EtherTypeIPv4)

	ip := packet.IPv4(ether[packet.EthernetLen:])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTotalLen(len(ip))
	ip.SetTTL(64)
	ip.SetProto(packet.ProtoUDP)
	ip.SetSrc(m.Src.As4())
	ip.SetDst(m.Dst.As4())
	ip.UpdateChecksum()

	udp := packet.UDP(ip[packet.IPv4MinLen:])
	udp.SetSrcPort(dhcp.ClientPort)
	udp.SetDstPort(dhcp.ServerPort)
	udp.SetLen(len(udp))
	copy(udp[packet.UDPLen:], m.Payload)
	udp.UpdateChecksum(packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(udp)))
	return n
}
