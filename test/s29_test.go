package test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// killNode kills the node and waits until it is gone; the next command that comes
// starts another.
func (n *node) killNode() {
	n.t.Helper()
	pid := n.nodePid()
	n.followLog()
	kill(n.t, pid, syscall.SIGKILL)
	awaitEnd(n.t, pid)
	n.restarted = true
}

// awaitEnd waits until a process, perhaps another's child, is there no more.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

// The node is killed. Its containers keep interface, index, addresses, routes and
// carrier, connections between them go on, and new ones in every direction work
// within a second of the next node, which any command starts.
func TestS29_Killed(t *testing.T) {
	lab.Need(t, "ip")
	n := newNode(t, "--bip", "172.20.0.1/16", "--egress", "internet")
	n.run("network", "create", "--subnet", "10.55.0.0/24", "lab")
	n.run("network", "create", "--internal", "inner")
	n.serve("web", "-p", "127.0.0.1:8080:80", "--rate-out", "1gbit")
	n.start("parrot", append([]string{"--opt", veth, "--"}, play(t, "parrot", ":7")...)...)
	n.start("wire", "--opt", wire)
	n.start("two", "--network", "name=lab,alias=deux", "--network", "inner")
	n.start("maker", "--network", "lab")
	n.start("sharer", "--network", "container:maker")
	n.start("alone", "--network", "none")
	n.start("host", "--network", "host")
	n.run("network", "connect", "lab", "wire")
	n.run("network", "connect", "default", "maker")
	n.run("publish", "web", "127.0.0.1:8081:80")
	n.run("rename", "two", "zwei")
	n.run("kill", "maker") // its links live on with who shares them
	talks := map[string]*client{}
	for name, to := range map[string]string{"web": "parrot", "wire": "parrot", "sharer": "parrot"} {
		talks[name] = n.talk(name, n.containers()[to].IP+":7", 2)
	}
	before, inside := n.containers(), n.allInside()
	files := n.sh("zwei", "cat /etc/hosts /etc/resolv.conf")
	front := n.background("run", "--name", "front", "--", "sh", "-c", "echo here; read x; exit 7")
	front.says("here")
	follower := n.background("logs", "-f", "web")
	follower.says("serving on")

	took, late := n.connects(before["web"].IP), 0
	for range 2 {
		n.killNode()
		n.run("ps")
		if now := n.connects(before["web"].IP); now.exceed(took) {
			t.Logf("new connections took %+v, and took %+v before the kill", now, took)
			late++
		}
		for name, c := range talks {
			c.asks("2 answered, 0 reset, 0 silent")
			t.Logf("a connection of %s goes on", name)
		}
		now := n.containers()
		delete(now, "front")
		if a, b := fmt.Sprintf("%+v", before), fmt.Sprintf("%+v", now); a != b {
			t.Errorf("containers were\n%s\nand are\n%s", a, b)
		}
		if now := n.allInside(); !maps.Equal(now, inside) {
			t.Errorf("inside there was\n%v\nand is\n%v", inside, now)
		}
		if now := n.sh("zwei", "cat /etc/hosts /etc/resolv.conf"); now != files {
			t.Errorf("files were\n%s\nand are\n%s", files, now)
		}
	}
	if late == 2 {
		t.Error("after no kill new connections worked from the beginning") // after one the machine may have stood still
	}
	if code := follower.wait(); code != 125 || !strings.Contains(follower.errors.String(), "fairlead logs -f web") {
		t.Errorf("logs -f ends with %d: %s", code, follower.errors.String())
	}
	fmt.Fprintln(front.in)
	if code := front.wait(); code != 7 {
		t.Errorf("a container in the foreground ends with %d: %s", code, front.errors.String())
	}
	// All is as changeable as it was.
	n.run("network", "disconnect", "lab", "wire")
	n.run("network", "connect", "inner", "wire")
	n.run("unpublish", "web", "127.0.0.1:8081:80")
	n.refuses("has the networks of container maker, which has ended", "network", "disconnect", "default", "sharer")
}

// talk has a container hold connections to a parrot.
func (n *node) talk(name, to string, count int) *client {
	n.t.Helper()
	c := n.background(append([]string{"exec", "-i", name}, play(n.t, "talk", to, strconv.Itoa(count))...)...)
	c.says(fmt.Sprintf("%d connections", count))
	return c
}

// asks has a talker ask by each of its connections, and waits for what comes of it.
func (c *client) asks(want string) {
	c.t.Helper()
	had := strings.Count(c.out.String(), "silent")
	fmt.Fprintln(c.in)
	lab.Eventually(c.t, patience, func() error {
		if strings.Count(c.out.String(), "silent") == had {
			return errors.New("it has not finished asking")
		}
		return nil
	})
	lines := strings.Split(strings.TrimSpace(c.out.String()), "\n")
	if have := lines[len(lines)-1]; have != want {
		c.t.Errorf("%q: %s, want %s", c.cmd.Args[1:], have, want)
	}
}

