package api

import "time"

// Lease is one line of GET /v1/leases: an address a network's DHCP server has lent,
// or is about to.
type Lease struct {
	Network  string `json:"network"`
	IP       string `json:"ip"`
	MAC      string `json:"mac,omitempty"`
	ClientID string `json:"client_id,omitempty"` // hexadecimal, of who does not go by its MAC
	Hostname string `json:"hostname,omitempty"`  // what the station calls itself

	// Container is the one behind whose port the station is; missing when that is
	// none's.
	Container string `json:"container,omitempty"`

	// Kind says whose address it is: container (it has it without DHCP as well),
	// reserved or dynamic.
	Kind string `json:"kind"`
	// State: probing (who else has it?), offered, bound, or declined: somebody has it
	// who did not get it here.
	State   string     `json:"state"`
	Expires *time.Time `json:"expires,omitempty"` // missing: it does not
}
