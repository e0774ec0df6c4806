package test

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// A folder is a place in the house. It may import the folders of lower rows and
// those in plus. Every folder that holds Go is listed.
type folder struct {
	path string
	row  int
	why  string // it stands in that row

	plus []string // brothers it may import all the same
	only []string // if set, all it may import

	// A state machine works on bytes and addresses it is handed: no sockets,
	// goroutines, clocks or locks. Time is an argument.
	machine bool

	// words says why the state machine may use atomic words all the same.
	words string

	// calls says why system calls may be made here; nowhere else they are.
	calls string

	// helper folders are for tests: every test may import them.
	helper bool
}

var folders = []folder{
	{path: "packet", row: 0, machine: true,
		why: "what everybody speaks, so it knows nobody"},
	{path: "packet/packettest", row: 0, plus: []string{"packet"}, helper: true,
		why: "frames as tests of every row need them"},

	{path: "loop", row: 1, calls: "epoll and eventfd",
		why: "wakes whoever registers and knows none of them"},
	{path: "link", row: 1, calls: "TUN ioctls, reads and writes without the runtime's poller",
		why: "moves frames between the kernel and a batch, whoever forwards them"},
	{path: "link/linktest", row: 1, plus: []string{"link"}, helper: true, calls: "it forces what the kernel does to a link",
		why: "the contract every queue passes, wherever it is written"},
	{path: "nat", row: 1, machine: true, words: "workers look up flows without the owner's lock",
		why: "translates addresses it is handed"},
	{path: "arp", row: 1, machine: true, why: "answers and remembers neighbours"},
	{path: "dhcp", row: 1, machine: true, why: "leases"},
	{path: "dns", row: 1, machine: true, why: "names"},
	{path: "policy", row: 1, machine: true, words: "workers count what rules decided",
		why: "says what may pass, for switch and gateway alike"},
	{path: "trace", row: 1, why: "takes down decisions; knows frames, not who decides"},

	{path: "switch", row: 2, why: "forwards between ports; meets its gateway through an interface of its own"},
	{path: "gateway", row: 2, why: "routes; meets switch and uplink through interfaces"},
	{path: "uplink", row: 2, why: "a way out; meets the gateway through an interface"},
	{path: "uplink/sockets", row: 2, calls: "host sockets, without the runtime's poller",
		why: "the way out that is no link; meets the gateway through the same interface"},

	{path: "node/network", row: 3, why: "plugs switch, gateway, uplinks and policy together; the only one that knows all"},

	{path: "node/api", row: 4, calls: "descriptors and credentials of a peer",
		only: []string{"packet"},
		why:  "what client and node say to each other; a client must not drag the node in"},
	{path: "node/box", row: 4, calls: "clone, setns, pidfds",
		only: []string{"packet", "link"},
		why:  "a container seen from outside; runs before there is a node, and inside containers"},
	{path: "node/lockin", row: 4, calls: "prctl, capset, seccomp and Landlock, for the whole process",
		only: []string{},
		why:  "what a process gives up, whatever it goes on to do; knows nothing of the house"},
	{path: "node", row: 4, plus: []string{"node/api", "node/box", "node/lockin"}, calls: "the lock of its folder, descriptors it was handed",
		why: "the registry above networks and containers"},

	{path: "cmd/fairlead", row: 5, plus: []string{"cmd/fairlead/spell", "cmd/fairlead/labfile", "bench/flags"}, why: "the program"},
	{path: "cmd/fairlead/labfile", row: 5, plus: []string{"cmd/fairlead/spell"}, only: []string{"node/api", "policy", "packet"},
		why: "the file of a lab and the plan from it; pure, so it knows no node"},
	{path: "cmd/fairlead/spell", row: 5, only: []string{}, why: "which word was meant, of a command line or of a file"},
	{path: "bench", row: 5, calls: "traffic generators", plus: []string{"bench/flags", "bench/relay", "test/lab", "test/world/maker"},
		why: "measures what users would run"},
	{path: "bench/flags", row: 5, only: []string{}, why: "a command line that two programs read"},
	{path: "bench/relay", row: 5, calls: "the rival is a relay of bare system calls",
		why: "what the switch is measured against"},
	{path: "test", row: 5, plus: []string{"test/lab"}, calls: "what real programs do",
		why: "uses the house as users do"},
	{path: "test/fuzz", row: 5, only: []string{}, calls: "ends the process groups it started", why: "the command that fuzzes; it runs go test"},
	{path: "test/lab", row: 5, helper: true, calls: "network namespaces",
		why: "hosts and cables; knows nothing of the house, so every test may use it"},
	{path: "test/world", row: 5, plus: []string{"test/world/maker"}, why: "the command that runs another in a world"},
	{path: "test/world/maker", row: 5, calls: "namespaces and mounts",
		why: "where tests and measurements run; knows nothing of the house"},
}

