package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Bandwidth is how much may pass in a second, in bits; 0 is no limit.
type Bandwidth int64

// Bounds of what can be asked for: less than a kilobyte a second is a link nobody
// can speak over, and more than this no machine moves.
const (
	leastBandwidth Bandwidth = 8_000
	mostBandwidth  Bandwidth = 1e12
)

// units are those of tc(8), largest first.
var units = []struct {
	name string
	bits Bandwidth
}{{"tbit", 1e12}, {"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// ParseBandwidth reads 100mbit, 1.5gbit or none, as tc(8) does where the unit is
// in bits.
func ParseBandwidth(s string) (Bandwidth, error) {
	lower := strings.ToLower(s)
	if lower == "none" {
		return 0, nil
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(lower, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.Trim(number, "0123456789.") != "" {
			break
		}
		b := math.Round(n * float64(u.bits))
		if b < float64(leastBandwidth) || b > float64(mostBandwidth) {
			return 0, fmt.Errorf("rate %s: it must be from %s to %s, or none", s, leastBandwidth, mostBandwidth)
		}
		return Bandwidth(b), nil
	}
	return 0, fmt.Errorf("%q is no rate such as 500kbit, 100mbit or 1.5gbit, nor none", s)
}

// String writes it as ParseBandwidth reads it.
func (b Bandwidth) String() string {
	if b == 0 {
		return "none"
	}
	for _, u := range units {
		if b%u.bits == 0 || b > u.bits && b%(u.bits/1000) == 0 {
			return strconv.FormatFloat(float64(b)/float64(u.bits), 'f', -1, 64) + u.name
		}
	}
	return "" // not reached: a bit divides everything
}

// Bytes is how many bytes may pass in a second.
func (b Bandwidth) Bytes() int { return int(b / 8) }
