package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
	"fairlead/test/lab"
)

// An office is a network with its DHCP server, in a directory that lasts.
type office struct {
	*lenders
	t   *testing.T
	dir string
	net *network.Network
}

func newOffice(t *testing.T, dir string) *office {
	t.Helper()
	l, err := loop.New(1)
	if err != nil {
		t.Fatal(err)
	}
	router := network.NewRouter(vswitch.NewLanes(l), nat.Config{})
	net, err := network.New(network.Config{ID: 1, Name: "office", Gateway: netip.MustParsePrefix("192.0.2.1/24")}, router)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{home: &home{Root: root}}
	leases, err := n.home.readLeases()
	if err != nil {
		t.Fatal(err)
	}
	n.startDHCP(leases)
	o := &office{n.dhcp, t, dir, net}
	o.is(nil)
	t.Cleanup(func() {
		o.close()
		net.Close()
		router.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		root.Close()
	})
	return o
}

// is has these containers on the network.
func (o *office) is(containers map[packet.ContainerID]fixedStation) {
	o.t.Helper()
	conf, err := new(network.DHCP).Lending(o.net.Config().Gateway, 1500, "", false)
	if err != nil {
		o.t.Fatal(err)
	}
	o.call(func() {
		o.follow(map[packet.NetworkID]lending{1: {name: "office", net: o.net, conf: conf}}, map[string]bool{"office": true})
		for c := range o.fixed { // of which fix deletes
			if _, stays := containers[c]; !stays {
				o.fix(c, nil)
			}
		}
		for c, fixed := range containers {
			o.fix(c, map[packet.NetworkID]fixedStation{1: fixed})
		}
	})
}

// asks sends a message and returns the answer's kind and address.
func (o *office) asks(c packet.ContainerID, mac byte, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) (dhcpv4.MessageType, netip.Addr) {
	o.t.Helper()
	station := packet.MAC{2, 0, 0, 0, 0, mac}
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(station[:]), dhcpv4.WithMessageType(kind)}, more...)...)
	if err != nil {
		o.t.Fatal(err)
	}
	answers := make(chan gateway.Offer, 1)
	q := gateway.Question{Network: 1, Container: c, MAC: station, Payload: m.ToBytes()}
	if !o.Message(q, func(a gateway.Offer) { answers <- a }) {
		o.t.Fatal("no room for a message")
	}
	if kind == dhcpv4.MessageTypeRelease {
		return 0, netip.Addr{}
	}
	select {
	case a := <-answers:
		m, err := dhcpv4.FromBytes(a.Payload)
		if err != nil {
			o.t.Fatal(err)
		}
		lent, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
		return m.MessageType(), lent
	case <-time.After(10 * time.Second):
		o.t.Fatal("no answer")
	}
	return 0, netip.Addr{}
}

func wants(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(netip.MustParseAddr(a).AsSlice()))
}

func has(a string) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = netip.MustParseAddr(a).AsSlice() }
}

// lent lists the addresses that are bound.
func (o *office) lent() (list []string) {
	o.call(func() {
		for _, l := range o.of {
			for _, b := range l.server.Bindings() {
				if b.State == "bound" {
					list = append(list, b.Addr.String())
				}
			}
		}
	})
	return list
}

func TestDHCPFollowsTheRegistry(t *testing.T) {
	o := newOffice(t, t.TempDir())
	web := fixedStation{mac: packet.MAC{2, 0, 0, 0, 0, 7}, addr: netip.MustParseAddr("192.0.2.7"), name: "web"}
	o.is(map[packet.ContainerID]fixedStation{5: web})
	if kind, a := o.asks(5, 7, dhcpv4.MessageTypeDiscover); kind != dhcpv4.MessageTypeOffer || a != web.addr {
		t.Errorf("%v of %v", kind, a)
	}
	if kind, a := o.asks(5, 7, dhcpv4.MessageTypeRequest, wants("192.0.2.7")); kind != dhcpv4.MessageTypeAck || a != web.addr {
		t.Errorf("%v of %v", kind, a)
	}
	// Another station behind the same container, and one behind none.
	for c, want := range map[packet.ContainerID]string{5: "192.0.2.50", 6: "192.0.2.60"} {
		if kind, a := o.asks(c, 9, dhcpv4.MessageTypeRequest, wants(want)); kind != dhcpv4.MessageTypeAck || a.String() != want {
			t.Errorf("behind %v: %v of %v", c, kind, a)
		}
		if _, err := o.net.Reserve(netip.MustParseAddr(want)); err == nil {
			t.Errorf("%s could be a container's, too", want)
		}
	}
	o.is(nil)
	if got := o.lent(); !slices.Equal(got, []string{"192.0.2.60"}) {
		t.Errorf("the container is gone, lent is %v", got)
	}
	if _, err := o.net.Reserve(netip.MustParseAddr("192.0.2.50")); err != nil {
		t.Error(err)
	}
}

