package labfile

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"fairlead/cmd/fairlead/spell"
	"fairlead/node/api"
	"fairlead/policy"
)

// foreignWords are keys that others' files have and that mean something else here.
var foreignWords = map[string]string{
	"services":       "here it is containers:",
	"version":        "a lab needs none",
	"image":          "containers run programs of this machine, there are no images; rootfs: has another tree",
	"build":          "containers run programs of this machine, there are no images; rootfs: has another tree",
	"volumes":        "a container sees the files of this machine already; rootfs: has another tree",
	"environment":    "here it is env:",
	"working_dir":    "here it is workdir:",
	"depends_on":     "here it is wait-for:",
	"network_mode":   "here it is networks: none, host or container:NAME",
	"container_name": "a container is called what its key says",
	"ipv4_address":   "here it is ip:",
	"mac_address":    "here it is mac:",
	"interface_name": "here it is interface:",
	"gw_priority":    "here it is priority:",
	"ipam":           "say subnet:, gateway: and ip-range: themselves",
	"driver":         "there is one kind of network; options: has what it can do",
	"driver_opts":    "here it is options:",
	"restart":        "a container is gone when its command ends; run `fairlead up -f` again",
	"entrypoint":     "say all in command:",
	"user":           "the command has your rights outside and is root inside",
	"privileged":     "inside, the command is root in namespaces of its own already",
	"cap_add":        "inside, the command is root in namespaces of its own already",
	"dns":            "the gateway is the nameserver of every container",
	"extra_hosts":    "aliases: and links: give further names",
	"expose_all":     "here it is publish-all:",
}

// isName reports whether the node takes it as a name.
func isName(s string) bool {
	if s == "" || len(s) > 64 || strings.IndexByte("_.-", s[0]) >= 0 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.' && r != '-'
	})
}

func checkName(s string) error {
	if !isName(s) {
		return fmt.Errorf("%q is no name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most", s)
	}
	return nil
}

// The default network, which a container is on without networks:.
const defaultNetwork = "default"

func checkNetworkName(s string) error {
	switch {
	case s == defaultNetwork || s == "bridge":
		return fmt.Errorf("the network %s is always there; `fairlead up` and `fairlead network set` say how it is", s)
	case isMode(s):
		return fmt.Errorf("%q is no name for a network: behind networks: of a container it means something else", s)
	}
	return checkName(s)
}

func checkEndpoint(s string) error {
	if isMode(s) {
		return fmt.Errorf("%s stands alone: a container with it is on no other network", s)
	}
	return checkName(s)
}

func checkInterface(s string) error {
	if len(s) == 0 || len(s) > 15 || s == "." || s == ".." || s == "lo" ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 127 || r == '/' || r == ':' || r == ',' }) {
		return fmt.Errorf("%q is no name for an interface (1 to 15 characters, no / : or space)", s)
	}
	return nil
}

func checkEgress(s string) error {
	if file, isFile := strings.CutPrefix(s, "allow:"); s != "all" && s != "none" && s != "internet" && (!isFile || file == "") {
		return fmt.Errorf("%q is none of all, none, internet and allow:FILE", s)
	}
	return nil
}

func checkUplink(s string) error {
	if s == "none" {
		return nil
	}
	_, err := api.ParseUplink(s)
	return err
}

func checkPort(s string) error { _, err := api.ParsePublish(s); return err }

func checkExpose(s string) error { _, _, err := api.ParseExpose(s); return err }

func checkLink(s string) error { _, _, err := api.ParseLink(s); return err }

func checkRate(s string) error { _, err := policy.ParseBandwidth(s); return err }

// RuleWords are the two words of a rule.
func RuleWords(s string) (from, to string) {
	from, to, _ = strings.Cut(strings.TrimSpace(s), " ")
	return from, strings.TrimSpace(to)
}

func checkRule(s string) error { _, err := api.ParseRule(RuleWords(s)); return err }

func checkEnv(name, _ string) error {
	if name == "" {
		return fmt.Errorf("an environment variable has a name")
	}
	return nil
}

func checkAbsolute(s string) error {
	if !filepath.IsAbs(s) {
		return fmt.Errorf("%q is not an absolute path", s)
	}
	return nil
}

