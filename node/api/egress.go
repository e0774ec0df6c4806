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
