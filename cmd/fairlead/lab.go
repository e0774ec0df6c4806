package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/cmd/fairlead/labfile"
	"fairlead/node"
	"fairlead/node/api"
	"fairlead/node/box"
)

// labFlags are those of `up` and `down` for a file.
type labFlags struct {
	file                  string
	dryRun, prune, schema bool
}

func (o *labFlags) define(f *pflag.FlagSet, up bool) {
	if !up {
		f.StringVarP(&o.file, "file", "f", "", "End what this `FILE` brought up, and nothing else")
		f.BoolVar(&o.dryRun, "dry-run", false, "With -f, say what would end, and change nothing")
		return
	}
	f.StringVarP(&o.file, "file", "f", "", "Bring up the networks and containers of this `FILE`; - is standard input")
	f.BoolVar(&o.dryRun, "dry-run", false, "With -f, say what would change, and change nothing")
	f.BoolVar(&o.prune, "prune", false, "With -f, end what the file has brought up and does not have any more")
	f.BoolVar(&o.schema, "schema", false, "Print the JSON schema of such a file")
}

// check finds flags that are of no use together.
func (o *labFlags) check(cmd *cobra.Command) (err error) {
	ours := []string{"file", "dry-run", "prune"}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch ofFile := slices.Contains(ours, f.Name); {
		case err != nil || f.Name == "help":
		case o.file == "" && ofFile && f.Name != "file":
			err = wrongCall(cmd, "--%s takes -f FILE", f.Name)
		case o.file == "" && f.Name == "file":
			err = wrongCall(cmd, "-f takes the name of a file")
		case o.file != "" && !ofFile:
			err = wrongCall(cmd, "--%s and -f are two things; make them two calls", f.Name)
		}
	})
	return err
}

// A labWork is a file that is brought up or taken down.
type labWork struct {
	cmd  *cobra.Command
	file *labfile.File
	dir  string // what relative paths of the file begin at
	have *labfile.Have

	// What check makes of the file.
	egress map[string]*api.Egress // by what has it: networks.NAME, containers.NAME
	runs   map[string]*runOptions // by the container's name
	ways   map[string]*waysOut    // by the network's name

	opened map[string]*box.Uplink // by the device's name
}

// read reads the file, or with - standard input. path is where it is from the
// root, and name what the lab is called when the file does not say.
func (o *labFlags) read(cmd *cobra.Command) (path, name string, data []byte, err error) {
	in := cmd.InOrStdin()
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return "", "", nil, fmt.Errorf("%s: %w", short(cmd), err)
		}
		defer f.Close()
		if path, err = filepath.Abs(o.file); err != nil {
			return "", "", nil, fmt.Errorf("%s: %w", short(cmd), err)
		}
		in, name = f, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	if data, err = io.ReadAll(io.LimitReader(in, labfile.MaxBytes+1)); err != nil {
		err = fmt.Errorf("%s: %w", short(cmd), err)
	}
	return path, name, data, err
}

// up brings the file up.
func (o *labFlags) up(cmd *cobra.Command) error {
	path, name, data, err := o.read(cmd)
	if err != nil {
		return err
	}
	l := &labWork{cmd: cmd}
	if l.file, err = labfile.Read(o.file, path, data, name); err != nil {
		return err
	}
	if l.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	if l.opened, err = openWithRights(l.links()); err != nil {
		return err
	}
	defer func() { closeUplinks(l.opened) }()
	c, err := l.look(cmd.Context(), !o.dryRun)
	if err != nil {
		return err
	}
	plan, err := l.file.Plan(l.have, o.prune)
	if err == nil {
		err = l.checkSubnets(plan)
	}
	return o.finish(l, c, plan, err)
}

