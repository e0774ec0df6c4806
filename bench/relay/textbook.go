package relay

import (
	"fmt"
	"sync"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/songgao/water"
)

// Textbook joins TAPs as the switches of tutorials do: plain frames by package
// water, one frame per Read, a goroutine for each port, gopacket to decode the
// frame, and a map with a lock for the addresses learned. It is done when a port
// fails.
func Textbook(taps []*water.Interface, crossed *Crossed) error {
	var (
		mu    sync.Mutex
		table = map[string]*water.Interface{}
		done  = make(chan error, len(taps))
	)
	port := func(in *water.Interface) error {
		buf := make([]byte, 2048) // a frame at the usual MTU
		for {
			n, err := in.Read(buf)
			if err != nil {
				return fmt.Errorf("read a frame: %w", err)
			}
			p := gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default)
			eth, ok := p.LinkLayer().(*layers.Ethernet)
			if !ok {
				continue
			}
			mu.Lock()
			table[eth.SrcMAC.String()] = in
			known := table[eth.DstMAC.String()]
			mu.Unlock()
			for _, out := range taps {
				if out == in || known != nil && known != out {
					continue
				}
				if _, err := out.Write(buf[:n]); err != nil {
					continue // the interface is down
				}
				crossed.Frames.Add(1)
				crossed.Bytes.Add(uint64(n))
			}
		}
	}
	for _, tap := range taps {
		go func() { done <- port(tap) }()
	}
	return <-done
}
