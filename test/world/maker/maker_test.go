package maker

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/test/lab"
)

// The test binary plays the program: as the world's first process by its name,
// as the one outside by this variable, which may name a folder to keep.
const playVariable = "WORLD_TEST_PLAY"

func TestMain(m *testing.M) {
	Play()
	if play := os.Getenv(playVariable); play != "" {
		os.Unsetenv(playVariable)
		var w World
		if play != "1" {
			w.Keep, w.Files = []string{play}, []*os.File{os.Stdin}
		}
		os.Exit(w.Run(os.Args[1:]...))
	}
	os.Exit(m.Run())
}

// world prepares a command in a world with a user namespace of its own.
func world(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), playVariable+"=1", rankVariable+"=")
	return cmd
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := world(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestStatus(t *testing.T) {
	lab.NoLeaks(t)
	for _, c := range []struct {
		want int
		args []string
	}{
		{0, []string{"true"}},
		{3, []string{"sh", "-c", "exit 3"}},
		{128 + 15, []string{"sh", "-c", "kill -TERM $$"}},
		{126, []string{"/etc/passwd"}},
		{127, []string{"no-such-program"}},
	} {
		cmd := world(t, c.args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("world %q ended with %d, want %d\n%s", c.args, got, c.want, out)
		}
	}
}

func TestFurniture(t *testing.T) {
	lab.NoLeaks(t)
	outside := t.TempDir()
	for what, c := range map[string]struct{ script, want string }{
		"user":        {"id -u", "0"},
		"host name":   {"uname -n", "world"},
		"/tmp":        {"ls -d " + outside + " 2>&1 >&-", "ls: cannot access '" + outside + "': No such file or directory"},
		"/run":        {"ls /run", ""},
		"home":        {"echo $HOME; ls -A $HOME", "/tmp/home"},
		"interfaces":  {"ls /sys/class/net", "lo"},
		"loopback":    {"cat /sys/class/net/lo/flags", "0x9"}, // IFF_LOOPBACK | IFF_UP
		"processes":   {"set -- /proc/[0-9]*; echo $#", "2"},
		"checkout":    {"pwd; ls maker.go", cwd(t) + "\nmaker.go"},
		"environment": {"echo $XDG_RUNTIME_DIR$FAIRLEAD_DIR$https_proxy", ""},
		"downloads":   {"echo $GOPROXY", "off"},
	} {
		cmd := world(t, "sh", "-c", c.script)
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR=/x", "FAIRLEAD_DIR=/x", "https_proxy=/x")
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != c.want {
			t.Errorf("%s: got %q (%v), want %q", what, got, err, c.want)
		}
	}
}

// A folder that is to be kept is seen, and a descriptor handed on is there.
func TestKeep(t *testing.T) {
	lab.NoLeaks(t)
	dir := t.TempDir()
	cmd := world(t, "sh", "-c", "cat <&3 >"+dir+"/file")
	cmd.Env = append(cmd.Env, playVariable+"="+dir)
	cmd.Stdin = strings.NewReader("hello")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "hello" {
		t.Errorf("what was written inside: %q (%v)", text, err)
	}
}

// A room in a world has the user namespace of that world.
func TestRoom(t *testing.T) {
	lab.NoLeaks(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const show = "readlink /proc/self/ns/user /proc/self/ns/net /proc/self/ns/pid"
	script := show + "; " + playVariable + "=1 " + self + " sh -c '" + show + "'"
	ns := strings.Fields(output(t, "sh", "-c", script))
	if len(ns) != 6 || ns[0] != ns[3] || ns[1] == ns[4] || ns[2] == ns[5] {
		t.Errorf("user, network and process namespaces of a world and a room in it: %q", ns)
	}
}

// Nothing outlives the command, and nothing outlives the starter.
func TestEnd(t *testing.T) {
	lab.NoLeaks(t)
	output(t, "sh", "-c", "setsid sleep 41 >/dev/null 2>&1 & setsid sleep 42 >/dev/null 2>&1 &")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		cmd := world(t, "sh", "-c", "setsid sleep 43 & echo ready; exec sleep 44")
		ready, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ready.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("the world ended well in spite of %v", sig)
		}
		if took := time.Since(start); took > grace/2 {
			t.Errorf("%v ended the world after %v", sig, took)
		}
	}
}

func TestReachable(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "module", "package")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(inner)
	if err := os.WriteFile(filepath.Join(root, "go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(dir, "tools", "tool")
	if err := os.MkdirAll(filepath.Dir(tool), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tool, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	kept := t.TempDir()
	t.Setenv("GOCACHE", filepath.Join(root, "cache")) // below what is kept
	t.Setenv("GOENV", filepath.Join(dir, "absent"))
	got := reachable(inner, tool, []string{kept})
	for _, want := range []string{root, filepath.Dir(tool), kept} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not kept: %q", want, got)
		}
	}
	if slices.Contains(got, os.Getenv("GOCACHE")) || slices.Contains(got, os.Getenv("GOENV")) {
		t.Errorf("kept twice, or absent: %q", got)
	}
}

// As root every user of the machine exists inside, so that files keep their
// owners and programs that change user work.
func TestEveryUser(t *testing.T) {
	lab.NeedRoot(t)
	lab.NoLeaks(t)
	outside, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if inside := output(t, "cat", "/proc/self/uid_map"); inside != string(outside) {
		t.Errorf("users inside: %q, outside: %q", inside, outside)
	}
	if got := output(t, "setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "id", "-u"); got != "1234\n" {
		t.Errorf("a process that became user 1234 is user %q", got)
	}
}

func cwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
