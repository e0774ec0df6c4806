// Package packet is row 0 of the house: what a frame is, what may be decided
// about it, and how its bytes are read, checked, finished and cut.
//
// It imports the standard library only, allocates nothing on any path that
// sees a frame, holds no state and is safe for concurrent use: every function
// works on the bytes and values it is handed.
//
// # Layout of a frame
//
// A Frame's bytes begin with the virtio-net header (VNetLen bytes, see vnet.go)
// and go on with the Ethernet header:
//
//	0        10                24 (+4 per VLAN tag)
//	| vnet   | dst src type    | network header | transport header | payload |
//	         ^ Frame.Ether()   ^ Frame.L3       ^ Frame.L4
//
// All offsets in Frame count from the Ethernet header, because csum_start and
// hdr_len of the virtio-net header do so too.
//
// # Files
//
//	frame.go     Frame, Batch: bytes and the flat record beside them
//	decision.go  Decision, Verdict: what forwarding may say of a frame
//	reason.go    Reason: one enum for counters, trace lines and tests
//	addr.go      MAC, Addr, Tuple: fixed-size keys without pointers
//	parse.go     Parse: one pass, fills the record, names what is wrong
//	vnet.go ethernet.go arp.go ipv4.go ipv6.go icmp.go udp.go tcp.go: views
//	checksum.go  full, incremental (RFC 1624), partial (virtio NEEDS_CSUM)
//	segment.go   completion and software segmentation
//	fragment.go  IPv4 fragmentation
//	rewrite.go   address translation in place, ICMP errors included
//
// Folder packettest builds frames for tests, good ones and broken ones.
package packet
