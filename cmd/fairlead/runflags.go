package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/node/api"
)

// runOptions is what `run` was told.
type runOptions struct {
	name, hostname, ip, mac           string
	networks, aliases                 []string
	workdir, rootfs                   string
	env, opts, sysctls, labels        []string
	publish, expose, links            []string
	rates                             rateFlags
	egress                            string
	publishAll                        bool
	detach, interactive, tty, removed bool
	command                           []string

	// What check makes of it.
	network             string                // a mode, or the one network
	endpoints           []api.EndpointRequest // else those it is connected to
	options, parameters map[string]string     // opts and sysctls
	labelled            map[string]string     // labels
	reach               *api.Egress           // egress
	environ             []string              // the command's whole environment
	dir                 string                // the directory it starts in

	asked *api.CreateRequest // what the node is asked for, when a file says it
}

// define defines the flags of `run` on f.
func (o *runOptions) define(f *pflag.FlagSet) {
	// Docker's -h is the host name, so help keeps its long name only.
	f.Bool("help", false, "Print this help")
	f.StringVar(&o.name, "name", "", "`NAME` of the container (default: made up)")
	f.StringVarP(&o.hostname, "hostname", "h", "", "Host `NAME` inside (default: the id's first 12 digits)")
	f.StringArrayVar(&o.networks, "network", nil, "`NETWORK`, or name=NETWORK,ip=…,alias=… (repeatable); none, host or container:NAME (default: default, or bridge)")
	f.StringArrayVar(&o.aliases, "network-alias", nil, "A further `NAME` on the network (repeatable)")
	f.StringVar(&o.ip, "ip", "", "IPv4 `ADDRESS` (default: the lowest free one), or dhcp")
	f.StringVar(&o.mac, "mac", "", "MAC `ADDRESS` (default: 02:42 and the IPv4 address)")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working `DIRECTORY` inside (default: this one)")
	f.StringVar(&o.rootfs, "rootfs", "", "`DIRECTORY` that becomes / (default: this machine's files)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "Set `NAME=VALUE`, or pass NAME on")
	f.StringArrayVar(&o.opts, "opt", nil, "Option of the link, `KEY=VALUE`: offload=off, isolated=on, link=veth, vlan=10, trunk=10,20-29")
	f.StringArrayVar(&o.sysctls, "sysctl", nil, "Kernel parameter inside, `NAME=VALUE`")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "`NAME=VALUE` to find it by")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "Let the outside reach a `PORT`: [ADDRESS:][PORT:]CONTAINERPORT[/udp], with ranges")
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports, wherever one is free")
	f.StringVar(&o.egress, "egress", "", "Where it may open connections to, `RULES`: all, none, internet or allow:FILE")
	f.StringArrayVar(&o.expose, "expose", nil, "Name a `PORT` of the container, for -P and for links")
	f.StringArrayVar(&o.links, "link", nil, "Reach another container by a name of its own here, `NAME[:ALIAS]`")
	o.rates.define(f)
	f.BoolVarP(&o.detach, "detach", "d", false, "Run in the background and print the id")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Pass standard input on")
	f.BoolVarP(&o.tty, "tty", "t", false, "Give the command a terminal")
	f.BoolVar(&o.removed, "rm", false, "Accepted; a container is always gone when its command ends")
	f.SetInterspersed(false) // what follows the command belongs to the command
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name { // Docker's other spellings
		case "net":
			name = "network"
		case "net-alias":
			name = "network-alias"
		case "mac-address":
			name = "mac"
		}
		return pflag.NormalizedName(name)
	})
}

// check finds what is wrong with the call itself; names and addresses are the
// node's to judge.
func (o *runOptions) check(cmd *cobra.Command) error {
	if o.workdir != "" && !filepath.IsAbs(o.workdir) {
		return wrongCall(cmd, "the working directory '%s' is invalid, it needs to be an absolute path", o.workdir)
	}
	if o.rootfs != "" {
		// The trailing dot asks for a directory, and for the right to enter it.
		if _, err := os.Stat(filepath.Join(o.rootfs) + "/."); err != nil {
			return fmt.Errorf("%s: --rootfs %s: %w", short(cmd), o.rootfs, errors.Unwrap(err))
		}
	}
	if err := checkEnv(o.env); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	for _, arg := range o.publish {
		if _, err := api.ParsePublish(arg); err != nil {
			return wrongCall(cmd, "%v", err)
		}
	}
	for _, arg := range o.expose {
		if _, _, err := api.ParseExpose(arg); err != nil {
			return wrongCall(cmd, "%v", err)
		}
	}
	for _, arg := range o.links {
		if _, _, err := api.ParseLink(arg); err != nil {
			return wrongCall(cmd, "%v", err)
		}
	}
	if err := o.rates.check(); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	var err error
	if cmd.Flags().Changed("egress") {
		if o.reach, err = readEgress(cmd, o.egress); err != nil {
			return err
		}
	}
	if o.options, err = linkOptions(o.opts); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	if err := o.readNetworks(cmd); err != nil {
		return err
	}
	if o.parameters, err = pairs("--sysctl", o.sysctls); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	if o.labelled, err = labels(o.labels); err != nil {
		return wrongCall(cmd, "%v", err)
	}
	if o.dir, err = o.directory(); err != nil {
		return fmt.Errorf("%s: working directory: %w", short(cmd), err)
	}
	o.environ = o.environment()
	found := commandFinder(lookEnv(o.environ, "PATH"), o.dir)
	return imageHint(o.command, o.interactive, o.rootfs != "", found)
}

