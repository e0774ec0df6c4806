package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"fairlead/test/lab"
)

// insideVariable tells the test below that it is the one inside.
const insideVariable = "FAIRLEAD_TEST_PLAIN"

// plainID is the user the test becomes inside.
const plainID = 1000

// A plain user needs no right: not as root of a world, which tests otherwise
// are, but as uid 1000 without a single capability, in a user namespace that
// maps nobody else.
func TestS30_PlainUser(t *testing.T) {
	lab.Need(t, "ping", "curl", "ip")
	if os.Getenv(insideVariable) != "" {
		plainUser(t)
		return
	}
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: plainID, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: plainID, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("as uid %d: %v\n%s", plainID, err, out)
	}
	t.Logf("inside:\n%s", out)
}

// plainUser is the test inside.
func plainUser(t *testing.T) {
	if os.Getuid() != plainID {
		t.Fatalf("uid %d, want %d", os.Getuid(), plainID)
	}
	powerless(t, os.Getpid())
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err == nil {
		t.Fatal("a plain user can turn on forwarding; this shows nothing")
	}
	n := newNode(t)
	n.serve("web")
	n.start("plain", "--opt", "offload=off")
	pid := n.nodePid()
	powerless(t, pid)
	if uid := status(t, pid, "Uid"); uid != fmt.Sprintf("%[1]d\t%[1]d\t%[1]d\t%[1]d", plainID) {
		t.Errorf("the node runs as %q", uid)
	}
	// Nor has it any in a namespace of its own: it lives where its user does.
	for _, ns := range []string{"user", "net", "mnt", "pid"} {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if err1 != nil || err2 != nil || ours != its {
			t.Errorf("%s namespace of the node %q, ours %q (%v, %v)", ns, its, ours, err1, err2)
		}
	}

	c := n.background("run", "-i", "--", "sh", "-ec", `id -u
		ping -c 1 -W 5 172.17.0.2; ping -c 1 -W 5 172.17.0.3; ping -c 1 -W 5 172.17.0.1
		curl -sS --max-time 5 http://172.17.0.2/
		ip link set eth0 mtu 1400; echo "root inside"; cat`)
	c.says("root inside")
	if err := contains(c.out.String(), "Hello 172.17.0.4:", "ttl=64"); err != nil || !strings.HasPrefix(c.out.String(), "0\n") {
		t.Errorf("%v:\n%s", err, c.out.String())
	}
	powerless(t, c.cmd.Process.Pid)
	c.in.Close()
	if code := c.wait(); code != 0 {
		t.Errorf("exit status %d: %s", code, c.errors.String())
	}
	n.exec("plain", "ping", "-c", "1", "-W", "5", "172.17.0.2")
	// No file of the machine is anybody else's.
	files, _ := filepath.Glob(n.dir + "/*")
	for _, file := range append(files, n.dir) {
		info, err := os.Stat(file)
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != plainID {
			t.Errorf("%s: %+v, %v", file, info, err)
		}
	}
}

// powerless fails the test unless a process has no capability and cannot get
// one.
func powerless(t *testing.T, pid int) {
	t.Helper()
	for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb"} {
		if got := status(t, pid, set); got != "0000000000000000" {
			t.Errorf("process %d has %s %s", pid, set, got)
		}
	}
}

// status is a line of /proc/PID/status.
func status(t *testing.T, pid int, key string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	m := regexp.MustCompile(`(?m)^` + key + `:\s*(.*)$`).FindSubmatch(text)
	if err != nil || m == nil {
		t.Fatalf("process %d has no %s (%v):\n%s", pid, key, err, text)
	}
	return string(m[1])
}
