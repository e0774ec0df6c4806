package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A patient is a machine of its own for doctor to look at: user, mount and
// network namespaces in which the test may break what it likes.
type patient struct {
	*node
	pid  int
	bins string // where sudo is found, which has nothing to ask for here
}

// newPatient makes a patient. It is root in there, unless the options of
// unshare say who else.
func newPatient(t *testing.T, options ...string) *patient {
	t.Helper()
	lab.Need(t, "unshare", "nsenter", "setpriv", "prlimit", "ip", "sysctl")
	p := &patient{node: newNodeDir(t)}
	p.bins = filepath.Join(filepath.Dir(p.dir), "bin")
	sudo := filepath.Join(p.bins, "sudo")
	if err := os.Mkdir(p.bins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sudo, []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if len(options) == 0 {
		options = []string{"--map-root-user"}
	}
	cmd := exec.Command("unshare", append(append([]string{"--user", "--mount", "--net"}, options...), "sleep", "1000")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it ends no other way
		_ = cmd.Wait()
	})
	lab.Eventually(t, 10*time.Second, func() error { // unshare becomes sleep when all is made
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid))
		if err == nil && string(comm) != "sleep\n" {
			err = fmt.Errorf("still %s", comm)
		}
		return err
	})
	return p
}

// healthy gives the patient what a usual host has.
func (p *patient) healthy() *patient {
	p.t.Helper()
	p.do(`mount -n -t tmpfs none /run
		ip link set lo up
		ip link add eth0 type veth peer name other
		ip addr add 192.0.2.2/24 dev eth0
		ip link set eth0 up
		ip link set other up
		ip route add default via 192.0.2.1
		sysctl -qw net.ipv4.ping_group_range='0 0'`)
	return p
}

// Whom a fresh network namespace does not let ping, the command lets.
func TestDoctorMendsPing(t *testing.T) {
	p := newPatient(t)
	f := p.examine("").check("ping")
	if f.State != "limited" {
		t.Fatalf("%+v", f)
	}
	p.do(f.Mend)
	if f := p.examine("").check("ping"); f.State != "ok" {
		t.Errorf("after %s: %+v", f.Mend, f)
	}
}

// shell runs a script inside.
func (p *patient) shell(script string) (stdout, stderr string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.command(ctx)
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Path = nsenter
	cmd.Args = []string{"nsenter", "--target", strconv.Itoa(p.pid), "--user", "--mount", "--net", "--preserve-credentials", "sh", "-ec", script}
	cmd.Env = append(cmd.Env, "PATH="+p.bins+":"+filepath.Dir(p.bin)+":"+os.Getenv("PATH"))
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	_ = cmd.Run() // the exit status says it
	p.followLog()
	if ctx.Err() != nil {
		p.t.Fatalf("%s: takes longer than %v", script, patience)
	}
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

// do runs a script that must succeed.
func (p *patient) do(script string) string {
	p.t.Helper()
	out, complaints, code := p.shell(script)
	if code != 0 {
		p.t.Fatalf("%s\nexit status %d\n%s%s", script, code, out, complaints)
	}
	return out
}

// A diagnosis is what `doctor --json` prints.
type diagnosis struct {
	State  string
	Checks []finding
}

type finding struct{ Name, State, Found, Why, Mend string }

func (d *diagnosis) check(name string) finding {
	i := slices.IndexFunc(d.Checks, func(f finding) bool { return f.Name == name })
	if i < 0 {
		return finding{}
	}
	return d.Checks[i]
}

// examine runs `doctor --json` behind what before says, and checks that its
// exit status and its state are the worst of its checks'.
func (p *patient) examine(before string) *diagnosis {
	p.t.Helper()
	out, complaints, code := p.shell(before + "fairlead doctor --json")
	d := new(diagnosis)
	if err := json.Unmarshal([]byte(out), d); err != nil || complaints != "" {
		p.t.Fatalf("%sfairlead doctor --json: exit status %d, %v\n%s%s", before, code, err, out, complaints)
	}
	worst := 0
	states := []string{"ok", "limited", "missing"}
	for _, f := range d.Checks {
		i := slices.Index(states, f.State)
		worst = max(worst, i)
		if i < 0 || f.Name == "" || f.Found == "" || f.State == "ok" && f.Why+f.Mend != "" {
			p.t.Errorf("a check is not as it should be: %+v", f)
		}
	}
	if code != worst || d.State != states[worst] {
		p.t.Errorf("%sfairlead doctor: exit status %d, state %s, of\n%s", before, code, d.State, out)
	}
	return d
}

// A break is something of a machine that is not as it should be, and what
// doctor says of it. What is missing keeps containers from running, and nothing
// else does.
type breakage struct {
	name, check string

	script string   // breaks it
	before string   // is what doctor is called behind: VARIABLE=value, or a command
	state  string   // that it is in then
	found  []string // parts of what is found, and of why that matters
	mend   string   // the command
	heals  bool     // it does, here too
}

// kernelSettings puts others in the place of those below kernel.
func kernelSettings(settings ...string) string {
	script := "mount -t tmpfs none /proc/sys/kernel\n"
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		script += "echo " + value + " >/proc/sys/kernel/" + name + "\n"
	}
	return script
}

