package node

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// What is written down of a container is read as it was.
func TestRecordIsReadAgain(t *testing.T) {
	h := newHandlers(t)
	web := h.join(t, "web")
	h.mu.Lock()
	err := h.noteLocked(web.container)
	h.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.home.readRecords()
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	h.mu.Lock()
	want := web.recordLocked()
	h.mu.Unlock()
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(list[0])
	if string(a) != string(b) {
		t.Errorf("written was\n%s\nand read is\n%s", a, b)
	}
}

func TestRecordIsRefused(t *testing.T) {
	id := strings.Repeat("ab", 32)
	good := record{
		Version: recordVersion, ID: id, Name: "web", Mode: modeBridge, Number: 1<<16 | 1, Started: time.Unix(1, 0),
		Places: []savedPlace{{ID: id, Network: id, Addr: netip.MustParsePrefix("172.17.0.2/16"), MAC: "02:42:ac:11:00:02", Interface: "eth0"}},
		Ports:  []savedPort{{Proto: "tcp", HostPort: 8080, Port: 80}},
	}
	place := func(change func(p *savedPlace)) func(r *record) {
		return func(r *record) {
			r.Places = slices.Clone(r.Places)
			change(&r.Places[0])
		}
	}
	if _, err := parseRecord(encode(t, good)); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(r *record){
		"it has version 0":                                    func(r *record) { r.Version = 0 },
		`"../x" is no id`:                                     func(r *record) { r.ID = "../x" },
		`"a/b" is no name`:                                    func(r *record) { r.Name = "a/b" },
		"it contradicts itself":                               func(r *record) { r.Mode = modeShared },
		`"odd" is no mode`:                                    func(r *record) { r.Mode = "odd" },
		`"a\nb" is no hostname`:                               func(r *record) { r.Hostname = "a\nb" },
		"it has places or ports, and is of mode none":         func(r *record) { r.Mode = modeNone },
		"its places: it has one twice":                        func(r *record) { r.Places = slices.Repeat(r.Places, 2) },
		`its places: "x" is no id`:                            place(func(p *savedPlace) { p.ID = "x" }),
		`its places: "" is no MAC of a station`:               place(func(p *savedPlace) { p.MAC = "" }),
		`its places: "fd00::1/64" is no address of a station`: place(func(p *savedPlace) { p.Addr = netip.MustParsePrefix("fd00::1/64") }),
		`its places: "../x" is no name of an interface`:       place(func(p *savedPlace) { p.Interface = "../x" }),
		"its places: it contradicts itself":                   place(func(p *savedPlace) { p.Plug = "if" }),
		`its places: bad format for links: :; --link takes NAME or NAME:ALIAS, such as web1:db`: place(func(p *savedPlace) { p.Links = []string{":"} }),
		`it has a port 80 of "sctp", published as 8080`:                                         func(r *record) { r.Ports = []savedPort{{Proto: "sctp", HostPort: 8080, Port: 80}} },
		"it has more places or ports than a container can have":                                 func(r *record) { r.Places = make([]savedPlace, maxAttachments+1) },
	} {
		r := good
		change(&r)
		_, err := parseRecord(encode(t, r))
		refused(t, err, want)
	}
	later := good
	later.Version++
	for _, text := range []string{string(encode(t, later)), `{"version":2,"name":{"of":"another kind"}}`} {
		if _, err := parseRecord([]byte(text)); !errors.Is(err, errLater) {
			t.Errorf("one of a later version: %v", err)
		}
	}
}

