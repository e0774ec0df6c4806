package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"fairlead/test/lab"
)

// killsVariable says how often TestS29_Thousand kills the node.
const killsVariable = "FAIRLEAD_KILLS"

// A thousand connections are open, half of them between containers, and the node is
// killed at moments nobody chose. Each time those between containers go on, the
// others are reset and not silent, others begin in their place, the tables agree, and
// nothing of the node that was killed is left. FAIRLEAD_KILLS=50 does so fifty times.
func TestS29_Thousand(t *testing.T) {
	kills := 3
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	// A port is answered by 50 resets at once and 100 a second; so no container has
	// more connections out, and no more come in by the uplink.
	const between, atOnce, leaving = 250, 50, 9
	eachUplink(t, func(t *testing.T, o *outside) {
		rng := newRNG(t)
		parrot := play(t, "parrot", ":7")
		o.says(o.Host.Serve(t, parrot[0], parrot[1:]...), "listening")
		// A SYN with the port of a connection that was lost would be answered as a part of
		// that (RFC 5961 section 4), and be sent again: what is new goes elsewhere.
		others := play(t, "parrot", ":8")
		o.says(o.Host.Serve(t, others[0], others[1:]...), "listening")
		o.start("server", append([]string{"-p", "7:7", "--"}, parrot...)...)
		o.logSays("server", "listening")
		o.start("tap")
		o.start("veth", "--opt", veth)
		to := o.containers()["server"].IP + ":7"
		inside := []*client{o.talk("tap", to, between), o.talk("veth", to, between)}
		all := fmt.Sprintf("%d answered, 0 reset, 0 silent", between)
		none := fmt.Sprintf("0 answered, %d reset, 0 silent", atOnce)
		for i := range leaving {
			o.start(fmt.Sprint("out", i))
		}
		var before holdings
		late := 0
		for i := range kills {
			outer := []*client{o.talkFromOutside(o.reach+":7", atOnce)}
			for i := range leaving {
				outer = append(outer, o.talk(fmt.Sprint("out", i), o.Router.FarHost+":7", atOnce))
			}
			time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
			again := o.synsAgain("tap")
			o.killNode()
			o.revive()
			o.talk("tap", o.Router.FarHost+":8", 1).stop()
			if o.synsAgain("tap") > again {
				late++
			}
			for _, c := range inside {
				c.asks(all)
			}
			for _, c := range outer {
				c.asks(none)
				c.stop()
			}
			o.tablesAgree()
			if o.byHost() { // those by a link end by time
				lab.Eventually(t, patience, func() error {
					if list := o.flows(); len(list) > 0 {
						return fmt.Errorf("%d flows are left", len(list))
					}
					return nil
				})
			}
			if now := o.holdings(); i == 0 {
				before = now
			} else if err := (holdings{now.pid, before.count}).exceeded(); err != nil {
				t.Errorf("after %d kills: %v", i+1, err)
			}
			if list, _ := filepath.Glob(filepath.Join(o.dir, "containers", "*")); len(list) != 3+leaving {
				t.Errorf("after %d kills there are files of %d containers", i+1, len(list))
			}
		}
		if late > kills/2 { // after some the machine may have stood still
			t.Errorf("after %d of %d kills a new connection out did not work from the beginning", late, kills)
		}
		if nodes := nodesIn(t, o.dir); len(nodes) != 1 {
			t.Errorf("nodes: %v", nodes)
		}
		t.Logf("%d kills: %d connections went on each time, %d others were reset", kills, 2*between, kills*(leaving+1)*atOnce)
	})
}

// revive has the next node be started from where the one before was.
func (o *outside) revive() {
	o.t.Helper()
	if o.Machine == nil {
		o.run("ps")
	} else if out, status := o.on(o.Machine, "ps"); status != 0 {
		o.t.Fatalf("ps: exit status %d\n%s", status, out)
	}
	o.followLog()
	if o.Machine == nil {
		o.uplinks(o.Router.Spec())
	}
}

// tablesAgree is what `fairlead check` says.
func (o *outside) tablesAgree() {
	o.t.Helper()
	lab.Eventually(o.t, patience, func() error {
		if r := o.try("check"); r.code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}

// talkFromOutside is talk of the host outside.
func (o *outside) talkFromOutside(to string, count int) *client {
	o.t.Helper()
	c := o.playOutside("talk", to, strconv.Itoa(count))
	c.says(fmt.Sprintf("%d connections", count))
	return c
}

// pourFromOutside is pour of the host outside.
func (o *outside) pourFromOutside(to string) *client {
	o.t.Helper()
	c := o.playOutside("pour", to)
	c.says("pouring")
	return c
}

// playOutside has the host outside play something.
func (o *outside) playOutside(what ...string) *client {
	o.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	args := play(o.t, what[0], what[1:]...)
	cmd := o.Host.Command(ctx, args[0], args[1:]...)
	c := &client{t: o.t, cmd: cmd.Cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &c.out, &c.errors
	var err error
	if c.in, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		o.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		defer cancel()
		_ = cmd.Wait()
	}()
	o.clients = append(o.clients, c)
	return c
}
