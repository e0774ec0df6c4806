package packet

import "encoding/binary"

// Headroom is how many bytes before a frame in a Batch belong to it, for a tag: a
// whole cache line, so that frames still begin with one.
const Headroom = 64

// VID is the VLAN of the outer tag; 0 without one, and of a priority tag, which names
// none (IEEE 802.1Q-2018, 9.6). Valid after Parse returned OK.
func (f *Frame) VID() uint16 {
	if f.Tags == 0 {
		return 0
	}
	return f.VLAN[0] & 0xfff
}

// PopTag takes the outer tag of a parsed frame that has one off: 22 bytes in front of
// it move, the payload stays where it is. Nobody else may share the bytes.
func (f *Frame) PopTag() {
	copy(f.B[VLANLen:], f.B[:VNetLen+macsLen])
	f.B = f.B[VLANLen:]
	f.VLAN, f.Tags = [MaxVLANTags]uint16{f.VLAN[1]}, f.Tags-1
	f.moveHeaders(-VLANLen)
}

// PushTag puts an 802.1Q tag of a VLAN on a parsed frame of the batch that has none:
// 22 bytes in front move into its headroom. It reports whether there was room, which a
// frame that is not the batch's has not. Nobody else may share the bytes.
func (b *Batch) PushTag(f *Frame, vlan uint16) bool {
	i := b.index(f)
	if i < 0 || f.Tags > 0 {
		return false
	}
	end := b.ends[i]
	f.B = b.arena[end-len(f.B)-VLANLen : end : end]
	copy(f.B, f.B[VLANLen:VLANLen+VNetLen+macsLen])
	tag := f.B[VNetLen+macsLen:]
	binary.BigEndian.PutUint16(tag, uint16(EtherTypeVLAN))
	binary.BigEndian.PutUint16(tag[2:], vlan)
	f.VLAN, f.Tags = [MaxVLANTags]uint16{vlan}, 1
	f.moveHeaders(VLANLen)
	return true
}

// index is the place of a frame in the batch, -1 of one that is not in it. It begins with
// the one that was looked for last: frames are carried on in their order.
func (b *Batch) index(f *Frame) int {
	for range b.Frames {
		if b.last >= len(b.Frames) {
			b.last = 0
		}
		if &b.Frames[b.last] == f {
			return b.last
		}
		b.last++
	}
	return -1
}

// macsLen is that of the two MACs, behind which tags are.
const macsLen = 12

// moveHeaders follows headers that are n bytes farther from the Ethernet header's
// beginning than they were: in the record, and in a virtio-net header, whose offsets
// count from there.
func (f *Frame) moveHeaders(n int) {
	f.L3 = uint8(int(f.L3) + n)
	if f.L4 != 0 {
		f.L4 = uint16(int(f.L4) + n)
	}
	v := f.VNet()
	if v.Flags()&VNetNeedsCSum != 0 {
		v.SetCSumStart(uint16(int(v.CSumStart()) + n))
	}
	if v.HdrLen() != 0 {
		v.SetHdrLen(uint16(max(int(v.HdrLen())+n, EthernetLen)))
	}
}
