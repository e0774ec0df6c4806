package box

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"fairlead/packet"
)

// Network says which network namespace a container lives in.
type Network string

const (
	NetworkOwn    Network = "own"    // its own, with one interface whose other end the node reads
	NetworkNone   Network = "none"   // its own, with lo only
	NetworkHost   Network = "host"   // the caller's
	NetworkShared Network = "shared" // that of the container whose init is Spec.SharePID
)

// A Spec is everything init needs to know. It travels as JSON over the
// channel init is born with, so it is bounded by MaxMessage.
type Spec struct {
	ID       string   `json:"id"`
	Hostname string   `json:"hostname,omitempty"` // empty: the caller's
	Args     []string `json:"args"`
	// Env is the command's whole environment; HOSTNAME is added unless it is there.
	Env []string `json:"env,omitempty"`
	// Cwd is looked up inside the container; empty means /.
	Cwd string `json:"cwd,omitempty"`
	// TTY makes standard input, which must be a terminal nobody controls yet
	// (see OpenPTY), the controlling terminal of the command.
	TTY bool `json:"tty,omitempty"`
	// Stdin passes the caller's standard input on; otherwise it is /dev/null.
	// A detached container with Stdin has one that stays open and says nothing.
	Stdin bool `json:"stdin,omitempty"`
	// Detached containers outlive their client and write to Log.
	Detached bool `json:"detached,omitempty"`
	Log      *Log `json:"log,omitempty"`
	// Exit is a file that the command's exit status is written to, for a node that
	// was not there to hear it; empty: none.
	Exit string `json:"exit,omitempty"`
	// RootFS is a directory that becomes /; empty: the caller's tree.
	RootFS string `json:"rootfs,omitempty"`

	Network   Network    `json:"network"`
	SharePID  int        `json:"share_pid,omitempty"`
	Interface *Interface `json:"interface,omitempty"`
	// Sysctls are set before the interface goes up: net.* where the network
	// namespace is the container's own, and those of the ipc namespace.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Files are bound over files of the container, such as /etc/hosts.
	Files []File `json:"files,omitempty"`
}

// A File of the caller's tree to be seen at Target inside the container.
type File struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// A Log is where a detached container's output goes: Path and, once Limit
// bytes are in it, one predecessor, Path.1.
type Log struct {
	Path  string `json:"path"`
	Limit int64  `json:"limit,omitempty"` // 0: DefaultLogLimit
}

// DefaultLogLimit bounds one log file; with its predecessor a container
// keeps at most twice as much on disk.
const DefaultLogLimit = 8 << 20

// An Interface is one end of a link as it looks inside a network namespace.
type Interface struct {
	Name      string         `json:"name"`
	MAC       packet.MAC     `json:"mac"`
	MTU       int            `json:"mtu,omitempty"` // 0: the kernel's 1500
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"` // a default route via each, where there is none yet
	// ReplaceDefault has them take the place of default routes there are.
	ReplaceDefault bool    `json:"replace_default,omitempty"`
	Routes         []Route `json:"routes,omitempty"`
	// Resolver is the station on this link that answers at 127.0.0.11, where
	// resolvers look for the names of a network; the zero Addr is none.
	Resolver netip.Addr `json:"resolver,omitzero"`
	// Plain makes a textbook wire: plain frames without the virtio-net
	// header, nothing offloaded.
	Plain bool `json:"plain,omitempty"`
	// Veth makes one end of a veth pair instead of a TAP; the other end is a
	// packet socket.
	Veth bool `json:"veth,omitempty"`
}

// A Route leads to other networks by an interface.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // the zero Addr: they are on the link itself
}

// flags of the names a kernel accepts, net/core/dev.c dev_valid_name.
func validInterfaceName(s string) bool {
	return s != "" && len(s) < 16 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r%\x00")
}

// The MTUs a TAP accepts: 68 is the least an IPv4 link must carry (RFC 791),
// the upper end is drivers/net/tun.c MAX_MTU less the Ethernet header.
const minMTU, maxMTU = 68, 65521

