package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/node/box"
)

// A machine is where doctor looks. Its checks try what fairlead does, and
// explain what went wrong by the settings of the kernel.
type machine struct {
	proc string // /proc
	dev  string // /dev/net/tun
	dir  string // the node directory
}

func thisMachine() machine { return machine{proc: "/proc", dev: "/dev/net/tun", dir: api.Dir()} }

// sysctl is a setting's value, with one blank between its words; empty where
// there is none.
func (m *machine) sysctl(name string) string {
	text, err := os.ReadFile(filepath.Join(m.proc, "sys", strings.ReplaceAll(name, ".", "/")))
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// kernel asks for the calls that start and watch processes.
func (m *machine) kernel() finding {
	f := finding{Name: "kernel", State: well, Found: "Linux " + box.Kernel() + ", " + runtime.GOARCH}
	f.features(box.Basics())
	if f.State == missing {
		f.Why = "no container can be started; it takes Linux 5.11 or newer"
		if box.Filtered() {
			f.Why = "no container can be started; it takes Linux 5.11 or newer, and a seccomp filter that lets it"
			f.Mend = box.OpenSandbox()
		}
	}
	return f
}

// features adds what is not there.
func (f *finding) features(list []box.Feature) {
	for _, x := range list {
		if x.Err == nil {
			continue
		}
		f.Found = join(f.Found, fmt.Sprintf("no %s (Linux %s has it): %v", x.Name, x.Since, x.Err))
		switch {
		case x.Without == "":
			f.State = missing
		case f.State == well:
			f.State = limited
		}
		if x.Without != "" && !strings.Contains(f.Why, x.Without) {
			f.Why = join(f.Why, x.Without)
		}
	}
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// namespaces makes a container without a link. What it could do without is its
// own /proc and /sys.
func (m *machine) namespaces() (alone, proc finding) {
	alone = finding{Name: "namespaces", State: well, Found: "those of a container can be made"}
	proc = finding{Name: "proc", State: well, Found: "a container has its own, and a /sys"}
	trial, err := box.Try(false)
	if err != nil {
		alone.State = missing
		alone.Found, alone.Mend = box.Mending(err)
		alone.Found = strings.TrimPrefix(alone.Found, "start container: ")
		alone.Why = "a container cannot be made without them"
		proc.State, proc.Found = missing, "not tried: it takes namespaces"
		return alone, proc
	}
	if err := errors.Join(trial.Proc, trial.Sys); err != nil {
		proc.State = limited
		proc.Found, proc.Why, proc.Mend = m.kept(trial)
	}
	return alone, proc
}

// kept explains why a container sees the /proc or /sys of its caller: the
// kernel shows a fresh one only to who can see all of an old one
// (mount_too_revealing in fs/namespace.c).
func (m *machine) kept(trial *box.Trial) (found, why, mend string) {
	if trial.Proc != nil {
		found, why = "/proc: "+trial.Proc.Error(), "containers see the processes of this machine"
	}
	if trial.Sys != nil {
		found, why = join(found, "/sys: "+trial.Sys.Error()), join(why, "containers see the interfaces of this machine")
	}
	covers := m.covers()
	switch {
	case m.sandboxed():
		mend = box.OpenSandbox()
	case len(covers) > 0:
		mend = "sudo umount " + strings.Join(covers, " ")
	}
	if len(covers) > 0 {
		found = join(found, "hidden by mounts on "+strings.Join(covers, " "))
	}
	return found, why, mend
}

// covers are the mounts that hide something of /proc. The folder of
// binfmt_misc is empty and made to be mounted on, so it counts for nothing.
func (m *machine) covers() (at []string) {
	for _, point := range m.mounts() {
		if strings.HasPrefix(point, "/proc/") && point != "/proc/sys/fs/binfmt_misc" {
			at = append(at, point)
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// mounts are the places there is a mount at.
func (m *machine) mounts() (points []string) {
	text, _ := os.ReadFile(filepath.Join(m.proc, "self/mountinfo"))
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 4 {
			points = append(points, words[4])
		}
	}
	return points
}

// sandboxed reports whether we run in somebody else's container: runtimes make
// the settings of the kernel read-only there, and most filter system calls.
func (m *machine) sandboxed() bool {
	return box.Filtered() || slices.Contains(m.covers(), "/proc/sys")
}

// tun opens the device that links are made with.
func (m *machine) tun() finding {
	return m.judgeTUN(box.LookTUN(m.dev))
}

func (m *machine) judgeTUN(t *box.TUN) finding {
	f := finding{Name: "tun", State: well, Why: "a container's link is a TAP, which is made with it"}
	f.Found = fmt.Sprintf("%s may be opened (mode %04o, owner %s)", m.dev, t.Mode, t.Owner)
	again := "sudo rm -f " + m.dev + " && sudo mknod -m 666 " + m.dev + " c 10 200"
	switch err := t.Err; {
	case err == nil && t.Device:
		f.Why = ""
		return f
	case err == nil:
		f.Found, f.Mend = m.dev+" is something else than the TUN device (10:200)", again
	case errors.Is(err, fs.ErrNotExist) && m.sandboxed():
		f.Found, f.Mend = "there is no "+m.dev, box.OpenSandbox()
	case errors.Is(err, fs.ErrNotExist):
		f.Found, f.Mend = "there is no "+m.dev, fmt.Sprintf("sudo sh -c 'modprobe tun; test -c %[1]s || { mkdir -p %[2]s; mknod %[1]s c 10 200; }; chmod 666 %[1]s'", m.dev, filepath.Dir(m.dev))
	case errors.Is(err, syscall.ENODEV):
		f.Found, f.Mend = m.dev+" is there, its driver is not", "sudo modprobe tun"
	case errors.Is(err, syscall.EPERM): // of the device control group
		f.Found, f.Mend = "the container we run in may not open "+m.dev, box.OpenSandbox()
	case errors.Is(err, fs.ErrPermission) && t.NoDevices:
		f.Found = m.dev + " may not be opened: it lies on a mount without devices"
		f.Mend = "sudo mount -o remount,bind,dev " + m.mountOf(m.dev)
	case errors.Is(err, fs.ErrPermission):
		f.Found, f.Mend = fmt.Sprintf("%s may not be opened (mode %04o, owner %s)", m.dev, t.Mode, t.Owner), "sudo chmod 666 "+m.dev
	default:
		f.Found = err.Error()
	}
	f.State = missing
	return f
}

// mountOf is where the mount begins that path lies on.
func (m *machine) mountOf(path string) (at string) {
	at = "/"
	for _, point := range m.mounts() {
		if len(point) > len(at) && (path == point || strings.HasPrefix(path, point+"/")) {
			at = point
		}
	}
	return at
}

// tap makes a container with a link, and looks at what the kernel leaves to us.
func (m *machine) tap(alone, device state) finding {
	f := finding{Name: "tap", State: missing}
	switch {
	case alone == missing:
		f.Found = "not tried: it takes namespaces"
		return f
	case device == missing:
		f.Found = "not tried: it takes " + m.dev
		return f
	}
	trial, err := box.Try(true)
	if err != nil {
		f.Found, f.Mend = box.Mending(err)
		f.Found = strings.TrimPrefix(f.Found, "start container: ")
		f.Why = "containers would have no link"
		return f
	}
	f.State, f.Found = well, trial.Offload.String()
	if trial.Nowait {
		f.Found += "; RWF_NOWAIT"
	}
	if box.LookTUN(m.dev).NoCarrier {
		f.Found += "; IFF_NO_CARRIER"
	}
	if trial.Offload != link.OffloadAll {
		f.State = limited
		f.Found += "; not " + (link.OffloadAll &^ trial.Offload).String() + " (Linux 6.2 has all)"
		f.Why = "trains of datagrams are cut into single ones, which is slower"
		if trial.Offload&link.OffloadTCP != link.OffloadTCP {
			f.Why = "every packet crosses by itself, which is many times slower"
		}
	}
	if !trial.Nowait {
		f.State = limited
		f.Found += "; no RWF_NOWAIT (Linux 6.12 has it)"
		f.Why = join(f.Why, "whoever holds a copy of a TAP's descriptor could make the node wait")
	}
	return f
}

// sockets asks for what makes host sockets fast.
func (m *machine) sockets() finding {
	f := finding{Name: "sockets", State: well}
	list := box.SocketFeatures()
	var there []string
	for _, x := range list {
		if x.Err == nil {
			there = append(there, x.Name)
		}
	}
	f.Found = strings.Join(there, ", ")
	f.features(list)
	return f
}

// judgeLockIn says what the node can give up here once it has started.
func judgeLockIn(landlock int, lacks []string) finding {
	f := finding{Name: "lock-in", State: well, Found: fmt.Sprintf("seccomp, Landlock (ABI %d)", landlock)}
	if len(lacks) > 0 {
		f.State, f.Found = limited, "without "+strings.Join(lacks, "; without ")
		f.Why = "the node works as well; who took it over could do more (docs/security.md)"
	}
	return f
}