// checkEnv finds arguments of -e that name no variable, in Docker's words.
func checkEnv(env []string) error {
	for _, kv := range env {
		if kv == "" || kv[0] == '=' {
			return fmt.Errorf("invalid environment variable: %q", kv)
		}
	}
	return nil
}

// request is what the node is asked for.
func (o *runOptions) request() *api.CreateRequest {
	if o.asked != nil {
		return o.asked
	}
	return &api.CreateRequest{
		Name: o.name, Hostname: o.hostname, Network: o.network, IP: o.ip, MAC: o.mac, Networks: o.endpoints,
		Command: o.command, Env: o.env, Workdir: o.workdir, Rootfs: o.rootfs,
		TTY: o.tty, Detached: o.detach, Options: o.options,
		Publish: o.publish, PublishAll: o.publishAll, Expose: o.expose, Egress: o.reach,
		Labels: o.labelled, Links: o.links, RateIn: o.rates.in, RateOut: o.rates.out,
	}
}

// environment is the command's: ours, or with another tree what Docker gives
// to an image that says nothing, and on top what -e says.
func (o *runOptions) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "HOSTNAME=") // ours is not the container's
	})
	if o.rootfs != "" {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	}
	if o.tty && os.Getenv("TERM") == "" || o.rootfs != "" && o.tty {
		env = setEnv(env, "TERM=xterm")
	}
	for _, kv := range passOn(o.env) {
		env = setEnv(env, kv)
	}
	return env
}

// linked is the command's environment with what links tell it, below what -e says.
func (o *runOptions) linked(links []string) []string {
	env := slices.Clone(o.environ)
	for _, kv := range append(slices.Clone(links), passOn(o.env)...) {
		env = setEnv(env, kv)
	}
	return env
}

// passOn gives names without a value the value they have here; those that have
// none are left out, as Docker does.
func passOn(env []string) (out []string) {
	for _, kv := range env {
		if !strings.Contains(kv, "=") {
			value, ok := os.LookupEnv(kv)
			if !ok {
				continue
			}
			kv += "=" + value
		}
		out = append(out, kv)
	}
	return out
}

// setEnv sets one variable and returns the environment.
func setEnv(env []string, kv string) []string {
	name, _, _ := strings.Cut(kv, "=")
	env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
	return append(env, kv)
}

// lookEnv returns the value of name in env.
func lookEnv(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// directory is where the command starts: here, unless told otherwise.
func (o *runOptions) directory() (string, error) {
	if o.workdir != "" || o.rootfs != "" {
		return o.workdir, nil
	}
	return os.Getwd()
}

// networkOptions and nodeOptions are those of `up`, which people try on a
// container too.
var (
	networkOptions = []string{"mtu", "hub", "ageing", "guard", "loop-guard", "flood-limit", "icc", "join", "masquerade", "routed",
		"dhcp", "dhcp-lease", "dhcp-range", "dhcp-host", "dhcp-route", "domain"}
	nodeOptions = []string{"flows", "flows-per-container"}
)

// linkOptions reads --opt of a container; which there are is the node's to say.
func linkOptions(args []string) (map[string]string, error) {
	options, err := pairs("--opt", args)
	for _, key := range slices.Concat(networkOptions, nodeOptions) {
		if value, given := options[key]; given && err == nil {
			err = fmt.Errorf("--opt %s is not a container's: `fairlead up --opt %[1]s=%s` sets up the network", key, value)
		}
	}
	return options, err
}

// pairs reads KEY=VALUE arguments of flag.
func pairs(flag string, args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	m := make(map[string]string)
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch _, twice := m[key]; {
		case !ok || key == "":
			return nil, fmt.Errorf("%s %q is not KEY=VALUE", flag, arg)
		case twice:
			return nil, fmt.Errorf("%s %s is given twice", flag, key)
		}
		m[key] = value
	}
	return m, nil
}

// errNotATTY says in Docker's words that -i -t finds no terminal.
var errNotATTY = errors.New("the input device is not a TTY; leave out -t")
