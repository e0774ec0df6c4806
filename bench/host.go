package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	hosts "fairlead/test/lab"
)

// A leader is a program that leads a container outside by sockets of the host
// and back in by published ports, without any right on it.
type leader struct {
	name string
	what string

	// mtu is that of the container's interface. It is 0 where payload goes from
	// socket to socket and no packet is made that it could bound.
	mtu    int
	onlyIn bool // it knows published ports only
	rawUDP bool // it is no peer but the bound of all that read a TAP, and knows datagrams only

	program, pkg string // what has to be there, and the Debian package that has it
	lay          func(s *site, l *lab)
}

// leaders are fairlead and its peers. A container of fairlead always has the
// usual MTU, the one its programs expect.
var leaders = []*leader{
	{name: "fairlead", mtu: 1500, what: "a node, a container with a TAP of MTU 1500", lay: (*site).layFairlead},
	{name: "host-raw", mtu: 1500, rawUDP: true, what: "a TAP and two UDP sockets, a read and a write: the bound of datagrams", lay: (*site).layRaw},
	{name: "slirp-1500", mtu: 1500, program: "slirp4netns", pkg: "slirp4netns", what: "slirp4netns, MTU 1500", lay: (*site).laySlirp},
	{name: "pasta-1500", mtu: 1500, program: "pasta", pkg: "passt", what: "pasta, MTU 1500", lay: (*site).layPasta},
	{name: "slirp-65520", mtu: 65520, program: "slirp4netns", pkg: "slirp4netns", what: "slirp4netns, MTU 65520", lay: (*site).laySlirp},
	{name: "pasta-65520", mtu: 65520, program: "pasta", pkg: "passt", what: "pasta, MTU 65520", lay: (*site).layPasta},
	{name: "rootlesskit", onlyIn: true, program: "rootlesskit", pkg: "rootlesskit", what: "rootlesskit's builtin port driver, to lo of its namespace", lay: (*site).layRootlesskit},
	{name: "docker-proxy", onlyIn: true, program: "docker-proxy", pkg: "docker.io", what: "Docker's userland proxy, to a veth pair", lay: (*site).layDockerProxy},
}

// Where things are at every site. The machine is known by its address to the
// outside and the outside by its own to everybody.
var (
	siteMachine = netip.MustParsePrefix("203.0.113.1/24")
	siteOutside = netip.MustParsePrefix("203.0.113.2/24")
	proxyPrefix = netip.MustParsePrefix("172.18.0.1/24") // docker-proxy's way to the container
	proxyInside = netip.MustParsePrefix("172.18.0.2/24")
)

// slirpInside is the container's address at slirp4netns, and has the same
// length at pasta.
const slirpInside = "10.0.2.100"

// publishedPorts are open at every site: where the far end serves.
var publishedPorts = []struct {
	port  int
	proto string
}{{iperfPort, "tcp"}, {oncePort, "tcp"}, {echoTCPPort, "tcp"}, {sinkPort, "udp"}}

// A site is a container, the machine it runs on and a host outside: three
// network namespaces of the same user. The outside reaches the machine by a
// cable, or by a bad line.
//
//	container ── leader ── machine 203.0.113.1 ──── 203.0.113.2 outside
type site struct {
	*leader
	container, machine, outside *hosts.Host

	namespace string // the container's, as a path

	inside int      // a process in the container's namespace
	pid    int      // the leader, for its CPU time; 0 is unknown
	iperf  int      // the port of iperf3
	enter  []string // what has a command run in a container that is no host of the lab

	cc   string // congestion control of all three; "" is the machine's default
	note string // what is to be known of the site's figures

	dir string // of the node
	bin string
}

