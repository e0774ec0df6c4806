package packet

import (
	"encoding/binary"
	"fmt"
)

const (
	// EthernetLen is the length of an Ethernet header without tags.
	EthernetLen = 14
	// VLANLen is what each VLAN tag adds (IEEE 802.1Q).
	VLANLen = 4
	// MaxVLANTags is how many tags Parse reads: a service and a customer tag
	// (IEEE 802.1ad).
	MaxVLANTags = 2
)

// An EtherType names the protocol behind an Ethernet header.
type EtherType uint16

const (
	EtherTypeIPv4 EtherType = 0x0800
	EtherTypeARP  EtherType = 0x0806
	EtherTypeIPv6 EtherType = 0x86dd

	EtherTypeVLAN    EtherType = 0x8100 // IEEE 802.1Q
	EtherTypeQinQ    EtherType = 0x88a8 // IEEE 802.1ad
	EtherTypeOldQinQ EtherType = 0x9100 // before 802.1ad; still met

	// minEtherType is the least value that is a type. Below it the field is
	// the length of an IEEE 802.3 frame.
	minEtherType EtherType = 0x0600
)

// IsTag reports whether a VLAN tag follows and not a network header.
func (t EtherType) IsTag() bool {
	return t == EtherTypeVLAN || t == EtherTypeQinQ || t == EtherTypeOldQinQ
}

func (t EtherType) String() string {
	switch t {
	case 0:
		return "802.3"
	case EtherTypeIPv4:
		return "IPv4"
	case EtherTypeARP:
		return "ARP"
	case EtherTypeIPv6:
		return "IPv6"
	case EtherTypeVLAN:
		return "VLAN"
	case EtherTypeQinQ, EtherTypeOldQinQ:
		return "QinQ"
	}
	return fmt.Sprintf("0x%04x", uint16(t))
}

// An Ethernet is a view of a frame from its destination MAC on.
//
//	0                 6            12     14
//	| destination MAC | source MAC | type | (VLAN tag, type)* ...
type Ethernet []byte

// Valid reports whether the header is all there.
func (e Ethernet) Valid() bool { return len(e) >= EthernetLen }

func (e Ethernet) Dst() MAC { return MAC(e[0:6]) }
func (e Ethernet) Src() MAC { return MAC(e[6:12]) }

// Type is the field behind the MACs. On a tagged frame it announces the tag.
func (e Ethernet) Type() EtherType { return EtherType(binary.BigEndian.Uint16(e[12:])) }

func (e Ethernet) SetDst(m MAC)        { copy(e[0:6], m[:]) }
func (e Ethernet) SetSrc(m MAC)        { copy(e[6:12], m[:]) }
func (e Ethernet) SetType(t EtherType) { binary.BigEndian.PutUint16(e[12:], uint16(t)) }
