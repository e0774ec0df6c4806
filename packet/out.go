package packet

// An Out is where a router puts what it has to send, while it applies a
// decision or does what is due. It belongs to the worker that calls and is
// valid for the call only.
type Out interface {
	// Room returns MaxFrame bytes for the next frame, virtio-net header
	// included. They are the router's until Originate, and stale bytes of other
	// frames are in them.
	Room() []byte
	// Originate sends the first n bytes of Room, as a frame of the router's own.
	// Port zero stands for all ports of the network.
	Originate(to Place, n int)
	// Resume has the frames that are held under key go through the path again,
	// soon after the call.
	Resume(key uint64)
	// Wake has the Tick of a network called at that time (the worker's clock) or
	// sooner.
	Wake(n NetworkID, at int64)
}

// ARPKey is the Decision.HoldKey of packets that wait for the MAC of an IPv4
// address on a network.
func ARPKey(n NetworkID, a [4]byte) uint64 {
	return uint64(n)<<32 | uint64(a[0])<<24 | uint64(a[1])<<16 | uint64(a[2])<<8 | uint64(a[3])
}
