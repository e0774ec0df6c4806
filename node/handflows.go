package node

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"fairlead/loop"
	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/uplink/sockets"
)

// Flows are handed over as they are met in one table and put into the other: there
// may be a quarter of a million, or millions where somebody has asked for it, and all
// stands still meanwhile.

// flowBytes is the size of one.
var flowBytes = binary.Size(nat.Saved{})

// flowsAtOnce is how many flows come in one lot.
const flowsAtOnce = 128

// handConnections sends those by this host's sockets that can be handed over. No worker
// runs.
func (n *Node) handConnections(s *sender) []sockets.Moving {
	list := n.hostWay.Sockets().Connections()
	for _, c := range list {
		s.send(c.FD, api.Thing{Kind: thingConnection, Of: fmt.Sprint(c.Flow)})
		s.took(1, connectionEach)
	}
	s.describe(list)
	return list
}

// handFlows sends the flows there are, and of those by this host's sockets those that
// are handed over. No worker runs, so after an error it looks at no more of them.
func (n *Node) handFlows(s *sender, connections []sockets.Moving) {
	goes := make(map[uint32]bool, len(connections))
	for _, c := range connections {
		goes[c.Flow] = true
	}
	lot, count := make([]byte, 4, 4+flowsAtOnce*flowBytes), uint32(0)
	send := func() {
		binary.LittleEndian.PutUint32(lot, count)
		s.write(lot)
		s.took(int(count), flowEach)
		lot, count = lot[:4], 0
	}
	n.router.Flows(func(t *nat.Table) {
		t.Save(loop.Clock(), func(number uint32) bool { return goes[number] }, func(f *nat.Saved) bool {
			lot, _ = binary.Append(lot, binary.LittleEndian, f) // it has a fixed size
			if count++; count == flowsAtOnce {
				send()
			}
			return s.err == nil
		})
	})
	if count > 0 {
		send()
	}
	send() // the last one is empty
}

// readFlows reads them, or why there are no more.
func readFlows(from io.Reader, each func(f *nat.Saved)) error {
	lot := make([]byte, flowsAtOnce*flowBytes)
	for {
		if _, err := io.ReadFull(from, lot[:4]); err != nil {
			return fmt.Errorf("read flows: %w", err)
		}
		count := binary.LittleEndian.Uint32(lot)
		switch {
		case count == 0:
			return nil
		case count > flowsAtOnce:
			if err := whyItGoesOn(lot[:4], from); err != nil { // no lot is as large as what a message begins with
				return err
			}
			return fmt.Errorf("read flows: %d in one lot, %d are the most", count, flowsAtOnce)
		}
		rest := lot[:int(count)*flowBytes]
		if _, err := io.ReadFull(from, rest); err != nil {
			return fmt.Errorf("read flows: %w", err)
		}
		for ; len(rest) > 0; rest = rest[flowBytes:] {
			var f nat.Saved
			if _, err := binary.Decode(rest, binary.LittleEndian, &f); err != nil {
				return fmt.Errorf("read flows: %w", err)
			}
			each(&f)
		}
	}
}

// restoreFlows takes the flows there were and makes them, whose networks and uplinks
// have other numbers.
func (n *Node) restoreFlows(t *takeover) error {
	number := n.renumbered(t)
	kept, all := 0, 0
	var err error
	n.router.Flows(func(table *nat.Table) {
		restorer := table.Restorer(loop.Clock())
		err = readFlows(t.conn, func(f *nat.Saved) {
			all++
			for _, x := range []*packet.NetworkID{&f.From, &f.To, &f.Network, &f.Uplink, &f.Rule.Network, &f.Rule.Uplink} {
				if *x != 0 {
					*x = number[*x]
				}
			}
			if f.From == 0 || f.To == 0 {
				return
			}
			if ref := restorer.Restore(f); ref != 0 {
				kept++
				t.move(f.Number, ref, number)
			}
		})
	})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the node that runs has ended while it handed its flows over")
	}
	slog.Info("flows go on", "flows", kept, "of", all)
	return err
}

// move notes which flow a connection by this host's sockets has here.
func (t *takeover) move(was, is uint32, number map[packet.NetworkID]packet.NetworkID) {
	i, ok := slices.BinarySearchFunc(t.connections, was, func(m sockets.Moving, flow uint32) int { return cmp.Compare(m.Flow, flow) })
	if !ok {
		return
	}
	m := t.connections[i]
	m.FD, m.Flow, m.Network = t.take(thingConnection, fmt.Sprint(was), ""), is, number[m.Network]
	if m.FD >= 0 {
		t.moved = append(t.moved, m)
	}
}

// renumbered are the numbers here of the networks and uplinks of the node before, by
// those there.
func (n *Node) renumbered(t *takeover) map[packet.NetworkID]packet.NetworkID {
	number := make(map[packet.NetworkID]packet.NetworkID)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.lans {
		number[t.Networks[l.id]] = l.number()
	}
	for _, u := range n.uplinks {
		if u.lost == nil {
			number[t.Networks[u.spec.Name]] = u.way.Network()
		}
	}
	number[t.Networks[api.HostUplink]] = n.hostWay.Network()
	return number
}