const (
	openDocker = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined --device /dev/net/tun IMAGE"
	apparmor   = "apparmor_restrict_unprivileged_userns"
)

// Each check is broken, for real: the state, the text, the exit status and the
// command are as they should be; and the command mends it, wherever root of a
// user namespace may.
func TestDoctor(t *testing.T) {
	sandbox := func(name string) string { return strings.Join(play(t, "filter", name), " ") + " " }
	for _, b := range []breakage{
		{name: "kernel too old", check: "kernel", before: sandbox("no-pidfd"), state: "missing",
			found: []string{"no pidfd_open (Linux 5.3 has it)", "Linux 5.11 or newer"}, mend: openDocker},
		{name: "peers by number", check: "kernel", before: sandbox("no-peer-pidfd"), state: "limited",
			found: []string{"no SO_PEERPIDFD (Linux 6.5 has it)", "by a process number"}},

		{name: "no user namespaces", check: "namespaces", script: "echo 0 >/proc/sys/user/max_user_namespaces", state: "missing",
			found: []string{"user.max_user_namespaces is 0"}, mend: "sudo sysctl -w user.max_user_namespaces=15000", heals: true},
		{name: "no network namespaces", check: "namespaces", script: "echo 0 >/proc/sys/user/max_net_namespaces", state: "missing",
			found: []string{"user.max_net_namespaces is 0"}, mend: "sudo sysctl -w user.max_net_namespaces=15000", heals: true},
		{name: "all in use", check: "namespaces", script: "echo 1 >/proc/sys/user/max_net_namespaces",
			state: "missing", found: []string{"in use"}, mend: "sudo sysctl -w user.max_user_namespaces=60000 user.max_net_namespaces=60000", heals: true},
		{name: "forbidden by Debian", check: "namespaces", script: kernelSettings("unprivileged_userns_clone=0"), before: sandbox("no-namespaces"), state: "missing",
			found: []string{"kernel.unprivileged_userns_clone is 0"}, mend: "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{name: "forbidden by AppArmor", check: "namespaces", script: kernelSettings(apparmor + "=1"), before: sandbox("no-namespaces"), state: "missing",
			found: []string{"kernel." + apparmor + " is 1"}, mend: "sudo sysctl -w kernel." + apparmor + "=0"},
		{name: "without capabilities by AppArmor", check: "namespaces", script: kernelSettings(apparmor + "=1"), before: sandbox("no-mounts"), state: "missing",
			found: []string{"make mounts private: operation not permitted", "gives user namespaces no capabilities"}, mend: "sudo sysctl -w kernel." + apparmor + "=0"},
		{name: "a container's seccomp filter", check: "namespaces", before: sandbox("no-namespaces"), state: "missing",
			found: []string{"make namespaces: operation not permitted", "seccomp"}, mend: openDocker},
		{name: "a container's seccomp filter, inside", check: "namespaces", before: sandbox("no-mounts"), state: "missing",
			found: []string{"make mounts private: operation not permitted", "as containers do"}, mend: openDocker},
		{name: "a podman container's", check: "namespaces", script: "touch /run/.containerenv", before: sandbox("no-namespaces"), state: "missing",
			found: []string{"seccomp"}, mend: "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL --device /dev/net/tun IMAGE"},
		{name: "root without a capability", check: "namespaces", before: "setpriv --bounding-set -setfcap ", state: "missing",
			found: []string{"CAP_SETFCAP", "run as another user"}},

		{name: "proc masked", check: "proc", script: "mount -t tmpfs none /proc/tty", state: "limited",
			found: []string{"/proc/tty", "see the processes of this machine"}, mend: "sudo umount /proc/tty", heals: true},
		{name: "proc masked in a container", check: "proc", script: "mount --bind /proc/sys /proc/sys; touch /run/.containerenv", state: "limited",
			found: []string{"/proc/sys"}, mend: "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL --device /dev/net/tun IMAGE"},

		{name: "no device", check: "tun", script: "mount -t tmpfs none /dev/net", state: "missing", found: []string{"there is no /dev/net/tun"},
			mend: "sudo sh -c 'modprobe tun; test -c /dev/net/tun || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }; chmod 666 /dev/net/tun'"},
		{name: "no device in a container", check: "tun", script: "mount --bind /proc/sys /proc/sys; mount -t tmpfs none /dev/net", state: "missing",
			found: []string{"there is no /dev/net/tun"}, mend: openDocker},
		{name: "another device", check: "tun", script: "mount --bind /dev/null /dev/net/tun", state: "missing", found: []string{"something else than the TUN device"},
			mend: "sudo rm -f /dev/net/tun && sudo mknod -m 666 /dev/net/tun c 10 200"},
		{name: "a mount without devices", check: "tun", script: "mount --bind /dev/net/tun /dev/net/tun; mount -o remount,bind,nodev /dev/net/tun", state: "missing",
			found: []string{"may not be opened", "a mount without devices"}, mend: "sudo mount -o remount,bind,dev /dev/net/tun", heals: true},

		{name: "no TAP", check: "tap", before: sandbox("no-interface"), state: "missing", found: []string{"create interface eth0", "no link"}, mend: openDocker},
		{name: "no trains of datagrams", check: "tap", before: sandbox("no-uso"), state: "limited", found: []string{"csum,tso4,tso6,ecn;", "not uso", "one"}},
		{name: "no offloads", check: "tap", before: sandbox("no-offloads"), state: "limited", found: []string{"none;", "not csum,tso4,tso6,ecn,uso", "many times slower"}},
		{name: "TAPs that wait", check: "tap", before: sandbox("no-nowait"), state: "limited", found: []string{"no RWF_NOWAIT", "make the node wait"}},

		{name: "no peek offset", check: "sockets", before: sandbox("no-peek-offset"), state: "limited", found: []string{"no SO_PEEK_OFF of TCP (Linux 6.9 has it)", "copied more than once"}},
		{name: "no UDP offload", check: "sockets", before: sandbox("no-udp-offload"), state: "limited", found: []string{"no UDP_SEGMENT", "no UDP_GRO", "one at a time"}},

		{name: "few descriptors", check: "descriptors", before: "ulimit -n 4096; ", state: "limited",
			found: []string{"4096: ", "3584 sockets, 512 for each", "beyond 1792"}, mend: "sudo prlimit --pid $$ --nofile=65536"},
		{name: "no descriptors", check: "descriptors", before: "ulimit -n 80; ", state: "missing",
			found: []string{"80: 0 containers", "not take a single container"}, mend: "sudo prlimit --pid $$ --nofile=65536"},

		{name: "no ping", check: "ping", before: "unshare -n ", state: "limited", // a fresh network namespace lets nobody
			found: []string{"permission denied: net.ipv4.ping_group_range is ", "end at the gateway"}, mend: `sudo sysctl -w net.ipv4.ping_group_range="0 0"`},
		{name: "no low ports", check: "ports", before: "setpriv --bounding-set -net_bind_service ", state: "limited",
			found: []string{"permission denied: ip_unprivileged_port_start is 1024", "cannot be published"}, mend: "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80", heals: true},

		{name: "open to others", check: "directory", script: "mkdir $FAIRLEAD_DIR; chmod 755 $FAIRLEAD_DIR", state: "missing",
			found: []string{"may be entered by others (mode 0755)"}, mend: "chmod 700 $FAIRLEAD_DIR", heals: true},
		{name: "a file", check: "directory", script: "touch $FAIRLEAD_DIR", state: "missing",
			found: []string{"is not a directory"}, mend: "export FAIRLEAD_DIR=$HOME/.fairlead", heals: true},
		{name: "no path", check: "directory", before: "FAIRLEAD_DIR=here ", state: "missing",
			found: []string{`"here" is not an absolute path`}, mend: "export FAIRLEAD_DIR=$HOME/.fairlead"},
		{name: "nowhere", check: "directory", before: "FAIRLEAD_DIR=/proc/here ", state: "missing",
			found: []string{"/proc/here cannot be made"}, mend: "export FAIRLEAD_DIR=$HOME/.fairlead"},

		{name: "docker0", check: "subnets", state: "limited",
			script: "fairlead up; ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up",
			found:  []string{"172.17.0.0/16 of network default", "172.17.0.1/16 on docker0", "behind docker0"}, mend: "fairlead up --bip 172.18.0.1/16", heals: true},
		{name: "docker0 was there before", check: "subnets", state: "ok",
			script: "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up",
			found:  []string{"172.18.0.0/16 for network default, because this host has the address 172.17.0.1/16 on docker0"}},
		{name: "a route of a VPN", check: "subnets", state: "ok",
			script: "ip route add 172.16.0.0/12 via 192.0.2.9 table 77; ip route add 192.168.0.0/28 via 192.0.2.9",
			found:  []string{"192.168.16.0/20 for network default, because this host has the route 172.16.0.0/12 dev eth0"}},
		{name: "routes unknown", check: "subnets", before: sandbox("no-route-netlink"), state: "limited", found: []string{"open netlink"}},

		{name: "no way out", check: "outside", script: "ip route del default", state: "limited", found: []string{"no default route", "no further than this host"}},
		{name: "another congestion control", check: "congestion", script: "sysctl -qw net.ipv4.tcp_congestion_control=reno", state: "ok", found: []string{"reno; there are"}},
		{name: "no IPv6", check: "ipv6", script: "sysctl -qw net.ipv6.conf.all.disable_ipv6=1", state: "ok", found: []string{"off on this host"}},
	} {
		t.Run(b.name, func(t *testing.T) { newPatient(t).healthy().suffer(b) })
	}
}

