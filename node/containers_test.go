package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/test/lab"
)

func TestEveryRouteHasAHandler(t *testing.T) {
	h := newHandlers(t)
	have := h.handlers()
	for _, r := range api.Routes {
		key := r.Method + " " + r.Path
		if have[key] == nil {
			t.Errorf("nobody answers %s", key)
		}
		delete(have, key)
	}
	for key := range have {
		t.Errorf("%s is answered, and no route", key)
	}
	code, text := h.call("GET", "/v2/containers", "")
	if code != 404 || text != `{"error":"no such request: GET /v2/containers; GET /v1/openapi.json lists them"}` {
		t.Errorf("%d %s", code, text)
	}
	if code, text = h.call("PUT", "/v1/containers", "{}"); code != 405 && code != 404 {
		t.Errorf("%d %s", code, text)
	}
}

func TestCreateListInspect(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	if list := r.list(); len(list) != 0 || list == nil {
		t.Errorf("at first: %v", list)
	}
	web := r.create(api.CreateRequest{Name: "web", Command: []string{"sleep", "1000"}, Env: []string{"A=1"}, Workdir: "/srv"})
	if web.Name != "web" || web.Hostname != web.ID[:12] || len(web.ID) != 64 || web.Mode != "bridge" || web.Log != "" {
		t.Errorf("created %+v", web)
	}
	if want := (api.Interface{Name: "eth0", MAC: "02:42:ac:11:00:02", Address: "172.17.0.2/16", Gateway: "172.17.0.1", MTU: 1500}); !reflect.DeepEqual(*web.Link, want) {
		t.Errorf("link %+v", *web.Link)
	}
	db := r.create(api.CreateRequest{Network: "none", Hostname: "db.example"})
	if db.Link != nil || db.Mode != "none" || db.Hostname != "db.example" || !strings.Contains(db.Name, "_") {
		t.Errorf("created %+v", db)
	}
	host := r.create(api.CreateRequest{Network: "host", Detached: true})
	if host.Mode != "host" || host.Hosts != "" || host.ResolvConf != "" || host.Log == "" || host.LogBytes != logLimit {
		t.Errorf("created %+v", host)
	}

	list := r.list()
	if len(list) != 3 || list[0].ID != host.ID || list[2].ID != web.ID {
		t.Fatalf("listed %+v", list)
	}
	got := list[2]
	got.Created = time.Time{}
	if want := (api.Container{ID: web.ID, Name: "web", Command: []string{"sleep", "1000"}, Status: "created",
		Network: "default", IP: "172.17.0.2", MAC: "02:42:ac:11:00:02", Hostname: web.Hostname}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listed\n%+v, want\n%+v", got, want)
	}
	for _, ref := range []string{"web", web.ID, web.ID[:12], uniquePrefix(web.ID, db.ID, host.ID)} {
		i := r.inspect(ref)
		if i.ID != web.ID || i.Name != "/web" || i.Path != "sleep" || len(i.Args) != 1 || i.State.Running || i.State.Status != "created" ||
			i.NetworkSettings.IPAddress != "172.17.0.2" || i.NetworkSettings.IPPrefixLen != 16 || i.NetworkSettings.Gateway != "172.17.0.1" ||
			i.NetworkSettings.Networks["default"].LinkLocalIPv6Address != "fe80::42:acff:fe11:2" || i.Config.WorkingDir != "/srv" ||
			i.HostConfig.NetworkMode != "default" || i.HostsPath != web.Hosts {
			t.Errorf("inspect %s: %+v", ref, i)
		}
	}
	if i := r.inspect(db.Name); i.NetworkSettings.IPAddress != "" || len(i.NetworkSettings.Networks) != 0 || i.Config.Hostname != "db.example" {
		t.Errorf("inspect %s: %+v", db.Name, i)
	}

	// What was reserved is given back.
	for _, id := range []string{web.ID, db.ID, host.ID} {
		if err := r.Delete(r.ctx, "/v1/containers/"+id, nil); err != nil {
			t.Error(err)
		}
	}
	if files, err := os.ReadDir(filepath.Join(r.Dir(), "containers")); err != nil || len(files) != 0 {
		t.Errorf("files are left: %v, %v", files, err)
	}
	if again := r.create(api.CreateRequest{Name: "web"}); again.Link.Address != "172.17.0.2/16" {
		t.Errorf("created %+v", again.Link)
	}
}

