package labfile

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A File is what the file of a lab says. Its fields are the keys of the file; the
// grammar is in the functions named fields.
type File struct {
	Name       string
	Networks   []*Network
	Containers []*Container // in the order they are to be started

	Path string // where it is, from the root; empty: nowhere

	shown string // what it is called in errors
	at    map[string]Mark
}

// A Network is what the file says of one. As JSON it is compared with what the
// file said before.
type Network struct {
	Name         string   `json:"-"`
	External     bool     `json:"external,omitempty"`
	Subnet       string   `json:"subnet,omitempty"`
	Gateway      string   `json:"gateway,omitempty"`
	IPRange      string   `json:"ip-range,omitempty"`
	AuxAddresses []string `json:"aux-addresses,omitempty"` // NAME=ADDRESS
	Internal     bool     `json:"internal,omitempty"`
	Options      []string `json:"options,omitempty"` // KEY=VALUE
	Egress       string   `json:"egress,omitempty"`
	EgressSum    string   `json:"egress-file,omitempty"` // of what the file of allow: holds; who reads that sets it
	HostLoopback bool     `json:"host-loopback,omitempty"`
	Uplinks      []string `json:"uplinks,omitempty"`
	Rules        []string `json:"rules,omitempty"`  // FROM TO[:PORT]
	Labels       []string `json:"labels,omitempty"` // NAME=VALUE
}

// A Container is what the file says of one.
type Container struct {
	Name       string      `json:"-"`
	Command    []string    `json:"command,omitempty"`
	Mode       string      `json:"mode,omitempty"` // none, host, container:NAME; else empty
	Networks   []*Endpoint `json:"networks,omitempty"`
	Ports      []string    `json:"ports,omitempty"`
	Expose     []string    `json:"expose,omitempty"`
	PublishAll bool        `json:"publish-all,omitempty"`
	Links      []string    `json:"links,omitempty"`
	Env        []string    `json:"env,omitempty"`
	Workdir    string      `json:"workdir,omitempty"`
	Hostname   string      `json:"hostname,omitempty"`
	Rootfs     string      `json:"rootfs,omitempty"`
	Sysctls    []string    `json:"sysctls,omitempty"`
	RateIn     string      `json:"rate-in,omitempty"`
	RateOut    string      `json:"rate-out,omitempty"`
	Egress     string      `json:"egress,omitempty"`
	EgressSum  string      `json:"egress-file,omitempty"`
	Labels     []string    `json:"labels,omitempty"`
	WaitFor    []string    `json:"-"` // when it starts, not what it is
}

// An Endpoint is a container on one of its networks.
type Endpoint struct {
	Network   string   `json:"network"`
	IP        string   `json:"ip,omitempty"` // an address, or dhcp
	MAC       string   `json:"mac,omitempty"`
	Interface string   `json:"interface,omitempty"`
	Aliases   []string `json:"aliases,omitempty"`
	Priority  int      `json:"priority,omitempty"`
	Routes    []string `json:"routes,omitempty"`  // SUBNET via ADDRESS
	Options   []string `json:"options,omitempty"` // KEY=VALUE
}

// Read reads the file of a lab. shown is what it is called in errors, path where
// it is, and name what the lab is called when the file does not say. All that is
// wrong is said at once, each with its place.
func Read(shown, path string, data []byte, name string) (*File, error) {
	f, d := newFile(shown, path)
	if tree := d.parse(data); tree != nil {
		if tree.Kind == yaml.MappingNode && len(tree.Content) > 0 {
			d.read("", tree, tree, object(f.fields()))
		} else {
			d.failAt(Mark{1, 1}, "", "a lab has networks: and containers:, and this is %s", kindOf(tree))
		}
	}
	if len(d.errs) == 0 {
		f.called(d, name)
		f.check(d)
	}
	return f, d.problems()
}

// ReadName reads no more than the name of the lab. All else may be wrong in the
// file: what is to go need not be right.
func ReadName(shown, path string, data []byte, name string) (*File, error) {
	f, d := newFile(shown, path)
	if tree := d.parse(data); tree != nil && tree.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(tree.Content); i += 2 {
			if tree.Content[i].Value == "name" {
				d.read(".name", tree.Content[i], tree.Content[i+1], f.fields()[0].value)
			}
		}
	}
	if len(d.errs) == 0 {
		f.called(d, name)
	}
	return f, d.problems()
}

