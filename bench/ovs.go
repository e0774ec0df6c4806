package main

import (
	"fmt"
	"path/filepath"

	hosts "fairlead/test/lab"
)

// openVSwitch is Open vSwitch with the datapath that is a process ("netdev"), a
// veth pair to each container. Database and sockets are in a folder of their own,
// so a switch of the machine's is not touched.
//
// With tso its links carry what containers did not segment (userspace-tso-enable,
// which is off unless asked for). Without, the checksums of containers' frames have
// to be finished before it reads them, or no TCP connects.
func openVSwitch(tso bool) func(l *lab, c *cable) {
	return func(l *lab, c *cable) {
		h := hosts.NewHost(l, c.name)
		link := func(l *lab, e *hosts.Host, port string) {
			hosts.Join(l, h, port, e, "eth0")
			if !tso {
				e.Run(l, "ethtool", "-K", "eth0", "tx", "off")
			}
		}
		for i, e := range c.ends {
			link(l, e, fmt.Sprintf("port%d", i+1))
		}
		dir := l.dir()
		at := func(name string) string { return filepath.Join(dir, name) }
		database := "unix:" + at("db.sock")
		serve := func(args ...string) *hosts.Service {
			return h.Serve(l, "env", append([]string{"OVS_RUNDIR=" + dir, "OVS_LOGDIR=" + dir, "OVS_DBDIR=" + dir}, args...)...)
		}
		configure := func(l *lab, args ...string) {
			h.Run(l, "ovs-vsctl", append([]string{"--db=" + database, "--timeout=10"}, args...)...)
		}
		h.Run(l, "ovsdb-tool", "create", at("conf.db"))
		server := serve("ovsdb-server", "--remote=p"+database, "--unixctl="+at("db.ctl"), at("conf.db"))
		l.comes(server, exists(at("db.sock")))
		configure(l, "--no-wait", "init", "--", "set", "Open_vSwitch", ".", fmt.Sprintf("other_config:userspace-tso-enable=%v", tso))
		daemon := serve("ovs-vswitchd", "--disable-system", "--unixctl="+at("ctl"), database)
		l.comes(daemon, exists(at("ctl")))
		// It answers when the daemon has done it.
		configure(l, "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev",
			"--", "add-port", "br0", "port1", "--", "add-port", "br0", "port2")
		c.crossed = spentBy(sentBy(h, "port1", "port2"), daemon)
		c.services = []*hosts.Service{server, daemon}
		c.more = func(l *lab, container *hosts.Host, port string) {
			link(l, container, port)
			configure(l, "add-port", "br0", port)
		}
	}
}
