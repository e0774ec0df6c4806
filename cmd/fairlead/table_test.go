package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
)

var (
	testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	testID  = strings.Repeat("0123456789abcdef", 4)
)

// golden compares what print prints with want; lines of want begin with "|".
func golden(t *testing.T, want string, print func(io.Writer) error) {
	t.Helper()
	var out bytes.Buffer
	if err := print(&out); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(want), "\n") {
		lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "|"))
	}
	// A backtick cannot stand between backticks.
	if text := strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "~", "`"); out.String() != text {
		t.Errorf("got\n%swant\n%s", out.String(), text)
	}
}

func TestPsTable(t *testing.T) {
	containers := []api.Container{
		{ID: testID, Name: "web", Command: []string{"fairlead", "probe", "http-server"}, Created: testNow.Add(-90 * time.Second), Status: "running", Network: "default", IP: "172.17.0.2",
			Ports: []string{"0.0.0.0:8080->80/tcp", "443/tcp"}},
		{ID: testID, Name: "db", Command: []string{"sh", "-c", "a\nb"}, Created: testNow, Status: "created", Network: "none"},
		{ID: testID, Name: "blue", Created: testNow.Add(-72 * time.Hour), Status: "running", Network: "default", IP: "172.17.0.3", Foreign: "pid:4711"},
	}
	golden(t, `
		|CONTAINER ID  COMMAND                 STATUS       NETWORK  IP          PORTS                          NAMES
		|0123456789ab  "fairlead probe http…"  Up 1 minute  default  172.17.0.2  0.0.0.0:8080->80/tcp, 443/tcp  web
		|0123456789ab  "sh -c a b"             Created      none     -           -                              db
		|0123456789ab  pid:4711                Up 3 days    default  172.17.0.3  -                              blue`,
		func(w io.Writer) error { return psTable(w, containers, false, testNow) })
	golden(t, `
		|CONTAINER ID                                                      COMMAND                       STATUS       NETWORK  IP          PORTS                          NAMES
		|0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  "fairlead probe http-server"  Up 1 minute  default  172.17.0.2  0.0.0.0:8080->80/tcp, 443/tcp  web`,
		func(w io.Writer) error { return psTable(w, containers[:1], true, testNow) })
}

func testSwitches() []api.Switch {
	return []api.Switch{{
		Network: "default", BridgeID: "8000.0242ac110001", LoopGuard: "no", Subnet: "172.17.0.0/16", Gateway: "172.17.0.1", MTU: 1500, Ageing: 300,
		Ports: []api.Port{{
			Port: 1, Container: "web", ID: testID, MAC: "02:42:ac:11:00:02", IP: "172.17.0.2", Kind: "tap", Interface: "eth0", Index: 2,
			Netns: 4026532252, Pid: 4711, Offload: "csum,tso4", Guard: true,
			Counts: api.Counts{Read: 3, ReadSegments: 45, ReadBytes: 65000, Unicast: 2, Flooded: 1, Held: 1, Split: 2, Written: 3, WrittenSegments: 3, WrittenBytes: 126, Joined: 2, JoinedBytes: 84, Paused: 5,
				Dropped: map[string]uint64{"spoofed-mac": 2, "no-route": 1}, Failed: map[string]uint64{"egress-full": 4}},
		}, {
			Port: 12, Container: "blue", ID: testID, MAC: "02:42:ac:11:00:03", Kind: "wire", Interface: "eth1", Offload: "none", Isolated: true,
			HostIface: "veth7",
		}},
	}, {Network: "empty", BridgeID: "8000.0242ac120001", LoopGuard: "no"}}
}

func TestSwitchTable(t *testing.T) {
	golden(t, `
		|network  bridge id          loop guard  port  container  in  out  dropped
		|default  8000.0242ac110001  no          1     web        3   3    7
		|                                        12    blue       0   0    0
		|empty    8000.0242ac120001  no`,
		func(w io.Writer) error { return switchTable(w, testSwitches()) })
}

