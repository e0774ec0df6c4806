package node

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// A budget is how many descriptors of the node's containers, their connections
// by host sockets and their published ports may have. It is derived from what
// this process may have (ulimit -n; Go has raised that to the hard limit), and
// from the ports the kernel has for connections.
type budget struct {
	Limit     int // descriptors of this process
	Container int // sockets of one container
	Total     int // sockets of all of them
	Listeners int // listening sockets: what connections leave, and half at least
}

// Of the descriptors of the process, spare is what is none of the connections',
// and of the kernel's ports for connections (ip_local_port_range) a quarter is
// ours: the rest is for everybody else on this host.
const (
	spare          = 512
	portShare      = 4
	containerShare = 8
	maxContainer   = 1024
)

// socketShares is among how many containers half of the sockets is shared out. A
// node may have more, which take what others leave.
const socketShares = 256

// readBudget derives it from the state of this host.
func readBudget() budget {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		r.Cur = math.MaxInt32
	}
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // else what most kernels have
	return deriveBudget(int(min(r.Cur, math.MaxInt32)), string(text))
}

func deriveBudget(limit int, ports string) budget {
	first, last := ephemeralFirst, ephemeralLast
	_, _ = fmt.Sscan(ports, &first, &last)
	total := max(1, min(limit-spare, (last-first+1)/portShare))
	return budget{
		Limit:     limit,
		Container: max(1, min(maxContainer, limit/containerShare)),
		Total:     total,
		Listeners: max(0, (limit-spare)/2, limit-spare-total),
	}
}
