package test

import (
	"strings"
	"testing"

	"fairlead/test/lab"
)

// A node that is given the address another node has on the same network is told
// so, by whose MAC it is, and the other one goes on.
func TestUplinkAddressOfAnotherNode(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	lab.Need(t, "ip")
	lan := lab.NewHost(t, "lan")
	lan.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	lan.Up(t, "br0")
	for _, tap := range []string{"up0", "up1"} {
		lan.AddTAP(t, tap)
		lan.Run(t, "ip", "link", "set", tap, "master", "br0")
	}
	first, second := newNode(t), newNode(t)
	set := func(n *node, tap string) (string, int) {
		return n.on(lan, "network", "set", "default", "--uplink", "tap:"+tap+",ip=192.0.2.2/24")
	}
	if out, status := set(first, "up0"); status != 0 {
		t.Fatal(out)
	}
	mac := first.uplink("up0").MAC
	out, status := set(second, "up1")
	if err := contains(out, "uplink up1: 192.0.2.2 is in use by "+mac+"; "); err != nil || status != 125 {
		t.Errorf("exit status %d, %v", status, err)
	}
	set(first, "up0")
	if up := first.uplink("up0"); up.State != "up" || up.MAC != mac {
		t.Errorf("%+v", up)
	}
}

// A set of uplinks that cannot be is refused before anything goes: connections and
// addresses of containers stay. One that can keeps what the new uplinks have, and
// says what is lost.
func TestUplinkSetKeeps(t *testing.T) {
	const own = "192.0.2.50"
	o := newOutside(t, "addr="+own)
	second := o.AddRouter(t)
	o.Router.Host.Addr(t, "up0", "192.0.2.77/32")
	o.serveUDP(o.Host, 7)
	o.serve("mail", "-p", "8080:80")
	o.start("a")
	o.run("publish", "--address", own, "mail")
	far := o.Router.FarHost
	set := func(specs ...string) (string, int) {
		args := []string{"network", "set", "default"}
		for _, s := range specs {
			args = append(args, "--uplink", s)
		}
		return o.on(o.Router.Host, args...)
	}
	reached := func(when string) {
		t.Helper()
		for _, url := range []string{"http://" + own + "/", "http://" + o.Router.Uplink + ":8080/"} {
			if err := contains(curl(t, o.Host, url), "at 172.17.0.2:80."); err != nil {
				t.Errorf("%s, %s: %v", when, url, err)
			}
		}
	}
	have := o.Router.Spec("addr=" + own)
	reached("to begin with")

	o.exec("a", "fairlead", "probe", "udp-echo", far+":7") // the first packet asks for the neighbour
	heart := &heartbeat{c: o.background(append([]string{"exec", "-i", "a"}, play(t, "beat", far+":7")...)...)}
	for want, specs := range map[string][]string{
		"192.0.2.77 is in use by": {strings.Replace(have, o.Router.Uplink+"/", "192.0.2.77/", 1)},
		"mtu=9000 is more than":   {have + ",mtu=9000"},
		"there is no such inter":  {have + ",route=10.0.0.0/8", "tap:nosuchdevice,ip=203.0.113.9/24"},
		"in the subnet of uplink": {have + ",route=10.0.0.0/8", "tap:up1,ip=192.0.2.9/24"},
		"203.0.113.1 is in use":   {strings.Replace(second.Spec(), second.Uplink+"/", "203.0.113.1/", 1)[:len("tap:up1,ip=203.0.113.1/24")]},
	} {
		out, status := set(specs...)
		if err := contains(out, want); err != nil || status != 125 {
			t.Errorf("%v: exit status %d, %v", specs, status, err)
		}
	}
	reached("after errors")
	o.uplinks(have, second.Spec("route=198.18.1.0/24")) // one more
	o.uplinks(have)
	heart.stop()

	delete(o.taps, "up0") // from here on others take its place, and count from zero
	if out, status := set(have + ",route=198.51.100.0/24"); status != 0 || strings.Contains(out, "fairlead:") {
		t.Errorf("exit status %d\n%s", status, out)
	}
	reached("of another one")
	out, status := set(o.Router.Spec())
	if err := contains(out, "fairlead: "+own+", which is container mail's, leads nowhere any more: "); err != nil || status != 0 {
		t.Errorf("exit status %d, %v", status, err)
	}
	silent(t, o.Host, "http://"+own+"/")
	if r := o.try("port", "mail"); r.code != 0 || !strings.Contains(r.stdout, "all -> "+own) || !strings.Contains(r.stderr, "no uplink has it") {
		t.Errorf("port: %v", r)
	}
	if out, status := set(have); status != 0 {
		t.Errorf("exit status %d\n%s", status, out)
	}
	reached("back again")
}
