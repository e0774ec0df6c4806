package packet

// MaxFrame is the most bytes one frame can have: virtio-net header, Ethernet,
// two VLAN tags and a 64 KiB network packet. A TAP silently truncates into a
// shorter buffer (drivers/net/tun.c, tun_put_user), so every read offers this
// much.
const MaxFrame = VNetLen + EthernetLen + 2*VLANLen + 65535

// BatchFrames is how many frames one ReadBatch returns at most, and with that
// how much one port may do before the next one gets its turn.
const BatchFrames = 64

// smallFrame bounds what counts as a small frame. A batch ends with the first
// larger one: a 64 KiB segment is written on while it is still in the cache it
// was read into, and the arena need not hold 64 of them.
const smallFrame = 2048

// PortID names a port of a switch: a dense index in the low 16 bits, a
// generation in the high 16. The zero PortID names no port.
type PortID uint32

// ContainerID names a container on the node: a dense index in the low 16 bits,
// a generation in the high 16. The zero ContainerID names no container (the
// gateway, an uplink).
type ContainerID uint32

// Host stands for the host itself, where a network has a link to it.
const Host ContainerID = 1 << 16

// NetworkID names a network on the node. Tables that outlive one network hold
// it in their keys, because two networks may use the same addresses.
type NetworkID uint32

// A Frame is one Ethernet frame on its way through the switch: borrowed bytes
// and the flat record Parse fills beside them.
//
// B is borrowed from the batch that read it and valid until that batch is
// Reset; a flooded frame's bytes are shared by every egress, so nobody edits
// them after the first write. Clone is the only way to keep them.
//
// A Frame is used by one worker at a time.
type Frame struct {
	// B holds the virtio-net header followed by the Ethernet frame.
	B []byte

	// Time is the worker's clock when the frame was read, in nanoseconds.
	Time int64

	Port      PortID      // where it came in; zero when originated here
	Container ContainerID // whose it is
	Network   NetworkID

	// Flow is the number of the flow a router passed the frame on by; 0 is none.
	Flow uint32

	// What follows is valid after Parse returned OK.

	L3   uint8  // offset of the network header from the Ethernet header
	Tags uint8  // number of VLAN tags: 0, 1 or 2
	L4   uint16 // offset of the transport header; 0 when there is none to read

	// SrcPort and DstPort are the transport ports of TCP and UDP. For ICMP and
	// ICMPv6 echo the identifier is the port of who asks, and who answers has 0. Valid iff L4 != 0.
	SrcPort, DstPort uint16

	EtherType EtherType // of the network header, behind all tags
	VLAN      [2]uint16 // tag control information, outer first; valid per Tags

	// Proto is the transport protocol behind all extension headers. Valid iff
	// EtherType is IPv4 or IPv6.
	Proto Proto
	Flags Flags
}

// Flags are what Parse notices on its way, one bit each.
type Flags uint8

const (
	// Multicast is set when the destination MAC has its group bit set
	// (broadcast included).
	Multicast Flags = 1 << iota
	// Broadcast is set when the destination MAC is ff:ff:ff:ff:ff:ff.
	Broadcast
	// Fragment is set on every fragment of an IP datagram, the first included.
	Fragment
	// LaterFragment is set on fragments other than the first: they have no
	// transport header, L4 is 0.
	LaterFragment
	// GSO is set when the virtio-net header asks for segmentation.
	GSO
	// NeedsChecksum is set when the checksum of the header at L4 is unfinished.
	// One deeper, of a packet in a container's own tunnel, is not meant.
	NeedsChecksum
	// Resumed is set on a frame that was held and goes through the path again. It
	// cannot be held once more. Parse leaves it.
	Resumed
)

// Has reports whether all bits of x are set.
func (f Flags) Has(x Flags) bool { return f&x == x }

// Ether returns the frame from its Ethernet header on. Borrowed like B.
func (f *Frame) Ether() []byte { return f.B[VNetLen:] }

