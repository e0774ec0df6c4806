package api

// HostLinkRequest travels with the descriptor of POST /v1/networks/{name}/host-link.
type HostLinkRequest struct {
	Interface string `json:"interface"` // its name
	Index     int    `json:"index"`
}

// HostPort stands for a container at the port of the host's own link.
const HostPort = "(host)"
