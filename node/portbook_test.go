package node

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
)

// reserveText reserves what args say for c and tells where that is.
func reserveText(t *testing.T, b *portBook, c *container, args ...string) string {
	t.Helper()
	specs, err := parsePublish(args)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.reserve(c, specs)
	if err != nil {
		if got != nil {
			t.Errorf("%v: an error, and %v", args, got)
		}
		return err.Error()
	}
	c.published = append(c.published, got...)
	var words []string
	for _, p := range got {
		words = append(words, p.bind()+"->"+p.private())
	}
	return strings.Join(words, " ")
}

func TestPortBook(t *testing.T) {
	b := newPortBook()
	web, db := called(new(container), "web"), called(new(container), "db")
	for _, step := range []struct {
		c    *container
		args string
		want string
	}{
		{web, "8080:80", "0.0.0.0:8080->80/tcp"},
		{db, "8080:80", "Bind for 0.0.0.0:8080 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 8080:80/tcp`"},
		{web, "8080:81", "Bind for 0.0.0.0:8080 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 8080:80/tcp`"},
		{db, "127.0.0.1:8080:80", "Bind for 127.0.0.1:8080 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 8080:80/tcp`"},
		{db, "8080:53/udp", "0.0.0.0:8080->53/udp"},
		{db, "127.0.0.1:53:53/udp 192.0.2.2:53:53/udp", "127.0.0.1:53->53/udp 192.0.2.2:53->53/udp"},
		{web, "53:53/udp", "Bind for 0.0.0.0:53 failed: port is already allocated: container db has it; choose another, or `fairlead unpublish db 53:53/udp`"},
		{web, "90:90 90:91", "Bind for 0.0.0.0:90 failed: port is already allocated: it is asked for twice"},
		{web, "90:90", "0.0.0.0:90->90/tcp"}, // the failure before left nothing
		{web, "8079-8081:79-81", "Bind for 0.0.0.0:8080 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 8080:80/tcp`"},
		{web, "8081-8083:80-82/udp", "0.0.0.0:8081->80/udp 0.0.0.0:8082->81/udp 0.0.0.0:8083->82/udp"},
		{db, "8080-8082:80", "0.0.0.0:8081->80/tcp"}, // any of them
		{db, "8080-8082:80", "0.0.0.0:8082->80/tcp"},
		{db, "8080-8082:80", "Bind for 0.0.0.0 failed: all ports are allocated: none of 8080-8082/tcp is free"},
		{web, "80", "0.0.0.0:32768->80/tcp"},
		{web, "127.0.0.1::80-81", "127.0.0.1:32769->80/tcp 127.0.0.1:32770->81/tcp"},
		{web, "1-40000:1-40000", "a container can have 32768 ports published, and 1-40000:1-40000/tcp are more"},
		{web, "0.0.0.0:8084:80 [::]:8084:80", "0.0.0.0:8084->80/tcp [::]:8084->80/tcp"},
		{db, "[::1]:8084:80", "Bind for [::1]:8084 failed: port is already allocated: container web has it; choose another, or `fairlead unpublish web 8084:80/tcp`"},
		{db, "[::1]:8085:80 127.0.0.1:8085:80", "[::1]:8085->80/tcp 127.0.0.1:8085->80/tcp"},
		{web, "8085:80", "Bind for 0.0.0.0:8085 failed: port is already allocated: container db has it; choose another, or `fairlead unpublish db 8085:80/tcp`"},
	} {
		if got := reserveText(t, b, step.c, strings.Fields(step.args)...); got != step.want {
			t.Errorf("%s -p %s\n got %s\nwant %s", step.c.name(), step.args, got, step.want)
		}
	}
	b.release(web.published)
	b.release(db.published)
	if len(b.taken) != 0 {
		t.Errorf("all is given back, and the book holds %v", b.taken)
	}
}

