package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
)

// What is written down for a node that comes after one that was killed: recordFile
// in the directory of each container, and runningFile for the node. Both count in
// the boot they were written in, so nothing waits for a disk; a file is the one
// before or the one after. A node that ends takes them away.
const (
	recordFile  = "record.json"
	runningFile = "running.json"

	recordVersion = 1
)

// Bounds of what is read: a request is below api's bound, and 32,768 publications
// are 3 MiB.
const (
	maxRecord  = 8 << 20
	maxRunning = 16 << 20
)

// A record is what there is to know of a container that runs.
type record struct {
	Version  int                `json:"version"`
	ID       string             `json:"id"`
	Name     string             `json:"name"`
	Hostname string             `json:"hostname"`
	Mode     string             `json:"mode"`
	Network  string             `json:"network,omitempty"`
	Number   packet.ContainerID `json:"number"`
	Created  time.Time          `json:"created"`
	Started  time.Time          `json:"started"`
	Request  api.CreateRequest  `json:"request"`
	Netns    uint64             `json:"netns,omitempty"`
	Init     box.Init           `json:"init"`

	Share string `json:"share,omitempty"` // mode shared: who made the namespace
	Ended bool   `json:"ended,omitempty"` // and others live in its namespace

	Places []savedPlace   `json:"places,omitempty"` // its own
	Kept   map[string]int `json:"kept,omitempty"`   // the init's copies of links' ends, by the place
	Route  string         `json:"route,omitempty"`  // the place its default route leads by

	Ports     []savedPort    `json:"ports,omitempty"`
	Addresses []savedAddress `json:"addresses,omitempty"`
	RateIn    string         `json:"rate_in,omitempty"`
	RateOut   string         `json:"rate_out,omitempty"`

	HostLines  []string `json:"host_lines,omitempty"` // ours in its files
	Nameserver string   `json:"nameserver,omitempty"`
}

// A savedPlace is an attachment.
type savedPlace struct {
	ID        string              `json:"id"`
	Network   string              `json:"network"` // its id
	Addr      netip.Prefix        `json:"addr,omitzero"`
	MAC       string              `json:"mac,omitempty"`
	Asked     api.EndpointRequest `json:"asked"`
	Links     []string            `json:"links,omitempty"`
	Textbook  bool                `json:"textbook,omitempty"`
	Veth      bool                `json:"veth,omitempty"`
	Isolated  bool                `json:"isolated,omitempty"`
	VLANs     string              `json:"vlans,omitempty"`
	Plug      string              `json:"plug,omitempty"`
	Interface string              `json:"interface"`
	Index     int                 `json:"index,omitempty"` // 0: it has no link
	PeerNetns int                 `json:"peer_netns,omitempty"`
	Statics   []static            `json:"statics,omitempty"`
	// The container is being connected or disconnected. A node after one that was killed
	// meanwhile takes it off: who asked for either has heard that the node has left.
	Unsettled bool `json:"unsettled,omitempty"`
}

// A savedPort is a publication.
type savedPort struct {
	Proto    string     `json:"proto"`
	HostIP   netip.Addr `json:"host_ip,omitzero"`
	HostPort uint16     `json:"host_port"`
	Port     uint16     `json:"port"`
}

// A savedAddress is an ownAddress.
type savedAddress struct {
	Addr  netip.Addr `json:"addr"`
	Place string     `json:"place"`
}

// recordLocked is a container as it is now.
func (c *container) recordLocked() *record {
	r := &record{
		Version: recordVersion, ID: c.id, Name: c.name(), Hostname: c.hostname, Mode: c.mode, Network: c.network, Number: c.number,
		Created: c.created, Started: c.started, Request: c.req, Netns: c.netns, Init: c.init, Ended: c.ending, Kept: c.kept,
		HostLines: c.files.hostLines, Nameserver: c.files.nameserver,
	}
	if c.share != nil {
		r.Share = c.share.id
	} else {
		r.RateIn, r.RateOut = c.rateWords()
	}
	for _, a := range c.attachments {
		p := savedPlace{
			ID: a.id, Network: a.lan.id, Addr: a.addr, MAC: a.macWord(), Asked: a.asked, Links: a.links,
			Textbook: a.opts.textbook, Veth: a.opts.veth, Isolated: a.opts.isolated, Plug: a.opts.plug, VLANs: a.opts.vlans.String(), Interface: a.iface, PeerNetns: -1,
			Statics: a.statics, Unsettled: a.leaving || a.coming,
		}
		if e := a.endpoint; e != nil && !e.gone {
			p.Index, p.PeerNetns = e.index, e.peerNetns
		}
		r.Places = append(r.Places, p)
	}
	if c.route != nil {
		r.Route = c.route.id
	}
	for _, p := range c.published {
		r.Ports = append(r.Ports, savedPort{p.proto, p.hostIP, p.hostPort, p.port})
	}
	for _, a := range c.addresses {
		r.Addresses = append(r.Addresses, savedAddress{a.Addr, a.at.id})
	}
	return r
}

