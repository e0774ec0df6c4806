package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// A published port is reached from outside by the address outside knows, and
// from other containers by the uplink's; the container sees who asks.
func TestS11_PublishTCP(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serve("web", "-p", "8080:80", "-p", "80:80")
		o.start("other")
		for _, port := range []string{"8080", "80"} {
			greeted(t, curl(t, o.Host, "http://"+o.reach+":"+port+"/"), o.Router.FarHost)
			greeted(t, curl(t, o.Router.Host, "http://"+o.Router.Uplink+":"+port+"/"), o.Router.Addr)
			page := o.exec("other", "curl", "-sS", "--max-time", "5", "http://"+o.Router.Uplink+":"+port+"/")
			if err := contains(page, "at 172.17.0.2:80."); err != nil {
				t.Error(err)
			}
			// 0.0.0.0 is every address we own: the gateway's is one.
			page = o.exec("other", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:"+port+"/")
			if err := contains(page, "at 172.17.0.2:80."); err != nil {
				t.Error(err)
			}
		}
		// What is published everywhere is on the address of the uplink.
		for asked, want := range map[string]string{
			"":       o.bound("80/tcp -> ", "80", "8080"),
			"80":     o.bound("", "80", "8080"),
			"80/tcp": o.bound("", "80", "8080"),
		} {
			if out := o.run(strings.Fields("port web " + asked)...); out != want {
				t.Errorf("port web %s prints\n%swant\n%s", asked, out, want)
			}
		}
		o.refuses("No public port '81/tcp' published for web", "port", "web", "81")
	})
}

// UDP is published, too, and with a bind address.
func TestS11_PublishUDP(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.start("echo", "-p", o.Router.Uplink+":5353:7/udp", "--", "fairlead", "probe", "udp-echo")
		o.logSays("echo", "echoing on")
		out := o.Host.Run(t, o.bin, "probe", "udp-echo", o.reach+":5353", "hello")
		if !strings.Contains(out, "hello") {
			t.Errorf("the echo is %q", out)
		}
		o.start("other")
		o.exec("other", "fairlead", "probe", "udp-echo", o.Router.Uplink+":5353")
		if r := o.try("exec", "other", "fairlead", "probe", "udp-echo", "--timeout", "500ms", "172.17.0.1:5353"); r.code == 0 {
			t.Errorf("published on the uplink's address only, it answers on the gateway's: %v", r)
		}
		if out := o.run("port", "echo"); out != "7/udp -> "+o.Router.Uplink+":5353\n" {
			t.Errorf("port echo prints %q", out)
		}
	})
}

// Ranges of ports, ports the node chooses, and those a container exposes.
func TestS11_Ranges(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serve("range", "-p", "8000-8002:79-81")
		greeted(t, curl(t, o.Host, "http://"+o.reach+":8001/"), o.Router.FarHost)
		if out := o.run("port", "range", "81"); out != o.bound("", "8002") {
			t.Errorf("port range 81 prints %q", out)
		}
		o.serve("first", "-p", "8001-8010:80")
		if out := o.run("port", "first", "80"); out != o.bound("", "8003") {
			t.Errorf("the first port free of 8001-8010: %q", out)
		}
		chosen := regexp.MustCompile(`:(\d+)\n`)
		for name, options := range map[string][]string{
			"chosen":  {"-p", "80"},
			"exposed": {"--expose", "80", "-P"},
		} {
			o.serve(name, options...)
			out := o.run("port", name, "80")
			m := chosen.FindStringSubmatch(out)
			if m == nil || out != o.bound("", m[1]) {
				t.Fatalf("port %s 80 prints %q", name, out)
			}
			greeted(t, curl(t, o.Host, "http://"+o.reach+":"+m[1]+"/"), o.Router.FarHost)
		}
	})
}

// What is published changes while the container runs.
func TestS11_PublishWhileRunning(t *testing.T) { eachWay(t, publishesWhileRunning) }

func publishesWhileRunning(t *testing.T, o *outside) {
	o.serve("web")
	o.serve("other")
	url := fmt.Sprintf("http://%s:8080/", o.Router.Uplink)
	refused(t, o.Host, url)
	o.run("publish", "web", "8080:80")
	greeted(t, curl(t, o.Host, url), o.Router.FarHost)
	o.refuses("Bind for 0.0.0.0:8080 failed: port is already allocated", "publish", "other", "8080:80")
	o.refuses("port is already allocated", "run", "-d", "--name", "third", "-p", "8079:79", "-p", "8080:80", "--", "sleep", "1")
	if c, ok := o.containers()["third"]; ok {
		t.Errorf("a container whose port is taken runs: %+v", c)
	}
	refused(t, o.Host, fmt.Sprintf("http://%s:8079/", o.Router.Uplink)) // nor is half of it published
	o.run("unpublish", "web", "8080:80")
	refused(t, o.Host, url)
	o.run("publish", "other", "8080:80")
	if err := contains(curl(t, o.Host, url), "at 172.17.0.3:80."); err != nil {
		t.Error(err)
	}
	// It goes with its container, and is free again.
	o.run("stop", "-t", "0", "other")
	o.gone("other")
	refused(t, o.Host, url)
	o.run("publish", "web", "8080:80")
	greeted(t, curl(t, o.Host, url), o.Router.FarHost)
}

// Bytes that come and go through a published port are the same on both sides.
func TestS11_BulkThroughAPublishedPort(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.start("sink", append([]string{"-p", "9000:9000", "--"}, play(t, "sink", ":9000")...)...)
		o.logSays("sink", "listening")
		command := play(t, "transfer", o.reach+":9000", "20000000")
		t.Log(o.Host.Run(t, command[0], command[1:]...))
	})
}