// TestLeasesOnDisk: stations on no container's port have their addresses again when
// the node has been started anew; and a file nobody needs is not there.
func TestLeasesOnDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, leasesFile)
	o := newOffice(t, dir)
	o.is(map[packet.ContainerID]fixedStation{5: {mac: packet.MAC{2, 0, 0, 0, 0, 7}, addr: netip.MustParseAddr("192.0.2.7")}})
	o.asks(0, 1, dhcpv4.MessageTypeRequest, wants("192.0.2.60"), dhcpv4.WithOption(dhcpv4.OptHostName("laptop")))
	o.asks(0, 2, dhcpv4.MessageTypeRequest, wants("192.0.2.61"), dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte("\x00id"))))
	o.asks(5, 7, dhcpv4.MessageTypeRequest, wants("192.0.2.7"))
	o.asks(5, 8, dhcpv4.MessageTypeRequest, wants("192.0.2.62"))
	lab.Eventually(t, 10*time.Second, func() error {
		_, err := os.Stat(path)
		return err
	})
	o.close()
	var file leasesOnDisk
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if list := file.Networks["office"]; err != nil || file.Version != leasesVersion || len(list) != 2 || list[0].Hostname != "laptop" || list[1].ClientID != "006964" || list[0].Expires == nil {
		t.Fatalf("%v: %s", err, b)
	}

	again := newOffice(t, dir)
	if got := again.lent(); !slices.Equal(got, []string{"192.0.2.60", "192.0.2.61"}) {
		t.Errorf("after a restart %v are lent", got)
	}
	if kind, _ := again.asks(0, 9, dhcpv4.MessageTypeRequest, wants("192.0.2.60")); kind != dhcpv4.MessageTypeNak {
		t.Errorf("to somebody else: %v", kind)
	}
	if kind, _ := again.asks(0, 1, dhcpv4.MessageTypeRequest, has("192.0.2.60")); kind != dhcpv4.MessageTypeAck {
		t.Errorf("renewed: %v", kind)
	}
	again.asks(0, 1, dhcpv4.MessageTypeRelease, has("192.0.2.60"))
	again.asks(0, 2, dhcpv4.MessageTypeRelease, has("192.0.2.61"), dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte("\x00id"))))
	lab.Eventually(t, 10*time.Second, func() error {
		if got := again.lent(); len(got) > 0 {
			return os.ErrExist
		}
		return nil
	})
	again.close()
	if list, _ := os.ReadDir(dir); len(list) > 0 {
		t.Errorf("left are %v", list)
	}
}

// TestLeasesOfServersThatEnd: stations have their addresses again also when a
// server has ended and another one begins, unless its network has gone.
func TestLeasesOfServersThatEnd(t *testing.T) {
	o := newOffice(t, t.TempDir())
	there := map[string]bool{"office": true}
	for _, c := range []struct {
		follows []map[string]bool
		want    []string
	}{
		{[]map[string]bool{there}, []string{"192.0.2.60"}},
		{[]map[string]bool{nil}, nil},
		{[]map[string]bool{there, nil}, nil},
	} {
		o.asks(0, 1, dhcpv4.MessageTypeRequest, wants("192.0.2.60"))
		for _, there := range c.follows {
			o.call(func() { o.follow(nil, there) })
		}
		o.is(nil)
		if got := o.lent(); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v are lent, want %v", c.follows, got, c.want)
		}
	}
}

// TestLeasesOnSlowDisk: while the leases are written nobody waits for it who has to do
// with the servers.
func TestLeasesOnSlowDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, leasesFile+".new")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for full := make([]byte, 4096); err == nil; { // no more fits in
		_, err = unix.Write(fd, full)
	}
	disk := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = disk.Close() })
	o := newOffice(t, dir)
	defer func() { go func() { _, _ = io.Copy(io.Discard, disk) }() }() // for the last word on leases, too
	if kind, _ := o.asks(0, 1, dhcpv4.MessageTypeRequest, wants("192.0.2.60")); kind != dhcpv4.MessageTypeAck {
		t.Fatalf("%v", kind)
	}
	written := false
	called := make(chan struct{}, 1)
	for end := time.Now().Add(10 * time.Second); !written && time.Now().Before(end); time.Sleep(time.Millisecond) {
		go o.call(func() {
			written = o.saved == o.changes()
			called <- struct{}{}
		})
		select {
		case <-called:
		case <-time.After(10 * time.Second):
			t.Fatal("the servers wait for the disk")
		}
	}
	if !written {
		t.Error("nothing is written")
	}
	if kind, _ := o.asks(0, 2, dhcpv4.MessageTypeRequest, wants("192.0.2.61")); kind != dhcpv4.MessageTypeAck {
		t.Errorf("meanwhile: %v", kind)
	}
}