// recordPath is where the record of a container is, in the node directory.
func recordPath(id string) string { return path.Join("containers", id, recordFile) }

// noteLocked writes a container down as it is now, before what has changed holds.
// One that has not started or whose files go is not, and none while what is there is
// another node's.
func (n *Node) noteLocked(c *container) error {
	if c.started.IsZero() || c.files.holders == 0 || n.handed != nil {
		return nil
	}
	if err := n.home.replaceFile(recordPath(c.id), c.recordLocked(), false); err != nil {
		return fmt.Errorf("write down container %s for a node after this one: %w; it needs room (`df %s`), and the right to write there", c.name(), err, n.home.Name())
	}
	return nil
}

// renoteLocked does so after a change that holds already.
func (n *Node) renoteLocked(c *container) {
	if err := n.noteLocked(c); err != nil {
		slog.Error("a node after this one finds what was", "err", err)
	}
}

// readRecords reads the records of the containers there were, the oldest first.
// What cannot be read is told in the log, and lost. One of a later version is not: it is
// a container that this node cannot adopt, whose name and address others would get, and
// whose files it would take away. If the machine was started anew it is there no more.
func (h *home) readRecords() (list []*record, err error) {
	dir, err := h.Open("containers")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(4 * maxContainers) // of containers that have ended others may have been left
	if err != nil && len(names) == 0 {
		return nil, nil //nolint:nilerr // io.EOF of an empty one
	}
	node, _ := h.readSome(runningFile, maxRunning)
	mayRun := !isOfBefore(node)
	for _, name := range names {
		text, err := h.readSome(recordPath(name), maxRecord)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it never ran
		}
		var r *record
		if err == nil {
			r, err = parseRecord(text)
		}
		if err == nil && r.ID != name {
			err = fmt.Errorf("it is that of container %q", r.ID)
		}
		if mayRun && errors.Is(err, errLater) {
			return nil, fmt.Errorf("%s: %w", path.Join(h.Name(), recordPath(name)), err)
		} else if err != nil {
			slog.Error("a container of the node before is lost", "record", recordPath(name), "err", err)
			continue
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *record) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// errLater says that a later version wrote what is to be read.
var errLater = errors.New("a later fairlead wrote it: start that one, or end its containers and remove the directory")

// isLater looks at the version alone, for nothing else means what it did.
func isLater(text []byte) bool {
	var r struct {
		Version int `json:"version"`
	}
	return json.Unmarshal(text, &r) == nil && r.Version > recordVersion
}

// parseRecord reads one.
func parseRecord(text []byte) (*record, error) {
	if isLater(text) {
		return nil, errLater
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, err
	}
	return r, r.check()
}

// check refuses what no node has written.
func (r *record) check() error {
	switch {
	case r == nil:
		return errors.New("there is none")
	case r.Version > recordVersion:
		return errLater
	case r.Version != recordVersion:
		return fmt.Errorf("it has version %d", r.Version)
	case !validID(r.ID) || r.Share != "" && !validID(r.Share):
		return fmt.Errorf("%q is no id", r.ID)
	case !api.ValidName(r.Name):
		return fmt.Errorf("%q is no name", r.Name)
	case !slices.Contains(modes, r.Mode):
		return fmt.Errorf("%q is no mode", r.Mode)
	case r.Mode != modeHost && strings.ContainsFunc(r.Hostname, notInHostname):
		return fmt.Errorf("%q is no hostname", r.Hostname)
	case len(r.Places) > maxAttachments || len(r.Ports) > maxPublications || len(r.Kept) > maxAttachments:
		return errors.New("it has more places or ports than a container can have")
	case r.Number&0xffff == 0 || (r.Mode == modeShared) != (r.Share != "") || (r.Mode == modeForeign) != (r.Request.Foreign != "") || r.Started.IsZero():
		return errors.New("it contradicts itself")
	case r.Mode != modeBridge && r.Mode != modeForeign && len(r.Places)+len(r.Ports)+len(r.Addresses) > 0:
		return fmt.Errorf("it has places or ports, and is of mode %s", r.Mode)
	}
	plug := (&container{req: r.Request}).isPlug()
	for i, p := range r.Places {
		err := p.check(plug)
		for _, o := range r.Places[:i] {
			if o.ID == p.ID || o.Network == p.Network || o.Interface == p.Interface {
				err = errors.New("it has one twice")
			}
		}
		if err != nil {
			return fmt.Errorf("its places: %w", err)
		}
	}
	for _, p := range r.Ports {
		if protos[p.Proto] == 0 || p.HostPort == 0 || p.Port == 0 {
			return fmt.Errorf("it has a port %d of %q, published as %d", p.Port, p.Proto, p.HostPort)
		}
	}
	return nil
}

// modes are those a container may have.
var modes = []string{modeBridge, modeNone, modeHost, modeShared, modeForeign}

// check refuses a place no container can have; plug says that it is no container's.
func (p *savedPlace) check(plug bool) error {
	mac, err := packet.ParseMAC(p.MAC)
	switch {
	case !validID(p.ID):
		return fmt.Errorf("%q is no id", p.ID)
	case plug != (p.Plug != "") || plug && (p.Addr.IsValid() || p.MAC != ""):
		return errors.New("it contradicts itself")
	case !plug && (err != nil || mac.IsZero() || mac.IsGroup()):
		return fmt.Errorf("%q is no MAC of a station", p.MAC)
	case !plug && !p.Addr.Addr().Is4():
		return fmt.Errorf("%q is no address of a station", p.Addr)
	case !plug && !validInterface(p.Interface):
		return fmt.Errorf("%q is no name of an interface", p.Interface)
	}
	for _, link := range p.Links {
		if _, _, err := api.ParseLink(link); err != nil {
			return err
		}
	}
	return nil
}

// exitOf is the exit status of a container that ended while no node ran.
func (h *home) exitOf(id string) string {
	text, err := h.readSome(path.Join("containers", id, exitFile), 16)
	if err != nil || len(text) == 0 {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// exitFile is where an init writes its command's exit status.
const exitFile = "exit"

// A running is what there is to know of a node that runs.
type running struct {
	Version int `json:"version"`
	world
	Stays   bool         `json:"stays,omitempty"`
	Names   string       `json:"names,omitempty"` // where this host asks for them
	Default savedLan     `json:"default"`
	Chosen  bool         `json:"chosen,omitempty"` // nobody asked for its subnet
	Flows   [2]int       `json:"flows"`            // the table's bounds
	Ways    []savedWay   `json:"ways,omitempty"`
	Uplinks []savedOuter `json:"uplinks,omitempty"`
}

// A world is where a node's process numbers mean what they do. A command in a
// container may have the node's directory before it, but is in another one.
type world struct {
	Boot string `json:"boot"`
	User string `json:"user"` // namespace
	PID  string `json:"pid"`  // namespace
	Net  string `json:"net"`  // namespace, where its sockets are
}

// isOfBefore reports whether what a node has left in runningFile was written before the
// machine was started anew. It looks at the boot alone, which means the same in every version.
func isOfBefore(text []byte) bool {
	var r struct {
		Boot string `json:"boot"`
	}
	return json.Unmarshal(text, &r) == nil && r.Boot != thisBoot()
}

func thisBoot() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // where /proc is hidden all are alike
	return strings.TrimSpace(string(boot))
}

func thisWorld() world {
	user, _ := os.Readlink("/proc/self/ns/user")
	pid, _ := os.Readlink("/proc/self/ns/pid")
	net, _ := os.Readlink("/proc/self/ns/net")
	return world{thisBoot(), user, pid, net}
}

// A savedWay is how far a network uses this host's sockets.
type savedWay struct {
	Network string  `json:"network"` // its id
	Host    hostUse `json:"host"`
}

// A savedOuter is an uplink or a host link, which its next node has not: whoever may
// opens it again.
type savedOuter struct {
	Network string `json:"network"` // its id
	Spec    string `json:"spec,omitempty"`
	MAC     string `json:"mac,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	Host    string `json:"host,omitempty"` // of a host link: the interface
}

// runningLocked is the node as it is now.
func (n *Node) runningLocked() *running {
	l := n.defaultLocked()
	r := &running{
		Version: recordVersion, world: thisWorld(), Stays: n.stays,
		Default: savedLan{l.id, l.created, l.requestLocked(), n.rulesOnLocked(l)},
		Chosen:  n.setup.chosen, Flows: [2]int{n.setup.nat.Flows, n.setup.nat.PerContainer},
	}
	if at := n.dns.stubAt(); at.IsValid() {
		r.Names = at.String()
	}
	for _, l := range n.lans {
		if l.hostUse != hostUnnamed {
			r.Ways = append(r.Ways, savedWay{l.id, l.hostUse})
		}
		if l.hostLink != nil {
			r.Uplinks = append(r.Uplinks, savedOuter{Network: l.id, Host: l.hostLink.iface})
		}
	}
	for _, u := range n.uplinks {
		r.Uplinks = append(r.Uplinks, savedOuter{Network: u.lan.id, Spec: u.spec.String(), MAC: u.mac.String(), MTU: u.device})
	}
	return r
}

// noteRunningLocked writes the node down as it is now.
func (n *Node) noteRunningLocked() {
	if !n.noted {
		return // it just begins, or goes
	}
	if err := n.home.replaceFile(runningFile, n.runningLocked(), false); err != nil {
		slog.Error("a node after this one finds what was", "file", runningFile, "err", err)
	}
}

// readRunning is what a node that was killed has left, nil if there is nothing.
// It refuses what is another world's, as long as that may still be there.
func (h *home) readRunning() (*running, error) {
	text, err := h.readSome(runningFile, maxRunning)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if isOfBefore(text) {
		return nil, nil
	}
	if isLater(text) {
		return nil, fmt.Errorf("%s: %w", path.Join(h.Name(), runningFile), errLater)
	}
	r := new(running)
	switch err := json.Unmarshal(text, r); {
	case err != nil:
		slog.Error("what the node before was set up to is lost", "file", runningFile, "err", err)
		return nil, nil
	case r.world != thisWorld():
		return nil, fmt.Errorf("the node in %s was one of another user, process or network namespace, and its containers wait for another there: start it there, or set FAIRLEAD_DIR to another directory here", h.Name())
	}
	return r, nil
}

// HasLeft reports whether a node that was killed has left containers in dir, or was
// to stay: then any command starts the next one.
func HasLeft(dir string) bool {
	text, err := os.ReadFile(path.Join(dir, runningFile))
	var r running
	if err != nil || json.Unmarshal(text, &r) != nil {
		return false
	}
	left, _ := fs.Glob(os.DirFS(dir), recordPath("*"))
	return r.Stays || len(left) > 0
}

// validFlows reports whether a table of flows may have these bounds; 0 is not said.
func validFlows(bounds [2]int) bool {
	for _, most := range bounds {
		if most != 0 && (most < leastFlows || most > mostFlows) {
			return false
		}
	}
	return true
}

// setup is what `up` had set up, and first the default network as it was.
func (r *running) setup(first *lan) (s setup, err error) {
	conf, err := readNetwork(&r.Default.NetworkCreate, nil)
	if err != nil || !validID(r.Default.ID) || r.Default.Name != defaultName || !validFlows(r.Flows) {
		slog.Error("what the node before was set up to is lost", "file", runningFile, "err", err)
		return readSetup(api.UpRequest{})
	}
	conf.ID, conf.Name = defaultID, defaultName
	s = setup{net: conf, chosen: r.Chosen}
	s.nat.Flows, s.nat.PerContainer = r.Flows[0], r.Flows[1]
	first.id, first.created, first.labels = r.Default.ID, r.Default.Created, r.Default.Labels
	first.reach, err = first.reach.changed(api.NetworkRequest{Egress: r.Default.Egress, HostLoopback: r.Default.HostLoopback})
	return s, err
}
