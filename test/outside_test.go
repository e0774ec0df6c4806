package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// An outside is a node whose default network has a way out: a TAP on a router,
// behind which there is a host, or the sockets of a machine there.
type outside struct {
	*node
	*lab.Outside

	way   string // the uplink's name
	seen  string // the address the outside host sees containers as
	reach string // the address it reaches published ports by
}

// newOutside starts a node with an uplink to a router. Fields are further ones
// of the uplink.
func newOutside(t *testing.T, fields ...string) *outside {
	t.Helper()
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ping", "curl")
	world := lab.NewOutside(t) // it has to outlast the node, whose audit looks at both ends
	o := &outside{node: newNode(t), Outside: world, way: "up0"}
	o.seen, o.reach = o.Router.Uplink, o.Router.Uplink
	o.uplinks(o.Router.Spec(fields...))
	return o
}

// newHostOutside starts a node that leaves by the sockets of a machine, with
// options of `fairlead up`.
func newHostOutside(t *testing.T, upArgs ...string) *outside {
	t.Helper()
	o := newHostMachine(t)
	if out, status := o.on(o.Machine, append([]string{"up"}, upArgs...)...); status != 0 {
		t.Fatalf("fairlead up: exit status %d\n%s", status, out)
	}
	return o
}

// newHostMachine is newHostOutside without the node.
func newHostMachine(t *testing.T) *outside {
	t.Helper()
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ping", "curl")
	world := lab.NewOutsideOf(t)
	o := &outside{node: newNodeDir(t), Outside: world, way: api.HostUplink}
	o.seen, o.reach = o.Router.Uplink, o.Router.Uplink
	return o
}

// byHost reports whether the way out is the sockets of a machine.
func (o *outside) byHost() bool { return o.Machine != nil }

// bound is what `port` prints, behind an optional prefix, of ports published
// everywhere: by sockets that is so in both families.
func (o *outside) bound(prefix string, ports ...string) (text string) {
	for _, port := range ports {
		if o.byHost() {
			text += prefix + "0.0.0.0:" + port + "\n" + prefix + "[::]:" + port + "\n"
		} else {
			text += prefix + o.Router.Uplink + ":" + port + "\n"
		}
	}
	return text
}

// eachUplink calls a test with a TAP and with host sockets as the way out.
func eachUplink(t *testing.T, test func(t *testing.T, o *outside)) {
	t.Run("tap", func(t *testing.T) { test(t, newOutside(t)) })
	t.Run("sockets", func(t *testing.T) { test(t, newHostOutside(t)) })
}

// eachWay calls a test with each kind of router, and with host sockets as the way
// out.
func eachWay(t *testing.T, test func(t *testing.T, o *outside)) {
	eachRouter(t, test)
	t.Run("sockets", func(t *testing.T) { test(t, newHostOutside(t)) })
}

// eachRouter calls a test with a router that only routes, and with one that is a
// second NAT router.
func eachRouter(t *testing.T, test func(t *testing.T, o *outside)) {
	t.Run("router", func(t *testing.T) { test(t, newOutside(t)) })
	t.Run("NAT router", func(t *testing.T) {
		o := newOutside(t)
		o.Router.NAT(t)
		o.seen, o.reach = o.Router.Far, o.Router.Far
		test(t, o)
	})
}

// uplinks gives the default network its ways out. Who calls fairlead opens
// them, so it has to be where the interfaces are.
func (o *outside) uplinks(specs ...string) {
	o.t.Helper()
	var have []api.Uplink
	if err := o.ask("/v1/uplinks", &have); err != nil {
		o.t.Fatal(err)
	}
	args := []string{"network", "set", "default"}
	for _, spec := range specs {
		args = append(args, "--uplink", spec)
		name, _, _ := strings.Cut(strings.TrimPrefix(spec, "tap:"), ",")
		if !slices.ContainsFunc(have, func(u api.Uplink) bool { return u.Name == name && u.State != "down" }) {
			o.taps[name] = newTap(o.t, o.Router.Host, name)
		}
	}
	if out, status := o.on(o.Router.Host, args...); status != 0 {
		o.t.Fatalf("fairlead %s: exit status %d\n%s", strings.Join(args, " "), status, out)
	}
}

// on calls fairlead on a host of the lab, with the same node.
func (n *node) on(h *lab.Host, args ...string) (output string, status int) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := h.Command(ctx, n.bin, args...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_DIR="+n.dir, "PATH="+filepath.Dir(n.bin)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	n.followLog()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		n.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// serveHTTP has a host serve a page that says who asks.
func (n *node) serveHTTP(h *lab.Host, port int) *lab.Service {
	n.t.Helper()
	s := h.Serve(n.t, n.bin, "probe", "http-server", "--addr", fmt.Sprintf(":%d", port))
	h.Listens(n.t, port)
	return s
}

// serveUDP has a host echo datagrams.
func (n *node) serveUDP(h *lab.Host, port int) *lab.Service {
	n.t.Helper()
	s := h.Serve(n.t, n.bin, "probe", "udp-echo", "--addr", fmt.Sprintf(":%d", port))
	n.says(s, "echoing on")
	return s
}

// says waits until a service has said a text.
func (n *node) says(s *lab.Service, text string) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error { return contains(s.Output(), text) })
}

