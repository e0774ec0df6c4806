package link

import "golang.org/x/sys/unix"

// WithoutNowait makes a TAP or wire do what it does on a kernel whose TAPs do
// not know RWF_NOWAIT.
func WithoutNowait(q interface{ device() *tun }) { q.device().nowait = 0 }

func (t *tun) device() *tun { return t }

// MostOffload is mostOffload.
func MostOffload(set func(Offload) error) (Offload, error) { return mostOffload(set) }

// OffloadOf is offloadOf.
func OffloadOf(release string) Offload { return offloadOf(release) }

// WithoutNoCarrier opens a TAP as CreateTAP does on a kernel that does not know
// IFF_NO_CARRIER, where the bit changes nothing.
func WithoutNoCarrier(name string) (*TAP, error) { return createTAP(TAPConfig{Name: name}, tapFlags) }

// NewWireOn makes a wire of any descriptor that takes a frame per call.
func NewWireOn(fd int) *Wire {
	return newWire(&tun{fd: fd, nowait: unix.RWF_NOWAIT})
}

// NewTAPOn makes a TAP of any descriptor that takes a frame per call.
func NewTAPOn(fd int) *TAP {
	return &TAP{tun: &tun{fd: fd, nowait: unix.RWF_NOWAIT}}
}

// Restore is restore.
func Restore(room []byte, size int, aux *unix.TpacketAuxdata) int { return restore(room, size, aux) }
