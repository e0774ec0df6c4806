package main

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A manager that waits is told that we are ready, once.
func TestNotifyReady(t *testing.T) {
	at := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	manager, err := net.ListenUnixgram("unixgram", at)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", at.Name)
	if err := notifyReady(); err != nil {
		t.Fatal(err)
	}
	_ = manager.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := manager.Read(b)
	if want := "READY=1\nSTATUS=The node answers."; err != nil || string(b[:n]) != want {
		t.Errorf("the manager heard %q, %v; want %q", b[:n], err, want)
	}
	manager.Close()
	if err := notifyReady(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", at.Name+"x")
	if notifyReady() == nil {
		t.Error("nobody is there, and nothing is said")
	}
}
