package lockin

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// What a run of all scenarios was seen to call is on the list, and what is on the
// list was seen or says why not.
func TestRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/recorded.txt")
	if err != nil {
		t.Fatal(err)
	}
	head, names, _ := strings.Cut(string(text), "\n")
	if !strings.HasSuffix(head, " "+runtime.GOARCH) {
		return // of another kind of machine, whose calls have other names, it says nothing
	}
	recorded, list := strings.Fields(names), allowed()
	for _, name := range recorded {
		i := slices.IndexFunc(list, func(c call) bool { return c.name == name })
		if i < 0 {
			t.Errorf("a node called %s, which is not on the list; calls.go needs it with the reason", name)
		} else if list[i].seldom != "" {
			t.Errorf("%s was recorded, so it is not seldom called", name)
		}
	}
	for _, c := range list {
		if c.seldom == "" && !slices.Contains(recorded, c.name) && !slices.ContainsFunc(ofC(), func(o call) bool { return o.name == c.name }) {
			t.Errorf("no node called %s; take it off the list, or say why it is seldom", c.name)
		}
	}
}
