package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/packet"
)

// FuzzAdopt: whatever containers are said to have been there, each by itself as a node
// might have written it down, those that come back share nothing that is one's own, every
// request about them is answered, and when they have ended nothing of them is left.
func FuzzAdopt(f *testing.F) {
	for seed := range uint64(20) {
		r, text := rand.New(rand.NewPCG(seed, 0)), make([]byte, 400)
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h := newHandlers(t)
		h.makeNetwork(t, api.NetworkCreate{Name: "lab", Subnet: "10.55.0.0/24"})
		d := dice(text)
		var back []*comeback
		for range 1 + d.of(8) {
			r, err := parseRecord(encode(t, d.record(h)))
			if err != nil {
				continue
			}
			b := &comeback{record: r}
			if !r.Ended {
				b.hold = &hold{pidfd: -1, links: map[string]int{}}
			}
			back = append(back, b)
		}
		h.adopt(back)
		h.judgeRegistry(t)
		h.askAll(t)
		h.judgeRegistry(t)
		for _, c := range h.list() {
			h.end(c)
		}
		h.judgeEmpty(t)
	})
}

// dice are bytes by which something is chosen; when they are used up it is the first.
type dice []byte

func (d *dice) of(n int) int {
	if len(*d) == 0 {
		return 0
	}
	b := (*d)[0]
	*d = (*d)[1:]
	return int(b) % n
}

// pick chooses one of words. The odd ones, which come behind, come seldom.
func pick[T any](d *dice, odd int, words ...T) T {
	if usual := len(words) - odd; d.of(32) > 0 {
		return words[d.of(usual)]
	}
	return words[d.of(len(words))]
}

// id is one of few.
func (d *dice) id() string { return strings.Repeat(string(rune('a'+d.of(6))), 64) }

