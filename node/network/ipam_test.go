package network

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func taken(list ...string) (all []Taken) {
	for _, s := range list {
		all = append(all, Taken{Prefix: netip.MustParsePrefix(s), By: s + " of network x"})
	}
	return all
}

// Docker's pools come in Docker's order, and none that overlaps what there is.
func TestFreePool(t *testing.T) {
	for _, c := range []struct {
		taken string
		want  string
	}{
		{"", "172.17.0.1/16"},
		{"172.17.0.0/16", "172.18.0.1/16"},
		{"172.17.3.0/24", "172.18.0.1/16"},
		{"172.18.0.0/16", "172.17.0.1/16"},
		{"172.16.0.0/12", "192.168.0.1/20"},
		{"172.16.0.0/12 192.168.5.0/24", "192.168.16.1/20"},
		{"172.16.0.0/12 192.168.0.0/17", "192.168.128.1/20"},
		{"172.16.0.0/12 192.168.0.0/16", ""},
		{"0.0.0.0/0", ""},
	} {
		got, err := FreePool(taken(strings.Fields(c.taken)...))
		if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
			t.Errorf("%s: %v, %v, want %s", c.taken, got, err, c.want)
		}
	}
	// All of them are handed out, and do not overlap.
	var have []Taken
	for {
		p, err := FreePool(have)
		if err != nil {
			break
		}
		have = append(have, Taken{Prefix: p.Masked()})
	}
	if first, last := have[0].Prefix.String(), have[len(have)-1].Prefix.String(); len(have) != 15+16 || first != "172.17.0.0/16" || last != "192.168.240.0/20" {
		t.Errorf("%d pools from %s to %s", len(have), first, last)
	}
}

func TestChoose(t *testing.T) {
	prefix := func(s string) netip.Prefix {
		if s == "" {
			return netip.Prefix{}
		}
		return netip.MustParsePrefix(s)
	}
	addr := func(s string) netip.Addr {
		if s == "" {
			return netip.Addr{}
		}
		return netip.MustParseAddr(s)
	}
	const overlap = "invalid pool request: Pool overlaps with other one on this address space: "
	for _, c := range []struct {
		subnet, gateway, within string
		aux                     map[string]netip.Addr
		want                    string // the gateway, or the error
	}{
		{"", "", "", nil, "172.18.0.1/16"},
		{"10.1.0.0/16", "", "", nil, "10.1.0.1/16"},
		{"10.1.0.0/16", "10.1.9.9", "10.1.5.0/24", map[string]netip.Addr{"a": ip("10.1.5.0"), "b": ip("10.1.255.254")}, "10.1.9.9/16"},
		{"10.1.0.0/16", "", "10.1.0.0/16", nil, "10.1.0.1/16"},
		{"10.1.0.0/16", "", "10.1.5.5/32", nil, "10.1.0.1/16"},
		{"", "10.1.0.1", "", nil, "gateway 10.1.0.1: a network with a gateway of its own needs a subnet, --subnet"},
		{"", "", "10.1.0.0/24", nil, "ip-range 10.1.0.0/24: a network with a range of addresses needs a subnet, --subnet"},
		{"", "", "", map[string]netip.Addr{"a": ip("10.1.5.0")}, "aux-address: a network that keeps addresses needs a subnet, --subnet"},
		{"10.1.0.1/16", "", "", nil, "invalid subnet 10.1.0.1/16: it should be 10.1.0.0/16"},
		{"10.1.0.0/31", "", "", nil, "subnet 10.1.0.0/31: the length must be from 8 to 30"},
		{"0.0.0.0/0", "", "", nil, "subnet 0.0.0.0/0: the length must be from 8 to 30"},
		{"2001:db8::/64", "", "", nil, "gateway 2001:db8::1/64 is not an IPv4 address with a length, such as 172.17.42.1/16"},
		{"127.0.0.0/8", "", "", nil, "gateway 127.0.0.1/8 is not an address a station can have"},
		{"10.1.0.0/16", "10.2.0.1", "", nil, "no matching subnet for gateway 10.2.0.1: it is not in 10.1.0.0/16"},
		{"10.1.0.0/16", "10.1.0.0", "", nil, "gateway 10.1.0.0/16 is the network or broadcast address of its own subnet"},
		{"10.1.0.0/16", "", "10.1.5.1/24", nil, "invalid ip-range 10.1.5.1/24: it should be 10.1.5.0/24"},
		{"10.1.0.0/16", "", "10.0.0.0/8", nil, "no matching subnet for range 10.0.0.0/8: it is not in 10.1.0.0/16"},
		{"10.1.0.0/16", "", "10.2.5.0/24", nil, "no matching subnet for range 10.2.5.0/24: it is not in 10.1.0.0/16"},
		{"10.1.0.0/16", "", "2001:db8::/64", nil, "no matching subnet for range 2001:db8::/64: it is not in 10.1.0.0/16"},
		{"10.1.0.0/16", "", "", map[string]netip.Addr{"a": ip("10.2.0.1")}, "no matching subnet for aux-address a: 10.2.0.1 is not in 10.1.0.0/16"},
		{"10.1.0.0/16", "", "", map[string]netip.Addr{"a": ip("10.1.0.1")}, "aux-address a: 10.1.0.1 is that of the gateway"},
		{"10.1.0.0/16", "", "", map[string]netip.Addr{"a": ip("10.1.0.2"), "b": ip("10.1.0.2")}, "aux-address b: 10.1.0.2 is that of aux-address a"},
		{"10.1.0.0/16", "", "", map[string]netip.Addr{"a": ip("10.1.255.255")}, "aux-address a: 10.1.255.255 is the network or broadcast address of 10.1.0.0/16"},
		{"172.17.9.0/24", "", "", nil, overlap + "172.17.9.0/24 and 172.17.0.0/16 of network x; --subnet 172.18.0.0/16 is free"},
	} {
		a := Addresses{Subnet: prefix(c.subnet), Gateway: addr(c.gateway), Pool: Pool{Range: prefix(c.within), Aux: c.aux}}
		gateway, pool, err := a.Choose(taken("172.17.0.0/16"))
		got := gateway.String()
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if limited := c.within != "" || len(c.aux) > 0; err == nil && (limited != (pool != nil) || limited && (pool.Range != a.Range || !maps.Equal(pool.Aux, c.aux))) {
			t.Errorf("%+v: pool %+v", c, pool)
		}
	}
}

