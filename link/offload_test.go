package link_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/link"
)

func TestOffloadString(t *testing.T) {
	for o, want := range map[link.Offload]string{
		0:                    "none",
		link.OffloadChecksum: "csum",
		link.OffloadTCP:      "csum,tso4,tso6,ecn",
		link.OffloadAll:      "csum,tso4,tso6,ecn,uso",
		link.OffloadUSO:      "uso",
		unix.TUN_F_USO4:      "0x20",
		link.OffloadTSO6 | unix.TUN_F_UFO | unix.TUN_F_USO6: "tso6,0x50",
	} {
		if got := o.String(); got != want {
			t.Errorf("%#x is %q, want %q", uint32(o), got, want)
		}
	}
}

// TestMostOffload: every kernel gets what it knows.
func TestMostOffload(t *testing.T) {
	failed := errors.New("failed")
	for _, test := range []struct {
		name  string
		knows link.Offload
		err   error // to anything else
		want  link.Offload
	}{
		{"this kernel", link.OffloadAll, unix.EINVAL, link.OffloadAll},
		{"without USO", link.OffloadTCP, unix.EINVAL, link.OffloadTCP},
		{"without any", 0, unix.EINVAL, 0},
		{"an error", link.OffloadTCP, failed, link.OffloadAll},
	} {
		var tried []link.Offload
		got, err := link.MostOffload(func(o link.Offload) error {
			tried = append(tried, o)
			if o&^test.knows != 0 {
				return test.err
			}
			return nil
		})
		if got != test.want || (err != nil) != errors.Is(test.err, failed) {
			t.Errorf("%s: %v, %v, want %v; tried %v", test.name, got, err, test.want, tried)
		}
	}
}

// TestOffloadOf: packet sockets of kernels before 6.2 know no trains of datagrams.
func TestOffloadOf(t *testing.T) {
	for release, want := range map[string]link.Offload{
		"6.18.44": link.OffloadAll, "6.2": link.OffloadAll, "6.12.107-amd64": link.OffloadAll, "7.0.0-rc1": link.OffloadAll,
		"6.1.0-18-amd64": link.OffloadTCP, "5.15.0": link.OffloadTCP, "": link.OffloadTCP, "Linux": link.OffloadTCP,
	} {
		if got := link.OffloadOf(release); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

// TestSetOffload: what the kernel does not take is not remembered.
func TestSetOffload(t *testing.T) {
	needTAP(t)
	tap := newNamespace(t).tap("tap0")
	for _, bad := range []link.Offload{link.OffloadTSO4, unix.TUN_F_CSUM | unix.TUN_F_USO4, 1 << 20} {
		if err := tap.SetOffload(bad); !errors.Is(err, unix.EINVAL) {
			t.Errorf("SetOffload(%v): %v, want EINVAL", bad, err)
		}
	}
	if tap.Offload() != link.OffloadAll {
		t.Errorf("offload %v, want %v", tap.Offload(), link.OffloadAll)
	}
	must(t, tap.SetOffload(0))
	if tap.Offload() != 0 {
		t.Errorf("offload %v, want none", tap.Offload())
	}
}
