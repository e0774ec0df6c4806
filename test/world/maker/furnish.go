package maker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rankVariable tells those inside that they are in a world, and whether the
// machine's real root made it ("root") or a plain user ("user").
const rankVariable = "FAIRLEAD_WORLD"

// home is $HOME inside: whatever lands there is gone at the end.
const home = "/tmp/home"

// Fresh are the folders that begin empty.
var Fresh = []string{"/tmp", "/run"}

// furnish makes the new namespaces usable for command, which sees the folders to
// keep.
func furnish(command string, keep []string) error {
	// Without this the mounts below would be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := empty(reachable(cwd, command, keep)); err != nil {
		return err
	}
	if err := os.Chdir(cwd); err != nil {
		return err // the old one lies beneath the new mounts
	}
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for _, m := range []struct{ kind, on string }{{"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m.kind, m.on, m.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.on, err)
		}
	}
	if err := unix.Sethostname([]byte("world")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// empty mounts a new file system on each of the fresh folders, in which only
// the paths to keep are still there.
func empty(keep []string) error {
	files := make([]*os.File, len(keep))
	for i, path := range keep {
		f, err := os.OpenFile(path, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	for _, dir := range Fresh {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for i, path := range keep {
		if err := place(path, files[i]); err != nil {
			return fmt.Errorf("keep %s: %w", path, err)
		}
		if err := unix.Mount(fd(files[i]), path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep %s: %w", path, err)
		}
	}
	return nil
}

// place makes path, for f to be mounted on: a folder if f is one, else a file.
func place(path string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

// reachable lists what lies in a fresh folder and is needed all the same: the
// checkout, the command, Go and its caches, this program, for rooms, and what
// more is to be kept. Parents come before their children.
func reachable(cwd, command string, more []string) []string {
	want := append([]string{checkout(cwd)}, more...)
	for _, name := range []string{"GOROOT", "GOPATH", "GOMODCACHE", "GOCACHE", "GOENV"} {
		want = append(want, os.Getenv(name))
	}
	want = append(want, filepath.Dir(filepath.Dir(program("go")))) // of GOROOT/bin/go
	for _, path := range []string{program(command), program("/proc/self/exe")} {
		if dir := filepath.Dir(path); !slices.Contains(Fresh, dir) {
			path = dir // go test reads and writes files beside the test binary
		}
		want = append(want, path)
	}
	slices.Sort(want)
	var keep []string
	for _, path := range slices.Compact(want) {
		hidden := slices.ContainsFunc(Fresh, func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
		kept := slices.ContainsFunc(keep, func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
		if _, err := os.Stat(path); hidden && !kept && err == nil {
			keep = append(keep, path)
		}
	}
	return keep
}

// program is the file that runs when name is called, "" if there is none.
func program(name string) string {
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	return path
}

// checkout is the nearest folder above dir that holds a go.mod, else dir.
func checkout(dir string) string {
	for at := dir; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	return dir
}

// environment is what those inside see of outside: enough to build and test
// Go, nothing that names a session, a proxy or a node of the caller.
func environment(outside []string, rank string) []string {
	var env []string
	set := map[string]string{}
	for _, kv := range outside {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case slices.Contains([]string{"PATH", "USER", "LOGNAME", "TERM", "LANG", "TZ", "CC", "CXX", "CI"}, name),
			slices.Contains([]string{"FAIRLEAD_BIN", "FAIRLEAD_NOTRUN", "FAIRLEAD_BACKLOG", "FAIRLEAD_RECORD", "FAIRLEAD_SPREAD", "FAIRLEAD_SEED", "FAIRLEAD_KILLS"}, name),
			strings.HasPrefix(name, "LC_"), strings.HasPrefix(name, "GO"), strings.HasPrefix(name, "CGO_"):
			set[name] = value
		}
	}
	set[rankVariable] = rank
	// Go finds its files through $HOME, which is another one inside.
	for name, value := range goFolders() {
		if set[name] == "" {
			set[name] = value
		}
	}
	set["HOME"] = home
	// A plain user's PATH on Debian lacks the folders of arp and ethtool.
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if !slices.Contains(filepath.SplitList(set["PATH"]), dir) {
			set["PATH"] += ":" + dir
		}
	}
	// There is no network to download from, and nothing to write to go.mod.
	set["GOPROXY"] = "off"
	if !strings.Contains(set["GOFLAGS"], "-mod=") {
		set["GOFLAGS"] = strings.TrimSpace(set["GOFLAGS"] + " -mod=readonly")
	}
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// goFolders is where Go looks when its variables are not set.
func goFolders() map[string]string {
	folders := map[string]string{}
	if dir, err := os.UserHomeDir(); err == nil {
		folders["GOPATH"] = filepath.Join(dir, "go")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		folders["GOCACHE"] = filepath.Join(dir, "go-build")
	}
	if dir, err := os.UserConfigDir(); err == nil {
		folders["GOENV"] = filepath.Join(dir, "go", "env")
	}
	return folders
}
