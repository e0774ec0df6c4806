package api

// Values of UpRequest.Names beside ADDRESS and ADDRESS:PORT.
const (
	NamesOn  = "on" // the node chooses
	NamesOff = "off"
)

// Names answers GET /v1/names: what this host can ask for, and where.
type Names struct {
	Server  string   `json:"server"`  // ADDRESS:PORT, by UDP and TCP; empty: nowhere, see UpRequest
	Domain  string   `json:"domain"`  // what the names end in
	Reverse []string `json:"reverse"` // the zones of the addresses
	Names   []Name   `json:"names"`
}

// Name is a container on a network.
type Name struct {
	Name      string   `json:"name"` // the whole name
	Address   string   `json:"address"`
	Container string   `json:"container"`
	Network   string   `json:"network"`
	Aliases   []string `json:"aliases"` // other names on that network
}
