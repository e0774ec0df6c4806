package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// A way is an uplink of a test, and the router at its other end.
type way struct {
	*network.Uplink
	us, router packettest.Station
	far        *link.Mem
}

var (
	host    = packettest.Station{MAC: packet.MAC{2, 2, 2, 2, 2, 2}, IP: netip.MustParseAddr("198.51.100.7")}
	ourAddr = netip.MustParsePrefix("192.0.2.10/24")
)

// uplink gives the network a way out, and waits until its address is ours.
func (h *handlers) uplink(t *testing.T, name string) *way {
	t.Helper()
	near, far := link.NewPair(4 * packet.BatchFrames)
	w := &way{
		us:     packettest.Station{MAC: packet.MACFromIPv4(ourAddr.Addr()), IP: ourAddr.Addr()},
		router: packettest.Station{MAC: packet.MAC{0x52, 0x54, 0, 0, 0, 1}, IP: netip.MustParseAddr("192.0.2.1")},
		far:    far,
	}
	var err error
	if w.Uplink, err = h.router.AddUplink(network.UplinkConfig{Name: name, MAC: w.us.MAC, Addr: ourAddr, Gateway: w.router.IP}, near); err != nil {
		t.Fatal(err)
	}
	if err := h.lans[0].net.SetUplinks(name); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if w.Addr() == (packet.Addr{}) {
			return errors.New("the uplink has no address yet")
		}
		return nil
	})
	return w
}

func (w *way) send(t *testing.T, b []byte) {
	t.Helper()
	if _, err := w.far.WriteBatch([]*packet.Frame{{B: b}}); err != nil {
		t.Fatal(err)
	}
}