func newFile(shown, path string) (*File, *decoder) {
	f := &File{Path: path, shown: shown, at: map[string]Mark{}}
	return f, &decoder{file: shown, at: f.at}
}

// called gives the lab a name, when the file does not.
func (f *File) called(d *decoder, name string) {
	switch {
	case f.Name != "":
	case !isName(name):
		d.failAt(Mark{1, 1}, "", "the lab has no name: %q cannot be one; say name:", name)
	default:
		f.Name = name
	}
}

// Wrong is an error about what stands at where, such as containers.web.command.
func (f *File) Wrong(where, format string, args ...any) *Error {
	e := &Error{File: f.shown, Where: where, Text: fmt.Sprintf(format, args...)}
	for at := where; ; {
		if m, ok := f.at[at]; ok {
			e.Mark = m
			return e
		}
		i := strings.LastIndexAny(at, ".[") // what is not written has the place of what it would be in
		if i < 0 {
			return e
		}
		at = at[:i]
	}
}

func (f *File) fields() []field {
	return []field{
		{"name", "Name of the lab, which its containers and networks are marked with; that of the file without it", text(&f.Name, "a name", checkName)},
		{"networks", "The networks, by name", mapping("networks", new(Network).fields(), checkNetworkName, func(name string) []field {
			w := &Network{Name: name}
			f.Networks = append(f.Networks, w)
			return w.fields()
		})},
		{"containers", "The containers, by name, in the order they start in", mapping("containers", new(Container).fields(), checkName, func(name string) []field {
			c := &Container{Name: name}
			f.Containers = append(f.Containers, c)
			return c.fields()
		})},
	}
}

func (w *Network) fields() []field {
	return []field{
		{"external", "The network is there already, and stays", onOff(&w.External)},
		{"subnet", "IPv4 subnet; the next of the pools without it", subnet(&w.Subnet)},
		{"gateway", "The gateway's address; the first of the subnet without it", address(&w.Gateway)},
		{"ip-range", "Part of the subnet that containers get addresses from", subnet(&w.IPRange)},
		{"aux-addresses", "Addresses no container gets, by name", settings(&w.AuxAddresses, false, nil)},
		{"internal", "Nothing leads outside", onOff(&w.Internal)},
		{"options", "As --opt of `fairlead network create`", settings(&w.Options, false, nil)},
		{"egress", "Where its containers may open connections to: all, none, internet or allow:FILE", text(&w.Egress, "rules", checkEgress)},
		{"host-loopback", "Let its containers reach this machine's loopback", onOff(&w.HostLoopback)},
		{"uplinks", "Ways out, as --uplink of `fairlead network set`, or none", list(&w.Uplinks, "an uplink", checkUplink)},
		{"rules", "What may pass between containers where icc is off, as of `fairlead rule add`: FROM TO[:PORT[/udp]]", list(&w.Rules, "a rule", checkRule)},
		{"labels", "NAME: VALUE pairs to find it by", settings(&w.Labels, false, checkLabel)},
	}
}

func (c *Container) fields() []field {
	return []field{
		{"command", "A text is a line for sh, a list is a command and its arguments", command(&c.Command)},
		{"networks", "Names of networks, or endpoints by the name of their network; none, host or container:NAME alone; the default network without it", c.endpoints()},
		{"ports", "Published ports, as -p of `fairlead run`", list(&c.Ports, "a port", checkPort)},
		{"expose", "Ports that publish-all publishes", list(&c.Expose, "a port", checkExpose)},
		{"publish-all", "Publish all exposed ports, wherever one is free", onOff(&c.PublishAll)},
		{"links", "CONTAINER[:ALIAS] that are reached by name, also where icc is off", list(&c.Links, "a link", checkLink)},
		{"env", "Environment; a NAME without a value is passed on", settings(&c.Env, true, checkEnv)},
		{"workdir", "Working directory, an absolute path; that of the file without it", text(&c.Workdir, "a path", checkAbsolute)},
		{"hostname", "Host name inside; the container's name without it", text(&c.Hostname, "a name", nil)},
		{"rootfs", "Directory that becomes /; this machine's files without it", text(&c.Rootfs, "a path", nil)},
		{"sysctls", "Kernel parameters inside", settings(&c.Sysctls, false, nil)},
		{"rate-in", "The most it receives, such as 100mbit", text(&c.RateIn, "a rate", checkRate)},
		{"rate-out", "The most it sends, such as 100mbit", text(&c.RateOut, "a rate", checkRate)},
		{"egress", "Where it may open connections to: all, none, internet or allow:FILE", text(&c.Egress, "rules", checkEgress)},
		{"labels", "NAME: VALUE pairs to find it by", settings(&c.Labels, false, checkLabel)},
		{"wait-for", "Containers that start before it: NAME, or NAME:PORT[/udp] until somebody listens there", list(&c.WaitFor, "a container", nil)},
	}
}