// laySite makes a site and waits until nothing is missing. Without a line the
// outside is at the other end of a cable.
func laySite(l *lab, p *leader, cc string, line *hosts.Line) *site {
	if p.program != "" {
		if _, err := exec.LookPath(p.program); err != nil {
			l.Fatalf("there is no %s; try: sudo apt-get install %s", p.program, p.pkg)
		}
	}
	s := &site{leader: p, cc: cc, iperf: iperfPort, machine: hosts.NewHost(l, p.name+"-machine"), outside: hosts.NewHost(l, p.name+"-outside")}
	if line == nil {
		hosts.Join(l, s.machine, "eth0", s.outside, "eth0")
	} else {
		hosts.NewRelay(l, hosts.NewRelayTAP(l, s.machine, "eth0"), hosts.NewRelayTAP(l, s.outside, "eth0"), *line)
	}
	s.machine.Addr(l, "eth0", siteMachine.String())
	s.outside.Addr(l, "eth0", siteOutside.String())
	s.machine.Route(l, "default", siteOutside.Addr().String())
	s.container = hosts.NewHost(l, p.name+"-container")
	for _, h := range []*hosts.Host{s.container, s.machine, s.outside} {
		s.setCongestionControl(h)
	}
	s.inside = s.container.Serve(l, "sleep", "100000").Pid()
	s.mountNamespace(l)
	s.lay(s, l)
	return s
}

// congestionControl is the file with what sockets have that ask for none.
const congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"

// setCongestionControl has all sockets of a host begin with that of the site.
// Namespaces of a user may have those only that the machine allows everybody;
// where it does not, only iperf3's own have it, which may take any.
func (s *site) setCongestionControl(h *hosts.Host) {
	if s.cc == "" {
		return
	}
	err := h.Do(func() error { return os.WriteFile(congestionControl, []byte(s.cc), 0) })
	if h == s.machine && err != nil {
		have, _ := os.ReadFile(congestionControl)
		s.note = fmt.Sprintf("the machine's sockets have %s; try: sudo sysctl -w net.ipv4.tcp_allowed_congestion_control='reno cubic bbr'",
			strings.TrimSpace(string(have)))
	}
}

// mountNamespace gives the container's namespace a path that everybody may
// open, as `ip netns` does.
func (s *site) mountNamespace(l *lab) {
	s.namespace = filepath.Join(l.dir(), "net")
	l.check(os.WriteFile(s.namespace, nil, 0o644), "make a file")
	l.check(unix.Mount(fmt.Sprintf("/proc/%d/ns/net", s.inside), s.namespace, "", unix.MS_BIND, ""), "mount a namespace")
	l.Cleanup(func() { _ = unix.Unmount(s.namespace, unix.MNT_DETACH) })
}

// fairlead calls the site's node and returns what it printed.
func (s *site) fairlead(l *lab, args ...string) string {
	return s.machine.Run(l, "env", append([]string{"FAIRLEAD_DIR=" + s.dir, s.bin}, args...)...)
}

// layNode starts a node on the machine.
func (s *site) layNode(l *lab, upArgs ...string) {
	s.bin = hosts.Binary(l)
	dir, err := os.MkdirTemp("", "bench-node")
	l.check(err, "make a node directory")
	l.Cleanup(func() { os.RemoveAll(dir) })
	s.dir = dir
	s.fairlead(l, append([]string{"up"}, upArgs...)...)
	l.Cleanup(func() { // also after Ctrl-C, so without l
		cmd := exec.Command(s.bin, "down", "--all")
		cmd.Env = append(os.Environ(), "FAIRLEAD_DIR="+dir)
		_ = cmd.Run()
	})
	var version struct{ Node struct{ Pid int } }
	l.check(json.Unmarshal([]byte(s.fairlead(l, "version", "--json")), &version), "ask for the node's process")
	s.pid = version.Node.Pid
}

func (s *site) layFairlead(l *lab) {
	s.layNode(l)
	s.fairlead(l, "network", "connect", "--name", "c", "default", "netns:"+s.namespace)
	for _, p := range publishedPorts {
		s.fairlead(l, "publish", "c", fmt.Sprintf("%d:%[1]d/%s", p.port, p.proto))
	}
}

