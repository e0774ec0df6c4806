package test

import (
	"strings"
	"testing"

	"fairlead/test/lab"
)

// A station on a network that others made is the way out, by a packet socket on
// its interface: with a MAC of the uplink's own, and with that of the interface.
func TestUplinkByPacketSocket(t *testing.T) {
	for _, mac := range []string{"", "mac=shared"} {
		t.Run("uplink "+mac, func(t *testing.T) {
			lab.NoLeaks(t)
			lab.Need(t, "ping", "curl")
			world := lab.NewOutside(t)
			// The router's cable to the station is in the place of the TAP.
			station := lab.NewHost(t, "station")
			lab.Join(t, world.Router.Host, "lan", station, "eth0")
			world.Router.Move(t, world.Router.TAP, "lan")
			o := &outside{node: newNode(t), Outside: world}
			spec := strings.Replace(world.Router.Spec(), "tap:"+world.Router.TAP, "if:eth0", 1)
			if mac != "" {
				spec += "," + mac
			}
			if out, status := o.on(station, "network", "set", "default", "--uplink", spec); status != 0 {
				t.Fatalf("exit status %d\n%s", status, out)
			}
			far := o.Router.FarHost
			o.serveHTTP(o.Host, 80)
			sink := play(t, "sink", ":9000")
			s := o.Host.Serve(t, sink[0], sink[1:]...)
			o.says(s, "listening")
			o.start("a", append([]string{"-p", "9000:9000", "--"}, sink...)...)
			o.logSays("a", "listening")
			o.serve("web", "-p", "8080:80")

			out := o.exec("a", "ping", "-c", "2", "-i", "0.2", "-W", "5", far)
			if err := contains(out, "ttl=62", "2 received"); err != nil {
				t.Error(err)
			}
			greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), o.Router.Uplink)
			greeted(t, curl(t, o.Host, "http://"+o.Router.Uplink+":8080/"), far)
			refused(t, o.Host, "http://"+o.Router.Uplink+":81/")
			t.Log("out: ", o.exec("a", play(t, "transfer", far+":9000", "10000000")...))
			in := play(t, "transfer", o.Router.Uplink+":9000", "10000000")
			t.Log("in: ", o.Host.Run(t, in[0], in[1:]...))
		})
	}
}
