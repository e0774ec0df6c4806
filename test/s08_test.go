package test

import (
	"strings"
	"testing"

	"fairlead/test/lab"
)

func TestS08_PingAndHTTP(t *testing.T) {
	lab.Need(t, "ping", "curl")
	n := newNode(t)
	n.serve("a")
	n.serve("b")
	for from, to := range map[string]string{"a": "172.17.0.3", "b": "172.17.0.2"} {
		if out := n.exec(from, "ping", "-c", "1", "-W", "5", to); !strings.Contains(out, "ttl=64") {
			t.Errorf("ping from %s does not say ttl=64:\n%s", from, out)
		}
		page := n.exec(from, "curl", "-sS", "--max-time", "5", "http://"+to+"/")
		if !strings.HasPrefix(page, "Hello ") || !strings.Contains(page, "at "+to+":80.") {
			t.Errorf("%s got from %s: %q", from, to, page)
		}
	}
}
