package test

import (
	"strings"
	"testing"
)

// A port published at one address of the machine is at no other one.
func TestS13_BindAddresses(t *testing.T) {
	o := newHostOutside(t)
	lan := o.Router.Uplink
	o.serve("web", "-p", "127.0.0.1:8080:80", "-p", "[::1]:8081:80", "-p", lan+":8082:80")
	if out, want := o.run("port", "web"), "80/tcp -> 127.0.0.1:8080\n80/tcp -> "+lan+":8082\n80/tcp -> [::1]:8081\n"; out != want {
		t.Errorf("port web prints %q, want %q", out, want)
	}
	urls := []string{"127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082", "[::1]:8080", "[::1]:8081", "[::1]:8082", lan + ":8080", lan + ":8081", lan + ":8082"}
	open := map[string]string{"127.0.0.1:8080": "172.17.0.1", "[::1]:8081": "172.17.0.1", lan + ":8082": lan}
	for _, at := range urls {
		if seen := open[at]; seen != "" {
			greeted(t, curl(t, o.Machine, "http://"+at+"/"), seen)
		} else {
			refused(t, o.Machine, "http://"+at+"/")
		}
	}
	for _, port := range []string{"8080", "8081"} {
		refused(t, o.Host, "http://"+lan+":"+port+"/")
	}
	greeted(t, curl(t, o.Host, "http://"+lan+":8082/"), o.Router.FarHost)
	// Nor is one of the loopback there for containers, their gateway included.
	o.start("other")
	for _, at := range []string{lan + ":8080", lan + ":8081", "172.17.0.1:8080", "172.17.0.1:8081", "127.0.0.1:8080"} {
		if r := o.try("exec", "other", "curl", "-sS", "--max-time", "5", "http://"+at+"/"); r.code != 7 {
			t.Errorf("%s from another container: %v", at, r)
		}
	}
}

// Containers of another node on the same machine reach what is published, as any
// other client of this machine, and nothing else.
func TestS13_AnotherNetworksContainers(t *testing.T) {
	o := newHostOutside(t)
	o.serve("web", "-p", "8080:80")
	other := newNodeDir(t)
	if out, status := other.on(o.Machine, "up", "--bip", "172.18.0.1/16"); status != 0 {
		t.Fatal(out)
	}
	other.start("stranger")
	get := func(at string) result {
		return other.try("exec", "stranger", "curl", "-sS", "--max-time", "5", "http://"+at+"/")
	}
	greeted(t, get(o.reach+":8080").stdout, o.Router.Uplink)
	for _, at := range []string{"172.17.0.2", "172.17.0.2:8080", "172.17.0.1:8080", o.reach + ":80"} {
		if r := get(at); r.code != 7 {
			t.Errorf("%s answers to another network: %v", at, r)
		}
	}
}

// A service of the host is reached by the host's own address by everybody; what
// listens on its loopback only with --host-loopback, by the names for that.
func TestS14_ContainerToHost(t *testing.T) {
	o := newHostOutside(t)
	serve := func(addr, kind string) {
		t.Helper()
		s := o.Machine.Serve(t, o.bin, "probe", kind, "--addr", addr)
		o.says(s, map[string]string{"http-server": "serving on", "udp-echo": "echoing on"}[kind])
	}
	serve(":9090", "http-server")
	serve(":9090", "udp-echo")
	serve("127.0.0.1:9091", "http-server")
	serve("127.0.0.1:9091", "udp-echo")
	o.start("a")
	lan := o.Router.Uplink
	get := func(at string) result {
		return o.try("exec", "a", "curl", "-sS", "--max-time", "5", "http://"+at+"/")
	}
	echo := func(at string) result {
		return o.try("exec", "a", "fairlead", "probe", "udp-echo", "--timeout", "1s", at)
	}
	greeted(t, get(lan+":9090").stdout, lan)
	if r := echo(lan + ":9090"); r.code != 0 {
		t.Error(r)
	}
	o.exec("a", "ping", "-c", "1", "-W", "5", lan)
	names := []string{"host.fairlead.internal", "host.docker.internal"}
	for _, at := range append(names, "172.17.0.1", lan) {
		if r := get(at + ":9091"); r.code == 0 {
			t.Errorf("the host's loopback is reached by %s: %v", at, r)
		}
		if r := echo(at + ":9091"); r.code == 0 {
			t.Errorf("the host's loopback is reached by %s: %v", at, r)
		}
	}
	o.run("network", "set", "default", "--host-loopback")
	for _, name := range names {
		greeted(t, get(name+":9091").stdout, "127.0.0.1")
		if r := echo(name + ":9091"); r.code != 0 {
			t.Error(r)
		}
	}
	for _, r := range []result{get(lan + ":9091"), get("172.17.0.1:9099")} { // never by its other addresses; nobody listens
		if r.code != 7 {
			t.Errorf("%v", r)
		}
	}
	if flows := o.run("show", "flows"); !strings.Contains(flows, "redirect") {
		t.Errorf("no flow is redirected:\n%s", flows)
	}
}
