package vswitch

import "fairlead/packet"

// A Queue is what a worker reads and writes: one link's frames. Package link
// has the implementations, link/linktest the contract they all pass.
//
// Optional, found by assertion: Fd() int (readiness by epoll) or
// Notify(func()) (readiness by call); SetCarrier(bool) error; Offload()
// link.Offload, without which nothing is joined on its way there.
type Queue interface {
	// ReadBatch appends waiting frames to b until none waits or b is full and
	// returns how many it appended; zero and no error mean none waited. The
	// frames' bytes belong to b and are borrowed until b.Reset. One reader at a
	// time; it never blocks. An error means the link is lost for good; it is
	// packet.EgressGone when the interface was removed.
	ReadBatch(b *packet.Batch) (int, error)

	// WriteBatch writes frames in order and returns how many it wrote. An
	// error concerns the frame after those: frames[n] failed, the ones behind it
	// were not tried. The error is a packet.Reason: EgressDown, EgressGone,
	// EgressFull or EgressRefused. It keeps and changes no bytes, never blocks, and may be
	// called by several workers at once.
	WriteBatch(frames []*packet.Frame) (int, error)

	// Close ends the link. It may take milliseconds, so workers do not call it.
	Close() error
}

// A Gateway is step 5 of the packet's path; package gateway has one.
type Gateway interface {
	// MAC is the address that leads to step 5.
	MAC() packet.MAC
	// Prefetch is called with the frames of a batch, not parsed yet, before the first
	// of them is decided on: there may be something to bring from memory for all of
	// them at once. It changes nothing but the record Parse fills beside the bytes.
	Prefetch(frames []packet.Frame)
	// Route decides on a frame for the gateway, or on one it hears (then
	// d.Verdict is Flood). It changes nothing but d.
	Route(f *packet.Frame, d *packet.Decision)
	// Apply carries out the gateway's part of d: it edits a Routed frame in
	// place, takes into tables what there is to take, and sends what it
	// originates. It may refuse a frame whose way has gone since Route.
	Apply(f *packet.Frame, d *packet.Decision, out packet.Out)
	// Tick does what is due. It is called after a Wake.
	Tick(now int64, out packet.Out)
	// FlushPort forgets what it knows of a port that has gone.
	FlushPort(port packet.PortID)
}
