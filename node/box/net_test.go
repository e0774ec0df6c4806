package box

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/test/lab"
)

func TestS01_FreshContainer(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	for _, plain := range []bool{false, true} {
		spec := own(sh("ip -4 -o addr; ip link show eth0; ip route; hostname; echo $HOSTNAME; echo /sys/class/net/*; echo /proc/[0-9]*; cat /proc/1/comm")...)
		spec.Interface.Plain = plain
		out := run(t, spec, 0)
		for _, want := range []string{
			`inet 127\.0\.0\.1/8 scope host lo`,
			`inet 172\.17\.0\.2/16 brd 172\.17\.255\.255 scope global eth0`,
			`<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 .* state UP `,
			`link/ether 02:42:ac:11:00:02 brd ff:ff:ff:ff:ff:ff`,
			`\ndefault via 172\.17\.0\.1 dev eth0 \n172\.17\.0\.0/16 dev eth0 proto kernel scope link src 172\.17\.0\.2 \n0123`,
			`\n0123456789ab\n0123456789ab\n/sys/class/net/eth0 /sys/class/net/lo\n/proc/1 /proc/\d+\nfairlead-init\n$`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("plain %v: no %q in:\n%s", plain, want, out)
			}
		}
	}
}

func TestS02_LinkLocal(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ping")
	r := start(t, own(sh("ip -6 -o addr show eth0; ping -6 -c1 -W2 fe80::42:acff:fe11:2%eth0; ip -6 neigh; echo end")...))
	r.until("end")
	out := r.out.String()
	if want := "inet6 fe80::42:acff:fe11:2/64 scope link"; !strings.Contains(out, want) || strings.Contains(out, "tentative") {
		t.Errorf("no usable %q in:\n%s", want, out)
	}
	if !strings.Contains(out, " 1 received") {
		t.Errorf("cannot ping itself:\n%s", out)
	}
	if r.frames(packet.EtherTypeIPv6) == 0 {
		t.Error("no IPv6 frame seen; the next test would prove nothing")
	}
}

// With IPv6 off there is no address, and not one frame.
func TestS02_Off(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	spec := own(sh("ip -6 addr; ip -6 route; echo end; sleep 1.2; echo later")...)
	spec.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}
	r := start(t, spec)
	r.until("later")
	if out := r.out.String(); out != "end\nlater\n" {
		t.Errorf("there is IPv6:\n%s", out)
	}
	if n := r.frames(packet.EtherTypeIPv6); n != 0 {
		t.Errorf("%d IPv6 frames", n)
	}
}

// Whatever a neighbour advertises, a container takes neither a route nor an
// address from it, unless it was told to.
func TestS02_RouterAdvertisement(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	for _, asked := range []bool{false, true} {
		spec := own(sh("cd /proc/sys/net/ipv6/conf/eth0; cat accept_ra accept_redirects; " +
			"while :; do echo look; ip -6 route show default; ip -6 -o addr show eth0 scope global; sleep 0.05; done")...)
		settings := "0\n0\n"
		if asked {
			spec.Sysctls = map[string]string{"net.ipv6.conf.eth0.accept_ra": "1"}
			settings = "1\n0\n"
		}
		r := start(t, spec)
		r.until("look")
		if out := r.out.String(); !strings.HasPrefix(out, settings) {
			t.Errorf("accept_ra and accept_redirects are:\n%s", out)
		}
		r.advertise()
		if asked {
			r.until("default via fe80::bad ")
			r.until(" 2001:db8::42:acff:fe11:2/64 ")
			r.stop()
			continue
		}
		seen := strings.Count(r.out.String(), "look")
		lab.Eventually(t, 10*time.Second, func() error {
			if now := strings.Count(r.out.String(), "look"); now < seen+5 {
				return fmt.Errorf("looked %d times, then %d", seen, now)
			}
			return nil
		})
		if out := r.out.String(); strings.Contains(out, "default") || strings.Contains(out, "2001:db8") {
			t.Errorf("it believes a neighbour:\n%s", out)
		}
		r.stop()
	}
}

// advertise has a neighbour, fe80::bad, offer itself as a router (RFC 4861 4.2)
// with a prefix to make addresses of (4.6.2).
func (r *running) advertise() {
	r.t.Helper()
	src, dst := netip.MustParseAddr("fe80::bad").As16(), netip.MustParseAddr("ff02::1").As16()
	prefix := netip.MustParseAddr("2001:db8::").As16()
	icmp := append([]byte{
		134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, // 1800 seconds
		3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0, // on link, autonomous, 3600 seconds
	}, prefix[:]...)
	packet.ICMP(icmp).UpdateChecksum(packet.PseudoSum6(packet.Addr(src), packet.Addr(dst), packet.ProtoICMPv6, len(icmp)))
	b := make([]byte, packet.VNetLen)
	b = append(b, 0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xad, 0x86, 0xdd)
	b = append(b, 0x60, 0, 0, 0, 0, byte(len(icmp)), byte(packet.ProtoICMPv6), 255)
	b = slices.Concat(b, src[:], dst[:], icmp)
	n, err := r.tap.WriteBatch([]*packet.Frame{{B: b}})
	if n != 1 || err != nil {
		r.t.Fatalf("wrote %d frames, %v", n, err)
	}
}