// Imports go down, never sideways; only tests may put brothers together.
func TestImports(t *testing.T) {
	for _, f := range sources(t) {
		from := at(t, f)
		for _, imported := range f.imports {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours || to == from.path { // package x_test imports x
				continue
			}
			i := slices.IndexFunc(folders, func(d folder) bool { return d.path == to })
			if i < 0 {
				t.Errorf("%s imports %s, which is not in the table of rows_test.go", f.path, to)
				continue
			}
			target := folders[i]
			allowed := target.row < from.row && (from.only == nil || slices.Contains(from.only, to)) ||
				slices.Contains(from.plus, to) || f.isTest() && (target.helper || target.row == from.row)
			if !allowed {
				t.Errorf("%s imports %s. %s is in row %d: %s. %s is in row %d: %s.", f.path, to,
					from.path, from.row, from.why, to, target.row, target.why)
			}
		}
	}
}

// pure are the functions of package unix that only compute.
var pure = []string{"UnixRights", "ParseUnixRights", "ParseSocketControlMessage", "CmsgSpace", "CmsgLen",
	"ByteSliceToString", "NsecToTimespec", "NsecToTimeval", "Errno", "Signal", "WaitStatus"}

// entries are the calls that make or enter namespaces and take hold of processes.
var entries = []string{"Setns", "Unshare", "PidfdOpen", "PidfdGetfd"}

// System calls, and what is as sharp, are made in few places, and the way into
// a container is in one.
func TestSystemCalls(t *testing.T) {
	for _, f := range sources(t) {
		from := at(t, f)
		if f.isTest() {
			continue
		}
		if from.calls == "" && slices.Contains(f.imports, "unsafe") {
			t.Errorf("%s imports unsafe; only folders that make system calls may", f.path)
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			pkg, name := f.selector(call.Fun)
			switch {
			case pkg != "syscall" && pkg != "golang.org/x/sys/unix" || slices.Contains(pure, name):
			case from.calls == "":
				t.Errorf("%s calls %s.%s; only folders with a reason in rows_test.go make system calls",
					f.position(n), path.Base(pkg), name)
			case slices.Contains(entries, name) && from.path != "node/box" && from.row < 5:
				t.Errorf("%s calls %s.%s; that is the business of node/box", f.position(n), path.Base(pkg), name)
			}
			return true
		})
	}
}

// State machines are handed bytes and the time.
func TestStateMachines(t *testing.T) {
	clocks := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
	for _, f := range sources(t) {
		if !at(t, f).machine || f.isTest() {
			continue
		}
		for _, p := range []string{"os", "sync", "sync/atomic", "net/http", "context"} {
			if slices.Contains(f.imports, p) && (p != "sync/atomic" || at(t, f).words == "") {
				t.Errorf("%s imports %s; it is a state machine without files, locks and waiting", f.path, p)
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine in a state machine", f.position(n))
			case *ast.SelectorExpr:
				if pkg, name := f.selector(n); pkg == "time" && slices.Contains(clocks, name) {
					t.Errorf("%s asks for the time; it is an argument here", f.position(n))
				}
			}
			return true
		})
	}
}

// at is the place of a source in the table.
func at(t *testing.T, f *source) folder {
	t.Helper()
	for _, d := range folders {
		if d.path == path.Dir(f.path) {
			return d
		}
	}
	t.Fatalf("%s: give the folder a row in the table of rows_test.go, with a reason", f.path)
	return folder{}
}
