package policy

import (
	"strings"
	"testing"
)

func TestParseBandwidth(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Bandwidth
		out  string
	}{
		{"100mbit", 100_000_000, "100mbit"}, {"1.5gbit", 1_500_000_000, "1.5gbit"}, {"1500MBIT", 1_500_000_000, "1.5gbit"},
		{"8000bit", 8000, "8kbit"}, {"8001bit", 8001, "8.001kbit"}, {"12345678bit", 12_345_678, "12345.678kbit"},
		{"500kbit", 500_000, "500kbit"}, {".5mbit", 500_000, "500kbit"}, {"1tbit", 1e12, "1tbit"}, {"none", 0, "none"},
	} {
		got, err := ParseBandwidth(c.in)
		if err != nil || got != c.want || got.String() != c.out {
			t.Errorf("%s: %d (%s), %v; want %d (%s)", c.in, int64(got), got, err, int64(c.want), c.out)
		}
	}
	for _, s := range []string{"", "100", "100mb", "mbit", "-1mbit", "+1mbit", "1e3mbit", "0x10mbit", "1..5mbit", "infmbit", "nanbit", "1 mbit", "1_0mbit", "100mbit/s"} {
		if b, err := ParseBandwidth(s); err == nil || !strings.Contains(err.Error(), "100mbit") {
			t.Errorf("%q is %v, %v", s, b, err)
		}
	}
	for _, s := range []string{"0mbit", "7999bit", "2tbit", "99999999999999999999gbit"} {
		if b, err := ParseBandwidth(s); err == nil || !strings.Contains(err.Error(), "from 8kbit to 1tbit") {
			t.Errorf("%q is %v, %v", s, b, err)
		}
	}
}

// FuzzParseBandwidth: what can be read is within bounds, and reads the same as it
// is written.
func FuzzParseBandwidth(f *testing.F) {
	for _, s := range []string{"100mbit", "1.5gbit", "none", "8kbit", "0.0000001tbit", "12345678bit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBandwidth(s)
		if err != nil {
			return
		}
		if b != 0 && (b < leastBandwidth || b > mostBandwidth) {
			t.Errorf("%q is %d", s, int64(b))
		}
		if again, err := ParseBandwidth(b.String()); err != nil || again != b {
			t.Errorf("%q is %d, written %s, which is %d (%v)", s, int64(b), b, int64(again), err)
		}
	})
}
