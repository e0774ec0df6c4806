package policy

import (
	"strings"
	"testing"
)

func TestParseVLANs(t *testing.T) {
	for in, want := range map[string]string{
		"vlan=10": "vlan=10", "vlan=4094": "vlan=4094", "": "",
		"trunk=10": "trunk=10", "trunk=20,10, 30-32,31": "trunk=10,20,30-32", "trunk=native=5,1-4": "trunk=1-4,native=5", "trunk=63-65,4094": "trunk=63-65,4094",
	} {
		v, err := ParseVLANs(in)
		if err != nil || v.String() != want {
			t.Errorf("%s is %s, %v, want %s", in, v, err, want)
		}
	}
	for in, want := range map[string]string{
		"vlan=0": "from 1 to 4094", "vlan=4095": "from 1 to 4094", "vlan=": "from 1 to 4094", "vlan=-1": "from 1 to 4094",
		"trunk=": "no range of them", "trunk=9-5": "is empty", "trunk=native=5": "names no VLAN", "trunk=1-5,native=5": "cannot be native",
		"trunk=1,native=5,native=6": "one native VLAN", "trunk=1-": "no range of them", "trunk=native=x,1": "from 1 to 4094", "colour=1": "neither",
	} {
		if v, err := ParseVLANs(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %s, %v, want %q", in, v, err, want)
		}
	}
}

// FuzzParseVLANs: what is read can be said again, and is the same then.
func FuzzParseVLANs(f *testing.F) {
	for _, s := range []string{"", "vlan=10", "trunk=10,20,30-40,native=5", "trunk=1-4094", "trunk=,", "vlan=4095"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVLANs(s)
		if err != nil {
			return
		}
		again, err := ParseVLANs(v.String())
		if err != nil || again.String() != v.String() || again.Untagged != v.Untagged || v.Tagged.Has(0) || v.Tagged.Has(4095) {
			t.Errorf("%q is %s, then %s, %v", s, v, again, err)
		}
	})
}
