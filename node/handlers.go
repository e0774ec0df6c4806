package node

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/lockin"
	"fairlead/packet"
)

func (n *Node) getVersion(http.ResponseWriter, *http.Request) (any, error) {
	if n.isLeaving() {
		return nil, errLeaving // whoever looks for a node needs another
	}
	var u unix.Utsname
	_ = unix.Uname(&u) // an empty release is answer enough
	sockets := n.sockets()
	n.mu.Lock()
	defer n.mu.Unlock()
	return api.VersionInfo{
		Version: n.conf.Version, API: api.Version, Go: runtime.Version(), Kernel: unix.ByteSliceToString(u.Release[:]),
		Pid: os.Getpid(), Dir: n.conf.Dir, Stays: n.stays, Started: n.started, Containers: len(n.containers),
		Sockets: sockets, LockIn: describeLockIn(n.lockedIn),
	}, nil
}

// describeLockIn says what a node gave up; nil is nothing.
func describeLockIn(r *lockin.Report) api.LockIn {
	if r == nil {
		return api.LockIn{Mode: string(lockin.Off)}
	}
	return api.LockIn{Mode: string(r.Mode), Calls: r.Calls, Landlock: r.Landlock, Capabilities: r.Capabilities, Lacks: r.Lacks}
}

func (n *Node) getOpenAPI(http.ResponseWriter, *http.Request) (any, error) {
	return api.OpenAPI(n.conf.Version), nil
}

func (n *Node) postDown(w http.ResponseWriter, r *http.Request) (any, error) {
	var down api.DownRequest
	if err := body(w, r, &down); err != nil {
		return nil, err
	}
	n.mu.Lock()
	running := len(n.containers)
	n.mu.Unlock()
	if running > 0 && !down.All {
		return nil, fail(http.StatusConflict, "%s on this node; `fairlead down --all` stops them too", plural(running, "container"))
	}
	n.goDown()
	return api.DownAnswer{Pid: os.Getpid()}, nil
}

func (n *Node) getContainers(http.ResponseWriter, *http.Request) (any, error) {
	list := []api.Container{}
	for _, c := range n.list() {
		list = append(list, n.describe(c))
	}
	return list, nil
}

func (n *Node) describe(c *container) api.Container {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := api.Container{
		ID: c.id, Name: c.name(), Command: c.req.Command, Created: c.created, Status: "created",
		Pid: c.pid, Network: c.networkName(), Hostname: c.hostname, Detached: c.req.Detached, Foreign: c.req.Foreign,
		Labels: c.req.Labels,
	}
	if !c.started.IsZero() {
		d.Status = "running"
	}
	if c.lost != nil {
		d.Status, d.Why = "unreachable", c.lost.Error()
	}
	if live := c.liveLocked(); len(live) > 0 {
		d.IP, d.MAC = live[0].addrWord(), live[0].macWord()
	}
	if c.share == nil && c.owner == c { // as docker ps has it
		d.Network = strings.Join(c.networkNamesLocked(), ",")
	}
	d.Ports = c.portWordsLocked()
	return d
}

// holder is the container whose attachments c has: it has made the namespace.
func (c *container) holder() *container {
	if c.share != nil {
		return c.share
	}
	return c
}

// networkNamesLocked are the networks c is on, in the order it was connected.
func (c *container) networkNamesLocked() (names []string) {
	for _, a := range c.liveLocked() {
		names = append(names, a.lan.name)
	}
	return names
}

// networkName is what --network said.
func (c *container) networkName() string {
	switch c.mode {
	case modeBridge, modeForeign:
		return c.network
	case modeShared:
		return "container:" + c.share.name()
	}
	return c.mode
}

// postContainers makes a container. Published ports may be more work than the longest
// table, and as much again when they are taken back, which nobody need ask for: both are
// paid for here.
func (n *Node) postContainers(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.CreateRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	giveBack, err := n.borrowFor(&req)
	if err != nil {
		return nil, err
	}
	var c *container
	defer func() {
		if c == nil {
			giveBack()
		}
	}()
	create := func(_ http.ResponseWriter, r *http.Request) (created any, err error) {
		if c, err = n.create(req); err != nil {
			return nil, err
		}
		return n.greet(r, c)
	}
	if len(req.Publish) > 0 || req.PublishAll {
		create = n.inTurns(n.moves, 2, create)
	}
	return create(w, r)
}