func (i *Interface) validate() error {
	if !validInterfaceName(i.Name) {
		return fmt.Errorf("%q is no name for an interface (1 to 15 characters, no / : or space)", i.Name)
	}
	if i.MAC.IsGroup() || i.MAC.IsZero() {
		return fmt.Errorf("interface %s: MAC %v is not an address of one station", i.Name, i.MAC)
	}
	if i.MTU != 0 && (i.MTU < minMTU || i.MTU > maxMTU) {
		return fmt.Errorf("interface %s: MTU %d is not between %d and %d", i.Name, i.MTU, minMTU, maxMTU)
	}
	if i.Plain && i.Veth {
		return fmt.Errorf("interface %s: a textbook wire is a TAP, so offload=off and link=veth exclude each other", i.Name)
	}
	for _, a := range i.Addresses {
		if !a.IsValid() {
			return fmt.Errorf("interface %s: an address is missing its prefix length", i.Name)
		}
	}
	for _, g := range i.Gateways {
		if !g.IsValid() || !i.reaches(g) {
			return fmt.Errorf("interface %s: gateway %v is in none of its subnets %v", i.Name, g, i.Addresses)
		}
	}
	for _, r := range i.Routes {
		switch {
		case !r.To.IsValid() || r.To != r.To.Masked():
			return fmt.Errorf("interface %s: route to %v: that is no network, such as 10.1.0.0/16", i.Name, r.To)
		case r.Via.IsValid() && (r.Via.Is4() != r.To.Addr().Is4() || !i.reaches(r.Via)):
			return fmt.Errorf("interface %s: route to %v: router %v is in none of its subnets %v", i.Name, r.To, r.Via, i.Addresses)
		}
	}
	if i.Resolver.IsValid() && (!i.Resolver.Is4() || !i.reaches(i.Resolver)) {
		return fmt.Errorf("interface %s: resolver %v is in none of its subnets %v", i.Name, i.Resolver, i.Addresses)
	}
	return nil
}

// reaches reports whether a is on the link.
func (i *Interface) reaches(a netip.Addr) bool {
	for _, p := range i.Addresses {
		if p.Masked().Contains(a) {
			return true
		}
	}
	return a.Is6() && a.IsLinkLocalUnicast()
}

// ownNet reports whether the container's network namespace is made for it.
func (s *Spec) ownNet() bool { return s.Network == NetworkOwn || s.Network == NetworkNone }

// Validate reports what of the Spec cannot work whatever the machine.
func (s *Spec) Validate() error {
	switch {
	case len(s.Args) == 0 || s.Args[0] == "":
		return errors.New("no command given")
	case s.RootFS != "" && filepath.Clean(s.RootFS) == "/":
		return errors.New("--rootfs /: that is what a container sees without it; leave it out")
	case s.Detached && s.Log == nil:
		return errors.New("a detached container needs a log")
	case (s.Network == NetworkShared) != (s.SharePID != 0):
		return errors.New("a process to share with and the network mode \"shared\" go together")
	case (s.Network == NetworkOwn) != (s.Interface != nil):
		return errors.New("an interface and the network mode \"own\" go together")
	}
	switch s.Network {
	case NetworkOwn:
		if err := s.Interface.validate(); err != nil {
			return err
		}
	case NetworkNone, NetworkHost, NetworkShared:
	default:
		return fmt.Errorf("unknown network mode %q", s.Network)
	}
	if s.Cwd != "" && !filepath.IsAbs(s.Cwd) {
		return fmt.Errorf("the working directory %q is invalid, it needs to be an absolute path", s.Cwd)
	}
	for name := range s.Sysctls {
		if err := s.validateSysctl(name); err != nil {
			return err
		}
	}
	return nil
}

// ipcSysctls belong to the ipc namespace, which every container has.
var ipcSysctls = map[string]bool{
	"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true,
	"kernel.shmall": true, "kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true,
}

func (s *Spec) validateSysctl(name string) error {
	switch {
	case strings.ContainsAny(name, "\x00\n") || strings.Contains(name, ".."):
		return fmt.Errorf("%q is no name of a sysctl", name)
	case ipcSysctls[name] || strings.HasPrefix(name, "fs.mqueue."):
		return nil
	case !strings.HasPrefix(name, "net."):
		return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
	case !s.ownNet():
		return fmt.Errorf("sysctl %q is not allowed: the network namespace is not the container's own", name)
	}
	return nil
}
