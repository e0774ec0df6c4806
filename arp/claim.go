package arp

import (
	"time"

	"fairlead/packet"
)

// Times of RFC 5227. The RFC's are 1 to 2 s between probes and 2 s after the
// last; here they are 100 ms, so that an uplink is up in 300 ms and not in 7 s.
// It costs certainty against stations that take longer to answer ARP: behind a
// bridge port that is still learning, or asleep. Such a conflict is noticed
// later, by the announcements, as RFC 5227 2.4 has it.
const (
	probeNum      = 3
	probeEvery    = int64(100 * time.Millisecond)
	announceNum   = 2
	announceEvery = int64(2 * time.Second)
	defendEvery   = int64(10 * time.Second)
	retryAfter    = int64(time.Minute) // RATE_LIMIT_INTERVAL
)

// A ClaimState says how far an address is ours.
type ClaimState uint8

const (
	Unclaimed   ClaimState = iota
	Probing                // asked for, nobody has answered so far; not to be used
	Claimed                // ours: to be used, announced and defended
	Conflicting            // somebody else's; probed again after a minute
)

var claimNames = [...]string{"unclaimed", "probing", "claimed", "conflict"}

func (s ClaimState) String() string {
	if int(s) >= len(claimNames) {
		return "?"
	}
	return claimNames[s]
}

// A Claim is the way of one address to be ours, and how it stays so: address
// conflict detection of RFC 5227. In use it is never given up (2.4 c): we are a
// router, and others rely on the address. The zero Claim is of no address.
type Claim struct {
	addr  [4]byte
	mac   packet.MAC
	state ClaimState
	sent  int   // probes or announcements
	due   int64 // of the next step; 0 when there is none

	rival    packet.MAC // who else uses the address
	rivalAt  int64
	defended int64 // when we last did; 0 is never
}

// Start begins anew with an address; what was before is forgotten.
func (c *Claim) Start(now int64, addr [4]byte, mac packet.MAC) {
	*c = Claim{addr: addr, mac: mac, state: Probing, due: now}
}

// Hold begins with an address that is ours already: it is announced, not probed for.
func (c *Claim) Hold(now int64, addr [4]byte, mac packet.MAC) {
	*c = Claim{addr: addr, mac: mac, state: Claimed, due: now}
}

// Stop gives the address up.
func (c *Claim) Stop() { *c = Claim{} }

// Addr is the address, claimed or not.
func (c *Claim) Addr() [4]byte { return c.addr }

// State is how far the address is ours.
func (c *Claim) State() ClaimState { return c.state }

// Rival is who else was heard to use the address within the last minute.
func (c *Claim) Rival(now int64) (mac packet.MAC, ok bool) {
	return c.rival, c.rival != packet.MAC{} && now-c.rivalAt <= retryAfter
}

// Tick takes the next step when it is due. It returns whether a request is to be
// sent with sender as its sender (see Request), and when it is due again, zero
// for never.
func (c *Claim) Tick(now int64) (send bool, sender [4]byte, next int64) {
	if c.due == 0 || now < c.due {
		return false, sender, c.due
	}
	if c.state == Conflicting {
		c.state, c.sent = Probing, 0
	}
	if c.state == Probing && c.sent == probeNum {
		c.state, c.sent = Claimed, 0
	}
	c.sent++
	if c.state == Probing {
		c.due = now + probeEvery
		return true, [4]byte{}, c.due
	}
	c.due = now + announceEvery
	if c.sent >= announceNum {
		c.due = 0
	}
	return true, c.addr, c.due
}

// Heard looks at an ARP packet of the segment. When another station uses the
// address or probes for it, Heard takes the consequence: an address that is being
// probed for is lost; one in use is announced once more, at most every ten
// seconds, which the next Tick does. It returns whether Tick is to be called, or
// the state is another.
func (c *Claim) Heard(now int64, a packet.ARP) bool {
	if !c.Concerns(a) {
		return false
	}
	c.rival, c.rivalAt = a.SenderMAC(), now
	switch {
	case c.state == Probing:
		c.state, c.due = Conflicting, now+retryAfter
		return true
	case c.state == Claimed && (c.defended == 0 || now-c.defended >= defendEvery):
		c.defended, c.due, c.sent = now, now, announceNum-1
		return true
	}
	return false
}

// Concerns reports whether Heard would make anything of the packet: it comes
// from another station, and says it has the address, or wants it as we do. To a
// probe for an address in use the answer that it is taken is defence enough.
func (c *Claim) Concerns(a packet.ARP) bool {
	if c.state == Unclaimed || a.SenderMAC() == c.mac || a.SenderMAC().IsGroup() {
		return false
	}
	probe := a.SenderIP() == [4]byte{} && a.Op() == packet.ARPRequest && a.TargetIP() == c.addr
	return a.SenderIP() == c.addr || probe && c.state == Probing
}