// checkLinkOption wants an option of a container's link.
func checkLinkOption(name, value string) error {
	words := map[string][]string{"offload": {"on", "off"}, "isolated": {"on", "off"}, "link": {"tap", "veth"}}[name]
	switch {
	case name == "vlan" || name == "trunk":
		if _, err := policy.ParseVLANs(name + "=" + value); err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	case words == nil:
		return fmt.Errorf("unknown option %q; a container's link has isolated, link, offload, trunk and vlan", name)
	case !slices.Contains(words, value):
		return fmt.Errorf("option %s: %q is neither %s nor %s", name, value, words[0], words[1])
	}
	return nil
}

// LabelPrefix begins the labels that are ours.
const LabelPrefix = "fairlead."

func checkLabel(name, _ string) error {
	if name == "" || strings.HasPrefix(name, LabelPrefix) {
		return fmt.Errorf("%q is no label of yours: labels have a name, and those that begin with %s are fairlead's", name, LabelPrefix)
	}
	return nil
}

// checkRoute wants SUBNET via ADDRESS.
func checkRoute(s string) error {
	words := strings.Fields(s)
	if len(words) != 3 || words[1] != "via" {
		return fmt.Errorf("%q is not SUBNET via ADDRESS, such as 10.3.0.0/24 via 10.2.0.3", s)
	}
	if words[0] != "default" {
		p, err := netip.ParsePrefix(words[0])
		switch {
		case err != nil || !p.Addr().Is4():
			return fmt.Errorf("%q is not an IPv4 subnet, such as 10.3.0.0/24, nor default", words[0])
		case p != p.Masked():
			return fmt.Errorf("%s has bits behind its length; %s is the subnet", p, p.Masked())
		}
	}
	_, err := parseAddress(words[2])
	return err
}

// Bounds of a lab. What is said of one network or container travels twice in one
// request, as what to make and as a label, and those of networks are kept on disk.
const (
	maxNetworks        = 1024
	maxContainers      = 4096
	maxNetworkConfig   = 8 << 10
	maxContainerConfig = 64 << 10
)

// check holds what the file says in one place against what it says in others.
func (f *File) check(d *decoder) {
	if len(f.Networks) == 0 && len(f.Containers) == 0 {
		d.failAt(Mark{1, 1}, "", "there are neither networks: nor containers: in it")
	}
	if len(f.Networks) > maxNetworks || len(f.Containers) > maxContainers {
		d.failAt(Mark{1, 1}, "", "%d networks and %d containers; %d and %d are the most", len(f.Networks), len(f.Containers), maxNetworks, maxContainers)
		return
	}
	for i, w := range f.Networks {
		f.checkNetwork(d, w, f.Networks[:i])
	}
	taken := map[string]string{}     // who has an address or a MAC, by network and address
	published := map[string]string{} // who has a port of the host
	for _, c := range f.Containers {
		f.checkContainer(d, c, taken)
		f.checkPublished(d, c, published)
	}
	f.order(d)
}

func (f *File) checkNetwork(d *decoder, w *Network, others []*Network) {
	where := "networks." + w.Name
	fail := func(key, format string, args ...any) { f.fail(d, where+"."+key, format, args...) }
	if n := len(w.Config()); n > maxNetworkConfig {
		f.fail(d, where, "it takes %d bytes to say, %d are the most", n, maxNetworkConfig)
	}
	for i, rule := range w.Rules {
		spec, _ := api.ParseRule(RuleWords(rule)) // it was read as one
		for _, name := range []string{spec.From, spec.To} {
			if name != api.Any && f.container(name) == nil {
				fail(fmt.Sprintf("rules[%d]", i), "there is no container %q in this file%s", name, meant(name, f.containerNames()))
			}
		}
	}
	if w.External {
		if rest := *w; !rest.isOnlyExternal() {
			fail("external", "a network that is there already is as it is; leave the other keys out")
		}
		return
	}
	if w.Subnet == "" {
		for key, value := range map[string]string{"gateway": w.Gateway, "ip-range": w.IPRange} {
			if value != "" {
				fail(key, "it takes subnet: too")
			}
		}
		return
	}
	p := netip.MustParsePrefix(w.Subnet) // it was read as one
	if p.Bits() < 8 || p.Bits() > 30 {
		fail("subnet", "%s has a length of %d; from 8 to 30 there is room for a gateway and containers", p, p.Bits())
	}
	if w.Gateway != "" {
		if a := netip.MustParseAddr(w.Gateway); !isStation(a, p) {
			fail("gateway", "%s is no address of a station in %s", a, p)
		}
	}
	if w.IPRange != "" {
		if r := netip.MustParsePrefix(w.IPRange); r.Bits() < p.Bits() || !p.Contains(r.Addr()) {
			fail("ip-range", "%s is no part of %s", r, p)
		}
	}
	for _, aux := range w.AuxAddresses {
		name, value, _ := strings.Cut(aux, "=")
		if a, err := netip.ParseAddr(value); err != nil || !p.Contains(a) {
			fail("aux-addresses."+name, "%q is no address in %s", value, p)
		}
	}
	for _, o := range others {
		if o.Subnet != "" && netip.MustParsePrefix(o.Subnet).Overlaps(p) {
			fail("subnet", "%s overlaps with %s of network %s", p, o.Subnet, o.Name)
		}
	}
}