func TestPoolRange(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.1.0.1/16"), &Pool{Range: netip.MustParsePrefix("10.1.5.0/30"), Aux: map[string]netip.Addr{"router": ip("10.1.5.1")}})
	p.mustTake(t, "", "10.1.5.0") // of the range the first, of the subnet one as others are
	p.mustTake(t, "", "10.1.5.2")
	p.mustTake(t, "10.1.0.9", "10.1.0.9") // by hand also beside it
	p.give(ip("10.1.0.9"))
	p.mustTake(t, "", "10.1.5.3")
	for want, text := range map[string]string{
		"":         "no address of the range from 10.1.5.0 to 10.1.5.3 is free; 3 containers have one",
		"10.1.5.1": "address 10.1.5.1 is kept for router (--aux-address)",
	} {
		a := netip.Addr{}
		if want != "" {
			a = ip(want)
		}
		if _, err := p.take(a); err == nil || err.Error() != text {
			t.Errorf("take(%q): %v, want %s", want, err, text)
		}
	}
	p.give(ip("10.1.5.2"))
	p.mustTake(t, "", "10.1.5.2")
}

// A naivePool is a subnet as a set of addresses somebody may have, which is
// searched from its start.
type naivePool struct {
	may, has map[netip.Addr]bool
	within   []netip.Addr // where the lowest free one is looked for
}

func newNaivePool(gateway netip.Prefix, limits *Pool) *naivePool {
	n := &naivePool{may: map[netip.Addr]bool{}, has: map[netip.Addr]bool{}}
	subnet := gateway.Masked()
	var all []netip.Addr
	for a := subnet.Addr(); subnet.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	for _, a := range all[1 : len(all)-1] {
		n.may[a] = a != gateway.Addr()
		if limits == nil || !limits.Range.IsValid() || limits.Range.Contains(a) {
			n.within = append(n.within, a)
		}
	}
	if limits != nil {
		for _, a := range limits.Aux {
			n.may[a] = false
		}
	}
	return n
}

func (n *naivePool) take(want netip.Addr) (netip.Addr, bool) {
	if !want.IsValid() {
		i := slices.IndexFunc(n.within, func(a netip.Addr) bool { return n.may[a] && !n.has[a] })
		if i < 0 {
			return want, false
		}
		want = n.within[i]
	}
	if !n.may[want] || n.has[want] {
		return want, false
	}
	n.has[want] = true
	return want, true
}

// Pools of random subnets, ranges and kept addresses give what a set gives.
func TestPoolAgainstSet(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		bits := 24 + rng.IntN(7)
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 2, byte(rng.Uint32())}), bits).Masked()
		size := 1 << (32 - bits)
		at := func() netip.Addr {
			b := subnet.Addr().As4()
			b[3] += byte(rng.IntN(size))
			return netip.AddrFrom4(b)
		}
		a := Addresses{Subnet: subnet, Gateway: at()}
		if rng.IntN(3) > 0 {
			a.Range = netip.PrefixFrom(at(), bits+rng.IntN(33-bits)).Masked()
		}
		for i := range rng.IntN(4) {
			if a.Aux == nil {
				a.Aux = map[string]netip.Addr{}
			}
			a.Aux[fmt.Sprint("x", i)] = at()
		}
		gateway, limits, err := a.Choose(nil)
		if err != nil {
			continue // such as a gateway that is the broadcast address
		}
		p, n := newPool(gateway, limits), newNaivePool(gateway, limits)
		for step := range 2000 {
			var want netip.Addr
			switch x := at(); rng.IntN(4) {
			case 0:
				if n.may[x] {
					p.give(x)
					delete(n.has, x)
				}
				continue
			case 1:
				want = x
			}
			got, err := p.take(want)
			model, ok := n.take(want)
			if (err == nil) != ok || ok && got != model {
				t.Fatalf("seed %d, step %d: %s of %s in %s: %s, %v, want %s, %v", seed, step, want, gateway, a.Range, got, err, model, ok)
			}
		}
	}
}
