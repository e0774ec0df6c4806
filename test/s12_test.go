package test

import (
	"strings"
	"testing"
)

// A container reaches its own published port and a sibling's through the uplink's
// address; the server sees that address, so that its answers come back the same
// way.
func TestS12_Hairpin(t *testing.T) { eachWay(t, hairpins) }

func hairpins(t *testing.T, o *outside) {
	o.Router.NAT(t) // which sees none of it
	o.serve("web", "-p", "8080:80")
	o.start("echo", "-p", "5353:7/udp", "--", "fairlead", "probe", "udp-echo")
	o.logSays("echo", "echoing on")
	o.start("sink", append([]string{"-p", "9000:9000", "--"}, play(t, "sink", ":9000")...)...)
	o.logSays("sink", "listening")
	host := o.Router.Uplink
	for _, name := range []string{"web", "echo", "sink"} { // each of them its own and two siblings'
		page := o.exec(name, "curl", "-sS", "--max-time", "5", "http://"+host+":8080/")
		greeted(t, page, host)
		if err := contains(page, "at 172.17.0.2:80."); err != nil {
			t.Error(err)
		}
		o.exec(name, "fairlead", "probe", "udp-echo", host+":5353")
		o.exec(name, play(t, "transfer", host+":9000", "5000000")...)
	}
	// Who asks a sibling by its own address meets it directly.
	greeted(t, o.exec("echo", "curl", "-sS", "--max-time", "5", "http://172.17.0.2/"), "172.17.0.3")
	// And what nobody has published is refused from inside as from outside.
	r := o.try("exec", "web", "curl", "-sS", "--max-time", "2", "http://"+host+":81/")
	if r.code != 7 || !strings.Contains(r.stderr, "Connection refused") && !strings.Contains(r.stderr, "Couldn't connect") {
		t.Errorf("nobody listens on port 81: %v", r)
	}
}
