package lockin

import (
	"fmt"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// LandlockABI is that of the kernel, 0 if it has no Landlock.
func LandlockABI() int {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

// Rights in the node directory: what the node's own files take. There are no
// symbolic links, devices and programs in it.
const inDir = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSReadDir |
	ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSMakeSock | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir

// confineFiles has the kernel refuse every other path, and returns the ABI that
// is in force. Rules on TCP ports would say nothing: containers connect where
// they like, and publish what they like.
func confineFiles(paths Paths) (abi int, err error) {
	if abi = LandlockABI(); abi == 0 {
		return 0, nil
	}
	err = landlock.V5.BestEffort().RestrictPaths(
		landlock.PathAccess(inDir, paths.Dir),
		// An empty directory is all that can be taken away so: ours, at the end.
		landlock.PathAccess(ll.AccessFSRemoveDir, filepath.Dir(paths.Dir)),
		// Ids and sockets of containers, and the kernel's bounds (/proc/sys/net).
		landlock.PathAccess(ll.AccessFSReadFile, "/proc"),
		landlock.PathAccess(ll.AccessFSReadFile, resolvDir(paths.ResolvConf)).IgnoreIfMissing(),
	)
	if err != nil {
		return 0, fmt.Errorf("confine ourselves to our files (Landlock): %w", err)
	}
	return abi, nil
}

// resolvDir is the directory in which resolv.conf is read. A rule goes with a
// file and not with its name, and resolvers replace that file; so it takes the
// directory. Mostly resolv.conf is a link to one of its own, as
// /run/systemd/resolve; where it is a plain file all of /etc can be read.
func resolvDir(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Dir(path)
}