// down ends what the file has brought up.
func (o *labFlags) down(cmd *cobra.Command) error {
	path, name, data, err := o.read(cmd)
	if err != nil {
		return err
	}
	l := &labWork{cmd: cmd}
	if l.file, err = labfile.ReadName(o.file, path, data, name); err != nil {
		return err
	}
	if _, err := openWithRights(nil); err != nil { // nothing to open, but rights to give back
		return err
	}
	c, err := l.look(cmd.Context(), false)
	if err != nil {
		return err
	}
	plan, err := l.file.Remove(l.have)
	return o.finish(l, c, plan, err)
}

// finish says what a plan changes, and changes it.
func (o *labFlags) finish(l *labWork, c *api.Client, plan *labfile.Plan, err error) error {
	if err != nil {
		return err
	}
	count := "nothing"
	if n := plan.Changes(); n > 0 {
		count = fmt.Sprintf("%d of %d", n, len(plan.Networks)+len(plan.Containers))
	}
	out := l.cmd.OutOrStdout()
	if o.dryRun {
		for i := range plan.Networks {
			l.say(&plan.Networks[i])
		}
		for i := range plan.Containers {
			l.say(&plan.Containers[i])
		}
		fmt.Fprintf(out, "lab %s: %s would change\n", l.file.Name, count)
		return nil
	}
	if err := l.carryOut(l.cmd.Context(), c, plan); err != nil {
		return err
	}
	fmt.Fprintf(out, "lab %s: %s changed\n", l.file.Name, count)
	return nil
}

// look asks the node what it has. When none runs one is started, unless that was
// for nothing: start is not set, and no networks were left.
func (l *labWork) look(ctx context.Context, start bool) (*api.Client, error) {
	l.have = &labfile.Have{Exists: func(path string) bool { _, err := os.Stat(path); return err == nil }}
	c := client()
	var answers nodeHas
	err := c.Get(ctx, "/v1/networks", &answers.networks)
	if isNoNode(err) {
		if !start && !node.HasState(c.Dir()) {
			return c, nil
		}
		if c, err = ensure(ctx); err != nil {
			return nil, err
		}
		err = c.Get(ctx, "/v1/networks", &answers.networks)
	}
	for path, into := range map[string]any{"/v1/containers": &answers.containers, "/v1/rules/added": &answers.rules, "/v1/uplinks": &answers.uplinks} {
		if err == nil {
			err = c.Get(ctx, path, into)
		}
	}
	if err != nil {
		return nil, err
	}
	answers.fill(l.have)
	return c, nil
}

// nodeHas is what a node says it has.
type nodeHas struct {
	networks   []api.NetworkInspect
	containers []api.Container
	rules      []api.Rule
	uplinks    []api.Uplink
}

// fill puts it into the words of package labfile.
func (n *nodeHas) fill(have *labfile.Have) {
	for i := range n.networks {
		w := labfile.HaveNetwork{Name: n.networks[i].Name, Labels: n.networks[i].Labels}
		if len(n.networks[i].IPAM.Config) > 0 {
			w.Subnet = n.networks[i].IPAM.Config[0].Subnet
		}
		for _, r := range n.rules {
			if r.Network == w.Name {
				w.Rules = append(w.Rules, r.From+" "+r.To)
			}
		}
		for _, u := range n.uplinks {
			switch {
			case u.Network != w.Name || u.State == "down":
			case isHost(u):
				w.Uplinks = append(w.Uplinks, api.HostUplink)
			default:
				w.Uplinks = append(w.Uplinks, u.Spec)
			}
		}
		have.Networks = append(have.Networks, w)
	}
	// As they started: who is needed by others before them.
	slices.SortStableFunc(n.containers, func(a, b api.Container) int { return a.Created.Compare(b.Created) })
	for i := range n.containers {
		c := labfile.HaveContainer{ID: n.containers[i].ID, Name: n.containers[i].Name, Labels: n.containers[i].Labels, Networks: map[string]string{}}
		for j := range n.networks {
			if on, ok := n.networks[j].Containers[c.ID]; ok {
				c.Networks[n.networks[j].Name], _, _ = strings.Cut(on.IPv4Address, "/")
			}
		}
		have.Containers = append(have.Containers, c)
	}
}

