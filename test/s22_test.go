package test

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// hundred is how many containers S22 is about.
const hundred = 100

// One hundred containers all reach each other and outside, in a node of bounded
// memory.
func TestS22_Hundred(t *testing.T) {
	o := newHostOutside(t)
	o.says(o.Host.Serve(t, o.bin, "probe", "http-server", "--addr", ":9000"), "serving on")
	var took []time.Duration
	var names []string
	for i := range hundred {
		name := fmt.Sprintf("c%d", i)
		begun := time.Now()
		o.start(name, append([]string{"--"}, play(t, "resident", ":80")...)...)
		took = append(took, time.Since(begun))
		names = append(names, name)
	}
	var places []string
	for _, c := range o.containers() {
		places = append(places, c.IP+":80")
	}
	for _, name := range names {
		o.logSays(name, "at home")
	}
	visited := append(slices.Clone(places), o.Router.FarHost+":9000")
	begun := time.Now()
	for _, name := range names {
		o.exec(name, play(t, "visit", visited...)...)
	}
	slices.Sort(took)
	t.Logf("start: median %v, slowest %v; each visited %d places: %v for all", took[hundred/2], took[hundred-1], len(visited), time.Since(begun))
	rss := residentKB(t, o.nodePid()) >> 10
	t.Logf("node: %d MiB resident", rss)
	if rss > 60 && !raced(t, o.bin) {
		t.Errorf("the node has %d MiB resident, 60 are the most", rss)
	}
}

// The kernel of a machine remembers 1024 neighbours, of all network namespaces
// together (gc_thresh3 in net/ipv4/arp.c). A hundred that all know each other are
// ten times as many, so visitors and residents forget each other.
func forget(a net.Addr) {
	tcp, ok := a.(*net.TCPAddr)
	if l, err := netlink.LinkByName("eth0"); ok && err == nil {
		_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: tcp.IP}) // one behind the gateway is none
	}
}

// resident accepts visits:
//
//	ADDRESS:PORT
func resident(args []string) error {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	fmt.Println("at home")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(io.Discard, conn) // until the visitor has left
			_ = conn.Close()
			forget(conn.RemoteAddr())
		}()
	}
}

// visit opens a connection to each place, a few at a time. The kernel may have no
// room to remember one more neighbour just then; it has after five seconds
// (neigh_forced_gc).
func visit(places []string) error {
	var all sync.WaitGroup
	var errs []error
	var mu sync.Mutex
	deadline := time.Now().Add(patience - 5*time.Second)
	for part := range slices.Chunk(places, 10) {
		for _, place := range part {
			all.Go(func() {
				err := call(place)
				for err != nil && time.Now().Before(deadline) {
					time.Sleep(50 * time.Millisecond)
					err = call(place)
				}
				if err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			})
		}
		all.Wait()
	}
	return errors.Join(errs...)
}

