package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"fairlead/node/api"
)

// firstListenFD is where systemd puts the sockets it hands to a service
// (sd_listen_fds(3)), and maxListenFDs how many are looked at.
const (
	firstListenFD = 3
	maxListenFDs  = 2048
)

// listenFDs are the sockets that somebody with the right to their ports has bound
// for this command.
func listenFDs() (fds []int) {
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	count, err2 := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || err2 != nil || pid != os.Getpid() {
		return nil
	}
	for i := range max(0, min(count, maxListenFDs)) {
		fds = append(fds, firstListenFD+i)
	}
	return fds
}

// handListeners gives the node the sockets that were bound for it.
func handListeners(ctx context.Context, c *api.Client) error {
	for _, fd := range listenFDs() {
		if err := c.Hand(ctx, "/v1/listeners", api.ListenerRequest{}, []int{fd}); err != nil {
			return fmt.Errorf("up: LISTEN_FDS: descriptor %d: %w", fd, err)
		}
	}
	return nil
}