// allInside is what there is to see of interfaces and routes in each container.
func (n *node) allInside() map[string]string {
	n.t.Helper()
	seen := map[string]string{}
	for name := range n.containers() {
		if name != "front" && name != "host" {
			seen[name] = n.sh(name, "ip -o addr; ip route; ip link | grep -v RX; cat /sys/class/net/*/ifindex /sys/class/net/*/carrier_changes")
		}
	}
	return seen
}

// talk opens connections to a parrot, and for each line of its standard input says
// something by each:
//
//	ADDRESS:PORT COUNT
func talk(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conns := make([]net.Conn, count)
	for i := range conns {
		if conns[i], err = net.DialTimeout("tcp4", args[0], patience); err != nil {
			return err
		}
		if err := saySomething(conns[i]); err != nil {
			return err
		}
	}
	fmt.Println(count, "connections")
	for {
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return nil
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		var answered, reset, silent int
		for _, conn := range conns {
			all.Go(func() {
				err := saySomething(conn)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					answered++
				case errors.Is(err, os.ErrDeadlineExceeded):
					silent++
				default:
					reset++
				}
			})
		}
		all.Wait()
		fmt.Printf("%d answered, %d reset, %d silent\n", answered, reset, silent)
	}
}

// saySomething says something and hears it again.
func saySomething(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience / 3))
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// parrot says again what it hears:
//
//	ADDRESS:PORT
func parrot(args []string) error {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}()
	}
}

