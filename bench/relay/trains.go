package relay

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// headLen is that of a UDP datagram's headers: virtio-net, Ethernet, IPv4 without
// options, UDP.
const headLen = packet.VNetLen + packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen

// Trains joins two TAPs as Raw does, and writes datagrams of one length that follow
// one another as one frame, which the receiver's kernel cuts: nothing is asked of
// them but that they are UDP and as long as the one before. No address is compared, no
// checksum looked at. What it reaches is what joining can bring at most. It is done
// when a descriptor fails.
func Trains(taps [2]int, crossed *Crossed) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var fds [2]unix.PollFd
	for i, fd := range taps {
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("set O_NONBLOCK: %w", err)
		}
		fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	next, joined := make([]byte, packet.MaxFrame), make([]byte, 0, packet.MaxFrame)
	for {
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		for i, from := range taps {
			to, size, count := taps[1-i], 0, 0
			flush := func() (err error) {
				if count > 0 {
					err = writeTrain(to, joined, size, count, crossed)
				}
				joined, count = joined[:0], 0
				return err
			}
			for range drain {
				n, errno := call(unix.SYS_READ, from, next)
				if errno != 0 {
					break
				}
				plain := datagram(next[:n])
				if plain && count > 0 && n == size && len(joined)+n < 65_000 {
					joined, count = append(joined, next[headLen:n]...), count+1
					continue
				}
				if err := flush(); err != nil {
					return err
				}
				joined, size, count = append(joined, next[:n]...), n, 1
				if !plain {
					size = 0 // nothing joins it
				}
			}
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// datagram reports whether a frame is a UDP datagram whose checksum is unfinished.
func datagram(f []byte) bool {
	return len(f) > headLen && packet.VNet(f).Flags()&packet.VNetNeedsCSum != 0 && packet.VNet(f).GSOType() == packet.GSONone &&
		packet.Ethernet(f[packet.VNetLen:]).Type() == packet.EtherTypeIPv4 &&
		packet.IPv4(f[packet.VNetLen+packet.EthernetLen:]).Proto() == packet.ProtoUDP
}

// writeTrain writes a frame, or so many datagrams behind the headers of the first.
func writeTrain(to int, b []byte, size, count int, crossed *Crossed) error {
	if count > 1 {
		v, ip := packet.VNet(b), packet.IPv4(b[packet.VNetLen+packet.EthernetLen:])
		v.SetGSOType(packet.GSOUDPL4)
		v.SetHdrLen(headLen - packet.VNetLen)
		v.SetGSOSize(uint16(size - headLen))
		udp, length := packet.UDP(ip[packet.IPv4MinLen:]), len(b)-headLen+packet.UDPLen
		ip.SetTotalLen(packet.IPv4MinLen + length)
		ip.UpdateChecksum()
		udp.SetLen(length)
		udp.SetChecksum(packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, length))
	}
	if _, errno := call(unix.SYS_WRITE, to, b); errno != 0 && errno != unix.EIO { // EIO: the interface is down
		return fmt.Errorf("write a train of %d: %w", count, errno)
	}
	crossed.Frames.Add(uint64(count))
	crossed.Bytes.Add(uint64(len(b)))
	return nil
}
