package packet

import "fmt"

// A Limit is the bound of something that grows, in words: a line of
// docs/limits.md. Each package lists its own in a function Limits, which names
// the constants that decide; the page is made of these lists.
type Limit struct {
	What    string   // that is bounded
	Most    string   // there may be, with the unit
	Share   string   // what one container may have of it; empty: there is nothing to share
	Beyond  string   // what becomes of one more
	Reasons []Reason // which frames that are dropped for it are counted as
}

// Most is a number of things, as Limit has it.
func Most(n int, things string) string { return fmt.Sprintf("%d %s", n, things) }

// MostBytes is a number of bytes, as Limit has it, in the largest unit that has
// it whole.
func MostBytes(n int) string {
	for _, unit := range []struct {
		name string
		size int
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return Most(n/unit.size, unit.name)
		}
	}
	return Most(n, "bytes")
}

// Limits are the bounds of what a frame may be.
func Limits() []Limit {
	return []Limit{
		{What: "bytes of a frame, virtio-net header included", Most: Most(MaxFrame, "bytes"),
			Beyond: "the kernel cuts it off, and it is dropped", Reasons: []Reason{Truncated, BadIPv4}},
		{What: "VLAN tags of a frame", Most: Most(MaxVLANTags, "tags"), Beyond: "the frame is dropped", Reasons: []Reason{TooManyTags}},
		{What: "extension headers of an IPv6 packet", Most: Most(maxExtensionHeaders, "headers"), Beyond: "the packet is dropped", Reasons: []Reason{BadIPv6}},
	}
}
