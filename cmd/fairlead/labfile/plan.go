package labfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"fairlead/node/api"
)

// Labels by which what a file made is known again, whoever asks.
const (
	LabelLab    = LabelPrefix + "lab"        // the name of the lab
	LabelFile   = LabelPrefix + "lab.file"   // the path of its file
	LabelConfig = LabelPrefix + "lab.config" // what the file said of it
)

// Have is what a node has.
type Have struct {
	Networks   []HaveNetwork
	Containers []HaveContainer

	// Exists reports whether there is a file.
	Exists func(path string) bool
}

// A HaveNetwork is a network of the node.
type HaveNetwork struct {
	Name, Subnet string
	Labels       map[string]string
	Rules        []string // as RuleWords reads them, in the form of the node
	Uplinks      []string // that work, as --uplink has them
}

// A HaveContainer is a container of the node. Networks has its addresses.
type HaveContainer struct {
	ID, Name string
	Labels   map[string]string
	Networks map[string]string
}

// A Do is what is to be done about a network or a container.
type Do int

// What there is to do. Keep and Leave change nothing: one is as the file says,
// the other is not in the file any more.
const (
	Keep Do = iota
	Make
	Set
	Remake
	Remove
	Leave
)

// A Change is what is to be done about one network or container.
type Change struct {
	Do        Do
	Name      string
	ID        string     // of the container that is there
	Why       string     // it is not as it was
	Network   *Network   // as the file has it; nil: not at all
	Was       *Network   // as the file had it; nil: it was not there
	Container *Container // as the file has it; nil: not at all
}

// A Plan is the way from what a node has to what a file says: containers end,
// networks go, networks come, containers start. Networks and containers are in
// the order in which they come.
type Plan struct{ Networks, Containers []Change }

// Changes is how much there is to change.
func (p *Plan) Changes() (n int) {
	for _, c := range slices.Concat(p.Networks, p.Containers) {
		if c.Do != Keep && c.Do != Leave {
			n++
		}
	}
	return n
}

// Labels mark an object of this lab; config is the JSON of what the file says.
func (f *File) Labels(config string, own []string) map[string]string {
	m := map[string]string{LabelLab: f.Name, LabelConfig: config}
	if f.Path != "" {
		m[LabelFile] = f.Path
	}
	for _, kv := range own {
		name, value, _ := strings.Cut(kv, "=")
		m[name] = value
	}
	return m
}

// Config is what the file says of w, in one form only.
func (w *Network) Config() string { return config(w) }

// Config is what the file says of c, in one form only.
func (c *Container) Config() string { return config(c) }

func config(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // of our own types
	}
	return strings.TrimSpace(b.String())
}