// uniquePrefix is the shortest beginning of id that the others lack.
func uniquePrefix(id string, others ...string) string {
	n := 1
	for _, o := range others {
		for strings.HasPrefix(o, id[:n]) {
			n++
		}
	}
	return id[:n]
}

func TestRename(t *testing.T) {
	r := serve(t)
	web, db := r.create(api.CreateRequest{Name: "web"}), r.create(api.CreateRequest{Name: "db"})
	rename := func(ref, name string) error {
		return r.Post(r.ctx, "/v1/containers/"+ref+"/rename", api.RenameRequest{Name: name}, nil)
	}
	if err := rename("web", "front"); err != nil {
		t.Fatal(err)
	}
	if i := r.inspect("front"); i.ID != web.ID || i.Config.Hostname != web.Hostname {
		t.Errorf("front is %+v", i)
	}
	refused(t, rename("web", "x"), "No such container: web; `fairlead ps` lists those that run")
	refused(t, rename("db", "db"), "Renaming a container with the same name as its current name")
	refused(t, rename("db", "a b"), "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most")
	refused(t, rename("db", "front"), `Conflict. The container name "/front" is already in use by container "`+web.ID[:12]+`". `+
		"Stop it with `fairlead stop front`, or choose another name.")
	if again := r.create(api.CreateRequest{Name: "web"}); again.ID == web.ID || r.inspect(db.ID).Name != "/db" {
		t.Errorf("web is %s, db %s", again.ID, r.inspect(db.ID).Name)
	}
}

// TestFind: a name counts before the beginnings of ids, however many.
func TestFind(t *testing.T) {
	h := newHandlers(t)
	add := func(id, name string) {
		h.enterLocked(called(&container{id: id}, name))
	}
	add("ab01"+strings.Repeat("0", 60), "web")
	add("ab02"+strings.Repeat("0", 60), "db")
	add("ac03"+strings.Repeat("0", 60), "ab")
	defer clear(h.named)
	defer clear(h.containers)
	for range 50 { // the order of a map is never the same
		for ref, want := range map[string]string{"web": "web", "ab": "ab", "ab01": "web", "ab02": "db", "ac": "ab"} {
			if c, err := h.find(ref); err != nil || c.name() != want {
				t.Fatalf("find(%s): %v, %v", ref, c, err)
			}
		}
		for ref, want := range map[string]string{
			"a":   "Multiple IDs found with provided prefix: a",
			"ab0": "Multiple IDs found with provided prefix: ab0",
			"b":   "No such container: b; `fairlead ps` lists those that run",
			"":    "No such container: ; `fairlead ps` lists those that run",
			"WEB": "No such container: WEB; `fairlead ps` lists those that run",
		} {
			_, err := h.find(ref)
			refused(t, err, want)
		}
	}
}

func TestFiles(t *testing.T) {
	r := serve(t)
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	const six = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	web := r.create(api.CreateRequest{Hostname: "web", Detached: true})
	if got := read(web.Hosts); got != six+"172.17.0.2\tweb\n" {
		t.Errorf("hosts:\n%s", got)
	}
	if got := read(web.HostnameAt); got != "web\n" {
		t.Errorf("hostname: %q", got)
	}
	if got := read(web.ResolvConf); !strings.HasSuffix(got, "nameserver 172.17.0.1\n") {
		t.Errorf("resolv.conf: %q", got)
	}
	none := r.create(api.CreateRequest{Network: "none", Hostname: "n"})
	if got := read(none.Hosts); got != six || none.ResolvConf != "" || read(none.HostnameAt) != "n\n" {
		t.Errorf("hosts of none:\n%s", got)
	}
	// A log that nothing was written to yet is empty.
	body, err := r.Stream(r.ctx, "/v1/containers/"+web.ID+"/logs")
	if err != nil {
		t.Fatal(err)
	}
	_ = body.Close()
	if info, err := os.Stat(filepath.Dir(web.Hosts)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory of the files: %v, %v", info, err)
	}
}

