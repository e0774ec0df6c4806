package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"fairlead/dns"
	"fairlead/node/api"
	"fairlead/packet"
)

// This host asks for names of containers at an address of its loopback, below
// dns.Domain. It is told by whoever looks after its resolver; see `fairlead names`.

// Where the host asks when nobody says where: at the port of DNS if that is
// allowed, which is what a resolv.conf can name.
var (
	stubAddr  = netip.AddrFrom4([4]byte{127, 0, 0, 17})
	stubPorts = []uint16{53, 1053}
)

// A stub is where this host asks.
type stub struct {
	at  netip.AddrPort
	udp *net.UDPConn
	tcp *net.TCPListener
}

// listenStub opens one.
func listenStub(at netip.AddrPort) (*stub, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	return &stub{at, udp, tcp}, nil
}

// close closes it; nil is none.
func (s *stub) close() {
	if s != nil {
		_ = s.udp.Close()
		_ = s.tcp.Close()
	}
}

// openStub opens the one that is asked for: on, ADDRESS or ADDRESS:PORT.
func openStub(spec string) (*stub, error) {
	if spec == api.NamesOn {
		spec = stubAddr.String()
	}
	at, err := netip.ParseAddrPort(spec)
	ports := []uint16{at.Port()}
	if err != nil || at.Port() == 0 {
		a, err := netip.ParseAddr(spec)
		if err != nil {
			return nil, fail(http.StatusBadRequest, "names: %q is neither on, off, ADDRESS nor ADDRESS:PORT, such as %v:%d", spec, stubAddr, stubPorts[1])
		}
		at, ports = netip.AddrPortFrom(a, 0), stubPorts
	}
	if !at.Addr().IsLoopback() || at.Addr().Zone() != "" {
		return nil, fail(http.StatusBadRequest, "names: %v is no address of the loopback; they are for this host only, at %v for example", at.Addr(), stubAddr)
	}
	for _, port := range ports {
		var s *stub
		if s, err = listenStub(netip.AddrPortFrom(at.Addr(), port)); err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrPermission) {
			break
		}
	}
	return nil, fail(http.StatusConflict, "names: %w; say another address: `fairlead up --names 127.0.0.18`", err)
}

// answerHost has the host's questions answered there; nil is nowhere. What was
// open before is closed.
func (d *nameserver) answerHost(s *stub) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host.close()
	if d.host = s; s == nil {
		return
	}
	d.running.Go(func() { d.accept(s.tcp, d.admitHost) })
	d.running.Go(func() { d.hear(s.udp) })
}

// admitHost is admit for connections of this host's.
func (d *nameserver) admitHost(peer netip.AddrPort) (dns.Question, bool) {
	return d.place(asker(dns.HostNetwork, 0, peer, packet.ProtoTCP))
}

// hear answers datagrams of this host's.
func (d *nameserver) hear(conn *net.UDPConn) {
	b := make([]byte, dns.MaxQuery+1) // one more than is taken, to see what is too long
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) { // see pauseHost
			if d.pause() {
				continue
			}
			return
		}
		if err != nil {
			continue // what came back of an answer nobody waits for
		}
		q := asker(dns.HostNetwork, 0, from, packet.ProtoUDP)
		q.Payload = slices.Clone(b[:n])
		d.enqueue(query{q, func(answer []byte) {
			if answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}})
	}
}

// stubAt is where the host asks; the zero AddrPort is nowhere.
func (d *nameserver) stubAt() netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return netip.AddrPort{}
	}
	return d.host.at
}

// openNames opens what UpRequest.Names asks for, which is for answerHost to use.
// change is false where the host's questions are answered so already.
func (n *Node) openNames(spec string) (s *stub, change bool, err error) {
	switch at := n.dns.stubAt(); {
	case spec == "":
		return nil, false, nil
	case spec == api.NamesOff:
		return nil, true, nil
	case at.IsValid() && (spec == api.NamesOn || spec == at.String() || spec == at.Addr().String()):
		return nil, false, nil
	}
	s, err = openStub(spec)
	return s, err == nil, err
}

// useNames has the host's questions answered as UpRequest.Names has it.
func (n *Node) useNames(spec string) error {
	s, change, err := n.openNames(spec)
	if change {
		n.dns.answerHost(s)
	}
	return err
}

// getNames lists what this host can ask for.
func (n *Node) getNames(http.ResponseWriter, *http.Request) (any, error) {
	list := api.Names{Domain: dns.Domain, Reverse: []string{}, Names: []api.Name{}}
	if at := n.dns.stubAt(); at.IsValid() {
		list.Server = at.String()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.lans {
		list.Reverse = append(list.Reverse, dns.ReverseZones(l.net.Config().Gateway.Masked())...)
	}
	for _, c := range n.containers {
		if c.ending || c.share != nil {
			continue
		}
		for _, a := range c.attachments {
			if a.up() && a.addr.IsValid() {
				list.Names = append(list.Names, api.Name{
					Name: fmt.Sprintf("%s.%s.%s", c.name(), a.lan.name, dns.Domain), Address: a.addr.Addr().String(),
					Container: c.name(), Network: a.lan.name, Aliases: append([]string{}, a.aliases...),
				})
			}
		}
	}
	slices.SortFunc(list.Names, func(a, b api.Name) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// stubFiles are copies of the sockets the host asks by; nil if it does not.
func (d *nameserver) stubFiles() (udp, tcp *os.File, at string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return nil, nil, ""
	}
	udp, err1 := d.host.udp.File()
	tcp, err2 := d.host.tcp.File()
	if err1 != nil || err2 != nil {
		_, _ = udp.Close(), tcp.Close()
		return nil, nil, ""
	}
	return udp, tcp, d.host.at.String()
}

// pauseHost has nobody read the sockets the host asks by, until resume is called.
func (d *nameserver) pauseHost() (resume func()) {
	d.mu.Lock()
	s := d.host
	d.mu.Unlock()
	if s == nil {
		return func() {}
	}
	until := func(t time.Time) { _, _ = s.udp.SetReadDeadline(t), s.tcp.SetDeadline(t) }
	until(time.Unix(1, 0))
	return func() { until(time.Time{}) }
}
