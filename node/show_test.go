package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// get decodes the answer to a GET.
func get[T any](t *testing.T, h *handlers, path string) (v T) {
	t.Helper()
	code, text := h.call("GET", path, "")
	if code != 200 {
		t.Fatalf("GET %s: %d %s", path, code, text)
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("GET %s: %v\n%s", path, err, text)
	}
	return v
}

// settled waits until so many frames have been read on a port.
func (m *member) settled(t *testing.T, frames uint64) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		if c := m.attachments[0].endpoint.port.Counts(); c.Read != frames {
			return fmt.Errorf("%d frames read, want %d", c.Read, frames)
		}
		return nil
	})
}

func TestTables(t *testing.T) {
	h := newHandlers(t)
	// An empty table is an empty list, not null.
	for _, path := range []string{"/v1/arp", "/v1/drops", "/v1/containers"} {
		if code, text := h.call("GET", path, ""); code != 200 || text != "[]" {
			t.Errorf("GET %s: %d %s", path, code, text)
		}
	}
	if s := get[[]api.Switch](t, h, "/v1/switches"); len(s) != 1 || s[0].Network != "default" || s[0].BridgeID != "8000.0242ac110001" ||
		s[0].Subnet != "172.17.0.0/16" || s[0].Ageing != 300 || s[0].LoopGuard == "" {
		t.Errorf("%+v", s)
	}

	web, db := h.join(t, "web"), h.join(t, "db")
	gw := packettest.Station{MAC: h.networks()[0].GatewayMAC(), IP: h.networks()[0].Config().Gateway.Addr()}
	web.send(t, packettest.ARPRequest(web.Station, gw.IP))
	db.send(t, packettest.ICMPEcho(db.Station, web.Station, 1, 1, nil))
	stranger := packettest.Station{MAC: packet.MAC{2, 9, 9, 9, 9, 9}, IP: web.IP}
	web.send(t, packettest.ICMPEcho(stranger, db.Station, 1, 1, nil), packettest.ICMPEcho(stranger, db.Station, 1, 2, nil))
	web.settled(t, 3)
	db.settled(t, 1)

	s := get[[]api.Switch](t, h, "/v1/switches")[0]
	if len(s.Ports) != 2 {
		t.Fatalf("%+v", s.Ports)
	}
	p := s.Ports[0]
	if p.Port != 1 || p.Container != "web" || p.ID != web.id || p.MAC != web.MAC.String() || p.IP != "172.17.0.2" || p.Kind != "tap" ||
		p.Interface != "eth0" || !p.Guard || p.Isolated || p.HostIface != "" {
		t.Errorf("%+v", p)
	}
	if c := p.Counts; c.Read != 3 || c.Flooded != 1 || c.Fanout != 1 || c.Originated != 1 || c.Dropped["spoofed-mac"] != 2 || len(c.Failed) != 0 {
		t.Errorf("%+v", c)
	}
	if c := s.Totals; c.Read != 4 || c.Written != 3 || c.Dropped["spoofed-mac"] != 2 {
		t.Errorf("%+v", c)
	}

	macs := get[[]api.MAC](t, h, "/v1/macs")
	if len(macs) != 3 || !macs[0].Local || macs[0].MAC != gw.MAC.String() || macs[0].Port != 0 {
		t.Errorf("%+v", macs)
	}
	learned := map[string]string{}
	for _, m := range macs[1:] {
		learned[m.MAC] = fmt.Sprint(m.Port, m.Container, m.Local)
	}
	if learned[web.MAC.String()] != "1webfalse" || learned[db.MAC.String()] != "2dbfalse" {
		t.Errorf("%v", learned)
	}
	if arp := get[[]api.Neighbour](t, h, "/v1/arp"); len(arp) != 2 || arp[1].Container != "db" || arp[0].IP != "172.17.0.2" || arp[0].MAC != web.MAC.String() ||
		arp[0].Port != 1 || arp[0].Container != "web" || arp[0].Age < 0 || arp[0].Age > 60 {
		t.Errorf("%+v", arp)
	}
	drops := get[[]api.Drop](t, h, "/v1/drops")
	if len(drops) != 1 || drops[0].Reason != "spoofed-mac" || drops[0].Count != 2 || drops[0].Container != "web" || drops[0].Direction != "in" ||
		drops[0].Why == "" || drops[0].Try == "" || time.Since(drops[0].Last) > time.Minute || time.Until(drops[0].Last) > time.Second {
		t.Errorf("%+v", drops)
	}
	if check := get[api.Check](t, h, "/v1/check"); check.Violations == nil || len(check.Violations) != 0 {
		t.Errorf("%+v", check)
	}

	if code, text := h.call("DELETE", "/v1/macs?network=default", ""); code != 200 || text != `{"macs":2}` {
		t.Errorf("flushed: %d %s", code, text)
	}
	if code, text := h.call("DELETE", "/v1/macs?network=backend", ""); code != 404 || !strings.Contains(text, "network backend not found") {
		t.Errorf("flushed: %d %s", code, text)
	}

	// Who leaves takes his port, and not what was counted on it.
	h.end(web.container)
	lab.Eventually(t, 10*time.Second, func() error {
		if d := get[[]api.Drop](t, h, "/v1/drops"); len(d) != 1 || d[0].Container != "(gone)" || d[0].Count != 2 {
			return fmt.Errorf("drops %+v", d)
		}
		return nil
	})
	if s := get[[]api.Switch](t, h, "/v1/switches")[0]; len(s.Ports) != 1 || s.Totals.Read != 4 {
		t.Errorf("%+v", s)
	}
	if arp := get[[]api.Neighbour](t, h, "/v1/arp"); len(arp) != 1 || arp[0].Container != "db" {
		t.Errorf("%+v", arp)
	}
	if check := get[api.Check](t, h, "/v1/check"); len(check.Violations) != 0 {
		t.Errorf("%+v", check)
	}
	h.end(db.container)
}

