// Package lockin has a node give up what it does not need, before anybody's
// frames reach it: whoever takes a node over finds a process that can do little
// but what the node does anyway.
//
//	privileges     no_new_privs, no capability but CAP_NET_BIND_SERVICE where the
//	               node had it (ports below 1024), and no bounding, ambient and
//	               inheritable sets to get others from                        caps.go
//	memory         not dumpable: no core file, no debugger of the same user
//	files          Landlock: the node directory, /proc and resolv.conf        files.go
//	system calls   a seccomp filter: those on the list, some of them with
//	               certain arguments only                          filter.go, calls.go
//
// All of it is for the whole process, threads that are to come included, and
// for good. What a kernel does not have is left out and said in the Report.
//
// A caller that is to make a new system call adds it to calls.go with the
// reason, and one that is to open a new path to files.go; tests run nodes in
// Strict, where a call that is not on the list ends the node with a stack.
//
// Apply is called once, by one goroutine. Nothing else here has state.
package lockin

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// A Mode says how much is given up.
type Mode string

const (
	// On refuses calls that are not on the list with ENOSYS, as an older kernel
	// does, and the kernel's audit names them.
	On Mode = "on"
	// Strict ends the process at such a call, with the stack it was made from.
	Strict Mode = "strict"
	// Off gives nothing up: for debuggers, and for whoever looks for a mistake
	// in this package.
	Off Mode = "off"
)

// Variable is the environment variable that says the mode of a node that a
// command starts.
const Variable = "FAIRLEAD_LOCK_IN"

// ParseMode reads a mode; empty is On.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return On, nil
	case On, Strict, Off:
		return m, nil
	}
	return "", fmt.Errorf("invalid lock-in %q: it is on, strict or off", s)
}

// Paths are what the node opens by name.
type Paths struct {
	Dir        string // the node directory, which exists
	ResolvConf string
}

// A Report says what is in force.
type Report struct {
	Mode         Mode
	Capabilities []string // that are left
	Landlock     int      // the kernel's ABI; 0 is none in force
	Calls        int      // that are allowed; 0 is no filter in force
	Lacks        []string // what could not be given up, and why
}

// Apply gives up what mode says. After an error the process has perhaps given
// up a part, and has to end.
func Apply(mode Mode, paths Paths) (Report, error) {
	r := Report{Mode: mode}
	if mode == Off {
		return r, nil
	}
	_, _ = time.Now().Zone() // reads /etc/localtime, for the times of log lines
	hidden := hidesProcesses()
	var err error
	if r.Capabilities, err = dropCapabilities(hidden); err != nil {
		return r, err
	}
	if err := everywhere(unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return r, fmt.Errorf("give up new privileges: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return r, fmt.Errorf("become undumpable: %w", err)
	}
	if hidden {
		r.Lacks = append(r.Lacks, "Landlock: /proc is mounted with hidepid, and who is confined so does not see the peers of the control socket there")
	} else if r.Landlock, err = confineFiles(paths); err != nil {
		return r, err
	} else if r.Landlock == 0 {
		r.Lacks = append(r.Lacks, noLandlock)
	}
	if !HasSeccomp() {
		r.Lacks = append(r.Lacks, noSeccomp)
		return r, nil
	}
	r.Calls = len(allowed())
	return r, filterCalls(mode)
}

// What a kernel may lack.
const (
	noLandlock = "Landlock: this kernel has none, or `lsm=` of its command line leaves it out"
	noSeccomp  = "seccomp: this kernel has no filters (CONFIG_SECCOMP_FILTER)"
)

// Missing are the parts that this kernel cannot give, in words.
func Missing() (list []string) {
	if LandlockABI() == 0 {
		list = append(list, noLandlock)
	}
	if !HasSeccomp() {
		list = append(list, noSeccomp)
	}
	return list
}

// everywhere makes a prctl of one thread's on all of them: a Go program cannot
// tell which of its threads will do what (psx stops them all meanwhile, and goes
// by signals where C is linked in).
func everywhere(option, arg2, arg3 uintptr) error {
	_, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, arg2, arg3, 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}