// say prints a line about a change.
func (l *labWork) say(c *labfile.Change) {
	kind, verbs := "container", map[labfile.Do]string{labfile.Make: "start", labfile.Remake: "restart", labfile.Remove: "stop"}
	if c.Container == nil && c.ID == "" {
		kind, verbs = "network", map[labfile.Do]string{labfile.Make: "create", labfile.Set: "set", labfile.Remake: "replace", labfile.Remove: "remove"}
	}
	line := fmt.Sprintf("%s %s %s", verbs[c.Do], kind, c.Name)
	switch {
	case c.Do == labfile.Keep:
		return
	case c.Do == labfile.Leave:
		line = fmt.Sprintf("keep %s %s: not in the file any more; --prune takes it away", kind, c.Name)
	case c.Why != "":
		line += ": " + c.Why
	}
	fmt.Fprintln(l.cmd.OutOrStdout(), line)
}

// carryOut does what a plan says. What was done stays done when something fails:
// the next call goes on from there.
func (l *labWork) carryOut(ctx context.Context, c *api.Client, p *labfile.Plan) error {
	if err := l.takeAway(ctx, c, p); err != nil {
		return err
	}
	return l.bring(ctx, c, p)
}

// takeAway ends containers, the last to start first, and removes networks.
func (l *labWork) takeAway(ctx context.Context, c *api.Client, p *labfile.Plan) error {
	for _, change := range slices.Backward(p.Containers) {
		if change.Do != labfile.Remake && change.Do != labfile.Remove {
			continue
		}
		if err := l.end(ctx, c, &change); err != nil {
			return err
		}
		if change.Do == labfile.Remove {
			l.say(&change)
		}
	}
	for _, change := range p.Networks {
		if change.Do != labfile.Remake && change.Do != labfile.Remove {
			continue
		}
		if err := l.remove(ctx, c, &change); err != nil {
			return fmt.Errorf("%s: network %s: %w", short(l.cmd), change.Name, err)
		}
		if change.Do == labfile.Remove {
			l.say(&change)
		}
	}
	return nil
}

// bring makes and changes networks, and starts containers.
func (l *labWork) bring(ctx context.Context, c *api.Client, p *labfile.Plan) error {
	for _, change := range p.Networks {
		if err := l.make(ctx, c, &change); err != nil {
			return err
		}
		if change.Do != labfile.Remove {
			l.say(&change)
		}
	}
	for _, change := range p.Containers {
		if change.Do == labfile.Make || change.Do == labfile.Remake {
			if err := l.start(ctx, c, change.Container); err != nil {
				return err
			}
		}
		if change.Do != labfile.Remove {
			l.say(&change)
		}
	}
	return nil
}

// links are the uplinks of all networks that are links.
func (l *labWork) links() (list []*api.UplinkSpec) {
	for _, w := range l.file.Networks {
		if ways := l.ways[w.Name]; ways != nil {
			list = append(list, ways.links...)
		}
	}
	return list
}

// end ends a container and waits until its name and its addresses are free.
func (l *labWork) end(ctx context.Context, c *api.Client, change *labfile.Change) error {
	done := slow(l.cmd.ErrOrStderr(), fmt.Sprintf("waiting up to %d seconds for %s to end", stopWithin, change.Name))
	defer done()
	err := stop(ctx, c, change.ID, api.SignalRequest{})
	if err != nil && !isGone(ctx, c, change.ID) {
		return fmt.Errorf("%s: container %s: %w", short(l.cmd), change.Name, err)
	}
	awaitGone(change.ID)
	return nil
}

// isGone reports whether a container has ended by itself meanwhile.
func isGone(ctx context.Context, c *api.Client, id string) bool {
	var containers []api.Container
	err := c.Get(ctx, "/v1/containers", &containers)
	return err == nil && !slices.ContainsFunc(containers, func(c api.Container) bool { return c.ID == id })
}

