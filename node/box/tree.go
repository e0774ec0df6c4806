package box

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// buildTree makes the mount namespace, a copy of the caller's so far, the
// container's. What comes from the caller's tree is picked up first, as
// detached mounts, because after pivot_root its paths lead nowhere; and the
// old root goes last, because the kernel mounts a fresh /proc or /sys only for
// who can see an old one (mount_too_revealing in fs/namespace.c).
func (c *container) buildTree() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	files, err := c.pickFiles()
	if err != nil {
		return err
	}
	var leave func() error
	if c.spec.RootFS != "" {
		if leave, err = c.enterRootFS(); err != nil {
			return fmt.Errorf("root file system %s: %w", c.spec.RootFS, err)
		}
	}
	c.mountProc()
	c.mountSys()
	for i, f := range files {
		c.placeFile(f, c.spec.Files[i].Target)
	}
	if leave != nil {
		if err := leave(); err != nil {
			return fmt.Errorf("root file system %s: %w", c.spec.RootFS, err)
		}
	}
	return os.Chdir("/")
}

// pick takes a detached copy of the mounts at and below path.
func pick(path string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return fd, nil
}

// place mounts what pick returned on path, which symbolic links may lead to,
// and closes it.
func place(fd int, path string) error {
	defer unix.Close(fd)
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	if err != nil {
		return &os.PathError{Op: "mount on", Path: path, Err: err}
	}
	return nil
}

func (c *container) pickFiles() (fds []int, err error) {
	for _, f := range c.spec.Files {
		fd, err := pick(f.Source)
		if err != nil {
			return nil, fmt.Errorf("file for %s: %w", f.Target, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func (c *container) placeFile(fd int, target string) {
	if err := place(fd, target); err != nil {
		c.warn("%s: kept as it is: %v", target, err)
	}
}

// enterRootFS makes the directory / and brings the caller's /dev, /proc and
// /sys along. The old root stays mounted until leave is called.
func (c *container) enterRootFS() (leave func() error, err error) {
	kept := []string{"/dev", "/proc", "/sys"}
	mounts := make([]int, len(kept))
	for i, dir := range kept {
		if mounts[i], err = pick(dir); err != nil {
			return nil, err
		}
	}
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/", Err: err}
	}
	// A new root has to be a mount of its own (pivot_root(2)).
	self, err := pick(c.spec.RootFS)
	if err != nil {
		return nil, err
	}
	if err := place(self, c.spec.RootFS); err != nil {
		return nil, err
	}
	if err := os.Chdir(c.spec.RootFS); err != nil {
		return nil, err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return nil, fmt.Errorf("pivot_root: %w", err)
	}
	// Paths now begin in the new root; the old one is mounted over it.
	for i, dir := range kept {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("it needs a folder %s: %w", dir, err)
		}
		if err := place(mounts[i], dir); err != nil {
			return nil, err
		}
	}
	return func() error {
		defer unix.Close(old)
		if err := unix.Fchdir(old); err != nil {
			return fmt.Errorf("leave the old root: %w", err)
		}
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the old root: %w", err)
		}
		return nil
	}, nil
}

// What a container is warned of when it has the caller's.
const (
	procKept = "proc: kept, it shows the processes outside: "
	sysKept  = "sys: kept, it shows the interfaces outside: "
)

// mountProc shows the container's own processes. Where parts of the old /proc
// are hidden from us, as in most container runtimes, the kernel refuses a
// fresh one; then the old one stays.
func (c *container) mountProc() {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		c.warn(procKept+"%v", err)
	}
}

// mountSys shows the interfaces of the container's network namespace; the
// caller's control groups stay visible in it.
func (c *container) mountSys() {
	const cgroups = "/sys/fs/cgroup"
	if c.spec.Network == NetworkHost {
		return // the caller's is the right one
	}
	mounted, picked := -1, error(nil)
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroups, &fs); err == nil && fs.Type != unix.SYSFS_MAGIC {
		mounted, picked = pick(cgroups)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("sysfs", "/sys", "sysfs", flags, "")
	if errors.Is(err, unix.EPERM) { // the old one is read-only, so a fresh one must be too
		err = unix.Mount("sysfs", "/sys", "sysfs", flags|unix.MS_RDONLY, "")
	}
	if err != nil {
		closeAll([]int{mounted})
		c.warn(sysKept+"%v", err)
		return
	}
	if mounted >= 0 {
		picked = place(mounted, cgroups)
	}
	if picked != nil {
		c.warn("sys: no control groups: %v", picked)
	}
}