// frames counts the frames of a kind the container has sent so far.
func (r *running) frames(kind packet.EtherType) (n int) {
	b := packet.NewBatch()
	for {
		b.Reset()
		got, err := r.tap.ReadBatch(b)
		if err != nil {
			r.t.Fatal(err)
		}
		if got == 0 {
			return n
		}
		for i := range b.Frames {
			f := &b.Frames[i]
			if packet.Parse(f) == packet.OK && f.EtherType == kind {
				n++
			}
		}
	}
}

func TestSysctls(t *testing.T) {
	lab.NoLeaks(t)
	spec := own("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax")
	spec.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
	if out := run(t, spec, 0); out != "1\n4096\n" {
		t.Errorf("got %q", out)
	}
	spec.Sysctls = map[string]string{"net.ipv4.no_such": "1"}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, err = Start(spec, [3]*os.File{r, w, w})
	if want := "sysctl net.ipv4.no_such=1: "; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestS16_None(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	out := run(t, none("ip", "-o", "addr"), 0)
	if n := strings.Count(out, "\n"); n != 2 || strings.Count(out, ": lo ") != 2 {
		t.Errorf("more or less than 127.0.0.1 and ::1:\n%s", out)
	}
}

func TestS16_Host(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	const look = "ip addr; hostname; ls /sys/class/net; readlink /proc/self/ns/net"
	want, err := exec.Command("sh", "-c", look).Output()
	if err != nil {
		t.Fatal(err)
	}
	spec := none(sh(look)...)
	spec.Network, spec.Hostname = NetworkHost, ""
	lifetimes := regexp.MustCompile(`valid_lft .*`) // those of DHCP count down
	if out := run(t, spec, 0); lifetimes.ReplaceAllString(out, "") != lifetimes.ReplaceAllString(string(want), "") {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

func TestS16_Shared(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	x := start(t, own(self("listen", "127.0.0.1:8080")...))
	x.until("listening")
	user, err1 := UserNS(x.PIDFD)
	net, err2 := NetNS(x.PIDFD)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	dial := strings.Join(self("dial", "127.0.0.1:8080"), " ")
	spec := none(sh(dial + "; hostname; echo /proc/[0-9]*; echo /sys/class/net/*; while :; do ip -o -4 addr show eth0; sleep 0.05; done")...)
	spec.Network, spec.SharePID = NetworkShared, x.PID
	y := start(t, spec)
	y.until("greetings\n0123456789ab\n/proc/1 ")
	y.until("\n/sys/class/net/eth0 /sys/class/net/lo\n")
	y.until("inet 172.17.0.2/16")
	if ns, err := UserNS(y.PIDFD); ns != user || err != nil {
		t.Errorf("user namespace %v, X's was %v, %v", ns, user, err)
	}
	if ns, err := NetNS(y.PIDFD); ns != net || err != nil {
		t.Errorf("network namespace %v, X's was %v, %v", ns, net, err)
	}
	// X ends first; the namespace and its interface stay for Y.
	x.wait(0)
	if err := leftovers("\x00listen\x00"); err != nil {
		t.Error(err)
	}
	seen := strings.Count(y.out.String(), "172.17.0.2")
	lab.Eventually(t, 10*time.Second, func() error {
		if now := strings.Count(y.out.String(), "172.17.0.2"); now < seen+3 {
			return fmt.Errorf("seen %d times, then %d", seen, now)
		}
		return nil
	})
	if err := y.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	y.wait(128 + 15)

	spec.SharePID = x.PID
	if _, err := Start(spec, [3]*os.File{os.Stdin, os.Stdout, os.Stderr}); err == nil || !strings.Contains(err.Error(), "no such process") {
		t.Errorf("sharing with a dead one: %v", err)
	}
}

func TestNamespaces(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	for _, kind := range []string{"user", "net", "mnt", "uts", "pid", "ipc"} {
		ours, _ := os.Readlink("/proc/self/ns/" + kind)
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", r.PID, kind))
		if err != nil || its == ours {
			t.Errorf("%s namespace is %s, ours %s, %v", kind, its, ours, err)
		}
	}
}