func (e *Endpoint) fields() []field {
	return []field{
		{"ip", "IPv4 address, or dhcp; the lowest free one without it", scalar("an address", maxText, schema{"type": "string"}, func(text string) error {
			if text == "dhcp" {
				e.IP = text
				return nil
			}
			var err error
			e.IP, err = parseAddress(text)
			return err
		})},
		{"mac", "MAC address", mac(&e.MAC)},
		{"interface", "Name of the interface inside; eth0, eth1, … without it", text(&e.Interface, "a name", checkInterface)},
		{"aliases", "Further names on this network", list(&e.Aliases, "a name", checkName)},
		{"priority", "The network with the highest has the default route", number(&e.Priority, -1<<31, 1<<31-1)},
		{"routes", "SUBNET via ADDRESS of a router; default is a subnet too", list(&e.Routes, "a route", checkRoute)},
		{"options", "Of its link, as --opt of `fairlead run`", settings(&e.Options, false, checkLinkOption)},
	}
}

// endpoints are networks in three forms: a name, names, or endpoints by name.
func (c *Container) endpoints() value {
	add := func(name string) []field {
		e := &Endpoint{Network: name}
		c.Networks = append(c.Networks, e)
		return e.fields()
	}
	var names []string
	plain := list(&names, "a network", nil)
	byName := mapping("endpoints", new(Endpoint).fields(), checkEndpoint, add)
	return value{
		schema: schema{"oneOf": append(slices.Clone(plain.schema["oneOf"].([]any)[:2]), byName.schema)},
		read: func(d *decoder, n *yaml.Node) {
			if n.Kind == yaml.MappingNode || isNull(n) {
				byName.read(d, n)
				return
			}
			plain.read(d, n)
			for i, name := range names {
				if isMode(name) && len(names) == 1 {
					c.Mode = name
				} else if err := checkEndpoint(name); err != nil {
					d.fail(n, "%v", err)
				} else if slices.Contains(names[:i], name) {
					d.fail(n, "network %s is given twice", name)
				} else {
					add(name)
				}
			}
		},
	}
}

// isMode reports whether a word behind networks: is no network.
func isMode(word string) bool {
	return word == "none" || word == "host" || strings.HasPrefix(word, "container:")
}

// command is a line for sh, or a command and its arguments.
func command(into *[]string) value {
	arg := func(s *string) value {
		return scalar("a text", maxArgument, schema{"type": []any{"string", "number", "boolean"}}, func(text string) error { *s = text; return nil })
	}
	return value{
		schema: schema{"oneOf": []any{schema{"type": "string"}, schema{"type": "array", "minItems": 1, "items": arg(nil).schema}}},
		read: func(d *decoder, n *yaml.Node) {
			wrong := len(d.errs)
			if n.Kind != yaml.SequenceNode {
				line := ""
				arg(&line).read(d, n)
				*into = []string{"sh", "-c", line}
				if line == "" && len(d.errs) == wrong {
					d.fail(n, "there is no command in it")
				}
				return
			}
			*into = make([]string, len(n.Content))
			i := 0
			d.each(n, func() value { i++; return arg(&(*into)[i-1]) })
			if (len(*into) == 0 || (*into)[0] == "") && len(d.errs) == wrong {
				d.fail(n, "there is no command in it")
			}
		},
	}
}

// maxArgument is what one argument may have in Linux (MAX_ARG_STRLEN, execve(2)).
const maxArgument = 128<<10 - 1
