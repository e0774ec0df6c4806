package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fairlead/arp"
	"fairlead/dhcp"
	"fairlead/packet"
)

// A State is what there is to show of an uplink.
type State struct {
	Addr       netip.Prefix // the zero Prefix while there is none
	Gateway    netip.Addr   // the zero Addr when there is none
	MTU        int
	Claims     []Claim // of all addresses: the main one first, then further ones
	DHCP       string  // the client's state, as RFC 2131 names it; empty without
	Lease      dhcp.Lease
	Neighbours []arp.Entry // by address
	Problem    error       // why it cannot be used as it should; nil when it can
}

// A Claim is how far one address is the uplink's.
type Claim struct {
	Addr  netip.Addr
	State arp.ClaimState
	Rival packet.MAC // who else was heard to use it in the last minute; zero is nobody
}

// State tells how the uplink is at a time of the workers' clock.
func (u *Raw) State(now int64) State {
	u.mu.Lock()
	k := u.facts.Load()
	s := State{MTU: k.mtu, Lease: u.lease, Neighbours: u.neighbours.Entries(now), Problem: u.problemLocked(now)}
	if k.addr != (packet.Addr{}) {
		s.Addr = netip.PrefixFrom(k.addr.Netip(), k.subnet.Bits())
	}
	if k.nextHop != (packet.Addr{}) {
		s.Gateway = k.nextHop.Netip()
	}
	if u.client != nil {
		s.DHCP = u.client.State().String()
	}
	for i := range u.claims {
		c := &u.claims[i]
		if c.State() == arp.Unclaimed {
			continue
		}
		rival, ok := c.Rival(now)
		if !ok {
			rival = packet.MAC{}
		}
		s.Claims = append(s.Claims, Claim{Addr: netip.AddrFrom4(c.Addr()), State: c.State(), Rival: rival})
	}
	u.mu.Unlock() // workers may be waiting
	slices.SortFunc(s.Neighbours, func(a, b arp.Entry) int { return bytes.Compare(a.Addr[:], b.Addr[:]) })
	return s
}

// patience is how long a DHCP server may be silent before that is a problem.
const patience = int64(4 * time.Second)

// inUse says that an address is somebody else's.
func inUse(addr netip.Addr, rival packet.MAC) error {
	return fmt.Errorf("%v is in use by %v; take it off there, or give the uplink another address: ip=ADDRESS/LENGTH", addr, rival)
}

// problemLocked is what a person should know first.
func (u *Raw) problemLocked(now int64) error {
	for i := range u.claims {
		c := &u.claims[i]
		addr := netip.AddrFrom4(c.Addr())
		rival, ok := c.Rival(now)
		switch {
		case !ok:
		case c.State() == arp.Claimed:
			return fmt.Errorf("%v is used by %v as well; take it off there, or give the uplink another address: ip=ADDRESS/LENGTH", addr, rival)
		case u.client == nil || i > 0:
			return inUse(addr, rival)
		}
	}
	k := u.facts.Load()
	if _, state := u.neighbours.Resolve(now, [4]byte(k.nextHop[12:])); state == arp.Failed {
		return fmt.Errorf("the router %v does not answer ARP; is it up, and gw=ADDRESS right?", k.nextHop)
	}
	switch {
	case u.client == nil:
		return nil
	case u.avoids(u.lease.Addr):
		return fmt.Errorf("the DHCP server lends %v, where a network of containers is; set that up elsewhere: `fairlead up --bip 10.88.0.1/16`", u.lease.Addr)
	case u.lease.Addr.IsValid():
		return nil
	case u.declined.at != 0 && now-u.declined.at < int64(time.Minute):
		return fmt.Errorf("%v, which the DHCP server lends, is in use by %v; another one is asked for", u.declined.addr, u.declined.mac)
	case u.started && now-u.without >= patience:
		return errors.New("no DHCP server answers; give the uplink an address: ip=ADDRESS/LENGTH,gw=ADDRESS")
	}
	return nil
}