func TestSwitchDetails(t *testing.T) {
	golden(t, `
		|default: bridge id 8000.0242ac110001, loop guard no
		|    subnet 172.17.0.0/16, gateway 172.17.0.1, mtu 1500, ageing 300 s, hub off
		|  port 1: web (0123456789ab), 172.17.0.2, 02:42:ac:11:00:02
		|    cable    tap: eth0, index 2, in network namespace 4026532252 of pid 4711
		|             no host interface: a TAP lives in the container only
		|    offload  csum,tso4
		|    guard    on, isolated no
		|    in       3 frames of 45 segments, 65.0 kB from the container: 2 unicast, 1 flooded, 0 to the gateway
		|             1 waited, 2 further fragments made
		|             not read for a while 5 times: more than its rate, or than its share of a worker's time (docs/limits.md)
		|    out      3 frames, 126 B to the container
		|             2 of them joined to the one before: one large frame there
		|    dropped  no-route 1, spoofed-mac 2
		|    failed   egress-full 4
		|  port 12: blue (0123456789ab), -, 02:42:ac:11:00:03
		|    cable    wire: eth1
		|             other end: veth7 on the host
		|    offload  none
		|    guard    off, isolated yes
		|    in       0 frames, 0 B from the container: 0 unicast, 0 flooded, 0 to the gateway
		|    out      0 frames, 0 B to the container`,
		func(w io.Writer) error { switchDetails(w, testSwitches()[:1]); return nil })
}

func TestMACTable(t *testing.T) {
	golden(t, `
		|network  port no  mac addr           vlan  is local?  ageing timer  container
		|default  0        02:42:ac:11:00:01  -     yes        0.00          (gateway)
		|default  2        02:42:ac:11:00:03  7     no         1.26          client`,
		func(w io.Writer) error {
			return macTable(w, []api.MAC{
				{Network: "default", MAC: "02:42:ac:11:00:01", Local: true},
				{Network: "default", VLAN: 7, MAC: "02:42:ac:11:00:03", Port: 2, Container: "client", Age: 1.256},
			})
		})
}

func TestARPTable(t *testing.T) {
	golden(t, `
		|Address     HWtype  HWaddress          State       Network  Port  Container  Age
		|172.17.0.3  ether   02:42:ac:11:00:03  REACHABLE   default  2     client     61 s
		|192.0.2.9   ether   (incomplete)       INCOMPLETE  up0      1     -          -`,
		func(w io.Writer) error {
			return arpTable(w, []api.Neighbour{
				{Network: "default", IP: "172.17.0.3", MAC: "02:42:ac:11:00:03", State: "REACHABLE", Port: 2, Container: "client", Age: 61},
				{Network: "up0", IP: "192.0.2.9", State: "INCOMPLETE", Port: 1},
			})
		})
}

func TestDropsTable(t *testing.T) {
	golden(t, "|nothing was dropped", func(w io.Writer) error { return dropsTable(w, nil, testNow) })
	golden(t, `
		|reason       network  port  container  way  count  last
		|spoofed-mac  default  2     client     in   13     5 seconds ago
		|egress-gone  default  1     -          out  1      1 hour ago
		|
		|egress-gone: It was removed, and this sentence is so long that it goes on on
		|another line.
		|
		|spoofed-mac: The source is not its own.
		|    Use --mac, or make a network without a guard, with this command:
		|    ~fairlead network create --opt guard=off NAME~.`,
		func(w io.Writer) error {
			return dropsTable(w, []api.Drop{
				{Network: "default", Port: 2, Container: "client", Reason: "spoofed-mac", Direction: "in", Count: 13,
					Last: testNow.Add(-5 * time.Second), Why: "The source is not its own.", Try: "Use --mac, or make a network without a guard, with this command: `fairlead network create --opt guard=off NAME`."},
				{Network: "default", Port: 1, Reason: "egress-gone", Direction: "out", Count: 1,
					Last: testNow.Add(-time.Hour), Why: "It was removed, and this sentence is so long that it goes on on another line."},
			}, testNow)
		})
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 second", 1999 * time.Millisecond: "1 second", 59 * time.Second: "59 seconds", time.Minute: "1 minute",
		59*time.Minute + 59*time.Second: "59 minutes", time.Hour: "1 hour", 47 * time.Hour: "47 hours", 48 * time.Hour: "2 days",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v ago is %q, want %q", d, got, want)
		}
	}
}

