package network

import (
	"net/netip"

	"fairlead/packet"
	vswitch "fairlead/switch"
	"fairlead/uplink"
	"fairlead/uplink/sockets"
)

// SocketsConfig says what the uplink by host sockets is.
type SocketsConfig struct {
	Name string // what people call it
	// Containers bounds the descriptors of one container, Total those of all.
	// Zero is no bound.
	Containers, Total int
	// Shares is among how many containers half of Total is shared out.
	Shares int
	// NoPeekOffset and NoUDPOffload have it get on as on older kernels.
	NoPeekOffset, NoUDPOffload bool
}

// socketsHome is the worker that reads the sockets' port, and so all sockets.
const socketsHome = 0

// AddSockets makes host sockets a way out, which networks may then use. A router
// has one such uplink.
func (r *Router) AddSockets(conf SocketsConfig) (*Uplink, error) {
	return r.addUplink(UplinkConfig{Name: conf.Name}, func(id packet.NetworkID) (end, vswitch.Queue, error) {
		s := sockets.New(sockets.Config{
			Network: id, Name: conf.Name, Worker: r.lanes.Worker(socketsHome),
			Containers: conf.Containers, Total: conf.Total, Shares: conf.Shares, Joins: r.lanes.Joins,
			NoPeekOffset: conf.NoPeekOffset, NoUDPOffload: conf.NoUDPOffload,
		}, inbound{r.rt.Inbound(id), r, id})
		return socketsEnd{s}, s, nil
	})
}

// A socketsEnd is host sockets as the far end of an uplink.
type socketsEnd struct{ *sockets.Sockets }

// State has nothing to tell but the address.
func (e socketsEnd) State(int64) uplink.State {
	return uplink.State{Addr: netip.PrefixFrom(e.Addr().Netip(), 32), MTU: e.MTU()}
}

// Stop has nothing to give back: sockets are closed with their port.
func (e socketsEnd) Stop() <-chan struct{} {
	released := make(chan struct{})
	close(released)
	return released
}
