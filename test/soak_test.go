package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash"
	"hash/fnv"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

var (
	soakFor  = flag.Duration("for", 10*time.Second, "how long TestSoak goes on, `TIME`")
	soakSeed = flag.Uint64("seed", 0, "repeat what TestSoak did with `SEED`; 0: FAIRLEAD_SEED says")
)

// A soak does to a node at random whatever users and accidents do, for as long as
// it is told, and knows what has to be there afterwards. What it does is a function
// of the seed alone: neither time nor what a command says decides anything.
type soak struct {
	*outside
	t   *testing.T
	rng *rand.Rand

	// The model.
	boxes    []*soaked    // in the order they were made
	networks []*soakNet   // likewise; the first is the default one
	statics  []soakStatic // likewise
	made     int          // boxes, networks and static entries, for names
	nextPort int
	ways     uint64 // disturbed by whatever cuts traffic out and in

	flights []*flight
	step    int
	judged  int            // the last step after which all was well
	story   []string       // of the steps since then
	all     hash.Hash64    // of the whole story
	done    map[string]int // how often what was done
	sweeps  int
	memory  []int // KiB of this node after each sweep
}

// A soaked is a container of the model.
type soaked struct {
	name   string
	client *client  // of one in the foreground
	home   *soakNet // that of its eth0, nil when it has left that
	nets   map[*soakNet]string
	vlans  map[*soakNet]int // where there is one of what it sends without a tag
	ports  map[int]string   // of the host, that lead to soakPort, with their protocol
	well   uint64           // disturbed by whatever cuts its traffic

	assault *client     // while it does harm
	harm    *harm       // which, or which it did last
	before  *api.Counts // of its port, when it was its first
	until   int         // and up to that step
}

type soakNet struct {
	name     string
	internal bool
	hub      bool   // it has no MAC table
	subnet   string // the first three bytes; of the default network none
	hosts    int    // addresses that were asked for
}

// address is one to ask for, a third of the time; empty: any will do.
func (n *soakNet) address(rng *rand.Rand) string {
	if n.subnet == "" || rng.IntN(3) > 0 {
		return ""
	}
	n.hosts++
	return fmt.Sprintf("%s.%d", n.subnet, 100+n.hosts%150)
}

// soakPort is where containers answer.
const soakPort = "7000"

// Random containers, networks, traffic, publishing, and all that can happen to
// them, and after each bout the node is as the model says: frames are accounted
// for, here and by the kernels inside, and nothing leaks. It takes ten seconds,
// because that is about as long as it needs to do everything once; `make soak`
// goes on for longer.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = lab.Seed(t)
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lab.Need(t, "unshare")
	way := newHostOutside // and of every second seed a link
	if seed%2 == 0 {
		way = func(t *testing.T, _ ...string) *outside { return newOutside(t) }
	}
	s := &soak{
		outside: way(t), t: t, rng: rand.New(rand.NewPCG(seed, 7)), done: map[string]int{}, all: fnv.New64(),
		networks: []*soakNet{{name: "default"}}, nextPort: 20000,
	}
	server := play(t, "summed", soakPort)
	s.says(s.Host.Serve(t, server[0], server[1:]...), "listening")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat it: make soak SOAK='-seed %d'\n%s", seed, s.tell())
		}
	})
	s.soak(ctx)
	t.Logf("%d steps with -seed %d, whose story has the sum %x; the memory of the last node after each sweep, in KiB: %v\n%s",
		s.step, seed, s.all.Sum64(), s.memory, s.histogram())
}

// Bouts: how many steps there are between two looks at everything, and how many
// bouts before all containers and networks are removed.
const (
	boutSteps  = 25
	sweepBouts = 6
)

