package packet_test

import (
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

var (
	alice = station("10.88.0.2")
	bob   = station("10.88.0.3")
)

func station(ip string) packettest.Station {
	a := netip.MustParseAddr(ip)
	return packettest.Station{MAC: packet.MACFromIPv4(a), IP: a}
}

// tcpFrame is a segment with options and size bytes that do not all look alike.
func tcpFrame(src, dst packettest.Station, size int) []byte {
	return packettest.TCP(src, dst, packettest.Segment{
		SrcPort: 40000, DstPort: 80, Seq: 0xfffff000, Ack: 7,
		Flags:   packet.TCPAck | packet.TCPPsh | packet.TCPFin | packet.TCPCwr,
		Options: []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8},
	}, pattern(size))
}

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// parse is the frame of well-formed bytes.
func parse(t testing.TB, b []byte) packet.Frame {
	t.Helper()
	f := packet.Frame{B: b}
	if r := packet.Parse(&f); r != packet.OK {
		t.Fatalf("Parse: %v: %s", r, r.Why())
	}
	return f
}