// greet tells a client of the container it has made, and looks whether it is still there
// from now on.
func (n *Node) greet(r *http.Request, c *container) (any, error) {
	client, err := clientOf(r)
	if err != nil { // it is gone already
		n.end(c)
		return nil, err
	}
	n.follow(c, client)
	created := api.Created{
		ID: c.id, Name: c.name(), Hostname: c.hostname, Mode: c.mode,
		Hosts: c.files.hosts, ResolvConf: c.files.resolvConf, HostnameAt: c.files.hostname,
		Log: c.files.log, LogBytes: logLimit, ExitAt: filepath.Join(c.files.dir, exitFile),
	}
	n.mu.Lock()
	created.Env = n.linkEnvLocked(c)
	created.Nowhere = len(c.published) > 0 && c.leadsNowhereLocked()
	n.mu.Unlock()
	n.mu.Lock()
	if len(c.attachments) > 0 {
		a := c.attachments[0]
		created.Link = c.apiLocked(a)
		if c.electLocked() == a {
			c.route = a // as it is made; start looks whether it still should be
		}
	}
	if c.door != nil {
		created.SharePid = c.door.pid
	}
	n.mu.Unlock()
	return created, nil
}

// inspect answers in the shape of `docker inspect`.
func (n *Node) inspect(_ http.ResponseWriter, _ *http.Request, c *container) (any, error) {
	d := n.describe(c)
	i := api.Inspect{
		ID: d.ID, Name: "/" + d.Name, Created: d.Created,
		HostsPath: c.files.hosts, ResolvConfPath: c.files.resolvConf, HostnamePath: c.files.hostname, LogPath: c.files.log,
	}
	if len(d.Command) > 0 {
		i.Path, i.Args = d.Command[0], d.Command[1:]
	}
	i.State = api.InspectState{Status: d.Status, Running: d.Status == "running", Pid: d.Pid}
	n.mu.Lock()
	i.State.StartedAt = c.started
	n.mu.Unlock()
	i.Config = api.InspectConfig{Hostname: d.Hostname, Tty: c.req.TTY, Env: c.req.Env, Cmd: d.Command, WorkingDir: c.req.Workdir, Labels: map[string]string{}}
	maps.Copy(i.Config.Labels, c.req.Labels)
	i.HostConfig = api.InspectHostConfig{NetworkMode: c.networkName(), AutoRemove: true, PublishAllPorts: c.req.PublishAll}
	i.HostConfig.RateIn, i.HostConfig.RateOut = c.rateWords()
	n.mu.Lock()
	i.HostConfig.Links = n.inspectLinksLocked(c)
	i.Config.ExposedPorts, i.HostConfig.PortBindings, i.NetworkSettings.Ports = c.inspectPortsLocked()
	n.mu.Unlock()
	n.mu.Lock()
	c.inspectNetworksLocked(&i.NetworkSettings)
	n.mu.Unlock()
	return i, nil
}

// inspectNetworksLocked is where c is. Outside of Networks Docker has the default
// network's only.
func (c *container) inspectNetworksLocked(s *api.InspectNetworkSettings) {
	s.Networks = map[string]api.InspectNetwork{}
	for _, a := range c.liveLocked() {
		net := c.inspectNetworkLocked(a)
		s.Networks[a.lan.name] = net
		if !a.lan.custom() {
			s.IPAddress, s.IPPrefixLen, s.Gateway, s.MacAddress = net.IPAddress, net.IPPrefixLen, net.Gateway, net.MacAddress
		}
	}
}

