package api

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Dir is the node directory: $FAIRLEAD_DIR, or /run/fairlead for root, or
// fairlead below $XDG_RUNTIME_DIR, or a directory of the user's below /tmp. One
// node runs for each directory.
//
// Root's comes before $XDG_RUNTIME_DIR, which root has after a login and lacks
// under sudo: both are to find the same node. Root of a user namespace, to whom
// the host's /run does not belong, is a user like others.
func Dir() string {
	if d := os.Getenv("FAIRLEAD_DIR"); d != "" {
		return filepath.Clean(d)
	}
	if os.Getuid() == 0 && isOurs("/run") {
		return "/run/fairlead"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "fairlead")
	}
	return filepath.Join(os.TempDir(), "fairlead-"+strconv.Itoa(os.Getuid()))
}

func isOurs(dir string) bool {
	var st syscall.Stat_t
	return syscall.Stat(dir, &st) == nil && int(st.Uid) == os.Getuid()
}

// Socket is the control socket of the node in dir.
func Socket(dir string) string { return filepath.Join(dir, "control.sock") }

// MakeDir makes the node directory, or checks that the one that is there is
// ours alone: in /tmp anybody may have made it first.
func MakeDir(dir string) error {
	if err := CheckPath(dir); err != nil {
		return err
	}
	dir = filepath.Clean(dir) // a slash at the end would have the parent be the directory itself
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make node directory %s: %w; set FAIRLEAD_DIR to a directory of yours", dir, err)
	}
	for {
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return fmt.Errorf("make node directory %s: %w; set FAIRLEAD_DIR to a directory of yours", dir, err)
		}
		// A node that ends may take it away between the two.
		if err := CheckDir(dir); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
}

// CheckPath refuses what cannot be the path of a node directory.
func CheckPath(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("node directory %q is not an absolute path; set FAIRLEAD_DIR to one", dir)
	}
	// sun_path of a unix socket holds 108 bytes with the final zero (unix(7)).
	if n := len(Socket(filepath.Clean(dir))); n > 107 {
		return fmt.Errorf("node directory %s is too long for a socket path by %d bytes; set FAIRLEAD_DIR to a shorter one", filepath.Clean(dir), n-107)
	}
	return nil
}

// CheckDir refuses a node directory that somebody else owns or may enter.
func CheckDir(dir string) error {
	dir = filepath.Clean(dir) // a slash at the end would follow a symbolic link
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("node directory: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("node directory %s is not a directory; remove it or set FAIRLEAD_DIR", dir)
	case !ok || int(stat.Uid) != os.Getuid():
		return fmt.Errorf("node directory %s belongs to uid %d, not to you (%d); set FAIRLEAD_DIR to a directory of yours", dir, stat.Uid, os.Getuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("node directory %s may be entered by others (mode %04o); set FAIRLEAD_DIR to a directory of yours alone (mode 0700)", dir, info.Mode().Perm())
	}
	return nil
}
