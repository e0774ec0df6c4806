package node

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Names of the log of a node that a command started, of the one before, and of one
// that takes its place this moment.
const (
	nodeLog       = "node.log"
	nodeLogBefore = nodeLog + ".1"
	nodeLogNext   = nodeLog + ".next"
)

// mostNodeLog bounds the node's log; with the one before there is twice as much.
const mostNodeLog = 8 << 20

// turnLog begins a new log where log, which is standard error, has more than most
// bytes and is the node's: under a service manager it is not, nor where somebody
// started `fairlead node` by hand. The descriptors stay, because the runtime writes
// to them what it dies of.
func (h *home) turnLog(log *os.File, most int64) error {
	have, err := log.Stat()
	if err != nil || have.Size() <= most {
		return err
	}
	if ours, err := h.Lstat(nodeLog); err != nil || !os.SameFile(have, ours) {
		return nil //nolint:nilerr // it is somebody else's, or none
	}
	// Before the old one loses its name: there may be no descriptor for a new one.
	fresh, err := h.OpenFile(nodeLogNext, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer fresh.Close()
	if err := h.Rename(nodeLog, nodeLogBefore); err != nil {
		return err
	}
	if err := h.Rename(nodeLogNext, nodeLog); err != nil {
		return errors.Join(err, h.Rename(nodeLogBefore, nodeLog))
	}
	return unix.Dup3(int(fresh.Fd()), int(log.Fd()), 0)
}