// receives waits at the far end of a link for a frame that is as want says.
func receives(t *testing.T, far *link.Mem, what string, want func(f *packet.Frame) bool) (found packet.Frame) {
	t.Helper()
	batch := packet.NewBatch()
	lab.Eventually(t, 10*time.Second, func() error {
		batch.Reset()
		_, err := far.ReadBatch(batch)
		for i := range batch.Frames {
			if f := &batch.Frames[i]; packet.Parse(f) == packet.OK && want(f) {
				found = f.Clone(nil)
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("no %s", what))
	})
	return found
}

func tcpBetween(src, dst string) func(f *packet.Frame) bool {
	return func(f *packet.Frame) bool {
		k := f.Tuple()
		return f.Proto == packet.ProtoTCP && netip.AddrPortFrom(k.Src.Netip(), k.SrcPort).String() == src &&
			netip.AddrPortFrom(k.Dst.Netip(), k.DstPort).String() == dst
	}
}

// A network with one uplink, from empty tables to a masqueraded connection, one
// to a published port from outside and one from inside.
func TestShowRouting(t *testing.T) {
	h := newHandlers(t)
	for path, want := range map[string]string{
		"/v1/flows":  "[]",
		"/v1/routes": `[{"network":"default","destination":"172.17.0.0/16","dev":"default","scope":"link","source":"172.17.0.1","mtu":1500,"state":"up"}]`,
	} {
		if code, text := h.call("GET", path, ""); code != 200 || text != want {
			t.Errorf("GET %s: %d %s", path, code, text)
		}
	}
	web, db := h.join(t, "web"), h.join(t, "db")
	up := h.uplink(t, "up0")
	h.Node.router.Flows(func(table *nat.Table) {
		if _, err := table.Publish(nat.Rule{Network: h.lans[0].net.Config().ID, Container: web.number, Inside: packet.AddrFromNetip(web.IP),
			Proto: packet.ProtoTCP, OutsidePort: 8080, InsidePort: 80}); err != nil {
			t.Error(err)
		}
	})
	if r := get[[]api.IPRoute](t, h, "/v1/routes"); len(r) != 3 || r[0].Destination != "192.0.2.0/24" || r[0].Dev != "up0" || r[0].Source != "192.0.2.10" ||
		r[1].Destination != "172.17.0.0/16" || r[2].Destination != "0.0.0.0/0" || r[2].Via != "192.0.2.1" || r[2].Scope != "global" || r[2].State != "up" {
		t.Errorf("routes %+v", r)
	}

	for _, m := range []*member{web, db} { // as every kernel does first
		m.send(t, packettest.ARPRequest(m.Station, h.lans[0].net.Config().Gateway.Addr()))
		m.settled(t, 1)
	}

	server := httptest.NewServer(h)
	defer server.Close()
	resp, err := http.Get(server.URL + "/v1/trace?container=web")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	defer resp.Body.Close()

	// Out: the router is asked for first, then the packet follows.
	gw := packettest.Station{MAC: h.lans[0].net.GatewayMAC(), IP: host.IP}
	segment := func(src, dst packettest.Station, sport, dport uint16, flags byte) []byte {
		return packettest.TCP(src, dst, packettest.Segment{SrcPort: sport, DstPort: dport, Flags: flags}, nil)
	}
	web.send(t, segment(web.Station, gw, 40000, 80, packet.TCPSyn))
	receives(t, up.far, "question for the router", func(f *packet.Frame) bool {
		return f.EtherType == packet.EtherTypeARP && packet.ARP(f.Packet()).TargetIP() == up.router.IP.As4()
	})
	up.send(t, packettest.ARPReply(up.router, up.us))
	receives(t, up.far, "SYN", tcpBetween("192.0.2.10:40000", "198.51.100.7:80"))
	from := packettest.Station{MAC: up.router.MAC, IP: host.IP}
	up.send(t, segment(from, up.us, 80, 40000, packet.TCPSyn|packet.TCPAck))
	receives(t, web.far, "answer", tcpBetween("198.51.100.7:80", "172.17.0.2:40000"))
	// In, from outside and from inside; and what is refused.
	up.send(t, segment(from, up.us, 5000, 8080, packet.TCPSyn))
	receives(t, web.far, "published", tcpBetween("198.51.100.7:5000", "172.17.0.2:80"))
	own := packettest.Station{MAC: h.lans[0].net.GatewayMAC(), IP: up.us.IP}
	db.send(t, segment(db.Station, own, 6000, 8080, packet.TCPSyn))
	receives(t, web.far, "hairpin", tcpBetween("192.0.2.10:6000", "172.17.0.2:80"))
	up.send(t, segment(from, up.us, 5000, 22, packet.TCPSyn))
	receives(t, up.far, "reset", tcpBetween("192.0.2.10:22", "198.51.100.7:5000"))
	stranger := packettest.Station{MAC: packet.MAC{2, 9, 9, 9, 9, 9}, IP: web.IP}
	web.send(t, packettest.ICMPEcho(stranger, db.Station, 1, 1, nil))
	web.settled(t, 3)

	kinds := map[string]api.NATRule{}
	var order []string
	for _, r := range get[[]api.NATRule](t, h, "/v1/nat") {
		kinds[r.Kind] = r
		order = append(order, r.Kind)
		if r.Network != "default" || r.Source == "" || r.Destination == "" || r.Proto == "" {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Equal(order, []string{"publish", "hairpin", "none", "masquerade"}) {
		t.Errorf("rules in the order %q", order)
	}
	if r := kinds["masquerade"]; r.Number == 0 || r.Source != "172.17.0.0/16" || r.Destination != "0.0.0.0/0" || r.Out != "up0" || r.To != "192.0.2.10" ||
		r.Flows != 1 || r.Packets != 2 || r.Bytes == 0 || r.Mappings != 2 { // the hairpin has one, too
		t.Errorf("masquerade %+v", r)
	}
	if r := kinds["publish"]; r.Number == 0 || r.Proto != "tcp" || r.Destination != "0.0.0.0/0" || r.Port != 8080 || r.To != "172.17.0.2" || r.ToPort != 80 ||
		r.Container != "web" || r.Flows != 2 || r.Packets != 2 {
		t.Errorf("publish %+v", r)
	}
	if r := kinds["hairpin"]; r.Number != 0 || r.Flows != 1 || r.Packets != 1 {
		t.Errorf("hairpin %+v", r)
	}

	flows := map[string]api.Flow{}
	for _, f := range get[[]api.Flow](t, h, "/v1/flows") {
		flows[f.Kind] = f
	}
	if f := flows["masquerade"]; f.Proto != "tcp" || f.State != "SYN_RECV" || f.TTL < 200 || f.TTL > 300 || f.Rule != kinds["masquerade"].Number || f.Network != "default" ||
		f.Uplink != "up0" || f.Container != "web" || f.Unreplied || f.Assured || f.Original.Source != "172.17.0.2" || f.Original.SourcePort != 40000 ||
		f.Reply.Destination != "192.0.2.10" || f.Reply.Packets != 1 || f.Original.Packets != 1 {
		t.Errorf("masquerade %+v", f)
	}
	if f := flows["publish"]; f.State != "SYN_SENT" || !f.Unreplied || f.Container != "web" || f.Network != "default" || f.Uplink != "up0" || f.Reply.Source != "172.17.0.2" {
		t.Errorf("publish %+v", f)
	}
	if f := flows["hairpin"]; f.Container != "db" || f.Network != "default" || f.Uplink != "" {
		t.Errorf("hairpin %+v", f)
	}

	counted := map[string]api.FilterRule{}
	for _, r := range get[[]api.FilterRule](t, h, "/v1/rules") {
		counted[strings.Join([]string{r.Chain, r.Target, r.In, r.Out, r.Reason + r.Match}, " ")] = r
	}
	for key, packets := range map[string]uint64{
		"guard drop web  spoofed-macsource MAC is not 02:42:ac:11:00:02": 1,
		"guard drop db  spoofed-macsource MAC is not 02:42:ac:11:00:03":  0,
		"admit accept default  everything else":                          4,
		"forward accept default up0 both directions":                     2,
		"inbound accept up0 default established":                         2,
		"inbound accept  web publish":                                    2, // one of them by up0, one from inside
		"inbound reject up0  refusedeverything else":                     1,
	} {
		if r, ok := counted[key]; !ok || r.Packets != packets {
			t.Errorf("rule %q: %+v, want %d packets", key, r, packets)
		}
	}
	if list := get[[]api.Neighbour](t, h, "/v1/arp"); !slices.ContainsFunc(list, func(a api.Neighbour) bool {
		return a.Network == "up0" && a.IP == "192.0.2.1" && a.MAC == "52:54:00:00:00:01" && a.State == "REACHABLE" && a.Age < 60
	}) {
		t.Errorf("neighbours %+v", list)
	}
	if drops := get[[]api.Drop](t, h, "/v1/drops"); !slices.ContainsFunc(drops, func(d api.Drop) bool {
		return d.Network == "up0" && d.Reason == "refused" && d.Count == 1
	}) {
		t.Errorf("drops %+v", drops)
	}
	if check := get[api.Check](t, h, "/v1/check"); len(check.Violations) != 0 {
		t.Errorf("%+v", check)
	}

	// The trace of web has what came in for it, and what db sent to its port.
	lines := json.NewDecoder(resp.Body)
	var story bytes.Buffer
	for range 6 {
		var l api.TraceLine
		if err := lines.Decode(&l); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&story, "%s: %s\n%s\n", l.Network, l.Line, strings.Join(l.Walk, "\n"))
	}
	for _, want := range []string{
		"hold (next-hop); masquerade: 192.0.2.10:40000 > 198.51.100.7:80; asks who has 192.0.2.1 on up0",
		"unicast (routed); after waiting; masquerade: 192.0.2.10:40000 > 198.51.100.7:80",
		"not on-link: default via 192.0.2.1 dev up0",
		"5.7 uplink   leaves by up0, as 02:42:c0:00:02:0a",
		"up0 → web  198.51.100.7:80 > 192.0.2.10:40000 TCP SYN ACK  unicast (routed)",
		"on-link: 172.17.0.0/16 dev default",
		"up0 → web  198.51.100.7:5000 > 192.0.2.10:8080 TCP SYN  unicast (routed); publish: 198.51.100.7:5000 > 172.17.0.2:80",
		"db → web  172.17.0.3:6000 > 192.0.2.10:8080 TCP SYN  unicast (routed); hairpin: 192.0.2.10:6000 > 172.17.0.2:80",
		"drop (spoofed-mac)",
	} {
		if !strings.Contains(story.String(), want) {
			t.Errorf("the trace does not have %q:\n%s", want, story.String())
		}
	}
}

// What comes in by an uplink is counted for all its networks together, so it is
// shown as one network's only where it is.
func TestInboundOfMany(t *testing.T) {
	h := newHandlers(t)
	for _, c := range []struct{ name, want string }{{"alpha", "alpha"}, {"omega", ""}} {
		h.makeNetwork(t, api.NetworkCreate{Name: c.name})
		seen := 0
		for _, r := range get[[]api.FilterRule](t, h, "/v1/rules") {
			if r.Chain == "inbound" && r.Match == "established" {
				if seen++; r.Out != c.want {
					t.Errorf("with %s: to %q, want %q", c.name, r.Out, c.want)
				}
			}
		}
		if seen == 0 {
			t.Error("no such rule")
		}
	}
}
