package box

import (
	"fmt"
	"testing"
	"time"

	"fairlead/test/lab"
)

// TestHostAddresses: those of this host are followed as they change, and the one
// of its default route stands for it.
func TestHostAddresses(t *testing.T) {
	lab.NoLeaks(t)
	h := lab.NewHost(t, "box")
	h.Run(t, "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	told := make(chan string, 100)
	w := lab.In(t, h, func() (*HostWatch, error) {
		return WatchHost(func(a *HostAddrs) { told <- fmt.Sprint(a.Primary, a.All, a.Problem) }), nil
	})
	defer w.Close()
	await := func(want string) {
		t.Helper()
		late := time.After(10 * time.Second)
		for got := "nothing"; ; {
			select {
			case got = <-told:
				if got == want {
					return
				}
			case <-late:
				t.Fatalf("%s, want %s", got, want)
			}
		}
	}
	const noRoute = "this host has no default route; `ip route` lists those it has"
	await("invalid IP [] " + noRoute)
	h.Addr(t, "d0", "192.0.2.7/24")
	await("192.0.2.7 [192.0.2.7] " + noRoute)
	h.Up(t, "d0")
	h.Up(t, "d1")
	h.Addr(t, "d0", "198.51.100.7/24")
	h.Run(t, "ip", "route", "add", "default", "via", "198.51.100.1")
	await("198.51.100.7 [192.0.2.7 198.51.100.7] <nil>")
	h.Run(t, "ip", "route", "del", "default")
	await("192.0.2.7 [192.0.2.7 198.51.100.7] " + noRoute)
	h.Run(t, "ip", "addr", "del", "198.51.100.7/24", "dev", "d0")
	await("192.0.2.7 [192.0.2.7] " + noRoute)
	// The host's loopback stands for it in no case, although packets that end there
	// would be from it.
	h.Up(t, "lo")
	h.Run(t, "ip", "route", "add", "default", "dev", "lo", "src", "127.0.0.1")
	h.Run(t, "ip", "addr", "del", "192.0.2.7/24", "dev", "d0")
	await("invalid IP [] this host's default route leads to its loopback; `ip route` lists those it has")
}
