package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"fairlead/node"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
)

// Checks of what a node needs of its host: descriptors, ports, a directory, a
// way out, and subnets that are nobody's.

// descriptors says how far the limit of open files goes.
func (m *machine) descriptors() finding { return judgeDescriptors(node.ReadCapacity()) }

func judgeDescriptors(c node.Capacity) finding {
	f := finding{Name: "descriptors", State: well}
	f.Found = fmt.Sprintf("%d: %d containers, %d sockets, %d for each", c.Descriptors, c.Containers, c.Sockets, c.SocketsEach)
	if c.SocketsEach < node.SocketsWanted {
		f.State = limited
		f.Why = fmt.Sprintf("a container's further connections are refused, and ports beyond %d are not published", c.Listeners)
		f.Mend = "sudo prlimit --pid $$ --nofile=65536"
	}
	if c.Containers == 0 {
		f.State = missing
		f.Why = "a node could not take a single container"
	}
	return f
}

// ping opens a socket for ICMP echo.
func (m *machine) ping() finding { return m.judgePing(box.TryPing(), os.Getegid()) }

func (m *machine) judgePing(err error, gid int) finding {
	const key = "net.ipv4.ping_group_range"
	f := finding{Name: "ping", State: well, Found: fmt.Sprintf("%s is %q", key, m.sysctl(key))}
	if err == nil {
		return f
	}
	f.State, f.Found = limited, fmt.Sprintf("no ping sockets: %v", err)
	f.Why = "ping and mtr from containers end at the gateway"
	if errors.Is(err, fs.ErrPermission) {
		f.Found = fmt.Sprintf("%v: %s is %q", err, key, m.sysctl(key))
		f.Mend = fmt.Sprintf("sudo sysctl -w %s=%q", key, m.pingRange(gid))
	}
	return f
}

// pingRange is all groups, or where the user namespace has not all of them, our
// own: the kernel takes no others.
func (m *machine) pingRange(gid int) string {
	const last = 1<<31 - 1
	text, _ := os.ReadFile(filepath.Join(m.proc, "self/gid_map"))
	var inside, outside, size int64
	if _, err := fmt.Sscan(string(text), &inside, &outside, &size); err == nil && inside+size <= last {
		return fmt.Sprintf("%d %[1]d", gid)
	}
	return fmt.Sprintf("0 %d", last)
}

// webPort is the one people publish.
const webPort = 80

// ports takes a port for which there may be a right to have.
func (m *machine) ports() finding { return m.judgePorts(box.TryPort(webPort)) }

func (m *machine) judgePorts(err error) finding {
	const key = "net.ipv4.ip_unprivileged_port_start"
	f := finding{Name: "ports", State: well, Found: fmt.Sprintf("%d may be yours; %s is %s", webPort, strings.TrimPrefix(key, "net.ipv4."), m.sysctl(key))}
	if err == nil {
		return f
	}
	f.State, f.Found = limited, fmt.Sprintf("port %d: %v", webPort, err)
	if errors.Is(err, fs.ErrPermission) {
		f.Found = fmt.Sprintf("%v: %s is %s", err, strings.TrimPrefix(key, "net.ipv4."), m.sysctl(key))
		f.Why = "ports below that cannot be published; once mended, whoever comes first has those from 80 on"
		f.Mend = fmt.Sprintf("sudo sysctl -w %s=%d", key, webPort)
	}
	return f
}

// directory looks at the folder a node lives in.
func (m *machine) directory() finding {
	f := finding{Name: "directory", State: missing, Why: "a node lives there, and commands find it there"}
	own := "export FAIRLEAD_DIR=$HOME/.fairlead"
	if err := api.CheckPath(m.dir); err != nil {
		f.Found, f.Mend = err.Error(), own
		return f
	}
	err := api.CheckDir(m.dir)
	info, _ := os.Lstat(m.dir)
	switch {
	case err == nil:
		return finding{Name: "directory", State: well, Found: fmt.Sprintf("%s is yours alone (mode %04o)", m.dir, info.Mode().Perm())}
	case errors.Is(err, fs.ErrNotExist):
		if err = tryBelow(filepath.Dir(m.dir)); err == nil {
			return finding{Name: "directory", State: well, Found: m.dir + " can be made"}
		}
		f.Found, f.Mend = fmt.Sprintf("%s cannot be made: %v", m.dir, err), own
		if runtime := os.Getenv("XDG_RUNTIME_DIR"); runtime != "" && filepath.Dir(m.dir) == filepath.Clean(runtime) {
			f.Found = "XDG_RUNTIME_DIR is not yours: " + f.Found
			f.Mend = "unset XDG_RUNTIME_DIR"
			if mine := fmt.Sprintf("/run/user/%d", os.Getuid()); tryIn(mine) == nil {
				f.Mend = "export XDG_RUNTIME_DIR=" + mine
			}
		}
	case info != nil && info.IsDir() && isMine(info):
		f.Found, f.Mend = err.Error(), "chmod 700 "+shellWord(m.dir)
	default:
		f.Found, f.Mend = err.Error(), own
	}
	return f
}