func (s *site) laySlirp(l *lab) {
	socket := filepath.Join(l.dir(), "api")
	service := s.machine.Serve(l, "slirp4netns", "--configure", "--mtu", strconv.Itoa(s.mtu), "--netns-type=path",
		"--api-socket="+socket, s.namespace, "tap0")
	s.pid = service.Pid()
	l.comes(service, func() error {
		_, err := os.Stat(socket)
		return err
	})
	for _, p := range publishedPorts {
		l.check(slirpCall(socket, fmt.Sprintf(
			`{"execute":"add_hostfwd","arguments":{"proto":%q,"host_addr":%q,"host_port":%d,"guest_addr":%q,"guest_port":%[3]d}}`,
			p.proto, siteMachine.Addr(), p.port, slirpInside)), "publish a port by slirp4netns")
	}
}

// slirpCall sends a request to slirp4netns, which takes one for each connection.
func slirpCall(socket, request string) error {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		return err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	var answer struct{ Error *struct{ Desc string } }
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return errors.New(answer.Error.Desc)
	}
	return nil
}

func (s *site) layPasta(l *lab) {
	list := map[string][]string{}
	for _, p := range publishedPorts {
		list[p.proto] = append(list[p.proto], strconv.Itoa(p.port))
	}
	s.pasta(l, "-t", siteMachine.Addr().String()+"/"+strings.Join(list["tcp"], ","), "-u", siteMachine.Addr().String()+"/"+strings.Join(list["udp"], ","))
}

// pasta starts it with what it publishes. It is root of a user namespace and has
// nobody else to become.
func (s *site) pasta(l *lab, publish ...string) {
	args := append([]string{
		"--foreground", "--stderr", "--quiet", "--runas", "0", "--config-net", "-4", "-a", slirpInside, "-n", "24", "-g", "10.0.2.2",
		"--mtu", strconv.Itoa(s.mtu), "--ns-ifname", "tap0", "--no-map-gw", "-T", "none", "-U", "none",
	}, publish...)
	service := s.machine.Serve(l, "pasta", append(args, "--netns-only", "--netns", s.namespace)...)
	s.pid = service.Pid()
	l.comes(service, func() error {
		if _, err := s.container.Netlink.LinkByName("tap0"); err != nil {
			return err
		}
		// Pasta learns the container's MAC address from what it says.
		return s.container.Do(func() error {
			conn, err := net.Dial("udp4", "10.0.2.2:9")
			if err == nil {
				_, err = conn.Write([]byte("hello"))
				conn.Close()
			}
			return err
		})
	})
}

func (s *site) layRootlesskit(l *lab) {
	var publish []string
	for _, p := range publishedPorts {
		publish = append(publish, "-p", fmt.Sprintf("%s:%d:%[2]d/%s", siteMachine.Addr(), p.port, p.proto))
	}
	s.rootlesskit(l, publish...)
}

// rootlesskit starts it with what it publishes. It makes its own namespaces, for
// which it wants more users than one.
func (s *site) rootlesskit(l *lab, publish ...string) {
	lendUsers(l)
	args := []string{
		"XDG_RUNTIME_DIR=" + l.dir(), "rootlesskit", "--state-dir", filepath.Join(l.dir(), "state"),
		"--net=slirp4netns", "--port-driver=builtin",
	}
	args = append(args, publish...)
	service := s.machine.Serve(l, "env", append(args, "sh", "-c", "echo inside $$; exec sleep 100000")...)
	s.pid = service.Pid()
	l.comes(service, func() error {
		_, rest, ok := strings.Cut(service.Output(), "inside ")
		pid, _, end := strings.Cut(rest, "\n")
		if !ok || !end {
			return errors.New("its command has not begun")
		}
		var err error
		s.inside, err = strconv.Atoi(pid)
		return err
	})
	s.enter = []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", s.inside)}
}

// lendUsers gives root of this world users for one more user namespace. Nobody
// else sees it.
func lendUsers(l *lab) {
	if os.Getenv("FAIRLEAD_WORLD") != "root" {
		return // a plain user has those the administrator gave, or none
	}
	file := filepath.Join(l.dir(), "subid")
	l.check(os.WriteFile(file, []byte("root:100000:65536\n"), 0o644), "write %s", file)
	for _, name := range []string{"/etc/subuid", "/etc/subgid"} {
		l.check(unix.Mount(file, name, "", unix.MS_BIND, ""), "replace %s", name)
		l.Cleanup(func() { _ = unix.Unmount(name, unix.MNT_DETACH) })
	}
}

