package node

import (
	"bytes"
	"strings"
	"testing"
)

// TestIDIsNoNumber: a container's name for itself is none that resolvers take for an
// address.
func TestIDIsNoNumber(t *testing.T) {
	number, name := strings.Repeat("7", 32), strings.Repeat("\x00\xa0", 16)
	if got, want := idOf(bytes.NewBufferString(number+name)), strings.Repeat("00a0", 16); got != want {
		t.Errorf("the ID is %s, want %s", got, want)
	}
}