// A container ends, and another stands still, while no node runs: the next one
// notices the first, with its exit status, and comes to be all the same.
func TestS29_EndedAndStopped(t *testing.T) {
	n := newNode(t)
	fifo := filepath.Join(filepath.Dir(n.dir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	n.start("ends", "-p", "127.0.0.1:8080:80", "--", "sh", "-c", "read x <"+fifo+"; exit 3")
	n.start("still")
	n.start("dies")
	n.start("maker", "-p", "127.0.0.1:8082:80")
	n.start("sharer", "--network", "container:maker")
	n.run("kill", "maker") // which is written down as long as others live in its namespace, and has no ports
	c := n.containers()
	n.killNode()
	kill(t, c["still"].Pid, syscall.SIGSTOP)
	kill(t, c["dies"].Pid, syscall.SIGKILL)
	if err := os.WriteFile(fifo, []byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, c["ends"].Pid)
	if have := n.containers(); len(have) != 2 || have["still"].Status != "running" {
		t.Errorf("containers: %+v", have)
	}
	n.followLog()
	log, err := os.ReadFile(filepath.Join(n.dir, "node.log"))
	if err != nil || contains(string(log), "container=ends", "exit=3", "container=dies", "exit=unknown") != nil {
		t.Errorf("%v, %s", err, log)
	}
	kill(t, c["still"].Pid, syscall.SIGCONT)
	n.start("next", "--ip", c["ends"].IP, "--name", "ends", "-p", "127.0.0.1:8080:80") // all of it is free
	n.start("other", "-p", "127.0.0.1:8082:80")
	n.exec("still", "true")
}

// What an init keeps is not where it was written down, as when root inside has taken
// it apart: the container is listed as one that cannot be reached, and can be ended.
func TestS29_Unreachable(t *testing.T) {
	n := newNode(t)
	id := n.start("c")
	n.killNode()
	path := filepath.Join(n.dir, "containers", id, "record.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`"kept": \d+,\s*"cookie"`).ReplaceAll(text, []byte(`"kept": 999, "cookie"`))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := n.containers()["c"]; c.Status != "unreachable" || !strings.Contains(c.Why, "root inside took it apart") {
		t.Errorf("%+v", c)
	}
	if out := n.run("ps"); !strings.Contains(out, "unreachable") {
		t.Error(out)
	}
	n.run("network", "create", "lab")
	n.refuses("cannot be reached", "network", "connect", "lab", "c")
	n.refuses("cannot be reached", "exec", "c", "true")
	n.refuses("cannot be reached", "kill", "-s", "TERM", "c")
	n.run("kill", "c")
	n.gone("c")
}

// Stations that were added by hand are there again, after a node that was killed and
// in one that takes another one's place, and those that were removed are not.
func TestS29_Statics(t *testing.T) {
	n := newNode(t)
	n.start("a")
	n.start("b")
	const stays, goes = "02:00:00:00:00:77", "02:00:00:00:00:78"
	n.run("mac", "add", stays, "a")
	n.run("mac", "add", stays, "b") // it moves
	n.run("mac", "add", "--vlan", "10", stays, "a")
	n.run("mac", "add", goes, "b")
	n.run("mac", "rm", goes)
	n.run("arp", "add", "172.17.0.99", stays, "b")
	n.run("arp", "add", "172.17.0.98", stays, "b")
	n.run("arp", "rm", "172.17.0.98")
	statics := func() (rows []string) {
		for _, command := range []string{"mac", "arp"} {
			for line := range strings.Lines(n.run(command, "ls", "--network", "default")) {
				if strings.Contains(line, stays) || strings.Contains(line, goes) {
					rows = append(rows, strings.Join(strings.Fields(line), " "))
				}
			}
		}
		return rows
	}
	before := statics()
	if len(before) != 3 {
		t.Fatalf("added: %q", before)
	}
	n.killNode()
	if now := statics(); !slices.Equal(now, before) {
		t.Errorf("after a kill: %q, want %q", now, before)
	}
	n.run("up", "--replace")
	if now := statics(); !slices.Equal(now, before) {
		t.Errorf("in one that has taken its place: %q, want %q", now, before)
	}
	n.run("mac", "flush", "--all")
	n.run("arp", "flush", "--all")
	n.killNode()
	if now := statics(); len(now) > 0 {
		t.Errorf("flushed, and there again: %q", now)
	}
}

// The node is killed while it takes a container off a network: the next one does it.
func TestS29_HalfDisconnected(t *testing.T) {
	n := newNode(t)
	n.run("network", "create", "--subnet", "10.55.0.0/24", "lab")
	id := n.start("c", "--network", "default", "--network", "lab")
	inside := n.containers()["c"].Pid
	kill(t, inside, syscall.SIGSTOP)
	off := n.background("network", "disconnect", "lab", "c")
	lab.Eventually(t, patience, func() error {
		text, err := os.ReadFile(filepath.Join(n.dir, "containers", id, "record.json"))
		if err == nil && !strings.Contains(string(text), `"unsettled": true`) {
			err = errors.New("nothing is written down of it")
		}
		return err
	})
	n.killNode()
	kill(t, inside, syscall.SIGCONT)
	n.run("ps")
	off.wait()
	lab.Eventually(t, patience, func() error {
		if out := n.sh("c", "ls /sys/class/net"); strings.Contains(out, "eth1") {
			return fmt.Errorf("inside there is %s", out)
		}
		var have api.Inspect
		if err := n.ask("/v1/containers/c", &have); err != nil || len(have.NetworkSettings.Networks) != 1 {
			return fmt.Errorf("%+v, %w", have.NetworkSettings.Networks, err)
		}
		return nil
	})
	n.run("network", "connect", "lab", "c")
}

// A command in a container finds the node directory, and starts no node there.
func TestS29_NotFromInside(t *testing.T) {
	n := newNode(t)
	n.start("c")
	inside := n.background("exec", "-i", "c", "sh", "-c", "echo here; read x; FAIRLEAD_DIR="+n.dir+" fairlead ps; echo status $?")
	inside.says("here")
	n.killNode()
	fmt.Fprintln(inside.in)
	inside.says("status 125")
	inside.wait() // what it says to standard error comes by another way
	if text := inside.errors.String(); !strings.Contains(text, "another user, process or network namespace") {
		t.Errorf("it says %q", text)
	}
	n.exec("c", "true")
}

// Uplinks and ports that were handed in went with the node: it says so, and which
// command brings them back.
func TestS29_HandedIn(t *testing.T) {
	o := newOutside(t)
	path, remove := namedNetns(t)
	defer remove()
	o.run("network", "connect", "--name", "foreign", "default", "netns:"+path)
	o.start("c", append([]string{"-p", "7:7", "--"}, play(t, "parrot", ":7")...)...)
	o.logSays("c", "listening")
	o.killNode()
	o.run("ps")
	var have []api.Uplink
	if err := o.ask("/v1/uplinks", &have); err != nil {
		t.Fatal(err)
	}
	if len(have) == 0 || have[0].State != "down" || !strings.Contains(have[0].Why, "fairlead network set default --uplink tap:"+o.way) {
		t.Errorf("uplinks: %+v", have)
	}
	o.uplinks(o.Router.Spec())
	talk := play(t, "talk", o.reach+":7", "1")
	if out, _ := o.Host.Try(t, talk[0], talk[1:]...); !strings.Contains(out, "1 connections") {
		t.Errorf("from outside: %s", out)
	}
	if c := o.containers(); len(c) != 1 {
		t.Errorf("containers: %+v", c)
	}
	o.run("network", "connect", "--name", "foreign", "default", "netns:"+path)
}
