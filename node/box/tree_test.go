package box

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

func TestFiles(t *testing.T) {
	lab.NoLeaks(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, []byte("bound\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("original\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "dangling"} {
		to := map[string]string{"link": "target", "dangling": "nowhere"}[name]
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	spec := none("cat", "/etc/hosts", target)
	spec.Files = []File{{source, "/etc/hosts"}, {source, filepath.Join(dir, "link")},
		{source, filepath.Join(dir, "dangling")}, {source, filepath.Join(dir, "missing")}}
	r := create(t, spec)
	if err := r.Started(); err != nil {
		t.Fatal(err)
	}
	r.wait(0)
	if out := r.out.String(); out != "bound\nbound\n" {
		t.Errorf("got %q", out)
	}
	if len(r.Warnings) != 2 || !strings.Contains(r.Warnings[0], "dangling: kept as it is") || !strings.Contains(r.Warnings[1], "missing: kept as it is") {
		t.Errorf("warnings: %q", r.Warnings)
	}
	if after, _ := os.ReadFile(target); string(after) != "original\n" {
		t.Errorf("outside it reads %q", after)
	}
}

func TestMissingSource(t *testing.T) {
	lab.NoLeaks(t)
	spec := none("true")
	spec.Files = []File{{"/no/such/file", "/etc/hosts"}}
	_, err := Start(spec, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
	if want := "start container: file for /etc/hosts: open_tree /no/such/file: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The caller's control groups stay visible in the fresh /sys.
func TestControlGroups(t *testing.T) {
	lab.NoLeaks(t)
	const look = "ls /sys/fs/cgroup"
	want, err := exec.Command("sh", "-c", look).Output()
	if err != nil {
		lab.NotRun(t, "finds no control groups", "sudo mount -t cgroup2 none /sys/fs/cgroup")
	}
	if out := run(t, none(sh(look)...), 0); out != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

// Where container runtimes hide parts of /proc from us a fresh one is refused,
// and a fresh /sys must be as read-only as the old one.
func TestMasked(t *testing.T) {
	lab.NoLeaks(t)
	out, _ := unshared(unix.CLONE_NEWNS, self("masked")...).CombinedOutput()
	want := `^lo\n0123456789ab\ntouch: .*/sys/x.*Read-only file system\n\[proc: kept, it shows the processes outside: operation not permitted\]\n$`
	if !regexp.MustCompile(want).Match(out) {
		t.Errorf("got:\n%s\nwant %s", out, want)
	}
}

func TestRootFS(t *testing.T) {
	lab.NoLeaks(t)
	root := t.TempDir()
	for _, program := range []string{"sh", "ls", "cat", "readlink"} {
		install(t, root, program)
	}
	for _, dir := range []string{"etc", "proc"} { // dev and sys are made
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := filepath.Join(t.TempDir(), "hosts")
	for path, text := range map[string]string{source: "bound\n", filepath.Join(root, "etc/real"): "original\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// An absolute link leads into the new root, not into the caller's.
	if err := os.Symlink("/etc/real", filepath.Join(root, "etc/hosts")); err != nil {
		t.Fatal(err)
	}
	spec := own(sh("cat /etc/hosts; cd ..; ls /; ls /sys/class/net; echo x >/dev/null && readlink /proc/self/exe; cat /proc/mounts")...)
	spec.RootFS = root
	spec.Files = []File{{source, "/etc/hosts"}}
	out := run(t, spec, 0)
	if want := regexp.MustCompile(`^bound\n(?:bin\n|dev\netc\n|lib.*\n|proc\nsys\n|usr\n)+eth0\nlo\n.*/readlink\n`); !want.MatchString(out) {
		t.Errorf("no %v in:\n%s", want, out)
	}
	if strings.Contains(out, "original") {
		t.Errorf("the wrong hosts file:\n%s", out)
	}
	spec.RootFS = filepath.Join(root, "nowhere")
	_, err := Start(spec, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
	if want := "root file system " + spec.RootFS; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// A container of a root file system answers exec there.
func TestRootFSExec(t *testing.T) {
	lab.NoLeaks(t)
	root := t.TempDir()
	for _, program := range []string{"sh", "ls", "cat"} {
		install(t, root, program)
	}
	spec := none(sh("echo ready; cat")...)
	spec.RootFS, spec.Stdin = root, true
	stdin, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	saved := os.Stdin
	os.Stdin = stdin
	r := start(t, spec)
	os.Stdin = saved
	stdin.Close()
	r.until("ready")
	e := execute(t, r, &Exec{Args: sh("ls /; echo $HOSTNAME")})
	e.wait(0)
	if out := e.out.String(); !strings.Contains(out, "proc\nsys\n") || !strings.HasSuffix(out, "\n0123456789ab\n") {
		t.Errorf("exec sees:\n%s", out)
	}
}

// install copies a program of this machine and its libraries into root.
func install(t *testing.T, root, program string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	libs, _ := exec.Command("ldd", path).Output() // fails for a static one
	files := [][2]string{{path, "/bin/" + program}}
	for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(string(libs), -1) {
		files = append(files, [2]string{m[1], m[1]})
	}
	for _, f := range files {
		from, err := os.Open(f[0])
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		to := filepath.Join(root, f[1])
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, from); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
