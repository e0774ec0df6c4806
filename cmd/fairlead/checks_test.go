package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fairlead/node"
	"fairlead/node/box"
)

// What cannot be broken for real here is judged from what a broken machine
// would say; test/doctor_test.go breaks the rest.

// fakeProc is a /proc with files of these contents.
func fakeProc(t *testing.T, files map[string]string) string {
	t.Helper()
	proc := t.TempDir()
	for name, text := range files {
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

const mountinfo = `20 1 0:18 / / rw - ext4 /dev/sda rw
21 20 0:19 / /proc rw - proc proc rw
22 21 0:20 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
23 20 0:21 / /dev rw,nodev - tmpfs tmpfs rw
`

// Who may make no interface is told what else there is, and works without limits.
func TestJudgeHostLink(t *testing.T) {
	list := []subnet{{network: "default", prefix: netip.MustParsePrefix("172.18.0.0/16")}}
	for _, c := range []struct {
		may  bool
		dev  string
		want string
	}{
		{true, "", "fairlead up --host-link"},
		{false, "", "fairlead run -- curl 172.18.0.3"},
		{false, "fairlead0", "fairlead0 leads to network default"},
	} {
		list[0].dev = c.dev
		if f := judgeHostLink(c.may, list); f.State != well || !strings.Contains(f.Found, c.want) {
			t.Errorf("%+v", f)
		}
	}
}

// The kernel's table of neighbours is one for all containers; less than usual is said.
func TestNeighbours(t *testing.T) {
	const key = "sys/net/ipv4/neigh/default/gc_thresh3"
	for _, c := range []struct {
		text  string
		state state
		want  string
	}{
		{"1024\n", well, "1024 at most, of all network namespaces together; for more: `sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=16384`"},
		{"65536\n", well, "65536 at most, of all network namespaces together"},
		{"100\n", limited, "100 at most, of all network namespaces together"},
		{"x", well, "how many there may be cannot be seen from here"},
	} {
		m := machine{proc: fakeProc(t, map[string]string{key: c.text})}
		if f := m.neighbours(); f.State != c.state || f.Found != c.want || (f.Mend != "") != (c.state == limited) {
			t.Errorf("%q: %+v", c.text, f)
		}
	}
	if f := (&machine{proc: t.TempDir()}).neighbours(); f.State != well {
		t.Errorf("%+v", f)
	}
}

func TestJudgeTUN(t *testing.T) {
	bare := fakeProc(t, map[string]string{"self/mountinfo": mountinfo})
	inDocker := fakeProc(t, map[string]string{"self/mountinfo": mountinfo + "24 21 0:22 /sys /proc/sys ro - proc proc rw\n"})
	failed := func(errno syscall.Errno) error { return &fs.PathError{Op: "open", Path: "/dev/net/tun", Err: errno} }
	for _, c := range []struct {
		name, proc  string
		tun         box.TUN
		found, mend string
	}{
		{"well", bare, box.TUN{Device: true, Mode: 0o666, Owner: "0:0"}, "may be opened (mode 0666, owner 0:0)", ""},
		{"mode", bare, box.TUN{Device: true, Mode: 0o600, Owner: "0:0", Err: failed(syscall.EACCES)}, "may not be opened (mode 0600, owner 0:0)", "sudo chmod 666 /dev/net/tun"},
		{"driver", bare, box.TUN{Device: true, Mode: 0o666, Err: failed(syscall.ENODEV)}, "its driver is not", "sudo modprobe tun"},
		{"device control group", bare, box.TUN{Device: true, Mode: 0o666, Err: failed(syscall.EPERM)}, "the container we run in may not open", "docker run "},
		{"mount", bare, box.TUN{Device: true, Mode: 0o666, NoDevices: true, Err: failed(syscall.EACCES)}, "a mount without devices", "sudo mount -o remount,bind,dev /dev"},
		{"container", inDocker, box.TUN{Err: failed(syscall.ENOENT)}, "there is no /dev/net/tun", "docker run "},
		{"nothing", bare, box.TUN{Err: failed(syscall.ENOENT)}, "there is no /dev/net/tun", "sudo sh -c 'modprobe tun; "},
		{"odd", bare, box.TUN{Device: true, Err: failed(syscall.EIO)}, "input/output error", ""},
	} {
		m := machine{proc: c.proc, dev: "/dev/net/tun"}
		f := m.judgeTUN(&c.tun)
		want := missing
		if c.tun.Err == nil {
			want = well
		}
		if f.State != want || !strings.Contains(f.Found, c.found) || !strings.HasPrefix(f.Mend, c.mend) || c.mend == "" && f.Mend != "" {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}

// Whoever has all groups is told to let all of them, as distributions do.
func TestPingRange(t *testing.T) {
	for groups, want := range map[string]string{
		"         0          0 4294967295\n": "0 2147483647",
		"         0       1000          1\n": "7 7",
		"":                                   "0 2147483647",
	} {
		m := machine{proc: fakeProc(t, map[string]string{"self/gid_map": groups, "sys/net/ipv4/ping_group_range": "1\t0\n"})}
		f := m.judgePing(os.NewSyscallError("socket", syscall.EACCES), 7)
		if f.State != limited || f.Found != `socket: permission denied: net.ipv4.ping_group_range is "1 0"` || f.Mend != fmt.Sprintf("sudo sysctl -w net.ipv4.ping_group_range=%q", want) {
			t.Errorf("%q: %+v", groups, f)
		}
	}
	m := machine{proc: t.TempDir()}
	if f := m.judgePing(syscall.EPROTONOSUPPORT, 7); f.State != limited || f.Mend != "" {
		t.Errorf("a kernel without ping sockets: %+v", f)
	}
	if f := m.judgePorts(syscall.EMFILE); f.State != limited || f.Mend != "" {
		t.Errorf("no socket at all: %+v", f)
	}
}

func TestJudgeDescriptors(t *testing.T) {
	for _, c := range []struct {
		capacity node.Capacity
		want     state
	}{
		{node.Capacity{Descriptors: 1 << 20, Containers: 65534, Sockets: 7058, SocketsEach: 1024}, well},
		{node.Capacity{Descriptors: 4096, Containers: 1000, Sockets: 3584, SocketsEach: 512}, limited},
		{node.Capacity{Descriptors: 64, Sockets: 1, SocketsEach: 8}, missing},
	} {
		if f := judgeDescriptors(c.capacity); f.State != c.want {
			t.Errorf("%+v: %+v", c.capacity, f)
		}
	}
}

func TestShellWord(t *testing.T) {
	for word, want := range map[string]string{"/run/user/1000/fairlead": "/run/user/1000/fairlead", "/a b": "'/a b'", "/it's": `'/it'\''s'`, "/$x": "'/$x'"} {
		if got := shellWord(word); got != want {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
}

// The subnets of networks are held against routes of this host. The default network
// goes elsewhere by itself, when it is made.
func TestJudgeSubnets(t *testing.T) {
	route := func(s string) box.HostRoute { return box.HostRoute{Prefix: netip.MustParsePrefix(s), Dev: "docker0"} }
	of := func(name, prefix, moves string) subnet {
		return subnet{network: name, prefix: netip.MustParsePrefix(prefix), moves: moves}
	}
	planned, usual := of("default", "172.17.0.0/16", ""), of("default", "172.17.0.0/16", moves("default", "fairlead up"))
	for _, c := range []struct {
		list  []subnet
		taken []box.HostRoute
		found string
		mend  string
	}{
		{[]subnet{planned}, nil, "172.17.0.0/16: no address or route of this host", ""},
		{[]subnet{planned}, []box.HostRoute{route("172.17.0.0/16")}, "172.18.0.0/16 for network default, because this host has the route 172.17.0.0/16 dev docker0", ""},
		{[]subnet{usual}, []box.HostRoute{route("172.17.0.0/16")}, "172.17.0.0/16 of network default: this host has the route 172.17.0.0/16 dev docker0", "fairlead up --bip 172.18.0.1/16"},
		{[]subnet{usual, of("lab", "172.18.0.0/16", moves("lab", ""))}, []box.HostRoute{route("172.18.3.0/24")}, "172.18.0.0/16 of network lab: this host has the route 172.18.3.0/24 dev docker0",
			"fairlead network rm lab && fairlead network create --bip 172.19.0.1/16 lab"},
		{[]subnet{usual}, []box.HostRoute{route("0.0.0.0/1")}, "172.17.0.0/16: no address or route of this host", ""},
	} {
		if f := judgeSubnets(c.list, c.taken); f.Found != c.found || f.Mend != c.mend || (f.State == well) != (c.mend == "") {
			t.Errorf("%+v, want %s, %s", f, c.found, c.mend)
		}
	}
}

func TestConflicts(t *testing.T) {
	subnet := netip.MustParsePrefix("172.17.0.0/16")
	for route, want := range map[string]bool{
		"172.17.0.0/16": true, "172.17.3.0/24": true, "172.16.0.0/12": true, "172.0.0.0/8": true, "172.17.0.9/32": true,
		"172.18.0.0/16": false, "10.0.0.0/8": false, "0.0.0.0/0": false, "128.0.0.0/1": false,
	} {
		if got := conflicts(subnet, netip.MustParsePrefix(route)); got != want {
			t.Errorf("%s: %v", route, got)
		}
	}
	taken := []box.HostRoute{{Prefix: netip.MustParsePrefix("172.16.0.0/12")}, {Prefix: netip.MustParsePrefix("192.168.0.0/16")}}
	if p := freeSubnet(taken[:1]); p != netip.MustParsePrefix("192.168.0.1/20") {
		t.Errorf("free: %v", p)
	}
	if p := freeSubnet(taken); p.IsValid() {
		t.Errorf("free: %v", p)
	}
}

// What has to be broken in two places shows the worse, and commands are not
// broken into lines.
func TestPrintDiagnosis(t *testing.T) {
	d := &diagnosis{State: well}
	d.add(finding{Name: "kernel", State: well, Found: "Linux 6.1"})
	d.add(finding{Name: "ping", State: limited, Found: strings.Repeat("found ", 12), Why: strings.Repeat("because ", 9), Mend: "sudo " + strings.Repeat("word ", 20) + "end"})
	golden(t, `
		|check         state    found
		|kernel        ok       Linux 6.1
		|ping          limited  found found found found found found found found found
		|                       found found found
		|              why      because because because because because because because
		|                       because because
		|              mend     sudo word word word word word word word word word word word word word word word word word word word word end
		|
		|fairlead works here, with limits: ping.`, d.print)
	d.add(finding{Name: "tun", State: missing, Found: "gone"})
	d.add(finding{Name: "ports", State: limited, Found: "few"})
	var out bytes.Buffer
	if err := d.print(&out); err != nil || d.State != missing || !strings.HasSuffix(out.String(), "\nfairlead cannot work here: tun.\n") {
		t.Errorf("%v, %s\n%s", err, d.State, out.String())
	}
	golden(t, `
		|check         state    found
		|kernel        ok       Linux 6.1
		|
		|All is well.`, func(w io.Writer) error { return (&diagnosis{State: well, Checks: d.Checks[:1]}).print(w) })
}

// What this kernel cannot take away is said, and why that matters.
func TestJudgeLockIn(t *testing.T) {
	if f := judgeLockIn(7, nil); f.State != well || f.Found != "seccomp, Landlock (ABI 7)" {
		t.Errorf("%+v", f)
	}
	if f := judgeLockIn(0, []string{"Landlock: none", "seccomp: none"}); f.State != limited || f.Found != "without Landlock: none; without seccomp: none" || f.Why == "" {
		t.Errorf("%+v", f)
	}
}
