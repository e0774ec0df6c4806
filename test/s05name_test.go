package test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fairlead/test/lab"
)

// By name: ping, a download and a trace of the route, with names that a DNS server
// outside serves to the machine, and by the gateway to its containers. The outside
// host sees the machine's address.
func TestS05_LeaveByName(t *testing.T) {
	lab.Need(t, "dnsmasq", "dig", "traceroute", "unshare")
	o := newHostMachine(t)
	far := o.Router.FarHost
	o.Host.Serve(t, "dnsmasq", "--no-daemon", "--user=root", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file",
		"--bind-interfaces", "--listen-address="+far, "--local=/example/", "--local=/in-addr.arpa/", "--host-record=www.example,"+far,
		"--host-record=router.example,"+o.Router.Addr)
	lab.Eventually(t, 10*time.Second, func() error {
		if out, status := o.Host.Try(t, "dig", "@"+far, "+time=1", "+tries=1", "www.example"); status != 0 {
			return fmt.Errorf("dnsmasq does not answer: %s", out)
		}
		return nil
	})
	file := filepath.Join(filepath.Dir(o.dir), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+far+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, status := o.Machine.Try(t, "unshare", "--mount", "sh", "-ec", `mount -n --bind "$0" /etc/resolv.conf; exec "$@"`, file,
		"env", "FAIRLEAD_DIR="+o.dir, o.bin, "up")
	if status != 0 {
		t.Fatal(out)
	}
	o.serveHTTP(o.Host, 80)
	o.start("a")
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "10", "http://www.example/"), o.seen)
	if err := contains(o.exec("a", "ping", "-c", "2", "-i", "0.2", "-W", "5", "www.example"), "PING www.example ("+far+")", "ttl=62", "2 received"); err != nil {
		t.Error(err)
	}
	route, _ := o.traceroute("a", "-w", probeWait, "www.example")
	if err := contains(route, " 1  172.17.0.1 (172.17.0.1) ",
		" 2  router.example ("+o.Router.Addr+") ", " 3  www.example ("+far+") "); err != nil {
		t.Error(err)
	}
}
