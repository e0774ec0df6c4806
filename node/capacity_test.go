package node

import "testing"

func TestReadCapacity(t *testing.T) {
	c := ReadCapacity()
	if c.Descriptors <= 0 || c.SocketsEach <= 0 || c.SocketsEach > SocketsWanted || c.Sockets <= 0 || c.Containers > c.Descriptors {
		t.Errorf("%+v", c)
	}
}