func (s *site) layDockerProxy(l *lab) {
	hosts.Join(l, s.machine, "docker0", s.container, "eth0")
	s.machine.Addr(l, "docker0", proxyPrefix.String())
	s.container.Addr(l, "eth0", proxyInside.String())
	s.container.Route(l, "default", proxyPrefix.Addr().String())
	for _, p := range publishedPorts {
		s.dockerProxy(l, p.proto, p.port)
	}
}

// dockerProxy publishes one port. To descriptor 3 it says that it runs.
func (s *site) dockerProxy(l *lab, proto string, port int) *hosts.Service {
	return s.machine.Serve(l, "sh", "-c", `exec docker-proxy "$@" 3>/dev/null`, "-", "-proto", proto,
		"-host-ip", siteMachine.Addr().String(), "-host-port", strconv.Itoa(port),
		"-container-ip", proxyInside.Addr().String(), "-container-port", strconv.Itoa(port))
}

// command prepares a command in the container, or outside.
func (s *site) command(ctx context.Context, inside bool, name string, args ...string) *hosts.Cmd {
	switch {
	case !inside:
		return s.outside.Command(ctx, name, args...)
	case s.enter != nil:
		line := append(append([]string{}, s.enter...), append([]string{name}, args...)...)
		return s.machine.Command(ctx, line[0], line[1:]...)
	}
	return s.container.Command(ctx, name, args...)
}

// server is where who begins in a direction reaches the other side.
func (s *site) server(d direction, port int) netip.AddrPort {
	if d == in {
		return netip.AddrPortFrom(siteMachine.Addr(), uint16(port))
	}
	return netip.AddrPortFrom(siteOutside.Addr(), uint16(port))
}

// A traffic is what the interfaces in a container's namespace have counted.
type traffic struct {
	bytes   uint64 // received and sent
	dropped uint64 // frames that were to be sent, and for which a TAP had no room (tx_dropped)
}

// carried is what those of the site's container have: what did not cross one of
// them did not reach the container. At the other end of them is the leader. Only
// rootlesskit comes by lo.
func (s *site) carried() (t traffic, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", s.inside))
	if err != nil {
		return t, err
	}
	for line := range strings.Lines(string(text)) {
		name, counts, ok := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if !ok || len(f) < 12 || strings.TrimSpace(name) == "lo" && s.enter == nil {
			continue // the heading, and what the container says to itself
		}
		for column, sum := range map[int]*uint64{0: &t.bytes, 8: &t.bytes, 11: &t.dropped} {
			n, err := strconv.ParseUint(f[column], 10, 64)
			if err != nil {
				return t, fmt.Errorf("/proc/PID/net/dev: %w", err)
			}
			*sum += n
		}
	}
	return t, nil
}

// spent is the time processors have spent on the leader, all its threads.
func (s *site) spent() spent {
	if s.pid == 0 {
		return spent{}
	}
	return spentOn(s.pid)
}

// across has something done, and proves by the interfaces in the container's
// namespace that as many bytes of payload crossed as do says have arrived. It
// returns a sample without a value: what that took of the leader, and what those
// interfaces dropped meanwhile.
func (s *site) across(do func() (payload float64, err error)) (q sample, err error) {
	before, err := s.carried()
	if err != nil {
		return q, err
	}
	took := s.spent()
	payload, err := do()
	q.spent = s.spent().minus(took)
	if err != nil {
		return q, err
	}
	after, err := s.carried()
	if err != nil {
		return q, err
	}
	q.Dropped = after.dropped - before.dropped
	if crossed := after.bytes - before.bytes; float64(crossed) < payload {
		err = fmt.Errorf("%.0f bytes arrived and %d crossed the container's interface: the traffic went another way, and is not reported", payload, crossed)
	}
	return q, err
}

// resident is how much memory a process has, in bytes.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm holds %q", pid, text)
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize()), err
}
