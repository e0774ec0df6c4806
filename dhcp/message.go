package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"fairlead/packet"
)

// A Message is the payload of a datagram to be sent from ClientPort to
// ServerPort. The bytes are the receiver's.
type Message struct {
	Payload []byte
	Src     netip.Addr // the unspecified address while we have none
	Dst     netip.Addr // a server, or the limited broadcast address
}

var (
	nobody    = netip.IPv4Unspecified()
	everyMAC  = packet.BroadcastMAC
	everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// maxMessage is how long a server's message may be: as fits every Ethernet.
const maxMessage = 1500

// message forms what the client says in its state (RFC 2131 table 5).
func (c *Client) message(now int64, kind dhcpv4.MessageType) *Message {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet,
		ClientHWAddr: c.conf.MAC[:], TransactionID: c.xid,
		NumSeconds: uint16(min((now-c.began)/second, 0xffff)),
		Options: dhcpv4.OptionsFromList(
			dhcpv4.OptMessageType(kind),
			dhcpv4.OptClientIdentifier(c.conf.ID)),
	}
	out := &Message{Src: nobody, Dst: everybody}
	switch {
	case kind == dhcpv4.MessageTypeRelease:
		out.Src, out.Dst = c.offer.Addr.Addr(), c.offer.Server
		m.ClientIPAddr = out.Src.AsSlice()
		m.UpdateOption(dhcpv4.OptServerIdentifier(c.offer.Server.AsSlice()))
	case kind == dhcpv4.MessageTypeDecline, c.state == Requesting:
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(c.offer.Addr.Addr().AsSlice()))
		m.UpdateOption(dhcpv4.OptServerIdentifier(c.offer.Server.AsSlice()))
	case c.conf.Behalf && (c.state == Renewing || c.state == Rebinding):
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(c.lease.Addr.Addr().AsSlice()))
	case c.state == Renewing:
		out.Src, out.Dst = c.lease.Addr.Addr(), c.lease.Server
		m.ClientIPAddr = out.Src.AsSlice()
	case c.state == Rebinding:
		out.Src = c.lease.Addr.Addr()
		m.ClientIPAddr = out.Src.AsSlice()
	}
	if kind == dhcpv4.MessageTypeDiscover || kind == dhcpv4.MessageTypeRequest {
		m.UpdateOption(dhcpv4.OptMaxMessageSize(maxMessage))
		m.UpdateOption(dhcpv4.OptParameterRequestList(
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionInterfaceMTU,
			dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue))
		if c.conf.Host != "" {
			m.UpdateOption(dhcpv4.OptHostName(c.conf.Host))
		}
	}
	if c.conf.Behalf {
		m.SetBroadcast()
		out.Src, out.Dst = nobody, everybody
	}
	out.Payload = m.ToBytes()
	return out
}

// Offsets in a message (RFC 2131 figure 1).
const (
	opAt  = 0
	xidAt = 4
)

// parse reads a server's message to us. The lease's times are lengths in
// nanoseconds. Of a refusal only Server is set.
func (c *Client) parse(b []byte) (kind dhcpv4.MessageType, lease Lease, ok bool) {
	// A segment is full of messages for others; the codec need not see them.
	if len(b) > maxMessage || len(b) < xidAt+4 || b[opAt] != byte(dhcpv4.OpcodeBootReply) ||
		dhcpv4.TransactionID(b[xidAt:xidAt+4]) != c.xid {
		return 0, lease, false
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil || len(m.ClientHWAddr) != len(c.conf.MAC) || [6]byte(m.ClientHWAddr) != c.conf.MAC {
		return 0, lease, false
	}
	kind = m.MessageType()
	lease.Server = station(m.ServerIdentifier())
	if kind == dhcpv4.MessageTypeNak {
		return kind, lease, lease.Server.IsValid()
	}
	addr := station(m.YourIPAddr)
	if !addr.IsValid() || !lease.Server.IsValid() {
		return kind, lease, false
	}
	mask := net.IPMask(m.Options.Get(dhcpv4.OptionSubnetMask))
	if mask == nil {
		mask = net.IP(addr.AsSlice()).DefaultMask() // of its class, RFC 950
	}
	ones, bits := mask.Size() // 0, 0 when it is none
	if bits != 32 || ones == 0 {
		return kind, lease, false
	}
	lease.Addr = netip.PrefixFrom(addr, ones)
	for _, r := range m.Router() {
		if a := station(r); a.IsValid() && a != addr {
			lease.Router = a
			break
		}
	}
	// Less than what every host takes (RFC 791) would only slow us down.
	if v := m.Options.Get(dhcpv4.OptionInterfaceMTU); len(v) == 2 {
		if mtu := int(binary.BigEndian.Uint16(v)); mtu >= 576 {
			lease.MTU = mtu
		}
	}
	length := seconds(m, dhcpv4.OptionIPAddressLeaseTime)
	if length == 0 {
		return kind, lease, false
	}
	if length != forever {
		lease.Expires = length
		lease.Renew, lease.Rebind = length/2, length/8*7 // RFC 2131 4.4.5
		t1, t2 := seconds(m, dhcpv4.OptionRenewTimeValue), seconds(m, dhcpv4.OptionRebindingTimeValue)
		if 0 < t1 && t1 < t2 && t2 < length {
			lease.Renew, lease.Rebind = t1, t2
		}
	}
	return kind, lease, true
}

// forever is 0xffffffff seconds (RFC 2131 3.3).
const forever = 0xffffffff * int64(time.Second)

// seconds is a length of time as options have it; zero when it is absent.
func seconds(m *dhcpv4.DHCPv4, option dhcpv4.OptionCode) int64 {
	v := m.Options.Get(option)
	if len(v) != 4 {
		return 0
	}
	return int64(binary.BigEndian.Uint32(v)) * second
}

// station is an address one station can have (RFC 1122 3.2.1.3); else the zero
// Addr.
func station(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.As4()[0] == 0 || a.As4()[0] == 127 || a.As4()[0] >= 224 {
		return netip.Addr{}
	}
	return a
}
