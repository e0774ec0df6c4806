// Package link is how a container hangs on: queues that read and write
// Ethernet frames in batches.
//
//	TAP     a TAP device with virtio-net header: frames cross whole, 64 KiB TCP
//	        segments with unfinished checksum included
//	Wire    the textbook wire: a TAP device without offloads, plain frames
//	Packet  a packet socket on an interface that others made
//	Mem     one end of a pair in memory, for tests
//
// All are of one shape, which the switch declares as its Queue:
//
//	ReadBatch(b *packet.Batch) (int, error)
//	WriteBatch(frames []*packet.Frame) (int, error)
//	Close() error
//
// and linktest.Contract is the test they all pass. What only some can is found
// by assertion: Fd, Notify, SetCarrier, Offload.
//
// # Who owns the bytes
//
// ReadBatch reads into the batch; the frames borrow its bytes until its Reset.
// WriteBatch neither keeps nor changes the bytes of its frames: one frame can
// be written to many queues.
//
// # Errors
//
// ReadBatch and WriteBatch return the errors of errors.go, and a wire
// packet.EgressSegments, as they are: nothing is allocated for them.
// WriteBatch returns n and an error when frame n could not be written and
// those behind it were not tried. ReadBatch returns an error only with n = 0.
//
// # Concurrency
//
// One goroutine reads a queue. Any number may write it at the same time; each
// frame arrives whole, and the frames of one WriteBatch in their order. Close
// must not run beside ReadBatch or WriteBatch: the number of a closed
// descriptor belongs to the next that is opened. Who takes a queue away from a
// running switch waits for a grace period of the loop before closing.
//
// ReadBatch and WriteBatch never block, which for a descriptor is harder than
// it sounds: O_NONBLOCK lives in the open file and whoever has a copy of the
// descriptor can clear it; a worker that then blocks in a system call unknown
// to the Go scheduler stops the garbage collector and with it the process. So
// every call asks for itself, with RWF_NOWAIT. All other methods ask the kernel
// for a lock that may be held for many milliseconds, Close for 16 and more:
// they are not for workers.
//
// # Files
//
//	tap.go      TAP: create, adopt
//	wire.go     Wire: create, adopt; finishing what a plain frame cannot carry
//	packet.go   Packet: adopt
//	tun.go      the descriptor of a TAP device: read, write, ioctls
//	offload.go  Offload: what the reader of a TAP takes unfinished
//	mem.go      Mem
//	errors.go   the errors
package link
