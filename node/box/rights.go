package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fairlead/link"
)

// idMaps returns the id maps of a container. Who may map every id he has (root
// with CAP_SETUID and CAP_SETGID) maps each to itself; anybody else may map
// one, himself, and is root inside.
func idMaps() (uids, gids []syscall.SysProcIDMap, setgroups bool, err error) {
	if os.Geteuid() != 0 || !haveCaps(unix.CAP_SETUID, unix.CAP_SETGID) {
		uids = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		gids = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		return uids, gids, false, nil
	}
	if uids, err = identity("/proc/self/uid_map"); err != nil {
		return nil, nil, false, err
	}
	if gids, err = identity("/proc/self/gid_map"); err != nil {
		return nil, nil, false, err
	}
	// Once denied, setgroups stays denied in every namespace below (user_namespaces(7)).
	state, err := os.ReadFile("/proc/self/setgroups")
	return uids, gids, err == nil && strings.TrimSpace(string(state)) != "deny", nil
}

// identity maps every id that path, a uid_map or gid_map, has inside to itself.
func identity(path string) ([]syscall.SysProcIDMap, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the id map: %w", err)
	}
	maps, err := parseIDMap(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the id map %s: %w", path, err)
	}
	return maps, nil
}

// parseIDMap reads the lines "inside outside size" of user_namespaces(7).
func parseIDMap(text string) (maps []syscall.SysProcIDMap, err error) {
	for line := range strings.Lines(text) {
		var inside, outside, size int
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		maps = append(maps, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
	}
	return maps, nil
}

// haveCaps reports whether each capability is in our effective set.
func haveCaps(caps ...int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	for _, c := range caps {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			return false
		}
	}
	return true
}

// explainClone names what keeps this machine from making the namespaces of a
// container, and the command that mends it.
func explainClone(err error) error {
	cause := err
	err = fmt.Errorf("make namespaces: %w", err)
	if !errors.Is(cause, unix.EPERM) && !errors.Is(cause, unix.ENOSPC) && !errors.Is(cause, unix.EINVAL) {
		return err
	}
	for _, s := range []struct{ name, off, on string }{
		{"kernel.unprivileged_userns_clone", "0", "1"},
		{restricted, "1", "0"},
		{"user.max_user_namespaces", "0", "15000"},
		{"user.max_net_namespaces", "0", "15000"},
		{"user.max_mnt_namespaces", "0", "15000"},
		{"user.max_pid_namespaces", "0", "15000"},
	} {
		if value, ok := sysctl(s.name); ok && strconv.Itoa(value) == s.off {
			return &Remedy{err, s.name + " is " + s.off, "sudo sysctl -w " + s.name + "=" + s.on}
		}
	}
	switch {
	case errors.Is(cause, unix.ENOSPC):
		return &Remedy{err, "all that user.max_*_namespaces allows are in use, or they are nested 32 deep",
			"sudo sysctl -w user.max_user_namespaces=60000 user.max_net_namespaces=60000"}
	case errors.Is(cause, unix.EINVAL):
		return &Remedy{Err: err, Cause: "this kernel lacks user, pid or network namespaces (CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS)"}
	case os.Geteuid() == 0 && !haveCaps(unix.CAP_SETFCAP):
		return &Remedy{Err: err, Cause: "root without CAP_SETFCAP may not map uid 0; run as another user"}
	}
	return &Remedy{err, "what we run in forbids user namespaces, as containers do by a seccomp filter", OpenSandbox()}
}

// restricted is Ubuntu's from 23.10: user namespaces are refused, or come
// without capabilities.
const restricted = "kernel.apparmor_restrict_unprivileged_userns"

// explainInside adds to the refusal of a step that root in a fresh user
// namespace may take why that root has no rights.
func explainInside(err error) error {
	if errors.Is(err, link.ErrDevice) {
		return err
	}
	refused := errors.Is(err, unix.EPERM)
	if value, ok := sysctl(restricted); ok && value == 1 && refused {
		return &Remedy{err, restricted + " gives user namespaces no capabilities", "sudo sysctl -w " + restricted + "=0"}
	}
	// Docker's AppArmor profile answers a mount with EACCES; of a path it says
	// that the user may not go there.
	var path *fs.PathError
	if refused || errors.Is(err, unix.EACCES) && !errors.As(err, &path) {
		if Filtered() {
			return &Remedy{err, "what we run in forbids it, as containers do", OpenSandbox()}
		}
	}
	return err
}

// A Remedy is an error with its cause in this machine, and the command that
// mends that, if one does.
type Remedy struct {
	Err            error
	Cause, Command string
}

func (r *Remedy) Error() string {
	text := r.Err.Error() + ": " + r.Cause
	if r.Command != "" {
		text += mendIt + r.Command
	}
	return text
}

func (r *Remedy) Unwrap() error { return r.Err }

const mendIt = "; mend it with: "

// Mending takes an error apart: what is wrong, and the command that mends it,
// empty where none is known.
func Mending(err error) (wrong, command string) {
	var r *Remedy
	var f *Failure
	switch {
	case errors.As(err, &r):
		command = r.Command
	case errors.As(err, &f):
		command = f.Command
	}
	return strings.TrimSuffix(err.Error(), mendIt+command), command
}

// Filtered reports whether a seccomp filter decides which system calls we may
// make, as in most containers.
func Filtered() bool {
	status, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(status), "\nSeccomp:\t2\n")
}

// OpenSandbox is the command that starts a container in which fairlead works.
func OpenSandbox() string {
	if _, err := os.Stat("/run/.containerenv"); err == nil {
		return "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL --device /dev/net/tun IMAGE"
	}
	return "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined --device /dev/net/tun IMAGE"
}
