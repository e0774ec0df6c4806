package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// VLANs says which VLANs a port is in (IEEE 802.1Q-2018, 6.9 and 8.8). What comes
// without a tag, or with one of VLAN 0 (a priority tag), is in Untagged, and what is
// in Untagged leaves without; what is in Tagged comes and goes with its tag.
//
// The zero VLANs is an open port: tags pass as they are, of all VLANs that no other
// port of the network says it is in.
type VLANs struct {
	Held     bool     // the port is in these VLANs and no other
	Untagged uint16   // 0 is the network's own, where the gateway is
	Tagged   *VLANSet // nil is none; never changed
}

// A VLANSet has a bit for each VLAN.
type VLANSet [maxVLAN/64 + 1]uint64

// maxVLAN is the highest there is; 4095 is reserved.
const maxVLAN = 4094

// Has reports whether a VLAN is in the set; a nil one is empty.
func (s *VLANSet) Has(vlan uint16) bool {
	return s != nil && vlan <= maxVLAN && s[vlan/64]>>(vlan%64)&1 != 0
}

// Add puts a VLAN from 1 to 4094 into the set.
func (s *VLANSet) Add(vlan uint16) { s[vlan/64] |= 1 << (vlan % 64) }

// AddAll puts all that are in another set into it.
func (s *VLANSet) AddAll(o *VLANSet) {
	for i := range s {
		if o != nil {
			s[i] |= o[i]
		}
	}
}

// String writes the set as ParseTrunk reads it: 10,20,30-40.
func (s *VLANSet) String() string {
	var parts []string
	for first := uint16(1); first <= maxVLAN; first++ {
		if !s.Has(first) {
			continue
		}
		last := first
		for s.Has(last + 1) {
			last++
		}
		part := strconv.Itoa(int(first))
		if last > first {
			part += "-" + strconv.Itoa(int(last))
		}
		parts = append(parts, part)
		first = last
	}
	return strings.Join(parts, ",")
}

// ParseVLAN reads the number of a VLAN.
func ParseVLAN(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < 1 || n > maxVLAN {
		return 0, fmt.Errorf("%q is not a VLAN: those are from 1 to 4094 (IEEE 802.1Q)", s)
	}
	return uint16(n), nil
}

// ParseAccess reads what an access port is in: the number of a VLAN.
func ParseAccess(s string) (VLANs, error) {
	vlan, err := ParseVLAN(s)
	if err != nil {
		return VLANs{}, err
	}
	return VLANs{Held: true, Untagged: vlan}, nil
}

// ParseTrunk reads what a trunk carries: 10,20,30-40 with tags and, with native=5
// among them, VLAN 5 without.
func ParseTrunk(s string) (v VLANs, err error) {
	v = VLANs{Held: true, Tagged: new(VLANSet)}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if native, ok := strings.CutPrefix(part, "native="); ok {
			if v.Untagged != 0 {
				return VLANs{}, errors.New("a trunk has one native VLAN")
			}
			if v.Untagged, err = ParseVLAN(native); err != nil {
				return VLANs{}, err
			}
			continue
		}
		from, to, span := strings.Cut(part, "-")
		if !span {
			to = from
		}
		first, err1 := ParseVLAN(from)
		last, err2 := ParseVLAN(to)
		switch {
		case err1 != nil || err2 != nil:
			return VLANs{}, fmt.Errorf("%q is no VLAN from 1 to 4094 and no range of them; a trunk is such as 10,20,30-40,native=5", part)
		case last < first:
			return VLANs{}, fmt.Errorf("the range %s is empty", part)
		}
		for vlan := first; vlan <= last; vlan++ {
			v.Tagged.Add(vlan)
		}
	}
	switch {
	case *v.Tagged == VLANSet{}:
		return VLANs{}, fmt.Errorf("%q names no VLAN a trunk carries with a tag; a trunk is such as 10,20,30-40,native=5", s)
	case v.Tagged.Has(v.Untagged):
		return VLANs{}, fmt.Errorf("VLAN %d cannot be native and have a tag as well", v.Untagged)
	}
	return v, nil
}

// String writes the option that ParseVLANs reads; empty is none.
func (v VLANs) String() string {
	switch {
	case !v.Held:
		return ""
	case v.Tagged == nil:
		return "vlan=" + strconv.Itoa(int(v.Untagged))
	case v.Untagged == 0:
		return "trunk=" + v.Tagged.String()
	}
	return fmt.Sprintf("trunk=%s,native=%d", v.Tagged, v.Untagged)
}

// ParseVLANs reads what String has written.
func ParseVLANs(s string) (VLANs, error) {
	switch key, value, _ := strings.Cut(s, "="); key {
	case "":
		return VLANs{}, nil
	case "vlan":
		return ParseAccess(value)
	case "trunk":
		return ParseTrunk(value)
	}
	return VLANs{}, fmt.Errorf("%q is neither vlan=N nor trunk=N,N-N", s)
}
