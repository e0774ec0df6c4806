package network

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func (p *pool) mustTake(t *testing.T, want, get string) {
	t.Helper()
	var a netip.Addr
	if want != "" {
		a = ip(want)
	}
	if got, err := p.take(a); err != nil || got != ip(get) {
		t.Errorf("take(%q) = %v, %v, want %s", want, got, err, get)
	}
}

func TestPoolLowestFirst(t *testing.T) {
	p := newPool(netip.MustParsePrefix("172.17.0.1/16"), nil)
	p.mustTake(t, "", "172.17.0.2")
	p.mustTake(t, "", "172.17.0.3")
	p.mustTake(t, "172.17.0.5", "172.17.0.5") // by hand
	p.mustTake(t, "", "172.17.0.4")
	p.mustTake(t, "", "172.17.0.6")
	p.give(ip("172.17.0.3"))
	p.give(ip("172.17.0.2"))
	p.give(ip("172.17.0.5"))
	for _, want := range []string{"172.17.0.2", "172.17.0.3", "172.17.0.5", "172.17.0.7"} {
		p.mustTake(t, "", want)
	}
	p.give(ip("172.17.0.3"))
	p.mustTake(t, "172.17.0.3", "172.17.0.3")
	p.mustTake(t, "", "172.17.0.8")
}

func TestPoolGatewayInTheMiddle(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.0.0.3/29"), nil)
	for _, want := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"} {
		p.mustTake(t, "", want)
	}
	if a, err := p.take(netip.Addr{}); err == nil {
		t.Errorf("took %v of a full subnet", a)
	}
}

func TestPoolWants(t *testing.T) {
	p := newPool(netip.MustParsePrefix("172.17.0.1/16"), nil)
	p.mustTake(t, "172.17.255.254", "172.17.255.254")
	for want, text := range map[string]string{
		"172.18.0.2":        "address 172.18.0.2 is not in the subnet 172.17.0.0/16",
		"172.16.255.255":    "address 172.16.255.255 is not in the subnet 172.17.0.0/16",
		"::1":               "address ::1 is not in the subnet 172.17.0.0/16",
		"::ffff:172.17.0.9": "address ::ffff:172.17.0.9 is not in the subnet 172.17.0.0/16",
		"172.17.0.1":        "address 172.17.0.1 is the gateway's",
		"172.17.0.0":        "address 172.17.0.0 is the network or broadcast address of 172.17.0.0/16",
		"172.17.255.255":    "address 172.17.255.255 is the network or broadcast address of 172.17.0.0/16",
		"172.17.255.254":    "address 172.17.255.254 is already in use",
	} {
		if _, err := p.take(ip(want)); err == nil || err.Error() != text {
			t.Errorf("take(%s): %v, want %s", want, err, text)
		}
	}
	p.mustTake(t, "", "172.17.0.2") // nothing was taken by a refusal
}

func TestPoolExhausted(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.0.0.1/30"), nil)
	p.mustTake(t, "", "10.0.0.2")
	const text = "no address of 10.0.0.0/30 is free; 1 containers have one"
	for range 2 {
		if _, err := p.take(netip.Addr{}); err == nil || err.Error() != text {
			t.Errorf("full: %v, want %s", err, text)
		}
	}
	p.give(ip("10.0.0.2"))
	p.mustTake(t, "", "10.0.0.2")
}

// TestPoolAgainstModel compares with a list that is searched from its start.
func TestPoolAgainstModel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			p := newPool(netip.MustParsePrefix("10.0.0.17/27"), nil)
			var free [32]bool
			for i := 1; i < 31; i++ {
				free[i] = i != 17
			}
			for range 3000 {
				n := rng.IntN(32)
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
				switch rng.IntN(3) {
				case 0:
					if _, err := p.take(a); (err == nil) != free[n] {
						t.Fatalf("take(%v): %v, free is %v", a, err, free[n])
					}
					free[n] = false
				case 1:
					if n == 0 || n == 17 || n == 31 {
						continue
					}
					p.give(a)
					free[n] = true
				default:
					lowest := 0
					for lowest < 32 && !free[lowest] {
						lowest++
					}
					got, err := p.take(netip.Addr{})
					if (err == nil) != (lowest < 32) || err == nil && got.As4()[3] != byte(lowest) {
						t.Fatalf("took %v, %v, the lowest free is %d", got, err, lowest)
					}
					if lowest < 32 {
						free[lowest] = false
					}
				}
			}
		})
	}
}
