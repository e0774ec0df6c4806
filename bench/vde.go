package main

import (
	"os"
	"path/filepath"

	hosts "fairlead/test/lab"
)

// vde is a switch of Virtual Distributed Ethernet and what plugs a TAP of each
// container into it: three processes that speak by datagrams of local sockets.
func vde(l *lab, c *cable) {
	dir := l.dir()
	h := hosts.NewHost(l, c.name)
	socket, never := filepath.Join(dir, "switch"), filepath.Join(dir, "never")
	// It ends with its standard input, which therefore never does.
	h.Run(l, "mkfifo", never)
	sw := h.Serve(l, "sh", "-c", `exec vde_switch --sock "$1" 0<>"$2"`, "-", socket, never)
	l.comes(sw, exists(filepath.Join(socket, "ctl")))
	c.services = []*hosts.Service{sw}
	c.more = func(l *lab, e *hosts.Host, _ string) {
		plug := e.Serve(l, "vde_plug2tap", "--sock", socket, "eth0")
		l.comes(plug, func() error { _, err := e.Netlink.LinkByName("eth0"); return err })
		e.Up(l, "eth0")
		c.services = append(c.services, plug)
	}
	for _, e := range c.ends {
		c.more(l, e, "")
	}
	// Nothing else leads to these TAPs.
	c.crossed = spentBy(func() (n crossed, err error) {
		for _, e := range c.ends {
			got, err := receivedBy(e, "eth0")
			if err != nil {
				return n, err
			}
			n.Frames, n.Bytes = n.Frames+got.Frames, n.Bytes+got.Bytes
		}
		return n, nil
	}, c.services...)
}

// exists waits for a file.
func exists(name string) func() error {
	return func() error {
		_, err := os.Stat(name)
		return err
	}
}
