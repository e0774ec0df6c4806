package lockin

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_AARCH64

// ofArchitecture are calls that are made on this one only.
func ofArchitecture() []call {
	return []call{
		{name: "prlimit64", number: unix.SYS_PRLIMIT64, why: "how many descriptors there may be", only: oneOf(0, 0)},
	}
}
