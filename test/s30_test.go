package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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
	lab.Need(t, "ping", "curl", "ip", "sysctl")
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
	world := lab.NewOutsideOf(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	server := world.Host.Serve(t, lab.Binary(t), "probe", "http-server")
	lab.Eventually(t, patience, func() error { return contains(server.Output(), "serving on") })
	cmd := world.Machine.Command(ctx, self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideVariable+"="+world.Router.FarHost)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: plainID, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: plainID, HostID: os.Getgid(), Size: 1}}
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, &out
	goOn, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer goOn.Close()
	for _, port := range []string{"8080", "80"} {
		lab.Eventually(t, patience, func() error {
			if len(ended) > 0 {
				return nil // and has failed
			}
			return contains(out.String(), "ask port "+port+"\n")
		})
		if len(ended) > 0 {
			break
		}
		greeted(t, curl(t, world.Host, "http://"+world.Router.Uplink+":"+port+"/"), world.Router.FarHost)
		// What administrators do about it.
		world.Machine.Run(t, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=80")
		fmt.Fprintln(goOn)
	}
	if err := <-ended; err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("as uid %d: %v\n%s", plainID, err, out.String())
	}
	t.Logf("inside:\n%s", out.String())
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
	for _, what := range []string{"uid_map", "net/dev"} {
		ours, err1 := os.ReadFile("/proc/self/" + what)
		its, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, what))
		if err1 != nil || err2 != nil || len(strings.Fields(string(ours))) != len(strings.Fields(string(its))) {
			t.Errorf("%s of the node %q, ours %q (%v, %v)", what, its, ours, err1, err2)
		}
	}
	if pids := status(t, pid, "NSpid"); pids != strconv.Itoa(pid) {
		t.Errorf("the node's numbers in pid namespaces are %s", pids)
	}
	// Who locked itself in is looked into by nobody of the same user.
	if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("its namespace is to be seen: %s, %v", ns, err)
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
	plainUserOutside(t, n, os.Getenv(insideVariable))
	// No file of the machine is anybody else's.
	files, _ := filepath.Glob(n.dir + "/*")
	for _, file := range append(files, n.dir) {
		info, err := os.Stat(file)
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != plainID {
			t.Errorf("%s: %+v, %v", file, info, err)
		}
	}
}

// plainUserOutside is the way out and in, by sockets. Ports below 1024 take a
// setting of the machine's, which is named.
func plainUserOutside(t *testing.T, n *node, far string) {
	t.Helper()
	greeted(t, n.exec("plain", "curl", "-sS", "--max-time", "10", "http://"+far+"/"), "192.0.2.2")
	n.exec("plain", "ping", "-c", "1", "-W", "5", far)
	n.refuses("ports below 1024 are for everybody after `sudo sysctl net.ipv4.ip_unprivileged_port_start=80`", "publish", "web", "80:80")
	in := bufio.NewReader(os.Stdin)
	for _, port := range []string{"8080", "80"} {
		n.run("publish", "web", port+":80")
		fmt.Println("ask port", port)
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
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
