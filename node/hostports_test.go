package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
)

// reserve makes a container that publishes ports, or says why not.
func (h *handlers) reserve(ports ...string) (*container, error) {
	return h.create(api.CreateRequest{Command: []string{"sh"}, Publish: ports})
}

// listens reports which of a port's two sockets are open.
func listens(port uint16) (words string) {
	for _, at := range []string{"127.0.0.1", "[::1]"} {
		c, err := net.Dial("tcp", at+fmt.Sprintf(":%d", port))
		if err == nil {
			_ = c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // with nobody inside it is reset, perhaps before Dial is through
			words += at
		}
	}
	return words
}

// A port is listened on in both families from when it is reserved until its
// container has ended, and while host sockets are a way out.
func TestHostPorts(t *testing.T) {
	h := newHandlersOut(t)
	c, err := h.reserve("80", "127.0.0.1::81", "53/udp")
	if err != nil {
		t.Fatal(err)
	}
	port, local := c.published[0].hostPort, c.published[1].hostPort
	if got := listens(port); got != "127.0.0.1[::1]" {
		t.Errorf("listened on at %q", got)
	}
	if got := listens(local); got != "127.0.0.1" {
		t.Errorf("a port of 127.0.0.1 is listened on at %q", got)
	}
	have := get[api.Ports](t, h, "/v1/containers/"+c.id+"/ports")
	if got, want := text(&have), fmt.Sprintf("0.0.0.0:%d->53/udp[0.0.0.0 ::] 0.0.0.0:%d->80/tcp[0.0.0.0 ::] 127.0.0.1:%d->81/tcp[127.0.0.1]",
		c.published[2].hostPort, port, local); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := strings.Join(h.describe(c).Ports, " "), fmt.Sprintf("[::]:%d->80/tcp", port); !strings.Contains(got, want) {
		t.Errorf("ps has %s, want %s", got, want)
	}
	for _, use := range []bool{false, true} {
		if err := h.useHost("", use); err != nil {
			t.Fatal(err)
		}
		if got := listens(port); (got != "") != use {
			t.Errorf("host sockets %v: listened on at %q", use, got)
		}
	}
	h.end(c)
	if got := listens(port) + listens(local); got != "" {
		t.Errorf("its container has ended, and it is listened on at %q", got)
	}
	if h.listening != 0 {
		t.Errorf("%d are counted", h.listening)
	}
}

// A port another program has is refused by name, and nobody is given it who
// takes any.
func TestHostPortsOfOthers(t *testing.T) {
	h := newHandlersOut(t)
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).Port
	_, err = h.reserve("80", fmt.Sprintf("%d:80", port))
	refused(t, err, fmt.Sprintf("failed to bind host port for 0.0.0.0:%d:172.17.0.2:80/tcp: address already in use; `ss -Hlntp sport = :%[1]d` says by whom", port))
	if h.listening != 0 {
		t.Errorf("%d listen after a failure", h.listening)
	}
	c, err := h.reserve(fmt.Sprintf("%d-%d:80", port, port+20)) // any of them
	if err != nil {
		t.Fatal(err)
	}
	if int(c.published[0].hostPort) == port {
		t.Error("it was given a port another program has")
	}
	_, err = h.reserve("203.0.113.77:8080:80")
	refused(t, err, "failed to bind host port for 203.0.113.77:8080:172.17.0.3:80/tcp: cannot assign requested address; `ip address` lists those this host has")

	// Who steps in for an uplink that goes finds a port taken: there is no way
	// out then, and it is said.
	if err := h.useHost("", false); err != nil {
		t.Fatal(err)
	}
	taken, err := h.reserve(fmt.Sprintf("%d:80", port))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.useHost("", true); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
	if got := h.uplinkNames(t); got != "" || h.listening != 0 {
		t.Errorf("after that the uplinks are %q, and %d listen", got, h.listening)
	}
	h.end(taken)
	if err := h.useHost("", true); err != nil {
		t.Error(err)
	}
}

// Thousands of ports are one call; when descriptors are short they are refused
// by name, all of them.
func TestManyHostPorts(t *testing.T) {
	h := newHandlersOut(t)
	h.budget.Listeners, h.budget.Limit = 3000, 4096
	_, err := h.reserve("10000-19999/udp")
	if err == nil || !strings.Contains(err.Error(),
		"too many open files: this node listens on 3000 already, 3000 are the most; start it with a higher `ulimit -n`, which is 4096") {
		t.Error(err)
	}
	if h.listening != 0 || len(h.ports.taken) != 0 {
		t.Errorf("%d listen, %d are taken", h.listening, len(h.ports.taken))
	}
	c, err := h.reserve("10000-10999/udp")
	if err != nil {
		t.Fatal(err)
	}
	if h.listening < 1000 {
		t.Errorf("%d listen", h.listening)
	}
	h.end(c)
	if h.listening != 0 {
		t.Errorf("%d listen in the end", h.listening)
	}
}

// A port published at an address of IPv6 leads to its container also when another
// address stands for the host.
func TestHostAddressChanges(t *testing.T) {
	h := newHandlersOut(t)
	c, err := h.reserve("[::1]::80")
	if err != nil {
		t.Fatal(err)
	}
	h.Node.mu.Lock()
	c.owner, c.attachments[0].endpoint = c, &endpoint{}
	err = h.openPortsLocked(c)
	h.Node.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, primary := range []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.10"), {}} {
		h.hostChanged(&box.HostAddrs{Primary: primary})
		var got []string
		h.Node.router.Flows(func(t *nat.Table) {
			t.Rules(func(r nat.Rule) bool {
				if r.Kind == packet.NATPublish {
					got = append(got, r.Outside.String())
				}
				return true
			})
		})
		if want := packet.HostIPv6.Netip().String(); fmt.Sprint(got) != "["+want+"]" { // which is what sockets show
			t.Errorf("with %v for the host: published at %v, want %s", primary, got, want)
		}
	}
	c.attachments[0].endpoint = nil
	h.end(c)
}
