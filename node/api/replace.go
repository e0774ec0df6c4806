package api

// What the node that runs and the one that takes its place say to one another, on an
// upgraded POST /v1/replace, in turns:
//
//	new → old   Replace
//	old → new   Handed, with descriptors, again and again until Last
//	new → old   Done after each
//	old → new   what the descriptors are of: Last.Text bytes of JSON
//	new → old   Done once it is all that; from here on traffic stands still
//	old → new   Handed, with descriptors of connections, until Last
//	new → old   Done after each
//	old → new   what the connections are: Last.Text bytes of JSON
//	old → new   flows: lots of four bytes of their number and as many records of
//	            Last.Flow bytes, and an empty lot
//	new → old   Done once everything works
//	old → new   Done: nobody uses them any more but the new node
//
// An error of either side, or its silence, ends it before that, and the old node goes on.
// The two may be of different versions, so what either does not know is passed over, and
// every Handed says its version before anything of it is believed.

// Replace is the first message.
type Replace struct {
	Version string `json:"version"` // of the program, for the log
}

// Handed are descriptors, at most eight in one message, and what they are.
type Handed struct {
	Error   string  `json:"error,omitempty"`   // the old node goes on
	Version int     `json:"version,omitempty"` // of what is handed over
	Program string  `json:"program,omitempty"` // what it is handed over by
	Items   []Thing `json:"items,omitempty"`
	// Of the last one: the bytes of the JSON and of a flow.
	Last bool `json:"last,omitempty"`
	Text int  `json:"text,omitempty"`
	Flow int  `json:"flow,omitempty"`
}

// A Thing is what a descriptor is: Kind says of what sort, Of whose it is and Which
// the one of several.
type Thing struct {
	Kind  string `json:"kind"`
	Of    string `json:"of,omitempty"`
	Which string `json:"which,omitempty"`
}