// shellWord quotes what a shell would not take as it is.
func shellWord(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("_-./:+@%", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func isMine(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// tryBelow makes a folder in dir, or in what is there of it, and takes it away.
func tryBelow(dir string) error {
	for {
		err := tryIn(dir)
		if _, missing := os.Lstat(dir); missing == nil || err == nil || dir == filepath.Dir(dir) {
			return err
		}
		dir = filepath.Dir(dir)
	}
}

func tryIn(dir string) error {
	made, err := os.MkdirTemp(dir, ".fairlead-doctor-")
	if err != nil {
		return fmt.Errorf("%s: %w", dir, cause(err))
	}
	return os.Remove(made)
}

// cause is what an operation on a path failed by.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// node asks the node that runs, if one does, and for its networks' subnets.
func (m *machine) node(ctx context.Context, c *api.Client) (f finding, subnets []subnet) {
	f = finding{Name: "node", State: well, Found: "none runs in " + m.dir}
	planned := []subnet{{network: defaultNetwork, prefix: network.DefaultSubnet.Masked()}}
	var info api.VersionInfo
	err := c.Get(ctx, "/v1/version", &info)
	switch {
	case isNoNode(err), errors.Is(err, api.ErrLeaving), errors.Is(err, api.ErrLeft):
		return f, planned
	case err != nil:
		f.State, f.Found = missing, err.Error()
		f.Why = "every command asks it"
		return f, planned
	}
	f.Found = fmt.Sprintf("process %d of version %s with %d containers", info.Pid, info.Version, info.Containers)
	const again = "fairlead down --all"
	switch {
	case info.API != api.Version:
		f.State, f.Mend = missing, again
		f.Why = fmt.Sprintf("it speaks API v%d, this program v%d", info.API, api.Version)
		return f, planned
	case info.Version != version:
		f.State, f.Mend = limited, again
		f.Why = "this program is of version " + version + ": what one says of itself the other may not know"
	}
	up := "fairlead up"
	if info.Containers > 0 {
		up = "fairlead down --all && fairlead up"
	}
	var switches []api.Switch
	if err := c.Get(ctx, "/v1/switches", &switches); err != nil {
		f.State, f.Found = missing, err.Error()
		return f, planned
	}
	for _, s := range switches {
		if p, err := netip.ParsePrefix(s.Subnet); err == nil {
			subnets = append(subnets, subnet{s.Network, p.Masked(), moves(s.Network, up), s.HostLink})
		}
	}
	return f, subnets
}

// moves is the command that gives a network another subnet; up is that of the
// default one. FREE is the subnet.
func moves(name, up string) string {
	if name == defaultNetwork {
		return up + " --bip FREE"
	}
	return fmt.Sprintf("fairlead network rm %s && fairlead network create --bip FREE %[1]s", shellWord(name))
}

// A subnet is that of a network, and the command that changes it to FREE. One that
// has no such command is of a network that is not made yet.
type subnet struct {
	network string
	prefix  netip.Prefix
	moves   string
	dev     string // our own link to it, if there is one
}

// subnets looks for what of this host lies in the networks' subnets: containers
// cannot reach it, and whoever is there cannot be answered.
func (m *machine) subnets(list []subnet) finding {
	f := finding{Name: "subnets", State: well}
	taken, err := box.HostRoutes()
	if err != nil {
		f.State, f.Found = limited, err.Error()
		return f
	}
	return judgeSubnets(list, taken)
}

func judgeSubnets(list []subnet, taken []box.HostRoute) finding {
	f := finding{Name: "subnets", State: well}
	var names []string
	for _, s := range list {
		names = append(names, s.prefix.String())
		i := slices.IndexFunc(taken, func(r box.HostRoute) bool { return (s.dev == "" || r.Dev != s.dev) && conflicts(s.prefix, r.Prefix) })
		if i < 0 {
			continue
		}
		has := fmt.Sprintf("the route %s dev %s", taken[i].Prefix, taken[i].Dev)
		if taken[i].Address {
			has = fmt.Sprintf("the address %s on %s", taken[i].Prefix, taken[i].Dev)
		}
		free := freeSubnet(taken, list...)
		if s.moves == "" && free.IsValid() {
			f.Found = fmt.Sprintf("%s for network %s, because this host has %s", free.Masked(), s.network, has)
			return f
		}
		f.State, f.Found = limited, fmt.Sprintf("%s of network %s: this host has %s", s.prefix, s.network, has)
		f.Why = "containers cannot reach what is behind " + taken[i].Dev
		if free.IsValid() {
			f.Mend = strings.Replace(s.moves, "FREE", free.String(), 1)
		}
		return f
	}
	f.Found = strings.Join(names, ", ") + ": no address or route of this host"
	return f
}

// judgeHostLink says whether this machine may have interfaces on networks. Who may
// not lacks nothing that containers need.
func judgeHostLink(may bool, list []subnet) finding {
	f := finding{Name: "host link", State: well, Found: "can be made: `fairlead up --host-link`"}
	for _, s := range list {
		if s.dev != "" {
			f.Found = fmt.Sprintf("%s leads to network %s", s.dev, s.network)
			return f
		}
	}
	if !may {
		example := network.DefaultSubnet.Addr().Next().Next()
		if len(list) > 0 {
			example = list[0].prefix.Addr().Next().Next().Next()
		}
		f.Found = fmt.Sprintf("takes CAP_NET_ADMIN, or a TAP of yours, see `fairlead network set --help`; without, `fairlead run -- curl %s` asks from inside", example)
	}
	return f
}

// conflicts reports whether a route leads into a subnet. What is as wide as a
// default route (OpenVPN's halves of the world) leads everywhere.
func conflicts(subnet, route netip.Prefix) bool {
	return route.Bits() >= 8 && subnet.Overlaps(route)
}

// freeSubnet is the gateway of the first of Docker's pools that nothing of this
// host and no network is in.
func freeSubnet(routes []box.HostRoute, networks ...subnet) netip.Prefix {
	var taken []network.Taken
	for _, r := range routes {
		if r.Prefix.Bits() >= 8 {
			taken = append(taken, network.Taken{Prefix: r.Prefix.Masked()})
		}
	}
	for _, s := range networks {
		if s.moves != "" {
			taken = append(taken, network.Taken{Prefix: s.prefix})
		}
	}
	free, _ := network.FreePool(taken) // none is the zero Prefix
	return free
}

// outside looks for the way from this host to the world.
func (m *machine) outside() finding {
	f := finding{Name: "outside", State: well}
	w := box.WatchHost(func(*box.HostAddrs) {})
	defer w.Close()
	h := w.Seen()
	if h.Primary.IsValid() {
		f.Found = "by this host's sockets, as " + h.Primary.String()
	}
	if h.Problem != nil {
		f.State, f.Found = limited, h.Problem.Error()
		f.Why = "containers reach no further than this host does"
	}
	return f
}

// usualNeighbours is the bound a kernel has by itself.
const usualNeighbours = 1024

// neighbours says how many neighbours the kernels of all containers together may
// know: their tables are one, arp_tbl (net/ipv4/arp.c), whatever the namespace.
func (m *machine) neighbours() finding {
	f := finding{Name: "neighbours", State: well, Found: "how many there may be cannot be seen from here"}
	most, err := strconv.Atoi(m.sysctl("net.ipv4.neigh.default.gc_thresh3"))
	if err != nil {
		return f
	}
	more := fmt.Sprintf("sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=%d", 16*usualNeighbours)
	f.Found = fmt.Sprintf("%d at most, of all network namespaces together", most)
	switch {
	case most < usualNeighbours:
		f.State, f.Mend = limited, more
		f.Why = fmt.Sprintf("%d containers that all talk to one another have as many; who sends to one more gets %q",
			int(math.Sqrt(float64(most))), "No buffer space available")
	case most == usualNeighbours:
		f.Found += "; for more: `" + more + "`"
	}
	return f
}

// congestion says how this host's sockets send.
func (m *machine) congestion() finding {
	return finding{Name: "congestion", State: well, Found: fmt.Sprintf("%s; there are %s",
		cmp.Or(m.sysctl("net.ipv4.tcp_congestion_control"), "an unknown control"), cmp.Or(m.sysctl("net.ipv4.tcp_available_congestion_control"), "no others"))}
}

// ipv6 says whether this host has it.
func (m *machine) ipv6() finding {
	f := finding{Name: "ipv6", State: well, Found: "between containers, link-local; the way out is IPv4"}
	switch m.sysctl("net.ipv6.conf.all.disable_ipv6") {
	case "1":
		f.Found = "off on this host: net.ipv6.conf.all.disable_ipv6 is 1"
	case "":
		f.Found = "this kernel has none"
	}
	return f
}
