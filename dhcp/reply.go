package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// rapidCommit is the option of RFC 4039, which the codec has no name for.
const rapidCommit = dhcpv4.GenericOptionCode(80)

// leastMessage is what every client takes, its IP and UDP headers included (RFC
// 2131 section 2).
const leastMessage = 576

// say answers the message with one of a kind that has address a, which is the zero
// Addr where none is lent (RFC 2131 4.3.1 table 3).
func (x *exchange) say(kind dhcpv4.MessageType, a netip.Addr) {
	s, asked := x.s, x.m
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: iana.HWTypeEthernet, ClientHWAddr: x.from.MAC[:],
		TransactionID: asked.TransactionID, Flags: asked.Flags,
		Options: dhcpv4.OptionsFromList(dhcpv4.OptMessageType(kind), dhcpv4.OptServerIdentifier(s.conf.Server.Addr().AsSlice())),
	}
	if id := asked.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, id)) // RFC 6842
	}
	if kind != dhcpv4.MessageTypeNak {
		m.ServerIPAddr = s.conf.Server.Addr().AsSlice()
		if kind == dhcpv4.MessageTypeAck {
			m.ClientIPAddr = asked.ClientIPAddr
		}
		if a.IsValid() {
			m.YourIPAddr = a.AsSlice()
			s.times(m, s.length(asked))
		}
		if kind == dhcpv4.MessageTypeAck && asked.MessageType() == dhcpv4.MessageTypeDiscover {
			m.UpdateOption(dhcpv4.OptGeneric(rapidCommit, nil))
		}
		s.describe(x, m, a)
	}
	r := Reply{Payload: m.ToBytes(), MAC: x.from.MAC}
	ciaddr := station(asked.ClientIPAddr)
	if !s.isHost(ciaddr) {
		ciaddr = netip.Addr{}
	}
	switch { // RFC 2131 4.1
	case kind == dhcpv4.MessageTypeNak, !ciaddr.IsValid() && asked.IsBroadcast(), !ciaddr.IsValid() && !a.IsValid():
		r.MAC, r.Addr = everyMAC, everybody
	case ciaddr.IsValid():
		r.Addr = ciaddr
	default:
		r.Addr = a
	}
	x.reply(r)
}

// length is how long a lease lasts: as long as the station wants, within bounds.
func (s *Server) length(m *dhcpv4.DHCPv4) int64 {
	length := int64(s.conf.Lease)
	if want := seconds(m, dhcpv4.OptionIPAddressLeaseTime); want != 0 {
		length = min(length, max(want, int64(LeastLease)))
	}
	return length
}

// times says how long a lease lasts and when it is to be renewed (RFC 2131 4.4.5).
func (s *Server) times(m *dhcpv4.DHCPv4, length int64) {
	put := func(code dhcpv4.OptionCode, d int64) {
		m.UpdateOption(dhcpv4.OptGeneric(code, binary.BigEndian.AppendUint32(nil, uint32(d/second))))
	}
	put(dhcpv4.OptionIPAddressLeaseTime, length)
	if length != forever {
		put(dhcpv4.OptionRenewTimeValue, length/2)
		put(dhcpv4.OptionRebindingTimeValue, length/8*7)
	}
}

// describe tells what the station asked for, or all there is when it did not say:
// the most important first, as far as it takes it.
func (s *Server) describe(x *exchange, m *dhcpv4.DHCPv4, a netip.Addr) {
	c, asked := &s.conf, x.m
	wants := asked.Options.Get(dhcpv4.OptionParameterRequestList)
	most := leastMessage
	if v := asked.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize); len(v) == 2 {
		most = max(most, int(binary.BigEndian.Uint16(v)))
	}
	most = min(most, max(c.MTU, leastMessage)) - 20 - 8 // IP and UDP
	room := most - headerLen
	for _, v := range m.Options {
		room -= optionLen(v)
	}
	tell := func(o dhcpv4.Option) {
		code, v := o.Code.Code(), o.Value.ToBytes()
		if size := optionLen(v); len(v) > 0 && size <= room && (wants == nil || strings.IndexByte(string(wants), code) >= 0) {
			m.UpdateOption(dhcpv4.OptGeneric(o.Code, v))
			room -= size
		}
	}
	tell(dhcpv4.OptSubnetMask(net.CIDRMask(c.Server.Bits(), 32)))
	if c.Router.IsValid() {
		tell(dhcpv4.OptRouter(c.Router.AsSlice()))
	}
	tell(dhcpv4.OptDNS(slicesOf(c.DNS)...))
	if c.MTU != 0 {
		tell(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(c.MTU))))
	}
	tell(dhcpv4.OptBroadcastAddress(broadcast(c.Server).AsSlice()))
	if name := s.nameOf(x); name != "" && a.IsValid() {
		tell(dhcpv4.OptHostName(name))
	}
	if c.Domain != "" {
		tell(dhcpv4.OptDomainName(c.Domain))
	}
	if len(c.Routes) > 0 {
		tell(dhcpv4.OptClasslessStaticRoute(c.routes()...))
	}
	if len(c.Search) > 0 {
		tell(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: c.Search}))
	}
}

// headerLen is a message without options, but for that which ends them.
const headerLen = 240 + 1

// optionLen is how long an option is, which may be in several parts (RFC 3396).
func optionLen(v []byte) int { return len(v) + 2*max(1, (len(v)+254)/255) }

// nameOf is what a station is called here.
func (s *Server) nameOf(x *exchange) string {
	if x.from.Fixed.IsValid() {
		return x.from.Name
	}
	if h := s.hostOf(x); h != nil {
		return h.Name
	}
	return ""
}

// routes are the static routes, the default one among them: who takes this option
// does not look at that of the router (RFC 3442).
func (c *ServerConfig) routes() (list []*dhcpv4.Route) {
	add := func(p netip.Prefix, via netip.Addr) {
		list = append(list, &dhcpv4.Route{Dest: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}, Router: via.AsSlice()})
	}
	for _, r := range c.Routes {
		add(r.Prefix, r.Via)
	}
	if c.Router.IsValid() {
		add(netip.PrefixFrom(nobody, 0), c.Router)
	}
	return list
}

func slicesOf(addrs []netip.Addr) (list []net.IP) {
	for _, a := range addrs {
		list = append(list, a.AsSlice())
	}
	return list
}

// broadcast is that of a subnet.
func broadcast(p netip.Prefix) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], number(p.Addr())|(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(b)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// hostName is a name a station may call itself, else the empty one: what else it
// says would be shown to people and other programs.
func hostName(s string) string {
	s = strings.TrimRight(s, "\x00")
	ok := len(s) <= 63 && !strings.HasPrefix(s, "-")
	for _, r := range s {
		ok = ok && (r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}
	if !ok {
		return ""
	}
	return s
}