// suffer breaks the patient, looks at it, and mends it.
func (p *patient) suffer(b breakage) {
	p.t.Helper()
	well := p.examine("")
	if f := well.check(b.check); f.State != "ok" && !slices.Contains([]string{"kernel", "tap", "sockets"}, b.check) { // an older kernel
		p.t.Fatalf("before it was broken: %+v", f)
	}
	if b.script != "" {
		p.do(b.script)
	}
	ill := p.examine(b.before)
	f := ill.check(b.check)
	mend := strings.NewReplacer("$FAIRLEAD_DIR", p.dir).Replace(b.mend)
	if f.State != b.state || mend != "" && f.Mend != mend {
		p.t.Errorf("%+v\nwant %s, and to mend it: %s", f, b.state, mend)
	}
	if err := contains(f.Found+"\n"+f.Why, b.found...); err != nil {
		p.t.Error(err)
	}
	p.fits(b.before)
	p.runs(b.before, ill.State != "missing")
	if !b.heals || p.t.Failed() {
		return
	}
	// The command is of a shell, and some of them count there only.
	out, complaints, _ := p.shell(f.Mend + " >/dev/null && " + b.before + "fairlead doctor --json")
	mended := new(diagnosis)
	if err := json.Unmarshal([]byte(out), mended); err != nil {
		p.t.Fatalf("%s: %v\n%s%s", f.Mend, err, out, complaints)
	}
	if f := mended.check(b.check); f.State != "ok" {
		p.t.Errorf("after it was mended: %+v", f)
	}
	if b.check == "directory" {
		if err := os.RemoveAll(p.dir); err != nil {
			p.t.Fatal(err)
		}
	}
	p.do("fairlead down --all")
}