// remove removes a network, and first what is in the way of that: links outside
// and rules of its own.
func (l *labWork) remove(ctx context.Context, c *api.Client, change *labfile.Change) error {
	var uplinks []api.Uplink
	if err := c.Get(ctx, "/v1/uplinks", &uplinks); err != nil {
		return err
	}
	if slices.ContainsFunc(uplinks, func(u api.Uplink) bool { return u.Network == change.Name && !isHost(u) }) {
		if _, err := setUplinks(ctx, c, change.Name, &waysOut{none: true}, nil, true); err != nil {
			return err
		}
	}
	if err := setRules(ctx, c, change.Name, change.Was.Rules, nil); err != nil {
		return err
	}
	return c.Delete(ctx, networkPath(change.Name), nil)
}

// make makes or changes one network.
func (l *labWork) make(ctx context.Context, c *api.Client, change *labfile.Change) (err error) {
	w, ways, was := change.Network, l.ways[change.Name], &labfile.Network{}
	switch change.Do {
	case labfile.Make, labfile.Remake:
		err = c.Post(ctx, "/v1/networks", l.createNetwork(w), nil)
	case labfile.Set:
		was = change.Was
		if ways == nil && was.Uplinks != nil {
			ways = &waysOut{host: true} // what a network has of which nobody says anything
		}
		var changed api.NetworkChanged
		err = c.Post(ctx, networkPath(w.Name), l.setNetwork(w, was), &changed)
		sayWarnings(l.cmd.ErrOrStderr(), changed.Warnings)
	default:
		return nil
	}
	if err == nil {
		err = setRules(ctx, c, w.Name, was.Rules, w.Rules)
	}
	if err == nil && ways != nil {
		var lost []api.OwnAddress
		lost, err = setUplinks(ctx, c, w.Name, ways, l.opened, true)
		sayLost(l.cmd.ErrOrStderr(), lost)
	}
	if err != nil {
		return l.file.Wrong("networks."+w.Name, "%v", err)
	}
	return nil
}

// setRules takes rules of a network away and adds others. Those that were taken
// away by hand are not missed, nor are those there already.
func setRules(ctx context.Context, c *api.Client, network string, was, want []string) error {
	if len(was)+len(want) == 0 {
		return nil
	}
	var have []api.Rule
	if err := c.Get(ctx, "/v1/rules/added", &have); err != nil {
		return err
	}
	number := func(rule string) int {
		spec, _ := api.ParseRule(labfile.RuleWords(rule)) // it was read as one
		i := slices.IndexFunc(have, func(r api.Rule) bool { return r.Network == network && r.From == spec.From && r.To == spec.Target() })
		if i < 0 {
			return 0
		}
		return have[i].Number
	}
	for _, rule := range was {
		if n := number(rule); n > 0 && !slices.Contains(want, rule) {
			if err := c.Delete(ctx, fmt.Sprintf("/v1/rules/%d", n), nil); err != nil {
				return err
			}
		}
	}
	for _, rule := range want {
		if number(rule) > 0 {
			continue
		}
		from, to := labfile.RuleWords(rule)
		if err := c.Post(ctx, "/v1/rules", api.RuleRequest{Network: network, From: from, To: to}, nil); err != nil {
			return err
		}
	}
	return nil
}

// start starts one container, when those it waits for are ready.
func (l *labWork) start(ctx context.Context, c *api.Client, it *labfile.Container) error {
	where := "containers." + it.Name
	for i, w := range it.WaitFor {
		if err := l.await(ctx, c, w); err != nil {
			return l.file.Wrong(fmt.Sprintf("%s.wait-for[%d]", where, i), "%v", err)
		}
	}
	err := l.runs[it.Name].begins(l.cmd)
	var status exitStatus
	if err != nil && !errors.As(err, &status) {
		return l.file.Wrong(where, "%v", err)
	}
	return err
}
