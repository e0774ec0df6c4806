package test

import "testing"

// What is not published is refused at once on the addresses we own.
func TestS13_RefusedAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serve("web")
		for range 3 {
			refused(t, o.Host, "http://"+o.reach+":80/")
			refused(t, o.Router.Host, "http://"+o.Router.Uplink+":80/")
		}
		command := play(t, "ask", "40000", o.reach+":7", "1")
		if err := contains(o.Host.Run(t, command[0], command[1:]...), "connection refused"); err != nil {
			t.Error(err)
		}
		// What nobody published is the machine's own to refuse where it has sockets.
		if !o.byHost() && o.uplinkDropped("up0", "refused") < 7 {
			t.Errorf("show drops counts %d refused", o.uplinkDropped("up0", "refused"))
		}
		// The address itself is there.
		o.Host.Run(t, "ping", "-c", "1", "-W", "5", o.reach)
	})
}

// Nobody outside gets an answer from a container's own address, who routes its
// network to us included.
func TestS13_NotByTheContainersAddress(t *testing.T) {
	o := newOutside(t)
	o.Router.Route(t, "172.17.0.0/16", o.Router.Uplink)
	o.serve("web", "-p", "8080:80")
	o.start("echo", "--", "fairlead", "probe", "udp-echo")
	o.logSays("echo", "echoing on")
	for _, url := range []string{"http://172.17.0.2/", "http://172.17.0.2:8080/", "http://172.17.0.1:8080/"} {
		silent(t, o.Host, url)
	}
	for _, address := range []string{"172.17.0.2", "172.17.0.1", "172.17.255.255"} {
		if out, status := o.Host.Try(t, "ping", "-c", "1", "-W", "0.3", address); status != 1 {
			t.Errorf("ping %s ends with %d:\n%s", address, status, out)
		}
	}
	if out, status := o.Host.Try(t, o.bin, "probe", "udp-echo", "--timeout", "300ms", "172.17.0.3:7"); status == 0 {
		t.Errorf("the echo server answered: %s", out)
	}
	if o.uplinkDropped("up0", "not-for-us") == 0 {
		t.Errorf("nothing counts what was not for us: %s", o.run("show", "drops"))
	}
	// While a connection the container began is answered, of course.
	o.exec("web", "ping", "-c", "1", "-W", "5", o.Router.FarHost)
	// And a stranger who guesses the ports of one is not.
	o.serveUDP(o.Host, 7)
	c := o.background(append([]string{"exec", "web"}, play(t, "ask", "40000", o.Router.FarHost+":7", "1")...)...)
	if code := c.wait(); code != 0 {
		t.Fatalf("ask ended with %d: %s", code, c.errors.String())
	}
	stranger := play(t, "ask", "7", o.Router.Uplink+":40000", "1")
	if out := o.Router.Run(t, stranger[0], stranger[1:]...); out != "silence\n" {
		t.Errorf("a stranger gets %q", out)
	}
	if o.uplinkDropped("up0", "filtered") == 0 {
		t.Errorf("nothing counts the stranger: %s", o.run("show", "drops"))
	}
}

// A port published on 127.0.0.1 is nobody's outside.
func TestS13_PublishedOnLoopback(t *testing.T) {
	o := newOutside(t)
	o.Router.NAT(t)
	o.serve("web", "-p", "127.0.0.1:8080:80")
	o.start("other")
	if out := o.run("port", "web"); out != "80/tcp -> 127.0.0.1:8080\n" {
		t.Errorf("port web prints %q", out)
	}
	refused(t, o.Host, "http://"+o.Router.Far+":8080/")
	refused(t, o.Router.Host, "http://"+o.Router.Uplink+":8080/")
	// Loopback addresses do not leave a host; who tries all the same gets nothing.
	o.Router.Sysctl(t, "net.ipv4.conf.all.route_localnet", "1")
	o.Router.Run(t, "ip", "route", "replace", "table", "local", "unicast", "127.0.0.9", "via", o.Router.Uplink, "dev", "up0")
	silent(t, o.Router.Host, "http://127.0.0.9:8080/")
}
