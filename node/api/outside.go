package api

import "time"

// UplinkRequest is the first message on an upgraded POST /v1/uplinks. With it
// travels the link: the descriptor of a TAP or of a packet socket, which the
// client had the right to open.
type UplinkRequest struct {
	Network string `json:"network,omitempty"` // empty: the default network
	Spec    string `json:"spec"`              // as `--uplink` has it
	// MAC is the uplink's own on its segment: what the client has opened the
	// link for.
	MAC string `json:"mac"`
	// MTU is that of the device, which may be in a namespace the node does not
	// see; 0 is unknown.
	MTU int `json:"mtu,omitempty"`
}

// Uplink is one line of GET /v1/uplinks.
type Uplink struct {
	Name    string `json:"name"` // of the device
	Network string `json:"network"`
	Kind    string `json:"kind"` // tap, if
	Spec    string `json:"spec"` // as `--uplink` has it
	// Address is its own, with the length of the subnet; it has none while it
	// has no lease.
	Address   string   `json:"address,omitempty"`
	Gateway   string   `json:"gateway,omitempty"`
	MAC       string   `json:"mac"`
	MTU       int      `json:"mtu"`
	Addresses []string `json:"addresses,omitempty"` // further ones, for 1:1
	// State is up, no-address, or down: its device has gone.
	State string `json:"state"`
	// Since is when it came to that state.
	Since time.Time `json:"since"`
	// Why is what keeps it from being used as it should, empty when nothing does.
	Why string `json:"why,omitempty"`
	// Counts are in frames read from and written to its link.
	Counts Counts `json:"counts"`
}

// UplinksCheck is the body of POST /v1/uplinks/check: the ways out a network is
// to have, before others are removed for them.
type UplinksCheck struct {
	Network string   `json:"network,omitempty"` // empty: the default network
	Specs   []string `json:"specs,omitempty"`   // as `--uplink` has them
	Only    bool     `json:"only,omitempty"`    // all others are to go
}

// UplinksChecked is what would be lost with that.
type UplinksChecked struct {
	Lost []OwnAddress `json:"lost"` // what no uplink would have any more
}

// OwnAddress is an uplink's address that is a container's own (1:1 NAT).
type OwnAddress struct {
	Container string `json:"container"`
	Address   string `json:"address"`
}

// PublishRequest is the body of POST /v1/containers/ID/ports.
type PublishRequest struct {
	Publish []string `json:"publish,omitempty"` // as `-p` has it
	// Address is an uplink's that becomes the container's own (1:1 NAT).
	Address string `json:"address,omitempty"`
}

// Ports answers requests for /v1/containers/ID/ports: a container's ports, or
// those that were just published or withdrawn.
type Ports struct {
	Published []PublishedPort `json:"published"`
	Addresses []string        `json:"addresses"` // outside addresses of its own
	// Lost are those of them that no uplink has now.
	Lost    []string `json:"lost,omitempty"`
	Exposed []string `json:"exposed"` // as 80/tcp
	// Nowhere says that no network of the container leads outside, so that nobody
	// comes by what is published.
	Nowhere bool `json:"nowhere,omitempty"`
	// Listeners are the sockets that wait for somebody inside. Of a namespace
	// somebody else made they are not known.
	Listeners      []Listener `json:"listeners"`
	ListenersKnown bool       `json:"listeners_known"`
}

// PublishedPort is a container's port that is reached from outside.
type PublishedPort struct {
	Proto    string `json:"proto"` // tcp, udp
	Port     uint16 `json:"port"`  // inside
	HostIP   string `json:"host_ip"`
	HostPort uint16 `json:"host_port"`
	// Reached are the addresses it is reached at: of uplinks, if HostIP is 0.0.0.0.
	Reached []string `json:"reached"`
}

// Listener is a socket inside a container that waits for connections, or for
// datagrams from anybody.
type Listener struct {
	Proto   string `json:"proto"` // tcp, udp
	Address string `json:"address"`
	Port    uint16 `json:"port"`
}