// isOnlyExternal reports whether nothing else is said of w.
func (w Network) isOnlyExternal() bool {
	return config(&w) == config(&Network{External: true})
}

// isStation reports whether one station of p can have the address.
func isStation(a netip.Addr, p netip.Prefix) bool {
	return p.Contains(a) && a != p.Addr() && a != broadcast(p)
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (f *File) checkContainer(d *decoder, c *Container, taken map[string]string) {
	where := "containers." + c.Name
	fail := func(key, format string, args ...any) { f.fail(d, where+"."+key, format, args...) }
	if n := len(c.Config()); n > maxContainerConfig {
		f.fail(d, where, "it takes %d bytes to say, %d are the most", n, maxContainerConfig)
	}
	if len(c.Command) == 0 {
		fail("command", "there is no command; say what to run: command: sleep infinity")
	}
	if target, shares := strings.CutPrefix(c.Mode, "container:"); shares && f.container(target) == nil {
		fail("networks", "there is no container %s in this file%s", target, meant(target, f.containerNames()))
	} else if target == c.Name {
		fail("networks", "a container cannot share the network of itself")
	}
	if c.Mode != "" && len(c.Ports)+len(c.Links)+len(c.Expose) > 0 {
		fail("networks", "with %s a container has no ports: and links: of its own", c.Mode)
	}
	if len(c.Hostname) > 63 || strings.ContainsAny(c.Hostname, " \t\r\n/#") {
		fail("hostname", "%q is no host name: at most 63 characters without blanks", c.Hostname)
	}
	for i, l := range c.Links {
		f.checkOther(d, c, fmt.Sprintf("%s.links[%d]", where, i), before(l, ":"))
	}
	for i, w := range c.WaitFor {
		at := fmt.Sprintf("%s.wait-for[%d]", where, i)
		name, port, hasPort := strings.Cut(w, ":")
		f.checkOther(d, c, at, name)
		if hasPort {
			if _, _, err := api.ParsePrivate(port); err != nil {
				f.fail(d, at, "%v", err)
			}
		}
	}
	interfaces := map[string]bool{}
	for _, e := range c.Networks {
		f.checkDefault(d, c, e)
		f.checkAttachment(d, c, e, where+".networks."+e.Network, taken)
		if e.Interface != "" && interfaces[e.Interface] {
			f.fail(d, where+".networks."+e.Network+".interface", "%s has the interface %s on another network already", c.Name, e.Interface)
		}
		interfaces[e.Interface] = true
	}
}

// checkOther wants the name of another container of this file.
func (f *File) checkOther(d *decoder, c *Container, where, name string) {
	switch {
	case f.container(name) == nil:
		f.fail(d, where, "there is no container %q in this file%s", name, meant(name, f.containerNames()))
	case name == c.Name:
		f.fail(d, where, "%s is this container itself", name)
	}
}

// checkDefault refuses a default route by hand where the node has one: by the
// gateway of a network that leads outside. Of external ones only the node knows.
func (f *File) checkDefault(d *decoder, c *Container, e *Endpoint) {
	for i, route := range e.Routes {
		if !strings.HasPrefix(route, "default ") {
			continue
		}
		for _, name := range c.networks() {
			if w := f.network(name); w == nil && name == defaultNetwork || w != nil && !w.External && !w.Internal {
				f.fail(d, fmt.Sprintf("containers.%s.networks.%s.routes[%d]", c.Name, e.Network, i),
					"the default route is by the gateway of %s; name subnets, or make the network internal", name)
			}
		}
	}
}

func (f *File) checkAttachment(d *decoder, c *Container, e *Endpoint, where string, taken map[string]string) {
	w := f.network(e.Network)
	if w == nil {
		if e.Network != defaultNetwork && e.Network != "bridge" {
			names := []string{defaultNetwork}
			for _, w := range f.Networks {
				names = append(names, w.Name)
			}
			near := meant(e.Network, names)
			if near == "" {
				near = fmt.Sprintf("; networks: %s: {external: true} says that it is there already", e.Network)
			}
			f.fail(d, where, "there is no network %q in this file%s", e.Network, near)
		}
		w = &Network{Name: e.Network}
	}
	if e.IP != "" && e.IP != "dhcp" && w.Subnet == "" && f.network(e.Network) == w && !w.External {
		f.fail(d, where+".ip", "which subnet %s gets is not known before; say subnet: there", w.Name)
	}
	if e.IP != "" && e.IP != "dhcp" && w.Subnet != "" {
		a, p := netip.MustParseAddr(e.IP), netip.MustParsePrefix(w.Subnet)
		gateway := w.Gateway
		if gateway == "" {
			gateway = p.Addr().Next().String()
		}
		switch {
		case !isStation(a, p):
			f.fail(d, where+".ip", "%s is no address of a station in %s, the subnet of %s", a, p, w.Name)
		case e.IP == gateway:
			f.fail(d, where+".ip", "%s is the gateway's of %s", a, w.Name)
		}
	}
	for key, value := range map[string]string{"ip": e.IP, "mac": e.MAC} {
		if value == "" || value == "dhcp" {
			continue
		}
		if other := taken[w.Name+" "+value]; other != "" {
			f.fail(d, where+"."+key, "%s has %s on %s already", other, value, w.Name)
		}
		taken[w.Name+" "+value] = c.Name
	}
}

// maxPublished bounds the ports of the host that are held against one another.
const maxPublished = 1 << 17

// checkPublished finds ports of the host that two containers want. Those of one
// address may be had beside those of another; the node knows more.
func (f *File) checkPublished(d *decoder, c *Container, published map[string]string) {
	for i, s := range c.Ports {
		spec, err := api.ParsePublish(s)
		if err != nil || spec.Host.Len() == 0 || spec.Host.Len() != spec.Container.Len() {
			continue // any port that is free
		}
		for port := int(spec.Host.First); port <= int(spec.Host.Last) && len(published) < maxPublished; port++ {
			key := fmt.Sprintf("%v %d/%s", spec.HostIP, port, spec.Proto)
			if other := published[key]; other != "" {
				f.fail(d, fmt.Sprintf("containers.%s.ports[%d]", c.Name, i), "%s publishes port %d/%s already", other, port, spec.Proto)
				break
			}
			published[key] = c.Name
		}
	}
}

// order sorts the containers so that each starts after those it needs.
func (f *File) order(d *decoder) {
	const begun, done = 1, 2
	state := map[string]int{}
	var sorted []*Container
	var visit func(c *Container, from []string)
	visit = func(c *Container, from []string) {
		if state[c.Name] == done {
			return
		}
		if from = append(from, c.Name); state[c.Name] == begun {
			circle := from[slices.Index(from, c.Name):]
			f.fail(d, "containers."+c.Name, "it waits for itself: %s", strings.Join(circle, " → "))
			return
		}
		state[c.Name] = begun
		for _, name := range c.needs() {
			if other := f.container(name); other != nil && other != c {
				visit(other, from)
			}
		}
		state[c.Name] = done
		sorted = append(sorted, c)
	}
	for _, c := range f.Containers {
		visit(c, nil)
	}
	f.Containers = sorted
}

// needs are the containers that start before c.
func (c *Container) needs() (names []string) {
	for _, w := range c.WaitFor {
		names = append(names, before(w, ":"))
	}
	for _, l := range c.Links {
		names = append(names, before(l, ":"))
	}
	if target, shares := strings.CutPrefix(c.Mode, "container:"); shares {
		names = append(names, target)
	}
	return names
}

// fail notes an error about what stands at where.
func (f *File) fail(d *decoder, where, format string, args ...any) {
	e := f.Wrong(where, format, args...)
	if len(d.errs) < maxNoted {
		d.errs = append(d.errs, e)
	}
}

func (f *File) network(name string) *Network {
	for _, w := range f.Networks {
		if w.Name == name {
			return w
		}
	}
	return nil
}

func (f *File) container(name string) *Container {
	for _, c := range f.Containers {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (f *File) containerNames() (names []string) {
	for _, c := range f.Containers {
		names = append(names, c.Name)
	}
	return names
}

// meant is a hint at the word that may be meant.
func meant(word string, words []string) string {
	if near := spell.Closest(word, words); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}