// A slowEnd is one whose first write of somebody's frames takes until it may go on.
type slowEnd struct {
	*link.Mem
	from          packet.MAC
	entered, goOn chan struct{}
	once          *sync.Once
}

func (e slowEnd) WriteBatch(frames []*packet.Frame) (int, error) {
	if packet.Ethernet(frames[0].Ether()).Src() == e.from {
		e.once.Do(func() {
			close(e.entered)
			<-e.goOn
		})
	}
	return e.Mem.WriteBatch(frames)
}

// TestCheckInMidTurn: in the middle of a turn counters do not add up, and whoever asks
// for the check does not see that. Who has had traffic stand lets it go on for a while, whether
// he has looked or not.
func TestCheckInMidTurn(t *testing.T) {
	h := newHandlers(t)
	web := h.join(t, "web")
	c, err := h.create(api.CreateRequest{Name: "db", Command: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	near, far := link.NewPair(packet.BatchFrames)
	end := slowEnd{near, web.MAC, make(chan struct{}), make(chan struct{}), new(sync.Once)}
	db := h.plugIn(t, c, end, far)
	db.send(t, packettest.ICMPEcho(db.Station, web.Station, 1, 1, nil)) // from now on it is known
	db.settled(t, 1)
	web.send(t, packettest.ICMPEcho(web.Station, db.Station, 1, 1, nil))
	<-end.entered
	if list := violations(h.segments(), h.theRouter()); len(list) == 0 {
		t.Error("counters agree in the middle of a turn")
	}
	h.handTimes.still = time.Millisecond
	_, err = h.violationsAtRest(false)
	refused(t, err, "the counters are read while traffic stands, and it cannot be stopped: 1 of 1 workers have not come to rest within 1ms; `fairlead show switch` says (slow) behind a container whose firewall takes long; try again")
	h.checked.stood = time.Hour
	if _, err = h.violationsAtRest(false); err == nil || !strings.Contains(err.Error(), "traffic stands, which it has done for 1h0m0s just now; try again in ") {
		t.Errorf("a moment later: %v", err)
	}
	h.checked, h.handTimes.still = setback{}, time.Hour
	checked := make(chan []string)
	go func() {
		list, err := h.violationsAtRest(false)
		if err != nil {
			t.Error(err)
		}
		checked <- list
	}()
	select {
	case list := <-checked:
		t.Errorf("looked in the middle of a turn: %v", list)
	case <-time.After(10 * time.Millisecond):
	}
	close(end.goOn)
	if list := <-checked; len(list) != 0 || h.checked.stood == 0 {
		t.Errorf("%v, %+v", list, h.checked)
	}
	h.end(web.container)
	h.end(db.container)
}

// TestCheckBesideTraffic: the check holds also while frames come as fast as they can,
// ports come and go, and several ask.
func TestCheckBesideTraffic(t *testing.T) {
	h := newHandlers(t)
	web, db := h.join(t, "web"), h.join(t, "db")
	frame := []*packet.Frame{{B: packettest.ICMPEcho(web.Station, db.Station, 1, 1, nil)}}
	var sender, askers sync.WaitGroup
	var done atomic.Bool
	sender.Go(func() {
		for !done.Load() {
			_, _ = web.far.WriteBatch(frame) // where there is no room, the next one
		}
	})
	for range 2 {
		askers.Go(func() {
			for range 25 {
				code, text := h.call("GET", "/v1/check", "")
				for code == http.StatusConflict { // traffic stood for long: the worker had no processor
					time.Sleep(10 * time.Millisecond)
					code, text = h.call("GET", "/v1/check", "")
				}
				if code != 200 || text != `{"violations":[]}` {
					t.Errorf("%d %s", code, text)
				}
			}
		})
	}
	for i := range 20 {
		h.end(h.join(t, fmt.Sprintf("guest%d", i)).container)
	}
	askers.Wait()
	done.Store(true)
	sender.Wait()
	h.end(web.container)
	h.end(db.container)
}

func TestOpenAPIIsServed(t *testing.T) {
	h := newHandlers(t)
	d := get[map[string]any](t, h, "/v1/openapi.json")
	if paths, _ := d["paths"].(map[string]any); paths["/v1/containers/{id}/attach"] == nil {
		t.Errorf("%v", d)
	}
}

// TestErrorStatus: an error that says its status is answered with it, however
// it is wrapped, and any other is ours.
func TestErrorStatus(t *testing.T) {
	var s statusError
	if !errors.As(fmt.Errorf("wrapped: %w", fail(409, "taken by %w", errors.ErrUnsupported)), &s) || s.status != 409 || !errors.Is(s, errors.ErrUnsupported) {
		t.Errorf("%+v", s)
	}
}