// runs checks that a container runs, or does not, as doctor says.
func (p *patient) runs(before string, well bool) {
	p.t.Helper()
	if strings.Contains(before, "no-pidfd") {
		return // such a node knows nobody, and takes 15 seconds to say so
	}
	want := 0
	if !well {
		want = 125
	}
	if out, complaints, code := p.shell(before + "fairlead run -- true"); code != want {
		p.t.Errorf("run ends with %d, want %d\n%s%s", code, want, out, complaints)
	}
	p.shell("fairlead down --all") // fails where the directory does
}

// fits checks that what people are shown fits 80 columns, but for commands, and
// says the same.
func (p *patient) fits(before string) {
	p.t.Helper()
	out, _, code := p.shell(before + "fairlead doctor")
	if code > 2 || !strings.HasPrefix(out, "check         state    found\n") {
		p.t.Errorf("exit status %d\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 && !strings.Contains(line, " mend ") && strings.Contains(strings.TrimSpace(line[23:]), " ") {
			p.t.Errorf("%d columns:\n%s", n, line)
		}
	}
}

// A healthy machine has nothing to mend, with a node and without, and doctor
// starts none.
func TestDoctorHealthy(t *testing.T) {
	p := newPatient(t).healthy()
	check := func(found string) {
		t.Helper()
		d := p.examine("")
		for _, f := range d.Checks {
			if f.State != "ok" && !slices.Contains([]string{"kernel", "tap", "sockets"}, f.Name) { // an older kernel
				t.Errorf("%+v", f)
			}
		}
		if f := d.check("node"); !strings.Contains(f.Found, found) {
			t.Errorf("%+v, want %q", f, found)
		}
	}
	check("none runs in " + p.dir)
	check("none runs in " + p.dir)
	p.do("fairlead up --bip 172.30.0.1/24")
	check("with 0 containers")
	if f := p.examine("").check("subnets"); !strings.Contains(f.Found, "172.30.0.0/24") {
		t.Errorf("%+v", f)
	}
	p.do("fairlead run -d -- sleep 1000")
	check("with 1 container")
	p.do("ip route add 172.30.0.8/29 dev eth0")
	if f := p.examine("").check("subnets"); f.Mend != "fairlead down --all && fairlead up --bip 172.17.0.1/16" {
		t.Errorf("%+v", f)
	}
	p.do("fairlead down --all")
}