// curl fetches a page from a host, with the patience of a second.
func curl(t *testing.T, h *lab.Host, url string) string {
	t.Helper()
	return h.Run(t, "curl", "-sS", "--max-time", "5", url)
}

// refused is an error unless curl on a host is refused, and at once.
func refused(t *testing.T, h *lab.Host, url string) {
	t.Helper()
	start := time.Now()
	out, status := h.Try(t, "curl", "-sS", "--max-time", "5", url)
	if took := time.Since(start); status != 7 || took > time.Second { // 7: failed to connect
		t.Errorf("curl %s on %s ends with %d after %v, want a refusal at once:\n%s", url, h.Name, status, took, out)
	}
}

// silent is an error unless curl on a host gets no answer.
func silent(t *testing.T, h *lab.Host, url string) {
	t.Helper()
	if out, status := h.Try(t, "curl", "-sS", "--max-time", "0.3", url); status != 28 { // 28: timed out
		t.Errorf("curl %s on %s ends with %d, want silence:\n%s", url, h.Name, status, out)
	}
}

// greeted is an error unless a page of `probe http-server` says that an address
// asked.
func greeted(t *testing.T, page, address string) {
	t.Helper()
	if !strings.HasPrefix(page, "Hello "+address+":") {
		t.Errorf("the server saw %q, want %s", page, address)
	}
}

// traceroute traces a route from a container, and returns what is printed and how long
// that took.
func (n *node) traceroute(name string, args ...string) (out string, took time.Duration) {
	n.t.Helper()
	return traceBy(func(command ...string) string { return n.exec(name, command...) }, args...)
}

// traceBy is the same of whatever runs a command. A raw socket's error is queued before
// the socket is marked with it (raw_err in net/ipv4/raw.c). Who takes it in between is told
// ever after that there is one, and traceroute asks for that until its time is over and
// reads no answer. Then it computes all the time, and has to do it again.
func traceBy(run func(command ...string) string, args ...string) (out string, took time.Duration) {
	for deaf, tries := true, 0; deaf && tries < 5; tries++ {
		start := time.Now()
		out = run(timed(append([]string{"traceroute"}, args...)...)...)
		took = time.Since(start)
		out, deaf = withoutTimes(out)
	}
	return out, took
}

// timed is a command whose output ends with what processors spent on it, as times(1)
// of a shell has it.
func timed(command ...string) []string {
	return append([]string{"env", "LC_ALL=C", "sh", "-c", `"$@"; status=$?; times; exit $status`, "sh"}, command...)
}

// withoutTimes takes that away, and reports whether it was more than moments.
func withoutTimes(out string) (rest string, long bool) {
	rest = shellTimes.ReplaceAllString(out, "")
	return rest, !moments.MatchString(out)
}

// shellTimes is what times(1) prints, of the shell and of its children; moments if those
// took less than two tenths of a second, in user mode and in the kernel.
var (
	shellTimes = regexp.MustCompile(`(\d+m[\d.]+s \d+m[\d.]+s\n){2}\z`)
	moments    = regexp.MustCompile(`\n0m0\.[01]\d*s 0m0\.[01]\d*s\n\z`)
)

// hop is a line of traceroute -n and of mtr -rn.
var hop = regexp.MustCompile(`(?m)^ *(\d+)(?:\.\|--)? +(\S+)`)

// hops are the addresses of a trace, in order.
func hops(text string) (list []string) {
	for _, m := range hop.FindAllStringSubmatch(text, -1) {
		list = append(list, m[2])
	}
	return list
}

// uplinkDropped is how many frames from an uplink were dropped for a reason.
func (n *node) uplinkDropped(uplink, reason string) (count uint64) {
	n.t.Helper()
	var drops []api.Drop
	n.json(&drops, "show", "drops")
	for _, d := range drops {
		if d.Network == uplink && d.Reason == reason && d.Direction == "in" {
			count += d.Count
		}
	}
	return count
}

// flows are the connections there are.
func (n *node) flows() (list []api.Flow) {
	n.t.Helper()
	n.json(&list, "show", "flows")
	return list
}

// noConnections waits until no connection by TCP is left: over sockets they end
// when both ends have closed.
func (n *node) noConnections() {
	n.t.Helper()
	// The ends of a swarm give up after twenty seconds: see misbehave.
	lab.Eventually(n.t, 30*time.Second, func() error {
		left := slices.DeleteFunc(n.flows(), func(f api.Flow) bool { return f.Proto != "tcp" })
		if len(left) > 0 {
			return fmt.Errorf("%d connections are left, one is %+v", len(left), left[0])
		}
		return nil
	})
}
