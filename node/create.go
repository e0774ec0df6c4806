package node

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"

	"fairlead/node/api"
	"fairlead/packet"
)

// create reserves what a container needs: name, number, address, ports, files.
func (n *Node) create(req api.CreateRequest) (c *container, err error) {
	if len(req.Command) == 0 && req.Foreign == "" {
		return nil, fail(http.StatusBadRequest, "no command; say what to run: `fairlead run -it -- sh`")
	}
	c = &container{
		id: newID(), req: req, created: time.Now(), client: -1, pidfd: -1, exit: 137, done: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isLeaving() {
		return nil, errLeaving
	}
	if most, _, limit := share(); len(n.containers) >= maxContainers {
		return nil, fail(http.StatusConflict, "this node has %d containers, which is all it can have", len(n.containers))
	} else if len(n.containers) >= most {
		return nil, fail(http.StatusConflict, "this node has %d containers, and no descriptors for more: start it with a higher `ulimit -n`, which is %d", len(n.containers), limit)
	}
	if err := n.nameLocked(c); err != nil {
		return nil, err
	}
	if err := n.modeLocked(c); err != nil {
		return nil, err
	}
	if err := c.readPorts(); err != nil {
		return nil, err
	}
	if err := c.readEgress(); err != nil {
		return nil, err
	}
	if err := c.readRates(); err != nil {
		return nil, err
	}
	if err := n.addressLocked(c); err != nil {
		return nil, err
	}
	if err = n.readLinksLocked(c); err == nil {
		err = n.reserveLocked(c)
	}
	if err == nil {
		err = n.makeFiles(c)
	}
	if err != nil {
		c.files.remove()
		n.ports.release(c.published)
		c.releaseAddresses()
		return nil, err
	}
	if c.share != nil {
		c.share.files.holders++ // its files are c's, too
	}
	c.number = n.ids.take()
	n.containers[c.id] = c
	n.publishNamesLocked()
	n.publishAdmitLocked()
	c.forget = time.AfterFunc(lookEvery, func() { n.reconsider(c) })
	return c, nil
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

func (n *Node) nameLocked(c *container) error {
	name := c.req.Name
	if name == "" {
		name = n.inventNameLocked(c.id)
	}
	if err := n.nameFreeLocked(name); err != nil {
		return err
	}
	c.named.Store(&name)
	c.hostname = c.req.Hostname
	if c.hostname == "" {
		c.hostname = c.id[:12]
	}
	if len(c.hostname) > 63 || strings.ContainsFunc(c.hostname, notInHostname) {
		return fail(http.StatusBadRequest, "invalid hostname %q: at most 63 characters without blanks", c.hostname)
	}
	return nil
}

// nameFreeLocked refuses a name no further container can have.
func (n *Node) nameFreeLocked(name string) error {
	if !validName.MatchString(name) {
		return fail(http.StatusBadRequest, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most", name)
	}
	for _, other := range n.containers {
		if other.name() == name {
			return fail(http.StatusConflict, "Conflict. The container name %q is already in use by container %q. "+
				"Stop it with `fairlead stop %s`, or choose another name.", "/"+name, other.id[:12], name)
		}
	}
	return nil
}

// rename gives a container another name. Its host name stays, as Docker has it.
func (n *Node) rename(c *container, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == c.name() {
		return fail(http.StatusBadRequest, "Renaming a container with the same name as its current name")
	}
	if err := n.nameFreeLocked(name); err != nil {
		return err
	}
	slog.Info("container is renamed", "container", c.name(), "name", name)
	c.named.Store(&name)
	n.publishNamesLocked()
	n.publishAdmitLocked()
	return nil
}

// notInHostname are the characters that would mean something else in a hosts
// file or on a terminal.
func notInHostname(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == '/' || r == '#'
}

// modeLocked reads --network. What contradicts the mode is refused in Docker's
// words.
func (n *Node) modeLocked(c *container) error {
	network, of, shares := strings.Cut(c.req.Network, ":")
	switch {
	case c.req.Foreign != "":
		c.mode = modeForeign
		return nil
	case shares && network == "container":
		c.mode = modeShared
	case shares:
		return fail(http.StatusBadRequest, "network %q: only container:NAME takes a name behind a colon", c.req.Network)
	case network == "none":
		c.mode = modeNone
	case network == "host":
		c.mode = modeHost
	default:
		c.mode = modeBridge
		return nil
	}
	if c.req.IP != "" {
		return fail(http.StatusBadRequest, "invalid network config: user specified IP address is supported on a network only, not with --network %s", c.req.Network)
	}
	if c.req.MAC != "" {
		return fail(http.StatusBadRequest, "conflicting options: mac-address and the network mode; leave out --mac, or --network %s", c.req.Network)
	}
	if c.req.Hostname != "" && c.mode != modeNone {
		return fail(http.StatusBadRequest, "conflicting options: hostname and the network mode; leave out --hostname, or --network %s", c.req.Network)
	}
	if len(c.req.Options) > 0 {
		return fail(http.StatusBadRequest, "conflicting options: --opt and the network mode; with --network %s there is no link to set up", c.req.Network)
	}
	if c.mode == modeHost {
		c.hostname, _ = os.Hostname() // it only fails without a kernel
	}
	if c.mode != modeShared {
		return nil
	}
	x, err := n.findLocked(of)
	if err != nil {
		return err
	}
	if !x.running || x.pidfd < 0 {
		return fail(http.StatusConflict, "cannot join network of a non running container: %s", of)
	}
	if x.mode == modeHost {
		return fail(http.StatusBadRequest, "container %s has no network namespace of its own (--network %s); join that one instead", x.name(), x.req.Network)
	}
	c.door, c.share, c.hostname = x, x, x.hostname
	if x.share != nil {
		c.share = x.share
	}
	return nil
}

// addressLocked gives a new container its place on the network it asks for.
func (n *Node) addressLocked(c *container) error {
	if c.mode != modeBridge && c.mode != modeForeign {
		return nil
	}
	l, err := n.lanLocked(c.req.Network)
	if err != nil {
		return err
	}
	var want netip.Addr
	if c.req.IP != "" {
		if want, err = netip.ParseAddr(c.req.IP); err != nil || !want.Is4() {
			return fail(http.StatusBadRequest, "invalid IPv4 address: %s", c.req.IP)
		}
	}
	var mac packet.MAC
	if c.req.MAC != "" {
		if mac, err = packet.ParseMAC(c.req.MAC); err != nil || mac.IsGroup() || mac.IsZero() {
			return fail(http.StatusBadRequest, "invalid MAC address %q: six bytes such as 02:42:ac:11:00:02, the first one even", c.req.MAC)
		}
	}
	a, err := n.reserveOnLocked(c, l, want, mac, c.req.Options)
	if err != nil {
		return err
	}
	a.iface = "eth0"
	c.network, c.attachments = l.name, []*attachment{a}
	return nil
}

// reserveOnLocked takes an address of a network for c, the lowest free one when
// want is the zero Addr, and a MAC. options are those of the link.
func (n *Node) reserveOnLocked(c *container, l *lan, want netip.Addr, mac packet.MAC, options map[string]string) (*attachment, error) {
	opts, err := readLink(l.net.Config().Options, options)
	if err != nil {
		return nil, err
	}
	addr, err := l.net.Reserve(want)
	if err != nil {
		if other := n.ownerLocked(l, want); other != nil {
			err = fmt.Errorf("%w by container %s", err, other.name())
		}
		return nil, statusError{http.StatusConflict, err}
	}
	if mac.IsZero() {
		mac = packet.MACFromIPv4(addr.Addr())
		if n.macFreeLocked(l, mac) != nil { // somebody took it by hand
			mac = packet.MAC{0x02, 0x42}
			_, _ = hex.Decode(mac[2:], []byte(c.id[:8])) // an id is hexadecimal
		}
	}
	if err := n.macFreeLocked(l, mac); err != nil {
		l.net.Release(addr.Addr())
		return nil, err
	}
	return &attachment{lan: l, addr: addr, mac: mac, opts: opts}, nil
}

// ownerLocked is the container that has an address of a network, nil when it is
// nobody's.
func (n *Node) ownerLocked(l *lan, addr netip.Addr) *container {
	for _, c := range n.containers {
		if a := c.onLocked(l); a != nil && a.addr.Addr() == addr {
			return c.holder()
		}
	}
	return nil
}

// macFreeLocked refuses a MAC another station of the segment has: two ports
// with one MAC take each other's frames.
func (n *Node) macFreeLocked(l *lan, mac packet.MAC) error {
	if mac == l.net.GatewayMAC() {
		return fail(http.StatusConflict, "MAC address %s is the gateway's", mac)
	}
	for _, other := range n.containers {
		if a := other.onLocked(l); a != nil && a.mac == mac {
			return fail(http.StatusConflict, "MAC address %s is already in use by container %s", mac, other.name())
		}
	}
	return nil
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}
