package main

import (
	"fmt"
	"net"
	"os"
)

// notifyReady tells the service manager that the node answers (sd_notify(3)), if
// there is one that wants to know.
func notifyReady() error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	_ = os.Unsetenv("NOTIFY_SOCKET") // whoever we start is not the one asked
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", address, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("READY=1\nSTATUS=The node answers.")); err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", address, err)
	}
	return nil
}
