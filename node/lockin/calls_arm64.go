package lockin

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_AARCH64

// ofArchitecture are calls that exist for this one only: there are none.
func ofArchitecture() []call { return nil }