// A file that says something else is no reason to be without addresses.
func TestLeasesOfOthers(t *testing.T) {
	for _, text := range []string{"", "{", `{"networks": {}}`, `{"version":1,"networks":{"office":[{"ip":7}]}}`, `{"version":1,"networks":{"office":[{"ip":"10.0.0.1"},{"mac":"02:00:00:00:00:01","ip":"192.0.2.9","expires":"2001-01-01T00:00:00Z"}]}}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, leasesFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := newOffice(t, dir).lent(); len(got) > 0 {
			t.Errorf("%s: %v are lent", text, got)
		}
		aside := text
		if strings.Contains(text, "expires") {
			aside = "" // it can be read; nothing of it holds
		}
		got, err := os.ReadFile(filepath.Join(dir, leasesFile+".bad"))
		if string(got) != aside || (err == nil) == strings.Contains(text, "expires") {
			t.Errorf("%s: put aside is %q, %v", text, got, err)
		}
	}
}

// One of a later version is refused, and stays as it is.
func TestLeasesOfALaterVersion(t *testing.T) {
	dir := shortDir(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, leasesFile)
	for _, text := range []string{`{"version": 2}`, `{"version":2,"networks":[1]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Serve(t.Context(), Config{Dir: dir, Version: "test"})
		want := path + ": it has version 2, and this fairlead reads version 1: start the one that wrote it; `rm " + path + "` forgets its leases"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if now, err := os.ReadFile(path); string(now) != text {
			t.Errorf("it is %s, %v", now, err)
		}
	}
}

// TestDHCPIsBounded: nobody fills the queue alone, or with others.
func TestDHCPIsBounded(t *testing.T) {
	o := newOffice(t, t.TempDir())
	taken := 0
	o.call(func() { // while the servers are busy
		for c := range packet.ContainerID(100) {
			own := 0
			for range 2 * dhcpPerContainer {
				if o.Message(gateway.Question{Network: 1, Container: c}, func(gateway.Offer) { t.Error("answered") }) {
					own++
				}
			}
			if taken += own; own > dhcpPerContainer {
				t.Errorf("container %d has %d messages waiting", c, own)
			}
		}
	})
	if taken != maxDHCP {
		t.Errorf("%d are waiting, want %d", taken, maxDHCP)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if items, containers := o.messages.waiting(); items > 0 || containers > 0 {
			return os.ErrExist
		}
		return nil
	})
	o.close()
	o.call(func() { t.Error("called after its end") })
}

// A message that makes a server panic costs no other one, and so does what a server
// of others' has said.
func TestDHCPOutlivesPanics(t *testing.T) {
	o := newOffice(t, t.TempDir())
	station := packet.MAC{2, 0, 0, 0, 0, 66}
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(station[:]), dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), has("192.0.2.66"))
	if err != nil {
		t.Fatal(err)
	}
	broken := gateway.Question{Network: 1, Container: 3, MAC: station, Payload: m.ToBytes()}
	o.Message(broken, func(gateway.Offer) { panic("in a message") })
	o.call(func() { o.borrowers[borrowerKey{1, station}] = new(borrower) }) // without a client
	o.hear(1, []byte("what a server says"))
	if kind, _ := o.asks(4, 4, dhcpv4.MessageTypeInform, has("192.0.2.4")); kind != dhcpv4.MessageTypeAck {
		t.Errorf("the next one hears %v", kind)
	}
	lab.Eventually(t, patience, func() (err error) {
		o.call(func() {
			delete(o.borrowers, borrowerKey{1, station})
			if o.mishaps.count < 2 {
				err = fmt.Errorf("%d panics", o.mishaps.count)
			}
		})
		return err
	})
}

func TestGetLeases(t *testing.T) {
	r := serve(t)
	var list []api.Lease
	if err := r.Get(r.ctx, "/v1/leases", &list); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	create := func(options map[string]string) error {
		return r.Post(r.ctx, "/v1/networks", api.NetworkCreate{Name: "lab", Subnet: "10.9.0.0/24", Options: options}, nil)
	}
	refused(t, create(map[string]string{"dhcp-host": "id:aa,10.8.0.1"}), "network lab: option dhcp-host: 10.8.0.1 is not in the subnet 10.9.0.0/24")
	if err := create(map[string]string{"dhcp-lease": "5m"}); err != nil {
		t.Fatal(err)
	}
	set := func(key, value string) error {
		return r.Post(r.ctx, "/v1/networks/lab", api.NetworkRequest{Options: map[string]string{key: value}}, nil)
	}
	refused(t, set("dhcp-range", "10.8.0.1,10.9.0.9"), "network lab: option dhcp-range: 10.8.0.1 is not in the subnet 10.9.0.0/24")
	if err := set("dhcp-host", "id:aa,10.9.0.7"); err != nil {
		t.Fatal(err)
	}
	refused(t, r.Post(r.ctx, "/v1/containers", api.CreateRequest{Command: []string{"true"}, Networks: []api.EndpointRequest{{Network: "lab", IP: "10.9.0.7"}}}, nil),
		"network lab: address 10.9.0.7 is already in use")
	if err := r.Delete(r.ctx, "/v1/networks/lab", nil); err != nil {
		t.Fatal(err)
	}
}

// FuzzLeases: what somebody has put into the file neither panics nor comes to be
// lent outside the subnet.
func FuzzLeases(f *testing.F) {
	f.Add([]byte(`{"version":1,"networks":{"office":[{"mac":"02:00:00:00:00:01","ip":"192.0.2.9","hostname":"a","expires":"2040-01-01T00:00:00Z"}]}}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parseLeases(b)
		if err != nil && len(file.Networks) > 0 {
			t.Errorf("%v, %v", file, err)
		}
	})
}
