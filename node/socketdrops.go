package node

import (
	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/uplink/sockets"
)

// What sockets have altered or lost is no drop of the switch's: the frame was
// written to its port. It is listed beside the drops all the same, for whoever
// looks for what has become of a packet.

// A socketLoss is a counter of the sockets', in words.
type socketLoss struct {
	reason, direction string
	count             func(s *sockets.Stats) packet.Tally
	why, try          string
}

var socketLosses = []socketLoss{
	{"ip-options", "altered", func(s *sockets.Stats) packet.Tally { return s.Options },
		"Packets left without the IP options they had: a socket cannot send them.", "Where they matter, use an uplink that is a link."},
	{"udp-checksum-0", "altered", func(s *sockets.Stats) packet.Tally { return s.NoChecksum },
		"Datagrams without a checksum left with one: a socket always sums.",
		"Nothing: to the receiver they are as good; who has to leave it out takes an uplink that is a link."},
	{"damaged", "lost", func(s *sockets.Stats) packet.Tally { return s.Damaged },
		"Packets of containers had a wrong checksum, and did not leave.",
		"Look at the sender: a program that writes its own headers, with raw sockets or as a tunnel, has summed wrong."},
	{"overrun", "lost", func(s *sockets.Stats) packet.Tally { return s.Overrun },
		"Datagrams came faster than they were read, and the host dropped them.", "A larger net.core.rmem_max lets more of them wait."},
	{"datagram-too-large", "lost", func(s *sockets.Stats) packet.Tally { return s.Truncated },
		"Datagrams from outside were larger than IPv4 can say.",
		"Have the sender send datagrams of at most 65,507 bytes."},
	{"incomplete", "lost", func(s *sockets.Stats) packet.Tally { return s.Incomplete },
		"Datagrams of containers came in fragments, of which some were missing for too long or too many were on the way.", "Have the sender send smaller datagrams."},
	{"overlapping", "lost", func(s *sockets.Stats) packet.Tally { return s.Overlapping },
		"Datagrams of containers came in fragments that overlap, which only attackers send.",
		"Look at what runs in the container, with `fairlead trace`: no kernel sends such fragments."},
	{"unaccepted", "lost", func(s *sockets.Stats) packet.Tally { return s.Unaccepted },
		"Connections to published ports were reset, because the container had as many host sockets as it may, or no descriptor was left.", packet.SocketBudget.Try()},
}

// socketDrops lists what sockets have altered or lost.
func (n *Node) socketDrops() (list []api.Drop) {
	n.mu.Lock()
	way := n.hostWay
	n.mu.Unlock()
	stats := way.Sockets().Stats()
	for _, l := range socketLosses {
		if c := l.count(&stats); c.N > 0 {
			list = append(list, api.Drop{
				Network: way.Name(), Port: 1, Container: way.Name(),
				Reason: l.reason, Direction: l.direction, Count: c.N, Last: wallClock(c.Last), Why: l.why, Try: l.try,
			})
		}
	}
	return list
}
