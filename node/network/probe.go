package network

import (
	"net/netip"
	"time"
)

// Probe asks on the uplink's segment for addresses that are not the uplink's, and
// returns who has one of them; nil when nobody answers.
func (u *Uplink) Probe(addrs []netip.Addr) error {
	if u.raw == nil || len(addrs) == 0 {
		return nil
	}
	told := make([]<-chan error, len(addrs))
	for i, a := range addrs {
		told[i] = u.raw.Probe(a)
	}
	u.sw.Wake()
	late := time.After(readyWait)
	for _, c := range told {
		select {
		case err := <-c:
			if err != nil {
				return err
			}
		case <-late: // its link is down; the claim will tell
			return nil
		}
	}
	return nil
}
