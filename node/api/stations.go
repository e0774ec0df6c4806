package api

import (
	"fmt"
	"net/netip"

	"fairlead/packet"
)

// MAC is one line of GET /v1/macs.
type MAC struct {
	Network   string  `json:"network"`
	VLAN      uint16  `json:"vlan,omitempty"`
	MAC       string  `json:"mac"`
	Port      int     `json:"port"` // 0 is the gateway
	Container string  `json:"container,omitempty"`
	Local     bool    `json:"local"`            // the gateway's own
	Static    bool    `json:"static,omitempty"` // it was added by hand
	Age       float64 `json:"age_seconds"`
}

// MACRequest is the body of POST /v1/macs: a station that is behind the port of a
// container, whatever is heard.
type MACRequest struct {
	Network   string `json:"network,omitempty"` // empty is the default network
	VLAN      uint16 `json:"vlan,omitempty"`
	MAC       string `json:"mac"`
	Container string `json:"container"` // name, id or the beginning of one
}

// Flushed answers DELETE /v1/macs.
type Flushed struct {
	MACs int `json:"macs"`
}

// Neighbour is one line of GET /v1/arp: the router's ARP tables, on networks
// and uplinks.
type Neighbour struct {
	Network   string  `json:"network"` // or uplink
	IP        string  `json:"ip"`
	MAC       string  `json:"mac,omitempty"` // empty until it has answered
	State     string  `json:"state"`         // in the words of ip neighbour
	Port      int     `json:"port"`
	Container string  `json:"container,omitempty"`
	Age       float64 `json:"age_seconds"`
}

// NeighbourRequest is the body of POST /v1/arp: an address that a station behind
// the port of a container has, whatever is heard.
type NeighbourRequest struct {
	Network   string `json:"network,omitempty"` // empty is the default network
	IP        string `json:"ip"`
	MAC       string `json:"mac"`
	Container string `json:"container"`
}

// NeighboursFlushed answers DELETE /v1/arp.
type NeighboursFlushed struct {
	Neighbours int `json:"neighbours"`
}

// ParseStation reads the MAC of one station.
func ParseStation(s string) (packet.MAC, error) {
	m, err := packet.ParseMAC(s)
	if err == nil && (m.IsGroup() || m.IsZero()) {
		err = fmt.Errorf("%s is not the MAC of one station: its first byte must be even, and not all be zero", s)
	}
	return m, err
}

// ParseNeighbour reads an IPv4 address.
func ParseNeighbour(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return a, fmt.Errorf("%q is not an IPv4 address such as 172.17.0.9", s)
	}
	return a, nil
}

// CheckVLAN refuses what is no VLAN; 0 is none.
func CheckVLAN(vlan uint16) error {
	if vlan > 4094 {
		return fmt.Errorf("%d is not a VLAN: those are from 1 to 4094 (IEEE 802.1Q)", vlan)
	}
	return nil
}