// Ports that were just given up are not given to the next one, and in the end
// all of them are.
func TestEphemeralPorts(t *testing.T) {
	b := newPortBook()
	c := &container{}
	first := reserveText(t, b, c, "80")
	b.release(c.published)
	if next := reserveText(t, b, c, "80"); next == first {
		t.Errorf("%s was given again at once", first)
	}
	b = newPortBook()
	all := ephemeralLast - ephemeralFirst + 1
	seen := map[uint16]bool{}
	for range all {
		got, err := b.reserve(&container{}, []api.PortSpec{{Container: api.PortRange{First: 80, Last: 80}, Proto: "tcp"}})
		if err != nil {
			t.Fatal(err)
		}
		seen[got[0].hostPort] = true
	}
	if len(seen) != all || !seen[ephemeralFirst] || !seen[ephemeralLast] {
		t.Errorf("%d ports of %d", len(seen), all)
	}
	if got := reserveText(t, b, c, "80"); got != "Bind for 0.0.0.0 failed: all ports are allocated: none of 32768-60999/tcp is free" {
		t.Error(got)
	}
}

func TestPublicationIsOf(t *testing.T) {
	p := publication{proto: "tcp", hostPort: 8080, port: 80}
	for arg, want := range map[string]bool{
		"80": true, "80/udp": false, "81": false, "8080:80": true, "8081:80": false, "80-90": true, "8000-9000:80": true,
		"127.0.0.1:8080:80": false, "0.0.0.0:8080:80": true, "8080": false,
	} {
		s, err := api.ParsePublish(arg)
		if err != nil || p.isOf(s) != want {
			t.Errorf("%s: %v, %v", arg, !want, err)
		}
	}
}

func TestPortWords(t *testing.T) {
	c := &container{exposed: []exposed{{80, "tcp"}, {443, "tcp"}, {53, "udp"}}}
	for i := range uint16(3) {
		c.published = append(c.published, publication{proto: "tcp", hostPort: 8000 + i, port: 80 + i})
	}
	c.published = append(c.published, publication{proto: "udp", hostPort: 53, port: 53}, publication{proto: "tcp", hostPort: 9000, port: 80})
	want := []string{"0.0.0.0:8000-8002->80-82/tcp", "0.0.0.0:9000->80/tcp", "0.0.0.0:53->53/udp", "443/tcp"}
	got := c.portWordsLocked()
	slices.Sort(got)
	slices.Sort(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestPortBookIsSmall: a book of all ports there are costs little for each.
func TestPortBookIsSmall(t *testing.T) {
	const ports, most = 30000, 250
	used := func() uint64 {
		runtime.GC()
		runtime.GC() // what the first one found is free behind the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b, c := newPortBook(), &container{}
	before := used()
	for i := range ports {
		b.take(publication{proto: "tcp", hostPort: uint16(1024 + i), port: 80}, c)
	}
	each := int64(used()-before) / ports
	if each > most {
		t.Errorf("%d bytes for each port, %d are the most", each, most)
	}
	t.Logf("%d bytes", each)
	runtime.KeepAlive(b)
}

// All containers together have no more ports than there are, whatever addresses
// they are asked for at.
func TestPublicationsOfANode(t *testing.T) {
	b := newPortBook()
	var all []publication
	for i := byte(1); b.count < mostPublications; i++ {
		got, err := b.reserve(&container{}, mustSpecs(t, fmt.Sprintf("127.0.0.%d:1-32768:1-32768", i)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
	}
	one := mustSpecs(t, "127.0.1.1:80:80")
	if _, err := b.reserve(&container{}, one); err == nil || !strings.Contains(err.Error(), "all containers together") {
		t.Errorf("one more: %v", err)
	}
	b.release(all[:1])
	if _, err := b.reserve(&container{}, one); err != nil {
		t.Errorf("after one was given back: %v", err)
	}
	if b.release(all[1:]); b.count != 1 {
		t.Errorf("%d ports are taken", b.count)
	}
}

func mustSpecs(t *testing.T, ports ...string) []api.PortSpec {
	t.Helper()
	specs, err := parsePublish(ports)
	if err != nil {
		t.Fatal(err)
	}
	return specs
}
