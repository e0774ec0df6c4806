package node

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"fairlead/node/api"
)

// checkLinks refuses --link where there is no network of the container's own.
func (c *container) checkLinks() error {
	if len(c.req.Links) == 0 {
		return nil
	}
	switch c.mode {
	case modeHost:
		return fail(http.StatusBadRequest, "conflicting options: host type networking can't be used with links. This would result in undefined behavior; leave out --link, or --network host")
	case modeShared:
		return fail(http.StatusBadRequest, "conflicting options: container type network can't be used with links. This would result in undefined behavior; leave out --link: %s has its own", c.share.name())
	case modeNone:
		return fail(http.StatusBadRequest, "conflicting options: links and the network mode; leave out --link, or --network none")
	}
	return nil
}

// linksOfLocked reads links on a network: what a container alone calls others. They
// get one form, NAME:ALIAS. On the default network, which has no names else, who is
// linked has to be there, as Docker has it.
func (n *Node) linksOfLocked(l *lan, words []string) (links []string, err error) {
	for _, word := range words {
		name, alias, err := api.ParseLink(word)
		if err != nil {
			return nil, statusError{http.StatusBadRequest, err}
		}
		to, err := n.findLocked(name)
		switch {
		case err == nil:
			name = to.name()
			if !strings.Contains(word, ":") {
				alias = name // not the id it may have been
			}
		case l == n.defaultLocked():
			return nil, fail(http.StatusNotFound, "could not get container for %s: %w", name, err)
		}
		if l == n.defaultLocked() && (!to.running || to.onLocked(l) == nil) {
			return nil, fail(http.StatusConflict, "Cannot link to a non running container: /%s AS /%s; it has to be on network %s", name, alias, l.name)
		}
		if slices.ContainsFunc(links, func(x string) bool { return strings.HasSuffix(x, ":"+alias) }) {
			return nil, fail(http.StatusConflict, "link %s: another one is called %s already; choose another alias", word, alias)
		}
		links = append(links, name+":"+alias)
	}
	return links, nil
}

// linkedNames are the names its links lead to.
func (a *attachment) linkedNames() (names []string) {
	for _, link := range a.links {
		name, _, _ := strings.Cut(link, ":")
		names = append(names, name)
	}
	return names
}

// linkEnvLocked are the variables by which Docker tells a container of its links
// on the default network: those of the moment at which it is made.
func (n *Node) linkEnvLocked(c *container) (env []string) {
	for _, a := range c.attachments {
		if a.lan != n.defaultLocked() {
			continue
		}
		on := onLan{n, a.lan}
		for _, link := range a.links {
			name, alias, _ := strings.Cut(link, ":")
			if to := on.named(name); to != nil {
				env = append(env, linkEnv(c.name(), alias, to.onLocked(a.lan).addr.Addr().String(), to.exposedPorts(), to.req.Env)...)
			}
		}
	}
	return env
}

// inspectLinksLocked are the links on the default network as docker inspect has
// them.
func (n *Node) inspectLinksLocked(c *container) (list []string) {
	for _, a := range c.attachments {
		for _, link := range a.links {
			if name, alias, _ := strings.Cut(link, ":"); a.lan == n.defaultLocked() {
				list = append(list, fmt.Sprintf("/%s:/%s/%s", name, c.name(), alias))
			}
		}
	}
	return list
}

// linkEnv are the variables of one link. Ranges of ports are told of as such and
// one by one.
func linkEnv(parent, alias, addr string, exposed []api.PortSpec, childEnv []string) (env []string) {
	prefix := strings.ReplaceAll(strings.ToUpper(alias), "-", "_")
	add := func(format string, args ...any) { env = append(env, prefix+fmt.Sprintf(format, args...)) }
	told := 0
	for i, r := range exposed {
		first, proto := r.Container.First, r.Proto
		upper := strings.ToUpper(proto)
		if i == 0 {
			add("_PORT=%s://%s:%d", proto, addr, first)
		}
		for p := int(first); p <= int(r.Container.Last) && told < maxTold; p++ {
			told++
			add("_PORT_%d_%s=%s://%s:%d", p, upper, proto, addr, p)
			add("_PORT_%d_%s_ADDR=%s", p, upper, addr)
			add("_PORT_%d_%s_PORT=%d", p, upper, p)
			add("_PORT_%d_%s_PROTO=%s", p, upper, proto)
		}
		if last := r.Container.Last; last > first {
			add("_PORT_%d_%s_START=%s://%s:%d", first, upper, proto, addr, first)
			add("_PORT_%d_%s_PORT_START=%d", first, upper, first)
			add("_PORT_%d_%s_END=%s://%s:%d", first, upper, proto, addr, last)
			add("_PORT_%d_%s_PORT_END=%d", first, upper, last)
		}
	}
	add("_NAME=/%s/%s", parent, alias)
	for _, kv := range childEnv {
		name, value, has := strings.Cut(kv, "=")
		if has && name != "HOME" && name != "PATH" {
			add("_ENV_%s=%s", name, value)
		}
	}
	return env
}

// maxTold bounds the ports that are told of one by one: with the variables of more
// no program could be started.
const maxTold = 1000

// joined are ports in order, TCP first, ranges that touch as one.
func joined(list []api.PortSpec) (ranges []api.PortSpec) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b api.PortSpec) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Container.First, b.Container.First))
	})
	for _, s := range list {
		if n := len(ranges); n > 0 && ranges[n-1].Proto == s.Proto && int(s.Container.First) <= int(ranges[n-1].Container.Last)+1 {
			ranges[n-1].Container.Last = max(ranges[n-1].Container.Last, s.Container.Last)
			continue
		}
		ranges = append(ranges, s)
	}
	return ranges
}
