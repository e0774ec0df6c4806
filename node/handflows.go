package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"fairlead/loop"
	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/packet"
)

// Flows are handed over as they are met in one table and put into the other: there
// may be a quarter of a million, and all stands still meanwhile.

// flowBytes is the size of one.
var flowBytes = binary.Size(nat.Saved{})

// flowsAtOnce is how many flows come in one lot.
const flowsAtOnce = 128

// handFlows sends the flows there are. No worker runs.
func (n *Node) handFlows(s *sender) {
	lot, count := make([]byte, 4, 4+flowsAtOnce*flowBytes), uint32(0)
	send := func() {
		binary.LittleEndian.PutUint32(lot, count)
		s.write(lot)
		lot, count = lot[:4], 0
	}
	n.router.Flows(func(t *nat.Table) {
		t.Save(loop.Clock(), func(f *nat.Saved) {
			lot, _ = binary.Append(lot, binary.LittleEndian, f) // it has a fixed size
			if count++; count == flowsAtOnce {
				send()
			}
		})
	})
	if count > 0 {
		send()
	}
	send() // the last one is empty
}

// readFlows reads them.
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

// restoreFlows asks for the flows there were and makes them, whose networks and
// uplinks have other numbers.
func (n *Node) restoreFlows(t *takeover) error {
	if err := api.SendMessage(t.conn, api.Done{}, nil); err != nil {
		return fmt.Errorf("the node that runs: %w", err)
	}
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
			if f.From != 0 && f.To != 0 && restorer.Restore(f) {
				kept++
			}
		})
	})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the node that runs has ended while it handed its flows over")
	}
	slog.Info("flows go on", "flows", kept, "of", all)
	return err
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
