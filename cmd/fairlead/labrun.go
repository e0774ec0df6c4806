package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead/cmd/fairlead/labfile"
	"fairlead/node"
	"fairlead/node/api"
	"fairlead/node/network"
)

// check finds what is wrong with the file on this machine: commands, directories
// and files that are not there. All of it is said at once.
func (l *labWork) check() error {
	l.egress, l.runs, l.ways = map[string]*api.Egress{}, map[string]*runOptions{}, map[string]*waysOut{}
	var errs []error
	wrong := func(where string, err error) {
		if err != nil {
			errs = append(errs, l.file.Wrong(where, "%v", err))
		}
	}
	devices := map[string]string{} // the network that has one
	for _, w := range l.file.Networks {
		where := "networks." + w.Name
		var err error
		w.EgressSum, err = l.readEgress(where, w.Egress)
		wrong(where+".egress", err)
		options, fit := map[string]string{}, true
		for _, o := range w.Options {
			key, value, _ := strings.Cut(o, "=")
			_, err := network.ParseOptions(map[string]string{key: value})
			wrong(where+".options."+key, err)
			options[key], fit = value, fit && err == nil
		}
		if fit { // each by itself, and together
			_, err := network.ParseOptions(options)
			wrong(where+".options", err)
		}
		if w.Uplinks != nil {
			l.ways[w.Name], err = parseUplinks(w.Uplinks)
			wrong(where+".uplinks", err)
			for _, s := range l.ways[w.Name].names() {
				if other := devices[s]; other != "" {
					wrong(where+".uplinks", fmt.Errorf("%s is an uplink of network %s already", s, other))
				}
				devices[s] = w.Name
			}
		}
	}
	for _, c := range l.file.Containers {
		where := "containers." + c.Name
		var err error
		c.EgressSum, err = l.readEgress(where, c.Egress)
		wrong(where+".egress", err)
		c.Env = passOn(c.Env)
		o := l.runOptions(c)
		wrong(where+".workdir", isDirectory(o.workdir, c.Workdir != "" && c.Rootfs == ""))
		wrong(where+".rootfs", isDirectory(o.rootfs, o.rootfs != ""))
		wrong(where+".command", o.checkCommand())
		for _, kv := range c.Sysctls {
			name, _, _ := strings.Cut(kv, "=")
			wrong(where+".sysctls."+name, checkSysctl(name))
		}
		l.runs[c.Name] = o
	}
	return errors.Join(errs...)
}

// names are those of the links' devices.
func (w *waysOut) names() (list []string) {
	if w == nil {
		return nil
	}
	for _, s := range w.links {
		list = append(list, s.Name)
	}
	return list
}

// checkSubnets finds subnets of new networks that lead elsewhere from this host.
func (l *labWork) checkSubnets(p *labfile.Plan) error {
	taken, err := node.HostTaken()
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range p.Networks {
		if w.Do != labfile.Make || w.Network.Subnet == "" {
			continue
		}
		if err := network.CheckFree(netip.MustParsePrefix(w.Network.Subnet), taken); err != nil {
			errs = append(errs, l.file.Wrong("networks."+w.Name+".subnet", "%v", err))
		}
	}
	return errors.Join(errs...)
}

// isDirectory is an error if path is to be a directory and is not.
func isDirectory(path string, wanted bool) error {
	if !wanted {
		return nil
	}
	// The trailing dot asks for a directory, and for the right to enter it.
	if _, err := os.Stat(filepath.Join(path) + "/."); err != nil {
		return fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	return nil
}

// checkSysctl finds a kernel parameter there is not. Those of an interface there
// may be inside only.
func checkSysctl(name string) error {
	if strings.Contains(name, ".conf.") || strings.Contains(name, ".neigh.") {
		return nil
	}
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || strings.Contains(name, "/") {
		return fmt.Errorf("%q is no kernel parameter of this machine; `sysctl -a` lists them", name)
	}
	return nil
}

// readEgress reads what egress: says and the file it names, of which sum is the
// digest.
func (l *labWork) readEgress(where, spec string) (sum string, err error) {
	if spec == "" {
		return "", nil
	}
	if file, isFile := strings.CutPrefix(spec, "allow:"); isFile {
		spec = "allow:" + l.path(file)
	}
	l.egress[where], err = readEgressFile(spec)
	if err != nil || l.egress[where].Text == "" {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(l.egress[where].Text))), nil
}

// path is where a file is that the lab names.
func (l *labWork) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.dir, name)
}

// checkCommand finds a command there is not, before anything is changed.
func (o *runOptions) checkCommand() error {
	if o.rootfs != "" {
		return nil // what is in another tree init will know
	}
	found := commandFinder(lookEnv(o.environ, "PATH"), o.dir)
	if err := imageHint(o.command, false, false, found); err != nil {
		return err
	}
	if !found(o.command[0]) {
		return fmt.Errorf("%q: executable file not found in $PATH", o.command[0])
	}
	return nil
}

