package test

import (
	"strings"
	"testing"
)

// A container leaves the network: the outside host sees the uplink's address, and
// each router on the way, ours too, counts the TTL down by one.
func TestS05_LeaveByAddress(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serveHTTP(o.Host, 80)
		o.start("a")
		far := o.Router.FarHost
		out := o.exec("a", "ping", "-c", "2", "-i", "0.2", "-W", "5", far)
		if err := contains(out, "ttl=62", "2 received"); err != nil { // 64, the router, and our gateway
			t.Error(err)
		}
		greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), o.seen)
		for ttl, from := range map[string]string{"1": "172.17.0.1", "2": o.Router.Addr} {
			r := o.try("exec", "a", "ping", "-c", "1", "-W", "5", "-t", ttl, far)
			if r.code != 1 || !strings.Contains(r.stdout, "From "+from+" icmp_seq=1 Time to live exceeded") {
				t.Errorf("with a TTL of %s: %v", ttl, r)
			}
		}
		if out := o.exec("a", "ping", "-c", "1", "-W", "5", "-t", "3", far); !strings.Contains(out, "1 received") {
			t.Errorf("a TTL of 3 is enough:\n%s", out)
		}
		// The router itself is one hop nearer.
		if out := o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.Addr); !strings.Contains(out, "ttl=63") {
			t.Errorf("ping to the router:\n%s", out)
		}
	})
}

// A download is on the other side what it was on this one.
func TestS05_Download(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		s := o.Host.Serve(t, play(t, "sink", ":9000")[0], play(t, "sink", ":9000")[1:]...)
		o.says(s, "listening")
		for _, link := range []string{"on", "off"} {
			name := "offload-" + link
			o.start(name, "--opt", "offload="+link)
			t.Log(name, o.exec(name, play(t, "transfer", o.Router.FarHost+":9000", "20000000")...))
		}
	})
}

// Of two uplinks each gives what leaves by it its own address.
func TestS05_TwoUplinks(t *testing.T) {
	o := newOutside(t)
	second := o.AddRouter(t)
	o.uplinks(o.Router.Spec(), second.Spec("route=198.18.1.0/24"))
	o.serveHTTP(o.Host, 80)
	o.start("a")
	for far, seen := range map[string]string{
		o.Router.FarHost: o.Router.Uplink,
		second.FarHost:   second.Uplink,
	} {
		greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), seen)
		o.exec("a", "ping", "-c", "1", "-W", "5", far)
	}
}
