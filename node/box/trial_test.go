package box

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

func TestTry(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	bare, err := Try(false)
	if err != nil || bare.Offload != 0 || bare.Nowait {
		t.Errorf("without a TAP: %+v, %v", bare, err)
	}
	trial, err := Try(true)
	if err != nil || trial.Offload == 0 || trial.Proc != nil || trial.Sys != nil {
		t.Errorf("%+v, %v", trial, err)
	}
}

func TestLookTUN(t *testing.T) {
	lab.NeedTUN(t)
	if tun := LookTUN("/dev/net/tun"); tun.Err != nil || !tun.Device || tun.Owner == "" {
		t.Errorf("%+v", tun)
	}
	if tun := LookTUN(os.DevNull); tun.Err != nil || tun.Device {
		t.Errorf("another device: %+v", tun)
	}
	if tun := LookTUN(filepath.Join(t.TempDir(), "tun")); !errors.Is(tun.Err, fs.ErrNotExist) || tun.Device {
		t.Errorf("none: %+v", tun)
	}
}

func TestFeatures(t *testing.T) {
	for _, f := range slices.Concat(Basics(), SocketFeatures()) {
		if f.Name == "" || f.Since == "" || f.Err != nil && f.Without == "" {
			t.Errorf("%+v", f)
		}
	}
	if err := TryPort(0); err != nil { // any that is free
		t.Error(err)
	}
}

func TestHostRoutes(t *testing.T) {
	lab.NoLeaks(t)
	h, other := lab.NewHost(t, "h"), lab.NewHost(t, "other")
	lab.Join(t, h, "eth0", other, "eth0")
	h.Addr(t, "eth0", "192.0.2.2/24")
	h.Route(t, "default", "192.0.2.1")
	h.Route(t, "198.51.100.0/24", "192.0.2.1")
	list := lab.In(t, h, HostRoutes)
	for _, want := range []HostRoute{
		{netip.MustParsePrefix("127.0.0.1/8"), "lo", true},
		{netip.MustParsePrefix("192.0.2.2/24"), "eth0", true},
		{netip.MustParsePrefix("192.0.2.0/24"), "eth0", false},
		{netip.MustParsePrefix("198.51.100.0/24"), "eth0", false},
	} {
		if !slices.Contains(list, want) {
			t.Errorf("%+v is not in %+v", want, list)
		}
	}
	for _, r := range list {
		if r.Prefix.Bits() > 24 {
			t.Errorf("%+v is neither an address nor a way", r)
		}
	}
}

// The command that mends an error is known wherever the error travels.
func TestMending(t *testing.T) {
	remedy := &Remedy{unix.EPERM, "x is 0", "sudo sysctl -w x=1"}
	for _, c := range []struct {
		err            error
		wrong, command string
	}{
		{errors.New("no"), "no", ""},
		{fmt.Errorf("start: %w", remedy), "start: operation not permitted: x is 0", "sudo sysctl -w x=1"},
		{fmt.Errorf("start: %w", asFailure(remedy)), "start: operation not permitted: x is 0", "sudo sysctl -w x=1"},
		{&Remedy{Err: unix.EINVAL, Cause: "too old"}, "invalid argument: too old", ""},
		{asFailure(errors.New("no")), "no", ""},
	} {
		if wrong, command := Mending(c.err); wrong != c.wrong || command != c.command {
			t.Errorf("%v: %q, %q", c.err, wrong, command)
		}
	}
	if !errors.Is(remedy, unix.EPERM) {
		t.Error("the cause is lost")
	}
}