// TestFilesForAllInside: a container has users besides root, and the node's
// umask is none of their business.
func TestFilesForAllInside(t *testing.T) {
	r := serve(t)
	old := unix.Umask(0o077)
	c := r.create(api.CreateRequest{})
	unix.Umask(old)
	for _, path := range []string{c.Hosts, c.ResolvConf, c.HostnameAt} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestCreateRefuses: each wrong wish is refused in Docker's words where Docker
// has some, and changes nothing.
func TestCreateRefuses(t *testing.T) {
	r := serve(t)
	web := r.create(api.CreateRequest{Name: "web", MAC: "02:42:ac:11:00:77"})
	x, _ := r.run(api.CreateRequest{Name: "x", Network: "none"})
	h, _ := r.run(api.CreateRequest{Name: "h", Network: "host"})
	s, _ := r.run(api.CreateRequest{Name: "s", Network: "container:x"})
	before := fmt.Sprint(r.list())
	long := strings.Repeat("a", 64)
	sh := []string{"sh"}
	for _, c := range []struct {
		req  api.CreateRequest
		want string
	}{
		{api.CreateRequest{}, "no command; say what to run: `fairlead run -it -- sh`"},
		{api.CreateRequest{Command: sh, Name: "my web"}, "Invalid container name (my web), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most"},
		{api.CreateRequest{Command: sh, Name: "-web"}, "Invalid container name (-web), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most"},
		{api.CreateRequest{Command: sh, Name: "../web"}, "Invalid container name (../web), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most"},
		{api.CreateRequest{Command: sh, Name: "web"}, `Conflict. The container name "/web" is already in use by container "` + web.ID[:12] +
			"\". Stop it with `fairlead stop web`, or choose another name."},
		{api.CreateRequest{Command: sh, Hostname: "my web"}, `invalid hostname "my web": at most 63 characters without blanks`},
		{api.CreateRequest{Command: sh, Hostname: "a\nb"}, `invalid hostname "a\nb": at most 63 characters without blanks`},
		{api.CreateRequest{Command: sh, Hostname: "a\x00b"}, `invalid hostname "a\x00b": at most 63 characters without blanks`},
		{api.CreateRequest{Command: sh, Hostname: "a\u00a0b"}, `invalid hostname "a\u00a0b": at most 63 characters without blanks`},
		{api.CreateRequest{Command: sh, Hostname: long}, `invalid hostname "` + long + `": at most 63 characters without blanks`},
		{api.CreateRequest{Command: sh, Network: "backend"}, "network backend not found; `fairlead network ls` lists those there are"},
		{api.CreateRequest{Command: sh, Network: "none:x"}, `network "none:x": only container:NAME takes a name behind a colon`},
		{api.CreateRequest{Command: sh, Network: "container:nobody"}, "No such container: nobody; `fairlead ps` lists those that run"},
		{api.CreateRequest{Command: sh, Network: "container:web"}, "cannot join network of a non running container: web"},
		{api.CreateRequest{Command: sh, Network: "container:h"},
			"container h has no network namespace of its own (--network host); join that one instead"},
		{api.CreateRequest{Command: sh, Network: "none", IP: "172.17.0.9"},
			"invalid network config: user specified IP address is supported on a network only, not with --network none"},
		{api.CreateRequest{Command: sh, Network: "host", MAC: "02:42:ac:11:00:09"},
			"conflicting options: mac-address and the network mode; leave out --mac, or --network host"},
		{api.CreateRequest{Command: sh, Network: "host", Hostname: "web"},
			"conflicting options: hostname and the network mode; leave out --hostname, or --network host"},
		{api.CreateRequest{Command: sh, Network: "container:x", Hostname: "web"},
			"conflicting options: hostname and the network mode; leave out --hostname, or --network container:x"},
		{api.CreateRequest{Command: sh, IP: "172.17.0.300"}, "invalid IPv4 address: 172.17.0.300"},
		{api.CreateRequest{Command: sh, IP: "fe80::1"}, "invalid IPv4 address: fe80::1"},
		{api.CreateRequest{Command: sh, IP: "10.0.0.1"}, "network default: address 10.0.0.1 is not in the subnet 172.17.0.0/16"},
		{api.CreateRequest{Command: sh, IP: "172.17.0.1"}, "network default: address 172.17.0.1 is the gateway's"},
		{api.CreateRequest{Command: sh, IP: "172.17.255.255"},
			"network default: address 172.17.255.255 is the network or broadcast address of 172.17.0.0/16"},
		{api.CreateRequest{Command: sh, IP: "172.17.0.2"}, "network default: address 172.17.0.2 is already in use by container web"},
		{api.CreateRequest{Command: sh, MAC: "02:42"}, `invalid MAC address "02:42": six bytes such as 02:42:ac:11:00:02, the first one even`},
		{api.CreateRequest{Command: sh, MAC: "01:00:5e:00:00:01"},
			`invalid MAC address "01:00:5e:00:00:01": six bytes such as 02:42:ac:11:00:02, the first one even`},
		{api.CreateRequest{Command: sh, MAC: "00:00:00:00:00:00"},
			`invalid MAC address "00:00:00:00:00:00": six bytes such as 02:42:ac:11:00:02, the first one even`},
		{api.CreateRequest{Command: sh, MAC: "02:42:ac:11:00:01"}, "MAC address 02:42:ac:11:00:01 is the gateway's"},
		{api.CreateRequest{Command: sh, MAC: "02:42:ac:11:00:77"}, "MAC address 02:42:ac:11:00:77 is already in use by container web"},
		{api.CreateRequest{Command: sh, Options: map[string]string{"colour": "red"}},
			`unknown option "colour"; a container's link has isolated, link, offload, trunk and vlan`},
		{api.CreateRequest{Command: sh, Options: map[string]string{"offload": "maybe"}}, `option offload: "maybe" is neither on nor off`},
		{api.CreateRequest{Command: sh, Network: "none", Options: map[string]string{"offload": "off"}},
			"conflicting options: --opt and the network mode; with --network none there is no link to set up"},
		{api.CreateRequest{Foreign: "pid:1", Network: "none"}, "network none not found; `fairlead network ls` lists those there are"},
	} {
		err := r.Post(r.ctx, "/v1/containers", c.req, new(api.Created))
		refused(t, err, c.want)
	}
	if after := fmt.Sprint(r.list()); after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
	if c := r.create(api.CreateRequest{}); c.Link.Address != "172.17.0.3/16" {
		t.Errorf("an address was not given back: the next is %s", c.Link.Address)
	}
	for _, id := range []string{x.ID, h.ID, s.ID} {
		if i := r.inspect(id); !i.State.Running {
			t.Errorf("%s does not run", i.Name)
		}
	}
}

// TestMACOfTheNextAddress: a MAC somebody chose by hand, and which is the one
// another address would lead to, keeps nobody from starting.
func TestMACOfTheNextAddress(t *testing.T) {
	r := serve(t)
	r.create(api.CreateRequest{MAC: "02:42:ac:11:00:03"}) // has .2
	c := r.create(api.CreateRequest{})
	mac, err := packet.ParseMAC(c.Link.MAC)
	if c.Link.Address != "172.17.0.3/16" || err != nil || mac.IsGroup() || mac == packet.MACFromIPv4(netip.MustParseAddr("172.17.0.3")) {
		t.Errorf("got %+v, %v", c.Link, err)
	}
	if next := r.create(api.CreateRequest{}); next.Link.MAC != "02:42:ac:11:00:04" {
		t.Errorf("the next got %+v", next.Link)
	}
}

// TestIDSpace: numbers are dense, and one that comes again is another.
func TestIDSpace(t *testing.T) {
	var s idSpace
	a, b, c := s.take(), s.take(), s.take()
	if a != 1<<16|1 || b != 1<<16|2 || c != 1<<16|3 {
		t.Errorf("took %#x, %#x, %#x", a, b, c)
	}
	s.give(b)
	s.give(a)
	if a2, b2 := s.take(), s.take(); a2 != 2<<16|1 || b2 != 2<<16|2 {
		t.Errorf("took %#x and %#x again", a2, b2)
	}
}

func TestInventedNames(t *testing.T) {
	h := newHandlers(t)
	seen := map[string]bool{}
	for i := range 600 {
		c, err := h.create(api.CreateRequest{Command: []string{"sh"}, Network: "none"})
		if err != nil {
			t.Fatal(err)
		}
		if seen[c.name()] || !api.ValidName(c.name()) {
			t.Fatalf("name %d is %q", i, c.name())
		}
		seen[c.name()] = true
	}
	for _, c := range h.list() {
		h.end(c)
	}
}

// TestFullNode: the bounds hold, and say so.
func TestFullNode(t *testing.T) {
	h := newHandlers(t)
	for i := range maxContainers {
		h.containers[fmt.Sprint(i)] = &container{id: fmt.Sprint(i)}
	}
	_, err := h.create(api.CreateRequest{Command: []string{"sh"}})
	refused(t, err, "this node has 16384 containers, which is all it can have")
	clear(h.containers)

	small := serve(t, func(c *Config) { c.Up.BIP = "10.0.0.1/30" })
	small.create(api.CreateRequest{})
	err = small.Post(small.ctx, "/v1/containers", api.CreateRequest{Command: []string{"sh"}}, new(api.Created))
	refused(t, err, "network default: no address of 10.0.0.0/30 is free; 1 containers have one")
}

// TestFilesOfARefusedContainer: when its files cannot be made, nothing of it
// stays.
func TestFilesOfARefusedContainer(t *testing.T) {
	h := newHandlers(t)
	block := filepath.Join(h.conf.Dir, "containers")
	if err := os.WriteFile(block, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := h.create(api.CreateRequest{Name: "web", Command: []string{"sh"}})
	if err == nil || !strings.HasPrefix(err.Error(), "make the files of container web: ") {
		t.Errorf("got %v", err)
	}
	if len(h.containers) != 0 {
		t.Error("it is in the registry")
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if c, err := h.create(api.CreateRequest{Name: "web", Command: []string{"sh"}}); err != nil || c.attachments[0].addr.String() != "172.17.0.2/16" {
		t.Errorf("then: %v, %v", c, err)
	} else {
		h.end(c)
	}
}

func TestUpAndDown(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t, func(c *Config) { c.Stays = false })
	info := new(api.VersionInfo)
	if err := r.Get(r.ctx, "/v1/version", info); err != nil || info.Stays || info.Dir != r.Dir() || info.Pid != os.Getpid() ||
		info.API != api.Version || info.Version != "test" || info.Containers != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	for _, c := range []struct {
		up   api.UpRequest
		want string
	}{
		{api.UpRequest{BIP: "172.17.42.1"}, `"172.17.42.1" is not an address with a length, such as 172.17.42.1/16`},
		{api.UpRequest{BIP: "172.17.0.0/16"}, "network default: gateway 172.17.0.0/16 is the network or broadcast address of its own subnet"},
		{api.UpRequest{Options: map[string]string{"mtu": "9"}}, `option mtu: "9" is not a number from 576 to 65521`},
		{api.UpRequest{Options: map[string]string{"color": "blue"}}, unknownOption("color")},
	} {
		refused(t, r.Post(r.ctx, "/v1/up", c.up, nil), c.want)
	}
	if err := r.Get(r.ctx, "/v1/version", info); err != nil || info.Stays {
		t.Errorf("a refused up had the node stay: %v", err)
	}
	if err := r.Post(r.ctx, "/v1/up", api.UpRequest{BIP: "172.17.42.1/16", Options: map[string]string{"mtu": "1400", "hub": "on", "ageing": "30s"}}, nil); err != nil {
		t.Fatal(err)
	}
	var switches []api.Switch
	if err := r.Get(r.ctx, "/v1/switches", &switches); err != nil || len(switches) != 1 {
		t.Fatalf("%v, %v", switches, err)
	}
	if s := switches[0]; s.Gateway != "172.17.42.1" || s.Subnet != "172.17.0.0/16" || s.MTU != 1400 || !s.Hub || s.Ageing != 30 ||
		s.BridgeID != "8000.0242ac112a01" || s.Ports == nil {
		t.Errorf("%+v", s)
	}
	if err := r.Get(r.ctx, "/v1/version", info); err != nil || !info.Stays {
		t.Errorf("it does not stay: %v", err)
	}
	c := r.create(api.CreateRequest{})
	if c.Link.Address != "172.17.0.1/16" || c.Link.Gateway != "172.17.42.1" || c.Link.MTU != 1400 {
		t.Errorf("created %+v", c.Link)
	}
	// With a container the network stays as it is; to stay is no change.
	refused(t, r.Post(r.ctx, "/v1/up", api.UpRequest{BIP: "10.0.0.1/8"}, nil),
		"network default has 1 container, so it stays as it is; stop them first: `fairlead down --all`")
	if err := r.Post(r.ctx, "/v1/up", api.UpRequest{}, nil); err != nil {
		t.Error(err)
	}
	refused(t, r.Post(r.ctx, "/v1/down", api.DownRequest{}, nil), "1 container on this node; `fairlead down --all` stops them too")
	if err := r.Post(r.ctx, "/v1/down", api.DownRequest{All: true}, nil); err != nil {
		t.Error(err)
	}
	r.ended(5 * time.Second)
}

// TestBadBodies: what is no JSON, too much of it or has unknown fields changes
// nothing.
func TestBadBodies(t *testing.T) {
	h := newHandlers(t)
	c, err := h.create(api.CreateRequest{Name: "web", Command: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.end(c)
	for _, path := range []string{"/v1/up", "/v1/down", "/v1/containers", "/v1/containers/web/kill", "/v1/containers/web/stop"} {
		for body, want := range map[string]string{
			"":                           "malformed JSON: there is nothing",
			"{":                          "malformed JSON: unexpected EOF",
			"[]":                         "malformed JSON: json: cannot unmarshal array into Go value of type",
			`{"colour":"red"}`:           `malformed JSON: json: unknown field \"colour\"`,
			"{} {}":                      "malformed JSON: something follows it",
			strings.Repeat("[", 300_000): "malformed JSON: ",
		} {
			if code, text := h.call("POST", path, body); code != 400 || !strings.Contains(text, want) {
				t.Errorf("POST %s %.20q: %d %.200s", path, body, code, text)
			}
		}
	}
	if list := h.list(); len(list) != 1 || h.isLeaving() {
		t.Errorf("left: %v", list)
	}
	for body, want := range map[string]string{
		`{"signal":"WRONG"}`: "invalid signal: WRONG; for container web try TERM, HUP, USR1 or a number",
		`{"signal":"0"}`:     "invalid signal: 0; for container web try TERM, HUP, USR1 or a number",
		`{"signal":"65"}`:    "invalid signal: 65; for container web try TERM, HUP, USR1 or a number",
		`{"signal":"-9"}`:    "invalid signal: -9; for container web try TERM, HUP, USR1 or a number",
		`{"timeout":-1}`:     "time-out of -1 seconds: it must be from 0 to 3600",
		`{"timeout":3601}`:   "time-out of 3601 seconds: it must be from 0 to 3600",
	} {
		for _, path := range []string{"/v1/containers/web/kill", "/v1/containers/web/stop"} {
			if code, text := h.call("POST", path, body); code != 400 || text != fmt.Sprintf(`{"error":%q}`, want) {
				t.Errorf("POST %s %s: %d %s", path, body, code, text)
			}
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{
		"TERM": 15, "term": 15, "SIGTERM": 15, "sigterm": 15, "15": 15, "KILL": 9, "9": 9, "HUP": 1, "64": 64, "usr1": 10,
		"": 0, "SIG": 0, "0": 0, "65": 0, "-1": 0, "TERMINATE": 0, "1x": 0,
	} {
		if sig, ok := parseSignal(s); ok != (want != 0) || ok && int(sig) != want {
			t.Errorf("%q is %d, %v, want %d", s, sig, ok, want)
		}
	}
}

// FuzzCreateRequest goes through the handlers: nothing panics, and what is
// refused has changed nothing.
func FuzzCreateRequest(f *testing.F) {
	for _, s := range []string{
		`{"command":["sleep","1000"],"name":"web","hostname":"web","network":"default","ip":"172.17.0.9","mac":"02:42:ac:11:00:09"}`,
		`{"command":["sh"],"network":"none","options":{"offload":"off","isolated":"on"},"detached":true,"tty":true}`,
		`{"command":["sh"],"network":"container:web"}`, `{"foreign":"pid:1","network":"bridge"}`, `{"command":[]}`, `{"command":null}`,
		`{"command":["sh"],"network":"container:"}`, `{"command":["sh"],"ip":"::ffff:172.17.0.9"}`, `{"command":["sh"],"ip":"fe80::1%eth0"}`,
		`{"command":["sh"],"networks":[{"network":"default","ip":"172.17.0.9","interface":"up0","routes":["10.0.0.0/8@172.17.0.1"],"priority":-1}]}`,
		`{"command":["sh"],"networks":[{"network":"default"},{"network":"bridge"}]}`, `{"command":["sh"],"networks":[{"network":"none"}]}`,
		`{"command":["sh"],"mac":"0242.ac11.0009"}`, `{"command":["sh"],"name":"../../etc"}`, `{"command":["sh"],"hostname":"\u0000"}`,
	} {
		f.Add(s)
	}
	h := newHandlers(f)
	f.Fuzz(func(t *testing.T, body string) {
		before := h.list()
		code, text := h.call("POST", "/v1/containers", body)
		list := h.list()
		switch {
		case code == 200 && len(list) == len(before)+1:
			h.end(list[0])
		case code/100 == 4 && len(list) == len(before):
			if !strings.HasPrefix(text, `{"error":"`) {
				t.Errorf("%d without a reason: %s", code, text)
			}
		default:
			t.Errorf("%d with %d containers after %d: %s", code, len(list), len(before), text)
		}
		// The next gets what the first one of all gets.
		next, err := h.create(api.CreateRequest{Command: []string{"sh"}})
		if err != nil || next.attachments[0].addr.String() != "172.17.0.2/16" {
			t.Fatalf("then %v, %v", next, err)
		}
		h.end(next)
		if files, err := os.ReadDir(filepath.Join(h.conf.Dir, "containers")); err != nil || len(files) != len(h.list()) {
			t.Errorf("%d files of %d containers, %v", len(files), len(h.list()), err)
		}
	})
}

// TestReservationIsForgotten: who reserves and never comes is forgotten, and
// whoever waits for him is told. It takes its ten seconds beside others.
func TestReservationIsForgotten(t *testing.T) {
	t.Parallel()
	r := serve(t)
	c := r.create(api.CreateRequest{Name: "web"})
	var exit api.Exit
	start := time.Now()
	ctx, cancel := context.WithTimeout(r.ctx, attachWithin+5*time.Second)
	defer cancel()
	if err := r.Get(ctx, "/v1/containers/web/wait", &exit); err != nil || exit.Code != 137 {
		t.Errorf("waited: %+v, %v", exit, err)
	}
	if d := time.Since(start); d < attachWithin-time.Second {
		t.Errorf("forgotten after %v", d)
	}
	r.gone(c.ID)
	if again := r.create(api.CreateRequest{Name: "web"}); again.Link.Address != c.Link.Address {
		t.Errorf("its address was not given back: %+v", again.Link)
	}
	refused(t, r.attach(c.ID, newInit(t)), "No such container: "+c.ID+"; `fairlead ps` lists those that run")
}
