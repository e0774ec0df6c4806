package node

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
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
		kept: make(map[string]int),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isLeaving() {
		return nil, errLeaving
	}
	if len(n.containers) >= maxContainers {
		return nil, fail(http.StatusConflict, "this node has %d containers, which is all it can have", len(n.containers))
	}
	if left, limit := n.descriptorsLocked(); left < containerDescriptors {
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
	if err := c.checkLinks(); err != nil {
		return nil, err
	}
	if err := n.placeLocked(c); err != nil {
		return nil, err
	}
	err = n.reserveLocked(c)
	if err == nil {
		err = n.makeFiles(c)
	}
	if err != nil {
		c.files.remove()
		n.ports.release(c.published)
		n.vacateAllLocked(c)
		return nil, err
	}
	if c.share != nil {
		c.share.files.holders++ // its files are c's, too
	}
	c.number = n.ids.take()
	n.enterLocked(c)
	n.publishLocked(c)
	c.forget = time.AfterFunc(lookEvery, func() { n.reconsider(c) })
	return c, nil
}

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
	if !api.ValidName(name) {
		return fail(http.StatusBadRequest, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most", name)
	}
	if other := n.named[name]; other != nil {
		return fail(http.StatusConflict, "Conflict. The container name %q is already in use by container %q. "+
			"Stop it with `fairlead stop %s`, or choose another name.", "/"+name, other.id[:12], name)
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
	before := c.name()
	if n.containers[c.id] != c {
		return fail(http.StatusNotFound, "No such container: %s; `fairlead ps` lists those that run", before)
	}
	slog.Info("container is renamed", "container", before, "name", name)
	n.strikeLocked(c)
	c.named.Store(&name)
	n.enterLocked(c)
	if err := n.noteLocked(c); err != nil {
		n.strikeLocked(c)
		c.named.Store(&before)
		n.enterLocked(c)
		return err
	}
	n.publishLocked(c, before)
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
		if len(c.req.Networks) > 1 {
			return fail(http.StatusBadRequest, "%s is connected to one network at a time", c.req.Foreign)
		}
		return nil
	case len(c.req.Networks) > 0:
		c.mode = modeBridge
		for _, w := range c.req.Networks {
			if name, _, shares := strings.Cut(w.Network, ":"); shares || name == "none" || name == "host" {
				return fail(http.StatusBadRequest, "conflicting options: cannot attach both user-defined and non-user-defined network-modes; %q is no network others can stand beside", w.Network)
			}
		}
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

// placeLocked gives a new container its places on the networks it asks for.
func (n *Node) placeLocked(c *container) error {
	if c.mode != modeBridge && c.mode != modeForeign {
		return nil
	}
	wants := c.req.Networks
	if len(wants) == 0 {
		wants = []api.EndpointRequest{{Network: c.req.Network, IP: c.req.IP, MAC: c.req.MAC}}
	}
	if len(c.req.Links) > 0 {
		wants = slices.Clone(wants)
		wants[0].Links = slices.Concat(wants[0].Links, c.req.Links)
	}
	for _, w := range wants {
		if err := n.connectLocked(c, w); err != nil {
			n.vacateAllLocked(c)
			return err
		}
	}
	c.network = c.attachments[0].lan.name
	return nil
}

// connectLocked gives c a further attachment, which has no port yet.
func (n *Node) connectLocked(c *container, w api.EndpointRequest) error {
	l, err := n.lanLocked(w.Network)
	if err != nil {
		return err
	}
	if w.Options == nil {
		w.Options = c.req.Options
	}
	if c.isPlug() {
		return n.plugLocked(c, l, w)
	}
	if err := checkEndpoint(l, w); err != nil {
		return err
	}
	switch {
	case c.onLocked(l) != nil:
		return fail(http.StatusConflict, "endpoint with name %s already exists in network %s", c.name(), l.name)
	case len(c.attachments) >= maxAttachments:
		return fail(http.StatusConflict, "container %s is on %d networks, which is all it can be on", c.name(), len(c.attachments))
	}
	need := min(1, len(c.attachments))
	if n.containers[c.id] == nil { // a new one
		need += containerDescriptors
	}
	if left, limit := n.descriptorsLocked(); left < need {
		return fail(http.StatusConflict, "this node has no descriptors for more links: start it with a higher `ulimit -n`, which is %d", limit)
	}
	links, err := n.linksOfLocked(l, w.Links)
	if err != nil {
		return err
	}
	iface, err := c.ifaceLocked(w.Interface)
	if err != nil {
		return err
	}
	want, _ := netip.ParseAddr(w.IP) // checked, or empty
	mac, _ := packet.ParseMAC(w.MAC)
	a, err := n.reserveOnLocked(c, l, want, mac, w.Options)
	if err != nil {
		return err
	}
	for _, r := range w.Routes {
		if _, via, _ := api.ParseRoute(r); via.IsValid() && !a.addr.Masked().Contains(via) {
			l.net.Release(a.addr.Addr())
			return fail(http.StatusBadRequest, "invalid route %s: %s is not in %s, where the interface is", r, via, a.addr.Masked())
		}
	}
	a.id, a.iface, a.asked = newID(), iface, w
	a.aliases, a.links, a.priority = w.Aliases, links, w.Priority
	n.occupyLocked(c, a)
	return nil
}

// occupyLocked gives c an attachment, whose address is reserved.
func (n *Node) occupyLocked(c *container, a *attachment) {
	if len(c.attachments) > 0 {
		n.further++
	}
	c.attachments = append(c.attachments, a)
	if !a.mac.IsZero() {
		a.lan.macs[a.mac] = c
	}
	for _, name := range a.linkedNames() {
		if n.linked[name] == nil {
			n.linked[name] = make(map[*attachment]*container)
		}
		n.linked[name][a] = c
	}
}

// vacateLocked gives back what an attachment has on its network; further says that
// its container has another one.
func (n *Node) vacateLocked(a *attachment, further bool) {
	if further {
		n.further--
	}
	a.lan.net.Release(a.addr.Addr())
	delete(a.lan.macs, a.mac)
	for _, name := range a.linkedNames() {
		if delete(n.linked[name], a); len(n.linked[name]) == 0 {
			delete(n.linked, name)
		}
	}
}

// vacateAllLocked does so for a container that is gone, or does not come to be.
func (n *Node) vacateAllLocked(c *container) {
	for i, a := range c.attachments {
		n.vacateLocked(a, i > 0)
	}
}

// descriptorsLocked is how many descriptors there are for further containers and
// links. A worker that is in a write of minutes keeps those of all that end meanwhile.
func (n *Node) descriptorsLocked() (left, limit int) {
	most, _, limit := share()
	closing := max(0, int(n.closing.Load())-soonClosed)
	return (most-len(n.containers))*containerDescriptors - n.further - closing, limit
}

// maxAttachments bounds the networks of a container: each is an interface, and
// takes a moment of its start.
const maxAttachments = 64

// checkEndpoint refuses what cannot be had on any network.
func checkEndpoint(l *lan, w api.EndpointRequest) error {
	if a, err := netip.ParseAddr(w.IP); w.IP != "" && (err != nil || !a.Is4()) {
		return fail(http.StatusBadRequest, "invalid IPv4 address: %s", w.IP)
	}
	if mac, err := packet.ParseMAC(w.MAC); w.MAC != "" && (err != nil || mac.IsGroup() || mac.IsZero()) {
		return fail(http.StatusBadRequest, "invalid MAC address %q: six bytes such as 02:42:ac:11:00:02, the first one even", w.MAC)
	}
	if len(w.Aliases) > 0 && !l.custom() {
		return fail(http.StatusBadRequest, "network-scoped aliases are only supported for user-defined networks; `fairlead network create NAME` makes one")
	}
	for _, alias := range w.Aliases {
		if !api.ValidName(alias) {
			return fail(http.StatusBadRequest, "invalid alias %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most", alias)
		}
	}
	for _, r := range w.Routes {
		if _, _, err := api.ParseRoute(r); err != nil {
			return statusError{http.StatusBadRequest, err}
		}
	}
	if w.Interface != "" && !validInterface(w.Interface) {
		return fail(http.StatusBadRequest, "%q is no name for an interface: 1 to 15 letters, digits, dots, dashes and underscores", w.Interface)
	}
	return nil
}

// validInterface is what the kernel takes (dev_valid_name in net/core/dev.c), less
// what would surprise on a terminal and what is a pattern to it: the characters of
// other names, in another order.
func validInterface(s string) bool {
	return s != "" && len(s) <= 15 && s[0] != '.' && s[0] != '-' && api.ValidName("eth"+s)
}

// ifaceLocked is what a further interface of c's is called: want, or the first
// free one of eth0, eth1 and so on.
func (c *container) ifaceLocked(want string) (string, error) {
	has := func(name string) bool {
		return name == "lo" || slices.ContainsFunc(c.attachments, func(a *attachment) bool { return a.iface == name })
	}
	if want != "" {
		if has(want) {
			return "", fail(http.StatusConflict, "container %s has an interface %s already", c.name(), want)
		}
		return want, nil
	}
	for i := 0; ; i++ {
		if name := fmt.Sprintf("eth%d", i); !has(name) {
			return name, nil
		}
	}
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
	if other := l.macs[mac]; other != nil {
		return fail(http.StatusConflict, "MAC address %s is already in use by container %s", mac, other.name())
	}
	return nil
}

func newID() string { return idOf(rand.Reader) }

// idOf makes an ID whose first twelve digits are the container's host name, unless it is
// given another: a name of decimal digits alone resolvers take for an address
// (__nss_hostname_digits_dots in glibc's nss/digits_dots.c).
func idOf(random io.Reader) string {
	for {
		var b [32]byte
		_, _ = io.ReadFull(random, b[:]) // crypto/rand.Reader never fails
		if id := hex.EncodeToString(b[:]); strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}