// changed names the keys that differ between two configurations.
func changed(was, is string) (keys []string) {
	var a, b map[string]json.RawMessage
	if json.Unmarshal([]byte(was), &a) != nil || json.Unmarshal([]byte(is), &b) != nil {
		return []string{"everything"} // somebody else wrote the label
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !bytes.Equal(a[key], b[key]) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Plan says what is to be done so that a node has what the file says. What the
// lab has and the file no more goes with prune only. What stands in the way is
// an error, and then nothing is to be done.
func (f *File) Plan(have *Have, prune bool) (*Plan, error) {
	d := &decoder{file: f.shown, at: f.at}
	p := &Plan{}
	if other := f.elsewhere(have); other != "" {
		f.fail(d, "name", "a lab %q is up already, from %s; say name: in one of them, or `fairlead down -f %s`", f.Name, other, other)
		return nil, d.problems()
	}
	f.planNetworks(d, p, have, prune)
	f.planContainers(d, p, have, prune)
	f.checkSubnets(d, p, have)
	f.checkUse(d, p, have)
	if err := d.problems(); err != nil {
		return nil, err
	}
	return p, nil
}

// Remove says what is to be done so that nothing is left of the lab.
func (f *File) Remove(have *Have) (*Plan, error) {
	empty := &File{Name: f.Name, Path: f.Path, shown: f.shown, at: f.at}
	return empty.Plan(have, true)
}

// elsewhere is the path of another file that has made a lab of this name, and is
// still there.
func (f *File) elsewhere(have *Have) string {
	var labels []map[string]string
	for _, w := range have.Networks {
		labels = append(labels, w.Labels)
	}
	for _, c := range have.Containers {
		labels = append(labels, c.Labels)
	}
	for _, l := range labels {
		if at := l[LabelFile]; l[LabelLab] == f.Name && at != "" && at != f.Path && f.Path != "" && have.Exists(at) {
			return at
		}
	}
	return ""
}

// settable are the keys of a network that can change while it is used.
var settable = []string{"egress", "egress-file", "host-loopback", "internal", "labels", "rules", "uplinks"}

// liveOptions are the options that can, and the value that takes each back: it is
// then as if nobody had said a word.
var liveOptions = map[string]string{
	"icc": "on", "join": "on", "masquerade": "on", "routed": "off", "dhcp": "auto",
	"dhcp-lease": "", "dhcp-range": "", "dhcp-host": "", "dhcp-route": "", "domain": "",
}

// LiveOptions are the options that make of a network as it was one as w is, while
// it is used. Without ok they do not.
func (w *Network) LiveOptions(was *Network) (options map[string]string, ok bool) {
	options = map[string]string{}
	for _, o := range was.Options {
		if name := before(o, "="); !slices.Contains(w.Options, o) {
			options[name] = liveOptions[name] // unless it is given another value
		}
	}
	for _, o := range w.Options {
		if name, value, _ := strings.Cut(o, "="); !slices.Contains(was.Options, o) {
			options[name] = value
		}
	}
	for name := range options {
		if _, live := liveOptions[name]; !live {
			return nil, false
		}
	}
	return options, true
}

// isSettable reports whether a network can become w, in which keys differ, while
// it is used.
func (w *Network) isSettable(was *Network, keys []string) bool {
	_, ok := w.LiveOptions(was)
	return ok && !slices.ContainsFunc(keys, func(key string) bool { return key != "options" && !slices.Contains(settable, key) })
}

func (f *File) planNetworks(d *decoder, p *Plan, have *Have, prune bool) {
	there := map[string]*HaveNetwork{}
	for i := range have.Networks {
		there[have.Networks[i].Name] = &have.Networks[i]
	}
	for _, w := range f.Networks {
		where := "networks." + w.Name
		change := Change{Name: w.Name, Network: w}
		switch old := there[w.Name]; {
		case w.External && old == nil:
			f.fail(d, where, "there is no such network; `fairlead network create %s` makes it", w.Name)
			continue
		case w.External:
			continue
		case old == nil:
			change.Do = Make
		case old.Labels[LabelLab] != f.Name:
			f.fail(d, where, "there is a network of this name, and it is %s; call this one otherwise, or use that one: external: true", owner(old.Labels))
			continue
		default:
			keys := changed(old.Labels[LabelConfig], w.Config())
			change.Was = was(old.Labels)
			if len(keys) == 0 {
				keys = w.lost(old)
			}
			switch {
			case len(keys) == 0:
			case w.isSettable(change.Was, keys):
				change.Do = Set
			default:
				change.Do = Remake
			}
			change.Why = enumerate(keys)
		}
		p.Networks = append(p.Networks, change)
	}
	for _, old := range have.Networks {
		if old.Labels[LabelLab] == f.Name && f.network(old.Name) == nil {
			p.Networks = append(p.Networks, Change{Do: gone(prune), Name: old.Name, Was: was(old.Labels)})
		}
	}
}

// lost names what a network had and has not any more: uplinks end with their node,
// and rules were taken away by hand.
func (w *Network) lost(old *HaveNetwork) (keys []string) {
	for _, rule := range w.Rules {
		spec, _ := api.ParseRule(RuleWords(rule)) // it was read as one
		if !slices.Contains(old.Rules, spec.From+" "+spec.Target()) {
			keys = append(keys, "rules")
			break
		}
	}
	if w.Uplinks == nil {
		return keys
	}
	var want []string
	for _, u := range w.Uplinks {
		if spec, err := api.ParseUplink(u); err == nil { // else it is none
			want = append(want, spec.String())
		}
	}
	slices.Sort(want)
	if have := slices.Sorted(slices.Values(old.Uplinks)); !slices.Equal(have, want) {
		keys = append(keys, "uplinks")
	}
	return keys
}

// was is what the file said of a network, as far as its label can be read.
func was(labels map[string]string) *Network {
	w := &Network{}
	if json.Unmarshal([]byte(labels[LabelConfig]), w) != nil {
		return &Network{}
	}
	return w
}

func (f *File) planContainers(d *decoder, p *Plan, have *Have, prune bool) {
	there := map[string]*HaveContainer{}
	for i := range have.Containers {
		there[have.Containers[i].Name] = &have.Containers[i]
	}
	again := map[string]bool{} // containers that are made anew
	for _, c := range f.Containers {
		change := Change{Name: c.Name, Container: c}
		switch old := there[c.Name]; {
		case old == nil:
			change.Do = Make
		case old.Labels[LabelLab] != f.Name:
			f.fail(d, "containers."+c.Name, "there is a container of this name, and it is %s; call this one otherwise, or `fairlead stop %s`", owner(old.Labels), c.Name)
			continue
		default:
			change.ID = old.ID
			if change.Why = f.reason(p, c, old, again); change.Why != "" {
				change.Do = Remake
			}
		}
		again[c.Name] = change.Do == Remake || change.Do == Make
		p.Containers = append(p.Containers, change)
	}
	for _, old := range have.Containers {
		if old.Labels[LabelLab] == f.Name && f.container(old.Name) == nil {
			p.Containers = append(p.Containers, Change{Do: gone(prune), Name: old.Name, ID: old.ID})
		}
	}
}

// reason says why a container that runs has to start anew, or nothing.
func (f *File) reason(p *Plan, c *Container, old *HaveContainer, again map[string]bool) string {
	if keys := changed(old.Labels[LabelConfig], c.Config()); len(keys) > 0 {
		return enumerate(keys)
	}
	if target, shares := strings.CutPrefix(c.Mode, "container:"); shares && again[target] {
		return "container " + target
	}
	if c.Mode != "" {
		return ""
	}
	want := c.networks()
	for _, w := range p.Networks {
		if w.Do == Remake && slices.Contains(want, w.Name) {
			return "network " + w.Name
		}
	}
	for _, name := range want {
		if _, on := old.Networks[name]; !on {
			return "it is not on " + name + " any more"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.Networks)) {
		if !slices.Contains(want, name) {
			return "it is on " + name + " too"
		}
	}
	return ""
}

// networks are the names of those c is on.
func (c *Container) networks() (names []string) {
	for _, e := range c.Networks {
		name := e.Network
		if name == "bridge" {
			name = defaultNetwork
		}
		names = append(names, name)
	}
	if names == nil && c.Mode == "" {
		names = []string{defaultNetwork}
	}
	return names
}

// checkSubnets finds networks that would overlap with others that stay.
func (f *File) checkSubnets(d *decoder, p *Plan, have *Have) {
	stays := map[string]netip.Prefix{}
	for _, old := range have.Networks {
		if s, err := netip.ParsePrefix(old.Subnet); err == nil {
			stays[old.Name] = s
		}
	}
	for _, w := range p.Networks {
		if w.Do == Remake || w.Do == Remove {
			delete(stays, w.Name)
		}
	}
	for _, w := range p.Networks {
		if w.Do != Make && w.Do != Remake || w.Network.Subnet == "" {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(stays)) {
			if mine := netip.MustParsePrefix(w.Network.Subnet); mine.Overlaps(stays[name]) {
				f.fail(d, "networks."+w.Name+".subnet", "%s overlaps with %s of network %s", mine, stays[name], name)
			}
		}
	}
}

// checkUse finds containers that are not of this lab and use what has to go, and
// addresses that are not free.
func (f *File) checkUse(d *decoder, p *Plan, have *Have) {
	stays := map[string]*HaveContainer{} // by name
	for i := range have.Containers {
		stays[have.Containers[i].Name] = &have.Containers[i]
	}
	for _, c := range p.Containers {
		if c.Do == Remake || c.Do == Remove {
			delete(stays, c.Name)
		}
	}
	for _, w := range p.Networks {
		if w.Do != Remake && w.Do != Remove {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(stays)) {
			if _, uses := stays[name].Networks[w.Name]; uses {
				f.fail(d, "networks."+w.Name, "network %s has to go, and container %s uses it, which is %s; `fairlead network disconnect %s %s`",
					w.Name, name, owner(stays[name].Labels), w.Name, name)
			}
		}
	}
	for _, c := range p.Containers {
		if c.Do != Make && c.Do != Remake {
			continue
		}
		for _, e := range c.Container.Networks {
			for name, other := range stays {
				if e.IP != "" && other.Networks[e.Network] == e.IP {
					f.fail(d, fmt.Sprintf("containers.%s.networks.%s.ip", c.Name, e.Network), "container %s has %s already", name, e.IP)
				}
			}
		}
	}
}

// owner says whose something is.
func owner(labels map[string]string) string {
	if lab := labels[LabelLab]; lab != "" {
		return "of the lab " + lab
	}
	return "of no file"
}

func gone(prune bool) Do {
	if prune {
		return Remove
	}
	return Leave
}

// enumerate names some words: a, b and c.
func enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