func (s *soak) soak(ctx context.Context) {
	s.warm()
	before := s.holdings()
	start, said := time.Now(), time.Now()
	over := func() bool { return time.Since(start) > *soakFor || ctx.Err() != nil }
	for bout := 1; !over(); bout++ {
		for i := 0; i < boutSteps && !over(); i++ {
			s.move()
		}
		s.judge()
		if bout%sweepBouts == 0 {
			s.sweep(before)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			s.t.Logf("%v: %d steps, %d containers, %d networks", time.Since(start).Round(time.Second), s.step, len(s.boxes), len(s.networks))
		}
	}
	s.sweep(before)
	s.judgeMemory()
}

// warm has the node open what it opens but once, and keeps.
func (s *soak) warm() {
	s.runBox()
	s.trafficOut()
	s.land(0)
	s.sweep(holdings{})
}

// move does one thing that can be done now.
func (s *soak) move() {
	s.step++
	for _, b := range s.boxes {
		if b.assault != nil && s.step > b.until {
			s.endAssault(b)
		}
	}
	total := 0
	for _, m := range soakMoves {
		total += m.weight
	}
	for n := s.rng.IntN(total); ; {
		for _, m := range soakMoves {
			if n -= m.weight; n >= 0 {
				continue
			}
			if m.do(s) {
				s.done[m.name]++
				return
			}
			n = s.rng.IntN(total) // it cannot be done now
			break
		}
	}
}

// do notes what is done now, and does it.
func (s *soak) do(args ...string) string {
	s.t.Helper()
	s.note("fairlead " + strings.Join(args, " "))
	return s.run(args...)
}

func (s *soak) note(text string) {
	self, _ := os.Executable() // play has found it, too
	line := fmt.Sprintf("%6d  %s", s.step, strings.ReplaceAll(text, self, "TEST"))
	s.story = append(s.story, line)
	fmt.Fprintln(s.all, line)
}

// histogram is how often what was done.
func (s *soak) histogram() string {
	var lines []string
	for what, times := range s.done {
		lines = append(lines, fmt.Sprintf("%6d  %s", times, what))
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}

// tell is what was done since all was well.
func (s *soak) tell() string {
	return fmt.Sprintf("after step %d all was well; since then:\n%s", s.judged, strings.Join(s.story, "\n"))
}

// judge lands all traffic and compares the node with the model.
func (s *soak) judge() {
	s.t.Helper()
	s.land(0)
	for _, b := range s.boxes {
		s.endAssault(b)
	}
	lab.Eventually(s.t, 15*time.Second, s.differs)
	s.audit()
	s.judged, s.story = s.step, nil
}

// differs is an error that says how the node is not as the model has it.
func (s *soak) differs() error {
	var list []api.Container
	var networks []api.NetworkInspect
	if err := errors.Join(s.ask("/v1/containers", &list), s.ask("/v1/networks", &networks)); err != nil {
		return err
	}
	var is, want []string
	for _, c := range list {
		is = append(is, c.Name+" "+c.Status)
	}
	for _, b := range s.boxes {
		want = append(want, b.name+" running")
	}
	err := same("containers", is, want)
	is, want = nil, nil
	for _, n := range networks {
		is = append(is, n.Name)
	}
	for _, n := range s.networks {
		want = append(want, n.name)
	}
	err = errors.Join(err, same("networks", is, want))
	err = errors.Join(err, s.staticsDiffer())
	taken := map[string]string{}
	for _, b := range s.boxes {
		err = errors.Join(err, s.boxDiffers(b, taken))
	}
	if files, _ := filepath.Glob(filepath.Join(s.dir, "containers", "*")); len(files) != len(s.boxes) {
		err = errors.Join(err, fmt.Errorf("%d containers have files, want %d: %v", len(files), len(s.boxes), files))
	}
	if inits := countInits(); inits != len(s.boxes) {
		err = errors.Join(err, fmt.Errorf("%d inits run, want %d", inits, len(s.boxes)))
	}
	return s.withStory(err)
}

// boxDiffers compares one container. taken are the addresses of those before.
func (s *soak) boxDiffers(b *soaked, taken map[string]string) (err error) {
	var i api.Inspect
	if err := s.ask("/v1/containers/"+b.name, &i); err != nil {
		return err
	}
	var is, want []string
	for name, n := range i.NetworkSettings.Networks {
		is = append(is, name)
		a, perr := netip.ParseAddr(n.IPAddress)
		if other := taken[n.IPAddress]; perr != nil || other != "" || !a.IsPrivate() {
			err = errors.Join(err, fmt.Errorf("%s has the address %q on %s, which %q has, too", b.name, n.IPAddress, name, other))
		}
		taken[n.IPAddress] = b.name
	}
	for n, addr := range b.nets {
		want = append(want, n.name)
		if have := i.NetworkSettings.Networks[n.name].IPAddress; have != addr {
			err = errors.Join(err, fmt.Errorf("%s has the address %q on %s, want %q", b.name, have, n.name, addr))
		}
	}
	err = errors.Join(err, same("networks of "+b.name, is, want))
	is, want = nil, nil
	for _, proto := range []string{"tcp", "udp"} {
		for _, p := range i.NetworkSettings.Ports[soakPort+"/"+proto] {
			if p.HostIP == "0.0.0.0" || p.HostIP == s.Router.Uplink {
				is = append(is, p.HostPort+"/"+proto)
			}
		}
	}
	for p, proto := range b.ports {
		want = append(want, fmt.Sprintf("%d/%s", p, proto))
	}
	return errors.Join(err, same("ports of "+b.name, is, want))
}

// same compares two lists as sets.
func same(what string, is, want []string) error {
	slices.Sort(is)
	slices.Sort(want)
	if !slices.Equal(is, want) {
		return fmt.Errorf("%s: %q, want %q", what, is, want)
	}
	return nil
}

var soakNames = regexp.MustCompile(`\b[cn]\d+\b`)

// withStory adds to a difference what was done lately to those it names.
func (s *soak) withStory(err error) error {
	if err == nil {
		return nil
	}
	names := soakNames.FindAllString(err.Error(), -1)
	var about []string
	for _, line := range s.story {
		for _, name := range soakNames.FindAllString(line, -1) {
			if slices.Contains(names, name) {
				about = append(about, line)
				break
			}
		}
	}
	return fmt.Errorf("%w\nwhat was done to them since step %d:\n%s", err, s.judged, strings.Join(about, "\n"))
}

// countInits counts the inits of containers in this world.
func countInits() (n int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, _ := os.ReadFile(path) // it may have ended
		if name, _, _ := strings.Cut(string(line), "\x00"); name == "fairlead-init" {
			n++
		}
	}
	return n
}

