package network

import (
	"errors"
	"fmt"

	"fairlead/packet"
	vswitch "fairlead/switch"
)

// LinkHost gives the host a port of its own, with the gateway's MAC and address,
// and raises the carrier of its link. The queue is the network's in every case:
// after an error it is closed.
func (n *Network) LinkHost(name string, queue vswitch.Queue, lost func(p *vswitch.Port, err error)) (*vswitch.Port, error) {
	port, err := n.sw.AddPort(vswitch.PortConfig{
		Name: name, Container: packet.Host, Queue: queue, Host: true,
		FloodLimit: n.conf.Options.FloodLimit, Worker: n.router.lanes.Home(packet.Host), Lost: lost,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network %s: %w", n.conf.Name, err), queue.Close())
	}
	n.gw.SetHost(port.ID())
	if q, ok := queue.(interface{ SetCarrier(bool) error }); ok {
		if err := q.SetCarrier(true); err != nil {
			n.sw.RemovePort(port, nil)
			return nil, fmt.Errorf("network %s: raise the carrier of %s: %w", n.conf.Name, name, err)
		}
	}
	return port, nil
}

// UnlinkHost takes the host's port off the network, and closes its link.
func (n *Network) UnlinkHost(port *vswitch.Port) { n.sw.RemovePort(port, nil) }
