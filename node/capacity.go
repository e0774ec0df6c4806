package node

// A Capacity is how much a node may have, by how many descriptors its process
// may open (ulimit -n).
type Capacity struct {
	Descriptors int
	Containers  int
	Sockets     int // host sockets of all containers
	SocketsEach int // of one container
	Listeners   int // published ports
}

// ReadCapacity is that of a node this process would start.
func ReadCapacity() Capacity {
	containers, _, limit := share()
	b := readBudget()
	return Capacity{Descriptors: limit, Containers: containers, Sockets: b.Total, SocketsEach: b.Container, Listeners: b.Listeners}
}

// SocketsWanted is how many sockets a container has where there is no want.
const SocketsWanted = maxContainer