// call opens a connection, and ends it.
func call(place string) error {
	conn, err := net.DialTimeout("tcp4", place, 10*time.Second)
	if err != nil {
		return err
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // a reset: no answer, for which it would have to be remembered again
	_ = conn.Close()
	forget(conn.RemoteAddr())
	return nil
}

// raced reports whether a program has the race detector in it, which takes
// several times the memory.
func raced(t *testing.T, bin string) bool {
	t.Helper()
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// One hundred containers are started, connected, disconnected, renamed and
// stopped by several clients at once, in an order of their own: addresses are
// unique, names are right, and nothing is left.
func TestS22_RandomOrder(t *testing.T) {
	n := newNode(t)
	client := api.NewClient(n.dir)
	nets := []string{"alpha", "beta", "gamma"}
	for _, name := range nets {
		if err := client.Post(t.Context(), "/v1/networks", api.NetworkCreate{Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	before := n.holdings()
	const clients = 4
	seed := lab.Seed(t)
	crews := make([]*crew, clients)
	var all sync.WaitGroup
	for i := range crews {
		c := &crew{t: t, n: n, client: client, rng: rand.New(rand.NewPCG(seed, uint64(i))), nets: nets, own: map[string]map[string]bool{}, id: i}
		crews[i] = c
		all.Go(func() { c.work(hundred / clients) })
	}
	all.Wait()
	if t.Failed() {
		return
	}
	want := map[string]map[string]bool{}
	done := map[string]int{}
	for _, c := range crews {
		maps.Copy(want, c.own)
		for what, count := range c.done {
			done[what] += count
		}
	}
	t.Logf("%d containers, after %v", len(want), done)
	checkRegistry(t, n, want)
	checkNames(t, n, want, nets)

	for _, c := range crews {
		all.Go(c.stopAll)
	}
	all.Wait()
	if left := n.containers(); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
	var switches []api.Switch
	n.json(&switches, "show", "switch")
	for _, s := range switches {
		if len(s.Ports) > 0 {
			t.Errorf("network %s has ports %+v", s.Network, s.Ports)
		}
	}
	for _, name := range nets {
		if err := client.Delete(t.Context(), "/v1/networks/"+name, nil); err != nil {
			t.Error(err)
		}
	}
}

// A crew is one of the clients, and what it has: the networks of its containers,
// by name.
type crew struct {
	t      *testing.T
	n      *node
	client *api.Client
	rng    *rand.Rand
	nets   []string
	own    map[string]map[string]bool
	done   map[string]int
	id     int
	named  int
}

// work does things at random until it has as many containers.
func (c *crew) work(many int) {
	c.done = map[string]int{}
	for len(c.own) < many && !c.t.Failed() {
		names := slices.Sorted(maps.Keys(c.own))
		what := c.rng.IntN(12)
		if len(names) == 0 || what < 5 {
			c.start()
			continue
		}
		name := names[c.rng.IntN(len(names))]
		switch what {
		case 5:
			c.did("stop", c.call("kill", name))
			delete(c.own, name)
		case 6, 7:
			fresh := c.name()
			c.did("rename", c.call("rename", name, fresh))
			c.own[fresh] = c.own[name]
			delete(c.own, name)
		default:
			net := c.nets[c.rng.IntN(len(c.nets))]
			if on := c.own[name]; on[net] {
				c.did("disconnect", c.client.Post(c.t.Context(), "/v1/networks/"+net+"/disconnect", api.DisconnectRequest{Container: name}, nil))
				delete(on, net)
			} else {
				c.did("connect", c.client.Post(c.t.Context(), "/v1/networks/"+net+"/connect", api.ConnectRequest{Container: name}, nil))
				on[net] = true
			}
		}
	}
}

func (c *crew) did(what string, err error) {
	c.done[what]++
	if err != nil {
		c.t.Errorf("%s: %v", what, err)
	}
}

func (c *crew) name() string {
	c.named++
	return fmt.Sprintf("w%dn%d", c.id, c.named)
}

// start runs a container on one of the networks.
func (c *crew) start() {
	name, net := c.name(), c.nets[c.rng.IntN(len(c.nets))]
	c.did("start", c.call("run", "-d", "--name", name, "--network", net, "--", "sleep", "1000"))
	c.own[name] = map[string]bool{net: true}
}

// call calls fairlead as a process of its own.
func (c *crew) call(args ...string) error {
	ctx, cancel := contextWithPatience()
	defer cancel()
	if out, err := c.n.command(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("fairlead %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// stopAll stops what the crew has, in any order.
func (c *crew) stopAll() {
	for name := range c.own { // the order of a map is never the same
		c.did("stop", c.call("stop", "-t", "0", name))
	}
}

// checkRegistry holds what there should be against what the node says: each
// container on its networks, and no address twice.
func checkRegistry(t *testing.T, n *node, want map[string]map[string]bool) {
	t.Helper()
	var list []api.NetworkInspect
	if err := n.ask("/v1/networks", &list); err != nil {
		t.Fatal(err)
	}
	have := map[string]map[string]bool{}
	for name := range want {
		have[name] = map[string]bool{}
	}
	for _, net := range list {
		owner := map[string]string{}
		for _, c := range net.Containers {
			if have[c.Name] == nil {
				t.Errorf("on %s is %s, which should not be", net.Name, c.Name)
				continue
			}
			have[c.Name][net.Name] = true
			if other := owner[c.IPv4Address]; other != "" {
				t.Errorf("%s of %s is %s's and %s's", c.IPv4Address, net.Name, c.Name, other)
			}
			owner[c.IPv4Address] = c.Name
		}
	}
	for name, on := range want {
		if !maps.Equal(on, have[name]) {
			t.Errorf("%s is on %v, and should be on %v", name, have[name], on)
		}
	}
}

// checkNames has one container of each network reach all others there by name,
// which are at the addresses the node says.
func checkNames(t *testing.T, n *node, want map[string]map[string]bool, nets []string) {
	t.Helper()
	for _, net := range nets {
		var d api.NetworkInspect
		if err := n.ask("/v1/networks/"+net, &d); err != nil {
			t.Fatal(err)
		}
		var asker string
		script := "failed=0\n"
		for _, c := range d.Containers {
			asker = c.Name
			address, _, _ := strings.Cut(c.IPv4Address, "/")
			script += fmt.Sprintf("out=$(ping -c 1 -W 10 %[1]s.%[2]s) && case $out in *'('%[3]s')'*) ;; *) echo \"%[1]s: $out\"; failed=1;; esac || { echo \"%[1]s: $out\"; failed=1; }\n", c.Name, net, address)
		}
		if asker == "" {
			continue
		}
		if r := n.try("exec", asker, "sh", "-c", script+"exit $failed"); r.code != 0 {
			t.Errorf("%s on %s:\n%v", asker, net, r)
		}
	}
}
