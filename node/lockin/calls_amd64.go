package lockin

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_X86_64

// ofArchitecture are calls that are made on this one only.
func ofArchitecture() []call {
	return []call{
		{name: "getrlimit", number: unix.SYS_GETRLIMIT, why: "how many descriptors there may be"},
	}
}