// One of a later version keeps a node from starting, else its container would be lost;
// but not once the machine was started anew, for then it is.
func TestRecordOfLaterVersion(t *testing.T) {
	lab.NoLeaks(t)
	dir := shortDir(t)
	id := strings.Repeat("ab", 32)
	if err := errors.Join(api.MakeDir(dir), os.MkdirAll(filepath.Join(dir, "containers", id), 0o700)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, recordPath(id))
	if err := os.WriteFile(file, []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, Serve(t.Context(), Config{Dir: dir}), file+": "+errLater.Error())
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	left := running{Version: recordVersion + 1, world: thisWorld()}
	left.Boot += "0"
	if err := os.WriteFile(filepath.Join(dir, runningFile), encode(t, left), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, func(c *Config) { c.Dir = dir })
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record is there after the machine was started anew: %v", err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What another world's node has left is refused, what was left before the machine
// was started anew is forgotten, and nothing of it is lost by being refused.
func TestRunningOfAnotherWorld(t *testing.T) {
	lab.NoLeaks(t)
	dir := shortDir(t)
	if err := api.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	write := func(change func(r *running)) string {
		r := running{Version: recordVersion, world: thisWorld(), Stays: true}
		change(&r)
		path := filepath.Join(dir, runningFile)
		if err := os.WriteFile(path, encode(t, r), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for want, change := range map[string]func(r *running){
		"the node in " + dir + " was one of another user, process or network namespace, and its containers wait for another there: start it there, or set FAIRLEAD_DIR to another directory here": func(r *running) { r.PID += "0" },
		filepath.Join(dir, runningFile) + ": " + errLater.Error(): func(r *running) { r.Version++ },
	} {
		path := write(change)
		refused(t, Serve(t.Context(), Config{Dir: dir}), want)
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	write(func(r *running) { r.Boot += "0" })
	h, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.leave(nodeLock, runningFile)
	if r, err := h.readRunning(); err != nil || r != nil {
		t.Errorf("what was left in another boot: %v, %v", r, err)
	}
}

// A record is a file anybody may have written: whatever is in it, it is refused or
// it is written as it was read.
func FuzzRecord(f *testing.F) {
	id := strings.Repeat("ab", 32)
	f.Add(encode(f, record{Version: recordVersion, ID: id, Name: "web", Mode: modeBridge, Number: 1<<16 | 1, Started: time.Unix(1, 0)}))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		again, err := parseRecord(encode(t, r))
		if err != nil || !reflect.DeepEqual(again.ID, r.ID) || again.Name != r.Name || again.Number != r.Number {
			t.Errorf("%+v is read as %+v, %v", r, again, err)
		}
	})
}

// So is what a node has left of itself, and what one hands over: the tables that are
// made after it have bounds, and nobody is there without a name.
func FuzzRunning(f *testing.F) {
	lan := savedLan{ID: strings.Repeat("ab", 32), NetworkCreate: api.NetworkCreate{Name: defaultName, Subnet: "172.17.0.0/16"}}
	whole := running{Version: recordVersion, Default: lan, Flows: [2]int{64, 64}}
	f.Add(encode(f, whole))
	f.Add(encode(f, handing{Running: &whole, Records: []*record{{Version: recordVersion, ID: lan.ID, Name: "web", Mode: modeBridge, Number: 1<<16 | 1, Started: time.Unix(1, 0)}}}))
	whole.Flows = [2]int{-1, 1 << 40}
	f.Add(encode(f, whole))
	f.Add([]byte(`{"running":{},"records":[null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		judge := func(r *running) {
			first := newLan(newID(), defaultName, time.Now())
			s, err := r.setup(first)
			if err != nil {
				return
			}
			if s.nat.Flows < 0 || s.nat.Flows > mostFlows || s.nat.PerContainer < 0 || s.nat.PerContainer > mostFlows || !validID(first.id) {
				t.Errorf("%+v of network %q", s.nat, first.id)
			}
		}
		if r := new(running); json.Unmarshal(text, r) == nil {
			judge(r)
		}
		h := new(handing)
		if h.parse(text) != nil {
			return
		}
		judge(h.Running)
		for _, r := range h.Records {
			if !api.ValidName(r.Name) || !validID(r.ID) {
				t.Errorf("a container %q named %q", r.ID, r.Name)
			}
		}
	})
}
