package main

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	hosts "fairlead/test/lab"
)

// ours reports whether the leader is fairlead.
func (p *leader) ours() bool { return p.program == "" && !p.rawUDP }

// peer reports whether it is one fairlead stands beside.
func (p *leader) peer() bool { return p.program != "" }

// rawGateway is whom a container of the raw relay sends to. Nobody is there.
var rawGateway = packet.MAC{0x02, 0, 0, 0, 0, 2}

// layRaw lays what bounds them all: see relay.Datagrams.
func (s *site) layRaw(l *lab) {
	tap := makeLink(l, s.container, "TAP")
	s.container.Addr(l, "eth0", slirpInside+"/24")
	s.container.Up(l, "eth0")
	s.container.Run(l, "ip", "neigh", "add", "10.0.2.2", "lladdr", rawGateway.String(), "dev", "eth0")
	s.container.Route(l, "default", "10.0.2.2")
	eth0, err := s.container.Netlink.LinkByName("eth0")
	l.check(err, "find eth0 of %s", s.container.Name)
	out := hosts.In(l, s.machine, func() (*os.File, error) {
		return rawSocket(func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Port: sinkPort, Addr: siteOutside.Addr().As4()})
		})
	})
	in := hosts.In(l, s.machine, func() (*os.File, error) {
		return rawSocket(func(fd int) error {
			return unix.Bind(fd, &unix.SockaddrInet4{Port: sinkPort, Addr: siteMachine.Addr().As4()})
		})
	})
	c := startChild(l, "datagrams", []end{{MAC: packet.MAC(eth0.Attrs().HardwareAddr)}}, []*os.File{tap, out, in})
	s.pid = c.cmd.Process.Pid
	for _, f := range []*os.File{tap, out, in} {
		f.Close() // the process has its own
	}
}

func rawSocket(prepare func(fd int) error) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a UDP socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as the machine lets
	f := os.NewFile(uintptr(fd), "udp")
	return f, prepare(fd)
}

// datagramHead is that of the frames the raw relay writes.
func datagramHead(e end) []byte {
	head := make([]byte, packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen+packet.UDPLen)
	v := packet.VNet(head)
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(packet.EthernetLen + packet.IPv4MinLen)
	v.SetCSumOffset(6)
	eth := packet.Ethernet(head[packet.VNetLen:])
	eth.SetDst(e.MAC)
	eth.SetSrc(rawGateway)
	eth.SetType(packet.EtherTypeIPv4)
	ip := packet.IPv4(head[packet.VNetLen+packet.EthernetLen:])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTTL(64)
	ip.SetProto(packet.ProtoUDP)
	ip.SetFragment(true, false, 0)
	ip.SetSrc(siteOutside.Addr().As4())
	ip.SetDst(netip.MustParseAddr(slirpInside).As4())
	udp := packet.UDP(ip[packet.IPv4MinLen:])
	udp.SetSrcPort(1000)
	udp.SetDstPort(sinkPort)
	return head
}