func (c *container) inspectNetworkLocked(a *attachment) api.InspectNetwork {
	i := api.InspectNetwork{
		Links: a.links, Aliases: a.aliases, DriverOpts: a.asked.Options, GwPriority: a.priority,
		NetworkID: a.lan.id, EndpointID: a.id, IPAddress: a.addrWord(), IPPrefixLen: max(a.addr.Bits(), 0),
		MacAddress: a.macWord(), LinkLocalIPv6Address: a.linkLocalWord(),
	}
	if len(i.DriverOpts) == 0 {
		i.DriverOpts = nil // as Docker writes it
	}
	if a.asked.IP != "" {
		i.IPAMConfig = &api.InspectIPAM{IPv4Address: a.asked.IP}
	}
	if !a.lan.conf.Internal {
		i.Gateway = a.lan.net.Config().Gateway.Addr().String()
	}
	if a.lan.custom() {
		h := c.holder()
		i.DNSNames = unique(append(append([]string{h.name()}, a.aliases...), h.id[:12], h.hostname))
	}
	return i
}

// unique is a list without what is in it again.
func unique(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// remove takes a reservation or a foreign namespace off the node.
func (n *Node) remove(_ http.ResponseWriter, _ *http.Request, c *container) (any, error) {
	n.mu.Lock()
	running := c.running && c.mode != modeForeign
	n.mu.Unlock()
	if running {
		return nil, fail(http.StatusConflict, "container %s is running; stop it with `fairlead stop %s`", c.name(), c.name())
	}
	n.end(c)
	return done, nil
}

func (n *Node) postAttach(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	var m api.Attach
	return upgrade(w, r, &m, func(fds []int) error { return n.attach(c, m, fds) })
}

func (n *Node) postExec(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	var m api.Exec
	return upgrade(w, r, &m, func(fds []int) error { return n.exec(c, m, fds) })
}

func (n *Node) postKill(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	_, sig, err := signalRequest(w, r, c, unix.SIGKILL)
	if err != nil {
		return nil, err
	}
	if sig == unix.SIGKILL {
		n.kill(c)
		return done, nil
	}
	if err := n.signal(c, sig); err != nil {
		return nil, fail(http.StatusConflict, "kill %s: %w", c.name(), err)
	}
	return done, nil
}

// postStop asks the command to end and kills the container when it does not.
func (n *Node) postStop(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	req, sig, err := signalRequest(w, r, c, unix.SIGTERM)
	if err != nil {
		return nil, err
	}
	timeout := 10
	if req.Timeout != nil {
		timeout = *req.Timeout
	}
	if err := n.signal(c, sig); err == nil {
		select {
		case <-c.done:
			return done, nil
		case <-r.Context().Done():
			return done, nil
		case <-time.After(time.Duration(timeout) * time.Second):
		}
	}
	n.kill(c)
	select {
	case <-c.done:
	case <-r.Context().Done():
	}
	return done, nil
}

func signalRequest(w http.ResponseWriter, r *http.Request, c *container, otherwise unix.Signal) (api.SignalRequest, unix.Signal, error) {
	var req api.SignalRequest
	if err := body(w, r, &req); err != nil {
		return req, 0, err
	}
	if t := req.Timeout; t != nil && (*t < 0 || *t > 3600) {
		return req, 0, fail(http.StatusBadRequest, "time-out of %d seconds: it must be from 0 to 3600", *t)
	}
	if req.Signal == "" {
		return req, otherwise, nil
	}
	sig, ok := parseSignal(req.Signal)
	if !ok {
		return req, 0, fail(http.StatusBadRequest, "invalid signal: %s; for container %s try TERM, HUP, USR1 or a number", req.Signal, c.name())
	}
	return req, sig, nil
}

// parseSignal reads TERM, SIGTERM, term or 15.
func parseSignal(s string) (unix.Signal, bool) {
	if number, err := strconv.Atoi(s); err == nil {
		return unix.Signal(number), number > 0 && number < 65
	}
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	sig := unix.SignalNum(s)
	return sig, sig != 0
}

func (n *Node) postRename(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	var req api.RenameRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	return done, n.rename(c, req.Name)
}

func (n *Node) getWait(_ http.ResponseWriter, r *http.Request, c *container) (any, error) {
	select {
	case <-c.done:
		return api.Exit{Code: c.exit}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// plural counts things in words.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// parsePrefix reads an address with a length.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not an address with a length, such as 172.17.42.1/16", s)
	}
	return p, nil
}

// portNumber is what people call a port: its index on the switch.
func portNumber(id packet.PortID) int { return int(id & 0xffff) }
