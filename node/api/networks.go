package api

import "time"

// NetworkCreate is the body of POST /v1/networks. What is missing the node
// chooses, as Docker does.
type NetworkCreate struct {
	Name   string `json:"name"`
	Driver string `json:"driver,omitempty"` // bridge, which is all there is

	Subnet       string            `json:"subnet,omitempty"`        // 172.30.0.0/16; empty is the next free pool
	Gateway      string            `json:"gateway,omitempty"`       // empty is the first address
	IPRange      string            `json:"ip_range,omitempty"`      // where addresses of containers are taken from
	AuxAddresses map[string]string `json:"aux_addresses,omitempty"` // kept from containers, by the name of who has it

	Internal bool              `json:"internal,omitempty"` // no way out, and no default route
	Options  map[string]string `json:"options,omitempty"`  // as `--opt` has them; Docker's names too
	Labels   map[string]string `json:"labels,omitempty"`

	// As in NetworkRequest.
	Egress       *Egress `json:"egress,omitempty"`
	HostLoopback *bool   `json:"host_loopback,omitempty"`
}

// NetworkCreated answers POST /v1/networks.
type NetworkCreated struct {
	ID string `json:"id"`
}

// NetworkRequest is the body of POST /v1/networks/{name}: what is to change of a
// network, while it is used. What is missing stays as it is.
type NetworkRequest struct {
	Egress *Egress `json:"egress,omitempty"`
	// HostLoopback has containers reach services of the host's loopback, at the
	// gateway's address.
	HostLoopback *bool `json:"host_loopback,omitempty"`
	Internal     *bool `json:"internal,omitempty"`
	// Options are those that can change while a network is used.
	Options map[string]string `json:"options,omitempty"`
	// Labels stand for all it has.
	Labels map[string]string `json:"labels,omitzero"`
	// Check has it only said whether the rest could be done.
	Check bool `json:"check,omitempty"`
}

// NetworkChanged answers POST /v1/networks/{name}.
type NetworkChanged struct {
	Warnings []string `json:"warnings,omitempty"` // about containers that do not follow
}

// NetworkInspect is one network: an element of GET /v1/networks, and the answer
// of GET /v1/networks/{name}, in the shape of `docker network inspect`.
type NetworkInspect struct {
	Name       string
	ID         string `json:"Id"`
	Created    time.Time
	Scope      string // local
	Driver     string // bridge
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       NetworkIPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom NetworkConfigFrom
	ConfigOnly bool
	Containers map[string]NetworkContainer // by id
	Options    map[string]string
	Labels     map[string]string

	// What Docker has not.
	Egress       string
	HostLoopback bool
	Uplinks      []string // ways out, in the order they are tried
}

// NetworkIPAM is docker network inspect's IPAM.
type NetworkIPAM struct {
	Driver  string
	Options map[string]string
	Config  []NetworkIPAMConfig
}

// NetworkIPAMConfig is one subnet of a network.
type NetworkIPAMConfig struct {
	Subnet             string
	IPRange            string `json:",omitempty"`
	Gateway            string
	AuxiliaryAddresses map[string]string `json:",omitempty"`
}

// NetworkConfigFrom is docker network inspect's ConfigFrom, always empty here.
type NetworkConfigFrom struct{ Network string }

// NetworkContainer is a container on a network.
type NetworkContainer struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string // with the length of the subnet
	IPv6Address string
}

// EndpointRequest says how a container is to be connected to a network. What is
// missing the node chooses.
type EndpointRequest struct {
	Network   string   `json:"network"`
	IP        string   `json:"ip,omitempty"`
	MAC       string   `json:"mac,omitempty"`
	Interface string   `json:"interface,omitempty"` // its name inside: eth0, or the next one that is free
	Aliases   []string `json:"aliases,omitempty"`   // further names on this network
	Links     []string `json:"links,omitempty"`     // NAME:ALIAS: what this container alone calls others
	// Priority elects the default route: the network with the highest has it.
	Priority int      `json:"priority,omitempty"`
	Routes   []string `json:"routes,omitempty"` // SUBNET@ROUTER; see ParseRoute
	DHCP     bool     `json:"dhcp,omitempty"`   // its address is asked for on the network
	// Options of the link: offload=off, isolated=on, link=veth, vlan=10, trunk=10,20.
	Options map[string]string `json:"options,omitempty"`
}

// ConnectRequest is the body of POST /v1/networks/{name}/connect, which connects
// a container that runs. The network may be missing from Endpoint.
type ConnectRequest struct {
	Container string          `json:"container"`
	Endpoint  EndpointRequest `json:"endpoint"`
}

// DisconnectRequest is the body of POST /v1/networks/{name}/disconnect.
type DisconnectRequest struct {
	// Container is one, or the target it was connected by: netns:PATH, pid:N,
	// if:NAME, veth:NAME.
	Container string `json:"container"`
	// Netns is the inode of the namespace such a target is; 0 goes by the words.
	Netns uint64 `json:"netns,omitempty"`
	// Force is for one that does not answer: its link is closed on our side, and
	// what becomes of its interface is its own affair.
	Force bool `json:"force,omitempty"`
}
