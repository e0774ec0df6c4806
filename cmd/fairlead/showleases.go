package main

import (
	"io"
	"time"

	"fairlead/node/api"
)

// leasesTable lists the addresses DHCP has lent, as dnsmasq's file of leases does,
// and to whom.
func leasesTable(out io.Writer, leases []api.Lease, now time.Time) error {
	t := newTable(out, "network", "ip", "mac", "container", "hostname", "client id", "kind", "state", "expires in")
	for _, l := range leases {
		left := "never"
		if l.Expires != nil {
			left = max(0, l.Expires.Sub(now)).Round(time.Second).String()
		}
		t.row(l.Network, l.IP, dash(l.MAC), dash(l.Container), dash(l.Hostname), dash(l.ClientID), l.Kind, l.State, left)
	}
	return t.end()
}
