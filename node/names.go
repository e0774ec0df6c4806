package node

import (
	"encoding/hex"
	"fmt"
)

// adjectives and ropes make names for containers that were given none.
var (
	adjectives = [...]string{"able", "brisk", "calm", "deft", "eager", "fair", "glad", "hale",
		"keen", "light", "merry", "neat", "proud", "quick", "ready", "steady"}
	ropes = [...]string{"anchor", "bight", "bowline", "cleat", "clove", "fender", "halyard", "hawser",
		"hitch", "lanyard", "line", "painter", "sheave", "sheet", "splice", "warp"}
)

// inventNameLocked makes a name nobody has, out of the hexadecimal id.
func (n *Node) inventNameLocked(id string) string {
	var b [1]byte
	_, _ = hex.Decode(b[:], []byte(id[:2])) // an id is hexadecimal
	base := adjectives[b[0]>>4] + "_" + ropes[b[0]&0xf]
	name := base
	for i := 2; n.named[name] != nil; i++ {
		name = fmt.Sprintf("%s%d", base, i)
	}
	return name
}
