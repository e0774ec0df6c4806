package node

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
)

// Flows are read as they were written, and what is no flow is an error.
func FuzzReadFlows(f *testing.F) {
	lot := func(flows ...nat.Saved) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(flows)))
		b, _ = binary.Append(b, binary.LittleEndian, flows)
		return b
	}
	saved := nat.Saved{Container: 1<<16 | 1, From: 1, To: 2, Forward: packet.Tuple{SrcPort: 1}, Mapped: true, Age: [2]int64{1, 2}}
	f.Add(append(lot(saved, saved), 0, 0, 0, 0))
	f.Add(lot(saved))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		from := bytes.NewReader(b)
		var flows []nat.Saved
		err := readFlows(from, func(f *nat.Saved) { flows = append(flows, *f) })
		if have := len(flows) * flowBytes; have > len(b) {
			t.Fatalf("%d flows in %d bytes, %v", len(flows), len(b), err)
		}
		if err != nil || len(flows) > flowsAtOnce {
			return
		}
		var again []nat.Saved
		err = readFlows(io.MultiReader(bytes.NewReader(lot(flows...)), bytes.NewReader(make([]byte, 4))), func(f *nat.Saved) { again = append(again, *f) })
		if err != nil || len(again) != len(flows) {
			t.Errorf("%d flows are read again as %d, %v", len(flows), len(again), err)
		}
		for i := range again {
			if again[i] != flows[i] {
				t.Errorf("%+v is read again as %+v", flows[i], again[i])
			}
		}
	})
}
