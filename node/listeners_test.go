package node

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
)

const socketTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1153 1 0 100 0 0 10 0
   1: 020011AC:0050 030011AC:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1154 1 0 20 4 30 10 -1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1155 1 0 100 0 0 10 0
   3: 00000000:0000 00000000:0000 0A
   4: xyz 00000000:0000 0A
   5: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07
`

func TestListeners(t *testing.T) {
	for proto, want := range map[string]string{
		"tcp": "[{tcp 127.0.0.1 8080} {tcp 0.0.0.0 80}]",
		"udp": "[{udp ::1 53}]",
	} {
		if got := fmt.Sprint(appendListeners(nil, proto, []byte(socketTable))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if list := appendListeners(nil, "tcp", []byte(strings.Repeat(socketTable, maxListeners))); len(list) != maxListeners {
		t.Errorf("%d listeners, want %d at most", len(list), maxListeners)
	}
	if list, ok := listenersOf(0); ok {
		t.Errorf("nobody listens on %v", list)
	}
}

// What the kernel says of sockets of our own.
func TestListenersOfOurselves(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	list, ok := listenersOf(os.Getpid())
	tcp, udp := netip.MustParseAddrPort(l.Addr().String()).Port(), netip.MustParseAddrPort(u.LocalAddr().String()).Port()
	for _, want := range []api.Listener{{Proto: "tcp", Address: "127.0.0.1", Port: tcp}, {Proto: "udp", Address: "127.0.0.1", Port: udp}} {
		if !ok || !slices.Contains(list, want) {
			t.Errorf("%v is not in %v, %v", want, list, ok)
		}
	}
}

func FuzzListeners(f *testing.F) {
	f.Add([]byte(socketTable))
	f.Add([]byte("a 0:0 0 0A\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, l := range appendListeners(nil, "tcp", text) {
			if _, err := netip.ParseAddr(l.Address); err != nil || l.Port == 0 {
				t.Errorf("%+v", l)
			}
		}
	})
}