// An XDG_RUNTIME_DIR that is another user's, as su and sudo leave behind.
func TestDoctorForeignRuntimeDirectory(t *testing.T) {
	p := newPatient(t, "--map-user=1000", "--map-group=1000")
	foreign := filepath.Join(filepath.Dir(p.dir), "run")
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Chown(foreign, 4321, 4321) != nil { // only root may; to others nobody's is /
		foreign = "/"
	}
	before := "unset FAIRLEAD_DIR; export XDG_RUNTIME_DIR=" + foreign + "; "
	f := p.examine(before).check("directory")
	if f.State != "missing" || f.Mend != "unset XDG_RUNTIME_DIR" || !strings.Contains(f.Found, "XDG_RUNTIME_DIR is not yours") {
		t.Errorf("%+v", f)
	}
	if f := p.examine(before + f.Mend + "; ").check("directory"); f.State != "ok" || f.Found != "/tmp/fairlead-1000 can be made" {
		t.Errorf("mended: %+v", f)
	}
	// A plain user may neither ping nor take low ports, before somebody lets him.
	for name, want := range map[string]string{"ping": `"1000 1000"`, "ports": "port_start=80"} {
		if f := p.examine("").check(name); f.State != "limited" || !strings.Contains(f.Mend, want) {
			t.Errorf("%+v", f)
		}
	}
}

// A node of another version, and one that does not answer as nodes do.
func TestDoctorNode(t *testing.T) {
	p := newPatient(t).healthy()
	for _, c := range []struct {
		name, answer string
		state, found string
		mend         string
	}{
		{"older", `{"version":"0.0.1","api":1,"pid":7}`, "limited", "of version 0.0.1", "fairlead down --all"},
		{"of another age", `{"version":"9.0.0","api":9,"pid":7}`, "missing", "speaks API v9", "fairlead down --all"},
		{"out of its mind", `?`, "missing", "every command asks it", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.Mkdir(p.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", api.Socket(p.dir))
			if err != nil {
				t.Fatal(err)
			}
			mux := http.NewServeMux()
			server := &http.Server{Handler: mux}
			say := func(text string) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }
			}
			mux.HandleFunc("GET /v1/version", say(c.answer))
			mux.HandleFunc("GET /v1/switches", say("[]"))
			mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintln(w, "{}")
				l.Close() // and its socket is gone
			})
			served := make(chan struct{})
			go func() { _ = server.Serve(l); close(served) }()
			defer func() { server.Close(); <-served; os.RemoveAll(p.dir) }()
			f := p.examine("").check("node")
			if f.State != c.state || f.Mend != c.mend || !strings.Contains(f.Found+f.Why, c.found) {
				t.Errorf("%+v", f)
			}
			if c.mend == "" {
				return
			}
			if f := p.examine(f.Mend + " && ").check("node"); f.State != "ok" {
				t.Errorf("mended: %+v", f)
			}
		})
	}
}