// runOptions is a container of the file as `run -d` would have it.
func (l *labWork) runOptions(c *labfile.Container) *runOptions {
	o := &runOptions{
		command: c.Command, env: c.Env, detach: true, workdir: c.Workdir, rootfs: c.Rootfs,
		parameters: settings(c.Sysctls),
	}
	if o.rootfs != "" {
		o.rootfs = l.path(o.rootfs)
	} else if o.workdir == "" {
		o.workdir = l.dir
	}
	o.dir = o.workdir
	o.environ = o.environment()
	o.asked = l.createContainer(c, o)
	return o
}

// settings are NAME=VALUE by name.
func settings(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, kv := range list {
		name, value, _ := strings.Cut(kv, "=")
		m[name] = value
	}
	return m
}

// createContainer is what the node is asked for.
func (l *labWork) createContainer(c *labfile.Container, o *runOptions) *api.CreateRequest {
	r := &api.CreateRequest{
		Name: c.Name, Hostname: c.Hostname, Network: c.Mode, Command: c.Command, Env: c.Env,
		Workdir: o.workdir, Rootfs: o.rootfs, Detached: true, Labels: l.file.Labels(c.Config(), c.Labels),
		Publish: c.Ports, PublishAll: c.PublishAll, Expose: c.Expose, Egress: l.egress["containers."+c.Name],
		Links: c.Links, RateIn: c.RateIn, RateOut: c.RateOut,
	}
	if r.Hostname == "" && len(c.Name) <= 63 && c.Mode == "" {
		r.Hostname = c.Name
	}
	for _, e := range c.Networks {
		n := api.EndpointRequest{
			Network: e.Network, IP: e.IP, MAC: e.MAC, Interface: e.Interface, Aliases: e.Aliases,
			Priority: e.Priority, Options: settings(e.Options),
		}
		if e.IP == "dhcp" {
			n.IP, n.DHCP = "", true
		}
		for _, route := range e.Routes {
			words := strings.Fields(route) // SUBNET via ADDRESS
			if words[0] == "default" {
				words[0] = "0.0.0.0/0"
			}
			n.Routes = append(n.Routes, words[0]+"@"+words[2])
		}
		r.Networks = append(r.Networks, n)
	}
	return r
}

// createNetwork is what the node is asked for.
func (l *labWork) createNetwork(w *labfile.Network) *api.NetworkCreate {
	r := &api.NetworkCreate{
		Name: w.Name, Subnet: w.Subnet, Gateway: w.Gateway, IPRange: w.IPRange, AuxAddresses: settings(w.AuxAddresses),
		Internal: w.Internal, Options: settings(w.Options), Labels: l.file.Labels(w.Config(), w.Labels),
		Egress: l.egress["networks."+w.Name],
	}
	if w.HostLoopback {
		r.HostLoopback = &w.HostLoopback
	}
	return r
}

// setNetwork is all that can change of a network while it is used.
func (l *labWork) setNetwork(w, was *labfile.Network) *api.NetworkRequest {
	options, _ := w.LiveOptions(was)
	r := &api.NetworkRequest{
		Egress: l.egress["networks."+w.Name], HostLoopback: &w.HostLoopback, Internal: &w.Internal,
		Options: options, Labels: l.file.Labels(w.Config(), w.Labels),
	}
	if r.Egress == nil {
		r.Egress = &api.Egress{Spec: "all"}
	}
	return r
}

// begins runs the container in the background.
func (o *runOptions) begins(cmd *cobra.Command) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer cancel()
	signals := forwardSignals(cmd.Context(), cancel)
	defer signals.stop()
	b, _, err := o.begin(ctx, cmd, &terminal{}, signals)
	if err != nil {
		return signals.orElse(err)
	}
	b.Close()
	return nil
}

// awaitWithin bounds how long a container waits for another one's port.
const awaitWithin = 30 * time.Second

// await waits until a container runs, and with NAME:PORT until somebody listens
// there for others.
func (l *labWork) await(ctx context.Context, c *api.Client, what string) error {
	name, port, hasPort := strings.Cut(what, ":")
	if !hasPort {
		return nil // it was started before
	}
	number, proto, err := api.ParsePrivate(port)
	if err != nil {
		return err
	}
	done := slow(l.cmd.ErrOrStderr(), fmt.Sprintf("waiting for %s to listen on port %s", name, port))
	defer done()
	ctx, cancel := context.WithTimeoutCause(ctx, awaitWithin, fmt.Errorf("after %v nobody listens on port %s of %s; `fairlead logs %[3]s` may say why", awaitWithin, port, name))
	defer cancel()
	for {
		var have api.Ports
		if err := c.Get(ctx, containerPath(name, "ports"), &have); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("waiting for port %s of %s: %w", port, name, err)
		}
		if heard, _ := listens(have.Listeners, &api.PublishedPort{Proto: proto, Port: number}); heard {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// networkPath is the path of a network.
func networkPath(name string) string { return "/v1/networks/" + url.PathEscape(name) }