func TestInspectFormat(t *testing.T) {
	c := &api.Inspect{ID: testID, Name: "/web", Config: api.InspectConfig{Cmd: []string{"sh", "-c"}}, State: api.InspectState{Pid: 4194304}}
	c.NetworkSettings.IPAddress = "172.17.0.2"
	c.NetworkSettings.Networks = map[string]api.InspectNetwork{"default": {Gateway: "172.17.0.1"}}
	for format, want := range map[string]string{
		"{{.NetworkSettings.IPAddress}}":                             "172.17.0.2",
		"{{json .NetworkSettings.IPAddress}}":                        `"172.17.0.2"`,
		"{{.State.Pid}} {{json .State.Pid}}":                         "4194304 4194304",
		"{{.Id}}":                                                    testID,
		"{{.ID}}":                                                    testID,
		"{{.NetworkSettings.Networks.default.Gateway}}":              "172.17.0.1",
		`{{join .Config.Cmd " "}} {{upper "a"}}`:                     "sh -c A",
		"{{range $n, $v := .NetworkSettings.Networks}}{{$n}}{{end}}": "default",
		`{{index (split .Name "/") 1}}`:                              "web",
	} {
		tmpl, err := parseFormat("inspect", format)
		var out bytes.Buffer
		if err == nil {
			err = printFormat(&out, tmpl, c)
		}
		if err != nil || out.String() != want+"\n" {
			t.Errorf("%s: %q, %v; want %q", format, &out, err, want)
		}
	}
	for _, format := range []string{"{{.Name", "{{nosuch .Name}}", "{{.Colour}}", "{{.State.Colour}}"} {
		tmpl, err := parseFormat("inspect", format)
		if err == nil {
			err = printFormat(io.Discard, tmpl, c)
		}
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestTracePrint(t *testing.T) {
	var stream bytes.Buffer
	for i := range 3 {
		_ = json.NewEncoder(&stream).Encode(api.TraceLine{Line: fmt.Sprintf("line %d", i), Walk: []string{"1 parse", "6 emit"}, Lost: uint64(i / 2)})
	}
	for _, test := range []struct {
		o    traceOptions
		want string
	}{
		{traceOptions{}, "line 0\nline 1\nline 2\n"},
		{traceOptions{count: 1}, "line 0\n"},
		{traceOptions{count: 1, grep: "2"}, "line 2\n"},
		{traceOptions{count: 1, words: true}, "line 0\n    1 parse\n    6 emit\n"},
	} {
		var out, stderr bytes.Buffer
		if err := test.o.print(&out, &stderr, bytes.NewReader(stream.Bytes())); err != nil || out.String() != test.want {
			t.Errorf("%+v: %q, %v; want %q", test.o, &out, err, test.want)
		}
		if lost := strings.Contains(stderr.String(), "1 packets"); lost != strings.Contains(test.want, "line 2") {
			t.Errorf("%+v: %q", test.o, &stderr)
		}
	}
	var out bytes.Buffer
	if err := (&traceOptions{json: true}).print(&out, io.Discard, bytes.NewReader(stream.Bytes())); err != nil || out.String() != stream.String() {
		t.Errorf("as JSON: %q, %v", &out, err)
	}
	if err := (&traceOptions{}).print(io.Discard, io.Discard, strings.NewReader("nonsense\n")); err == nil {
		t.Error("nonsense was taken for a trace")
	}
}

func TestDrawFrame(t *testing.T) {
	var out bytes.Buffer
	_ = drawFrame(&out, []byte("a\nb\n"), true, asTable)
	if want := "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"; out.String() != want {
		t.Errorf("on a terminal %q, want %q", out.String(), want)
	}
	out.Reset()
	_ = drawFrame(&out, []byte("[\n  1\n]\n"), false, asJSON)
	if out.String() != "[1]\n" {
		t.Errorf("as JSON %q", out.String())
	}
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	shown := 0
	err := watch(ctx, &out, time.Millisecond, asJSON, func(_ context.Context, w io.Writer, _ layout) error {
		if shown++; shown == 3 {
			cancel()
		}
		_, err := fmt.Fprintln(w, shown)
		return err
	})
	if err != nil || out.String() != "1\n2\n3\n" {
		t.Errorf("%q, %v", &out, err)
	}
}
