package node

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"fairlead/node/api"
)

// Bounds of what is read and told of a container's sockets: root inside may
// open as many as it likes.
const (
	maxListeners   = 1024
	maxSocketTable = 4 << 20
)

// States of a socket in /proc/net (include/net/tcp_states.h): a TCP socket that
// listens, and a UDP one without a peer.
const (
	tcpListens = "0A"
	udpWaits   = "07"
)

// listenersOf lists the sockets that wait for somebody in the network namespace
// of a process, ok is false when it cannot be looked into.
func listenersOf(pid int) (list []api.Listener, ok bool) {
	if pid <= 0 {
		return nil, false
	}
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := readSome(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil && (name == "tcp" || name == "udp") { // a kernel may be without IPv6
			return nil, false
		}
		list = appendListeners(list, name[:3], text)
	}
	slices.SortFunc(list, func(a, b api.Listener) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Address, b.Address))
	})
	return slices.Compact(list), true
}

// readSome reads the beginning of a file.
func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSocketTable))
}

// appendListeners reads a table of /proc/net: a line of headings, then
//
//	0: 0100007F:1F90 00000000:0000 0A …
//
// with slot, own address, peer and state. Lines that are not so are passed over.
func appendListeners(list []api.Listener, proto string, text []byte) []api.Listener {
	want := tcpListens
	if proto == "udp" {
		want = udpWaits
	}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) < 4 || string(f[3]) != want || len(list) >= maxListeners {
			continue
		}
		if own, ok := procAddr(string(f[1])); ok && own.Port() != 0 {
			list = append(list, api.Listener{Proto: proto, Address: own.Addr().String(), Port: own.Port()})
		}
	}
	return list
}

// procAddr reads an address as /proc/net has it: words of four bytes, each in
// the machine's order (of all machines we run on: the lowest first), and the
// port.
func procAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := bytes.Cut([]byte(s), []byte{':'})
	number, err := strconv.ParseUint(string(port), 16, 16)
	b := make([]byte, len(host)/2)
	if n, herr := hex.Decode(b, host); err != nil || herr != nil || n != 4 && n != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(number)), true
}