// sweep removes all containers and networks, and holds what the node still has
// against what it had before.
func (s *soak) sweep(before holdings) {
	s.t.Helper()
	s.judge()
	for len(s.boxes) > 0 {
		s.drop(s.boxes[0], func(b *soaked) { s.do("kill", b.name) })
	}
	for len(s.networks) > 1 {
		s.removeNetwork(s.networks[1])
	}
	s.noConnections()
	s.noSockets()
	s.judge()
	if s.restarted {
		// No interface is left that has counted longer than the node, but the way out.
		s.restarted = false
		clear(s.taps)
	}
	if before.count == nil {
		return
	}
	before.pid = s.nodePid()
	lab.Eventually(s.t, 15*time.Second, before.exceeded)
	s.sweeps++
	s.memory = append(s.memory, residentKB(s.t, before.pid))
}

// kills reports whether nodes are killed now: that is so and not so for as many
// sweeps as all before together, because what a node gathers is seen in one that
// lives long.
func (s *soak) kills() bool { return bits.Len(uint(s.sweeps+1))%2 == 1 }

// mayGrow is by how much the node's memory may be more at the end than after the
// first sweep: what a node has of a table it has used once it keeps.
const mayGrow = 24 << 10

func (s *soak) judgeMemory() {
	s.t.Helper()
	if len(s.memory) < 2 {
		return
	}
	if first, last := s.memory[0], slices.Min(s.memory[len(s.memory)/2:]); last > first+mayGrow {
		s.t.Errorf("the node's memory after each sweep, in KiB: %v; it grew by %d", s.memory, last-first)
	}
}