// VNet returns the virtio-net header. Borrowed like B.
func (f *Frame) VNet() VNet { return VNet(f.B[:VNetLen]) }

// Len is the length of the Ethernet frame in bytes, as the kernel's counters
// of a TAP have it: without the virtio-net header.
func (f *Frame) Len() int { return len(f.B) - VNetLen }

// Segments is how many packets the frame stands for on a wire: one, or what a
// segmentation-offload frame is cut into.
func (f *Frame) Segments() int {
	if !f.Flags.Has(GSO) {
		return 1
	}
	size := int(f.VNet().GSOSize())
	payload := f.Len() - f.headersLen()
	if size == 0 || payload <= size {
		return 1
	}
	return (payload + size - 1) / size
}

// PacketLen is the length of the largest network packet the frame stands for:
// what an MTU is compared with. For a segmentation-offload frame that is one
// segment, not the frame.
func (f *Frame) PacketLen() int {
	if f.Flags.Has(GSO) {
		return f.headersLen() + int(f.VNet().GSOSize()) - int(f.L3)
	}
	return f.Len() - int(f.L3)
}

// headersLen is the length from the Ethernet header to the transport payload.
// Valid for parsed TCP and UDP frames.
func (f *Frame) headersLen() int {
	if f.Proto == ProtoTCP {
		return int(f.L4) + TCP(f.Ether()[f.L4:]).HeaderLen()
	}
	return int(f.L4) + UDPLen
}

// TrainHeaders is how many bytes of headers the packets have on a wire that the frame
// stands for, beside those it holds. Valid as Segments is.
func (f *Frame) TrainHeaders() int {
	if n := f.Segments(); n > 1 {
		return (n - 1) * f.headersLen()
	}
	return 0
}

// Clone copies the frame and its bytes into dst, whose capacity is reused, and
// returns the copy. It is the only way to keep a frame beyond its batch.
func (f *Frame) Clone(dst []byte) Frame {
	c := *f
	c.B = append(dst[:0], f.B...)
	return c
}

// A Batch is the memory one worker reads into: at most BatchFrames frames, of
// which at most the last is larger than smallFrame. The batch owns the bytes;
// frames borrow them until Reset. Used by one worker.
type Batch struct {
	Frames []Frame
	limit  int
	arena  []byte
	used   int
	ends   [BatchFrames]int // of the frames, in the arena
	last   int              // of the frames, that index found
}

// NewBatch allocates a batch. It is done once per worker.
func NewBatch() *Batch {
	return &Batch{
		Frames: make([]Frame, 0, BatchFrames),
		limit:  BatchFrames,
		arena:  make([]byte, (BatchFrames-1)*(Headroom+smallFrame)+Headroom+MaxFrame),
	}
}

// Reset forgets the frames and takes their bytes back.
func (b *Batch) Reset() { b.Frames, b.used = b.Frames[:0], 0 }

// Limit has the batch be full with n frames, from 1 to BatchFrames.
func (b *Batch) Limit(n int) { b.limit = min(max(n, 1), BatchFrames) }

// Full reports whether the batch takes no further frame: as many as its limit
// are in it, or the last one was large.
func (b *Batch) Full() bool {
	return len(b.Frames) >= b.limit || b.used > len(b.arena)-Headroom-MaxFrame
}

// Room returns MaxFrame bytes for the next frame, for a queue to read into.
// It must not be called on a Full batch.
func (b *Batch) Room() []byte { return b.arena[b.used+Headroom:][:MaxFrame] }

// Add takes the first n bytes of Room as the next frame. Slots are whole cache
// lines, so that two frames never share one.
func (b *Batch) Add(n int) {
	begin, end := b.used+Headroom, b.used+Headroom+n
	b.ends[len(b.Frames)] = end
	b.Frames = append(b.Frames, Frame{B: b.arena[begin:end:end]})
	if n > smallFrame {
		b.used = len(b.arena) // the batch ends here
		return
	}
	b.used = (end + 63) &^ 63
}
