package api

// Egress says where containers may open connections to.
type Egress struct {
	// Spec is what --egress says: all, none, internet, or allow:FILE.
	Spec string `json:"spec"`
	// Text is what the file holds, which the caller has read: it need not be one
	// the node can.
	Text string `json:"text,omitempty"`
}

// ListenerRequest is the message on an upgraded POST /v1/listeners. With it
// travels one bound socket, which says by itself what it is.
type ListenerRequest struct{}

// NetworkRequest is the body of POST /v1/networks/NAME: what is to change of a
// network, while it is used. What is missing stays as it is.
type NetworkRequest struct {
	Egress *Egress `json:"egress,omitempty"`
	// HostLoopback has containers reach services of the host's loopback, at the
	// gateway's address.
	HostLoopback *bool `json:"host_loopback,omitempty"`
}
