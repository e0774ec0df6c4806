package api

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestDir(t *testing.T) {
	byLogin, byUser := "/run/user/1000/fairlead", filepath.Join(os.TempDir(), "fairlead-"+strconv.Itoa(os.Getuid()))
	if os.Getuid() == 0 && isOurs("/run") {
		byLogin, byUser = "/run/fairlead", "/run/fairlead" // one node, however one became root
	}
	for _, c := range []struct{ own, runtime, want string }{
		{"/tmp/mine", "/run/user/1000", "/tmp/mine"},
		{"/tmp/mine/", "", "/tmp/mine"},
		{"here", "", "here"}, // refused by MakeDir, with the name the user gave
		{"", "/run/user/1000", byLogin},
		{"", "", byUser},
	} {
		t.Setenv("FAIRLEAD_DIR", c.own)
		t.Setenv("XDG_RUNTIME_DIR", c.runtime)
		if got := Dir(); got != c.want {
			t.Errorf("with %+v: %s", c, got)
		}
	}
	if got := Socket("/run/fairlead"); got != "/run/fairlead/control.sock" {
		t.Errorf("socket %s", got)
	}
}

func TestIsOurs(t *testing.T) {
	dir := t.TempDir()
	if !isOurs(dir) || isOurs(filepath.Join(dir, "none")) {
		t.Error("a directory of ours is not, or one that is not there is")
	}
	if os.Chown(dir, 65534, 65534) == nil && isOurs(dir) {
		t.Error("nobody's directory is ours")
	}
}

func TestMakeDir(t *testing.T) {
	base := t.TempDir()
	for _, dir := range []string{"new", "new", "deep/er/still", "slash/"} {
		dir := base + "/" + dir
		if err := MakeDir(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if info, err := os.Stat(base + "/deep"); err != nil || info.Mode().Perm()&0o700 != 0o700 {
		t.Errorf("folder above: %v", err)
	}
}

func TestMakeDirRefuses(t *testing.T) {
	base := t.TempDir()
	mkdir := func(name string, mode os.FileMode) string {
		dir := filepath.Join(base, name)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	private, shared, group := mkdir("private", 0o700), mkdir("shared", 0o755), mkdir("group", 0o710)
	file, link := filepath.Join(base, "file"), filepath.Join(base, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(private, link)); err != nil {
		t.Fatal(err)
	}
	long := "/tmp/" + strings.Repeat("x", 91) // and /control.sock: 109 bytes
	for dir, want := range map[string]string{
		"here":        `node directory "here" is not an absolute path; set FAIRLEAD_DIR to one`,
		"":            `node directory "" is not an absolute path; set FAIRLEAD_DIR to one`,
		long:          "node directory " + long + " is too long for a socket path by 2 bytes; set FAIRLEAD_DIR to a shorter one",
		shared:        "node directory " + shared + " may be entered by others (mode 0755); set FAIRLEAD_DIR to a directory of yours alone (mode 0700)",
		group:         "node directory " + group + " may be entered by others (mode 0710); set FAIRLEAD_DIR to a directory of yours alone (mode 0700)",
		file:          "node directory " + file + " is not a directory; remove it or set FAIRLEAD_DIR",
		link:          "node directory " + link + " is not a directory; remove it or set FAIRLEAD_DIR",
		link + "/":    "node directory " + link + " is not a directory; remove it or set FAIRLEAD_DIR",
		file + "/sub": "make node directory " + file + "/sub: mkdir " + file + ": not a directory; set FAIRLEAD_DIR to a directory of yours",
	} {
		if err := MakeDir(dir); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", dir, err, want)
		}
	}
}

// TestLongestDir is as long as sun_path allows, to the byte.
func TestLongestDir(t *testing.T) {
	base := t.TempDir()
	name := strings.Repeat("x", 107-len(Socket(base))-1)
	if err := MakeDir(filepath.Join(base, name)); err != nil {
		t.Error(err)
	}
	if err := MakeDir(filepath.Join(base, name+"x")); err == nil {
		t.Error("one byte more was taken")
	}
}

func TestForeignDir(t *testing.T) {
	// Root's, which in a user namespace of one user nobody is.
	dir := filepath.Join(t.TempDir(), "foreign")
	if errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65534)) != nil {
		dir = "/"
	}
	want := " belongs to uid "
	if err := CheckDir(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "set FAIRLEAD_DIR to a directory of yours") {
		t.Errorf("got %v", err)
	}
	if err := CheckDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