// record is a container's. There are few names, numbers and addresses, so that several
// claim the same.
func (d *dice) record(h *handlers) *record {
	r := &record{
		Version: recordVersion, ID: d.id(), Name: fmt.Sprint("c", d.of(6)), Number: packet.ContainerID(1<<16 | 1 + d.of(6)),
		Created: time.Unix(int64(d.of(4)), 0), Started: time.Unix(1, 0), Ended: d.of(6) == 0,
		Mode:     pick(d, 1, modeBridge, modeBridge, modeBridge, modeShared, modeForeign, modeNone, modeHost, "odd"),
		Hostname: pick(d, 1, "host", "a\nb"), RateIn: pick(d, 2, "", "1mbit", "-1", "99999999999gbit"), RateOut: pick(d, 1, "", "x"),
		Network: pick(d, 0, "default", "lab", "none"), Route: d.id(),
	}
	if d.of(16) == 0 {
		r.HostLines = slices.Repeat([]string{"10.55.0.2\thost\n"}, 1000*d.of(10))
	}
	q := &r.Request
	switch r.Mode {
	case modeShared:
		r.Share = pick(d, 0, strings.Repeat("a", 64), d.id())
	case modeForeign:
		q.Foreign = pick(d, 1, "pid:1", "if:eth9", "veth:x", "")
	case modeBridge:
		q.Publish, q.Expose = pick(d, 1, nil, []string{"8080:80"}, []string{"x"}), pick(d, 0, nil, []string{"1-100"})
		for range d.of(4) {
			r.Ports = append(r.Ports, savedPort{
				Proto: pick(d, 1, "tcp", "udp", "sctp"), HostPort: pick[uint16](d, 1, 8080, 8081, 0), Port: pick[uint16](d, 1, 80, 81, 0),
				HostIP: pick(d, 1, netip.Addr{}, netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1")),
			})
		}
	default:
		if d.of(16) > 0 {
			return r
		}
	}
	plug, _, _ := strings.Cut(q.Foreign, ":")
	for range d.of(2) {
		r.Addresses = append(r.Addresses, savedAddress{netip.AddrFrom4([4]byte{192, 0, 2, byte(d.of(3))}), d.id()})
	}
	for i := range d.of(len(h.lans) + 1) {
		r.Places = append(r.Places, d.place(h, i, strings.TrimPrefix(plug, "pid")))
	}
	return r
}

// place is one on a network, the i-th of a container's.
func (d *dice) place(h *handlers, i int, plug string) savedPlace {
	k := (i + pick(d, 1, 0, 1)) % len(h.lans)
	l := h.lans[k]
	at := l.net.Config().Gateway
	four := at.Addr().As4()
	four[3] = byte(2 + d.of(4))
	p := savedPlace{
		ID: d.id()[1:] + fmt.Sprint(i), Network: pick(d, 2, l.id, "", strings.Repeat("0", 64)), Plug: pick(d, 1, plug, "if"),
		Interface: pick(d, 3, fmt.Sprint("eth", i), "eth0", "../../x", ""), VLANs: pick(d, 1, "", "vlan=7", "x"), Index: pick(d, 1, 0, 2, -1), Unsettled: d.of(6) == 0,
		Links: pick(d, 3, nil, []string{fmt.Sprintf("c%d:x", d.of(6))}, []string{"a b"}, []string{":"}, []string{"c0"}), Isolated: d.of(4) == 0,
		Asked: api.EndpointRequest{Network: l.name, Aliases: pick(d, 1, nil, []string{"b\nc"}), Routes: pick(d, 1, nil, []string{"x"})},
	}
	if plug == "" {
		p.Addr = pick(d, 3, netip.PrefixFrom(netip.AddrFrom4(four), at.Bits()), at, netip.Prefix{}, netip.MustParsePrefix("fd00::1/64"))
		p.MAC = pick(d, 4, packet.MAC{2, 0, 0, 0, byte(k), byte(d.of(4))}.String(), l.net.GatewayMAC().String(), "", "01:00:00:00:00:01", "x")
		p.Asked.DHCP = d.of(8) == 0
	}
	p.Statics = pick(d, 0, nil, []static{{MAC: packet.MAC{2, 9}}})
	return p
}

// askAll asks all there is to ask, and changes what may be changed. There are answers, no
// more is said of them.
func (h *handlers) askAll(t *testing.T) {
	t.Helper()
	for _, path := range []string{"containers", "uplinks", "networks", "networks/lab", "switches", "macs", "arp", "drops", "leases", "nat", "flows", "rules", "routes", "names"} {
		if code, text := h.call("GET", "/v1/"+path, ""); code != 200 {
			t.Errorf("GET %s: %d %s", path, code, text)
		}
	}
	if code, text := h.call("GET", "/v1/check", ""); code != 200 || text != `{"violations":[]}` {
		t.Errorf("check: %d %s", code, text)
	}
	for _, c := range h.list() {
		for _, path := range []string{"", "/ports"} {
			if code, text := h.call("GET", "/v1/containers/"+c.id+path, ""); code != 200 {
				t.Errorf("GET a container%s: %d %s", path, code, text)
			}
		}
		for _, change := range [][2]string{
			{"containers/" + c.id + "/ports", `{"publish":["8082:82"]}`},
			{"containers/" + c.id + "/update", `{"rate_in":"2mbit"}`},
			{"containers/" + c.id + "/rename", `{"name":"other"}`},
			{"networks/lab/connect", `{"container":"` + c.id + `"}`},
			{"networks/lab/disconnect", `{"container":"` + c.id + `"}`},
		} {
			if code, text := h.call("POST", "/v1/"+change[0], change[1]); code != 200 && (code < 400 || !strings.HasPrefix(text, `{"error":`)) {
				t.Errorf("POST %s: %d %s", change[0], code, text)
			}
		}
	}
}

// judgeRegistry wants each number, name, address, MAC and published port to be one
// container's, and the tables to have no others.
func (h *handlers) judgeRegistry(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[*container]bool{}
	ports, further := 0, 0
	for id, c := range h.containers {
		if c.id != id || h.named[c.name()] != c {
			t.Errorf("%s is entered as %s, and its name leads to %v", c.id, id, h.named[c.name()])
		}
		if (c.mode == modeShared) != (c.share != nil) || c.share != nil && c.share.share != nil {
			t.Errorf("%s of mode %s lives with %v", c.name(), c.mode, c.share)
		}
		all[c], all[c.holder()] = true, true
		for i, p := range c.published {
			ports++
			if other := h.ports.holder(p); other != c {
				t.Errorf("%s of %s is held by %v", p.bind(), c.name(), other)
			}
			for _, o := range c.published[:i] {
				if o.proto == p.proto && o.hostPort == p.hostPort && overlap(o.hostIP, p.hostIP) {
					t.Errorf("%s has %s twice", c.name(), p.bind())
				}
			}
		}
	}
	if len(h.named) != len(h.containers) || h.ports.count != ports {
		t.Errorf("%d containers have %d names; they have %d ports, and %d are taken", len(h.containers), len(h.named), ports, h.ports.count)
	}
	numbers, macs := map[packet.ContainerID]bool{}, map[*lan]map[packet.MAC]bool{}
	addrs, own := map[*lan]map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, l := range h.lans {
		macs[l], addrs[l] = map[packet.MAC]bool{}, map[netip.Addr]bool{}
	}
	for c := range all {
		if c.ending && len(c.attachments) == 0 {
			continue // its number may be another's by now
		}
		if numbers[c.number] || !h.ids.used[c.number&0xffff] {
			t.Errorf("%s has number %d, which is another's or nobody's", c.name(), c.number)
		}
		numbers[c.number] = true
		further += max(0, len(c.attachments)-1)
		for _, o := range c.addresses {
			if own[o.Addr] {
				t.Errorf("%s is somebody's own twice", o.Addr)
			}
			own[o.Addr] = true
		}
		places, names := map[*lan]bool{}, map[string]bool{}
		for _, a := range c.attachments {
			if places[a.lan] || names[a.iface] || a.opts.plug == "" && !validInterface(a.iface) {
				t.Errorf("%s is on %s twice, or has %q twice, or that is no name", c.name(), a.lan.name, a.iface)
			}
			places[a.lan], names[a.iface] = true, true
			if a.addr.IsValid() && addrs[a.lan][a.addr.Addr()] || !a.mac.IsZero() && (macs[a.lan][a.mac] || a.lan.macs[a.mac] != c) {
				t.Errorf("%s has %s, %s, which is another's", c.name(), a.addr, a.mac)
			}
			if (a.opts.plug == "") != a.addr.IsValid() || a.addr.IsValid() == a.mac.IsZero() {
				t.Errorf("%s has %s, %s and a plug %q", c.name(), a.addr, a.mac, a.opts.plug)
			}
			addrs[a.lan][a.addr.Addr()], macs[a.lan][a.mac] = true, true
		}
	}
	if h.further != further {
		t.Errorf("%d attachments beyond the first, and %d are counted", further, h.further)
	}
}

// judgeEmpty wants nothing to be left of any container.
func (h *handlers) judgeEmpty(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.containers)+len(h.named)+len(h.linked)+h.further+h.ports.count+len(h.ports.taken)+h.listening > 0 {
		t.Fatalf("left are %d containers, %d names, %d links, %d attachments, %d and %d ports, %d sockets",
			len(h.containers), len(h.named), len(h.linked), h.further, h.ports.count, len(h.ports.taken), h.listening)
	}
	if i := slices.Index(h.ids.used, true); i >= 0 {
		t.Fatalf("number %d is left", i)
	}
	h.router.Flows(func(table *nat.Table) {
		for r := range table.Rules {
			if r.Container != 0 {
				t.Fatalf("rule %+v is left", r)
			}
		}
	})
	for _, l := range h.lans {
		if len(l.macs) > 0 || len(l.net.Switch().Ports()) > 0 {
			t.Fatalf("on network %s are left %v", l.name, l.macs)
		}
		four := l.net.Config().Gateway.Addr().As4()
		for last := range byte(4) {
			four[3] = 2 + last
			at, err := l.net.Reserve(netip.AddrFrom4(four))
			if err != nil {
				t.Fatalf("left is %v", err)
			}
			l.net.Release(at.Addr())
		}
	}
}
