package lockin

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_X86_64

// ofArchitecture are calls that are made on this one only.
func ofArchitecture() []call {
	return []call{
		{name: "getrlimit", number: unix.SYS_GETRLIMIT, why: "how many descriptors there may be"},
		{name: "poll", number: unix.SYS_POLL, why: "whether a process has ended, by its pidfd", seldom: "ppoll is asked for"},
		{name: "arch_prctl", number: unix.SYS_ARCH_PRCTL, why: goruns, seldom: "only before main"},
	}
}
