package packet

// A Discovery is a view of a message of IPv6 neighbour discovery, which is ICMPv6
// (RFC 4861 4):
//
//	0      8                              least, by type
//	| ICMP | what it is about             | options: type, length in eights of bytes, … |
//
// What neighbour solicitation, advertisement and redirect are about begins with an
// address, the target.
type Discovery []byte

// discoveryLen is the length of the messages without options, from
// ICMPv6RouterSolicit on.
var discoveryLen = [...]int{8, 16, 24, 24, 40}

// IsDiscovery reports whether an ICMPv6 message is one.
func (m ICMP) IsDiscovery() bool {
	return ICMPv6RouterSolicit <= m.Type() && m.Type() <= ICMPv6Redirect
}

// Valid reports whether the message is all there, with options as long as they
// say. Nobody takes one that is not (RFC 4861 6.1, 7.1, 8.1).
func (m Discovery) Valid() bool {
	if len(m) < m.least() {
		return false
	}
	o := m.Options()
	for len(o) > 1 && o.len() > 0 && o.len() <= len(o) && (!o.isMAC() || o.len() == 8) {
		o = o.Next()
	}
	return len(o) == 0
}

func (m Discovery) least() int { return discoveryLen[m[0]-ICMPv6RouterSolicit] }

// Target is the address a solicitation, advertisement or redirect is about.
func (m Discovery) Target() Addr { return Addr(m[ICMPLen:]) }

// Options begin with the first one, if there are any. Borrowed.
func (m Discovery) Options() DiscoveryOptions { return DiscoveryOptions(m[m.least():]) }

// DiscoveryOptions are an option and those behind it.
type DiscoveryOptions []byte

func (o DiscoveryOptions) len() int { return 8 * int(o[1]) }

// isMAC reports whether the first is the link-layer address of the source or of
// the target (RFC 4861 4.6.1), which on Ethernet takes eight bytes (RFC 2464 6).
func (o DiscoveryOptions) isMAC() bool { return o[0] == 1 || o[0] == 2 }

// MAC is what the first says is the address of the source or of the target; false
// if that is none of its business.
func (o DiscoveryOptions) MAC() (MAC, bool) {
	if !o.isMAC() {
		return MAC{}, false
	}
	return MAC(o[2:8]), true
}

// Next is without the first.
func (o DiscoveryOptions) Next() DiscoveryOptions { return o[o.len():] }
