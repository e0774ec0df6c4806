package lockin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

// What a locked-in process may do is tried by one: this program, called again
// with the name of a trial and a mode.
const trialVariable = "LOCKIN_TRIAL"

// parent is another process of this user.
var parent = os.Getppid()

func TestMain(m *testing.M) {
	if trial := os.Getenv(trialVariable); trial != "" {
		os.Exit(try(trial))
	}
	os.Exit(m.Run())
}

// try locks this process in and makes a trial. What it prints is the answer.
func try(name string) int {
	dir := os.Getenv("LOCKIN_DIR")
	_, err := Apply(Mode(os.Getenv(Variable)), Paths{Dir: dir + "/d", ResolvConf: dir + "/etc/resolv.conf"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, t := range trials {
		if t.name == name {
			fmt.Println(t.try(dir))
			return 0
		}
	}
	return 1
}

// trials are what a locked-in process tries, and what comes of it: what it
// prints, or "killed" of one that ends at once. Of the strict mode it is
// otherwise where refused says so.
var trials = []struct {
	name, want string
	refused    bool // with an error; in the strict mode the process ends
	files      bool // it takes Landlock
	try        func(dir string) any
}{
	{name: "its status", want: "CapBnd:0 CapEff:0 NoNewPrivs:1 Seccomp:2", try: func(string) any { return status() }},
	{name: "threads that come later", want: "<nil>", try: func(string) any { return inThreads() }},
	{name: "write in its directory", want: "<nil>", try: func(dir string) any {
		return errors.Join(os.WriteFile(dir+"/d/state.tmp", []byte("x"), 0o600), os.Rename(dir+"/d/state.tmp", dir+"/d/state"), os.Mkdir(dir+"/d/containers", 0o700))
	}},
	{name: "read resolv.conf that was replaced", want: "<nil>", try: func(dir string) any {
		_, err := os.ReadFile(dir + "/etc/resolv.conf")
		return err
	}},
	{name: "remove its directory", want: "<nil>", try: func(dir string) any {
		return errors.Join(os.Remove(dir+"/d/service"), os.Remove(dir+"/d"))
	}},
	{name: "a file beside", want: "permission denied", files: true, try: func(dir string) any {
		_, err := os.ReadFile(dir + "/secret")
		return errors.Unwrap(err)
	}},
	{name: "make a file beside", want: "permission denied", files: true, try: func(dir string) any { return errors.Unwrap(os.WriteFile(dir+"/new", nil, 0o600)) }},
	{name: "let all read a file of its own", want: "<nil>", try: func(dir string) any {
		f, err := os.Create(dir + "/d/hosts")
		return errors.Join(err, f.Chmod(0o644), f.Close())
	}},
	{name: "chmod a file beside", want: "function not implemented", refused: true, try: func(dir string) any {
		return cause(os.Chmod(dir+"/secret", 0o644))
	}},
	{name: "chmod a file beside that it has not opened to read", want: "[bad file descriptor operation not supported]", refused: true, try: func(dir string) any {
		fd, err := unix.Open(dir+"/secret", unix.O_PATH, 0) // which Landlock does not ask about
		if err != nil {
			return err
		}
		return []error{unix.Fchmod(fd, 0o644), unix.Fchmodat(fd, "", 0o644, unix.AT_EMPTY_PATH)}
	}},
	{name: "have a file of its own run as its owner", want: "operation not permitted", refused: true, try: func(dir string) any {
		f, err := os.Create(dir + "/d/shell")
		return errors.Join(err, cause(f.Chmod(0o755|os.ModeSetuid)))
	}},
	{name: "make a file that runs as its owner", want: "killed", try: func(dir string) any {
		_, err := os.OpenFile(dir+"/d/shell", os.O_WRONLY|os.O_CREATE, 0o755|os.ModeSetuid)
		return err
	}},
	{name: "a device", want: "permission denied", files: true, try: func(string) any {
		_, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		return errors.Unwrap(err)
	}},
	{name: "listen and connect", want: "<nil>", try: func(string) any { return talk() }},
	{name: "a packet socket", want: "operation not permitted", refused: true, try: func(string) any {
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		return err
	}},
	{name: "a service of this machine", want: "operation not permitted", refused: true, try: func(dir string) any {
		_, err := net.Dial("unixpacket", dir+"/d/service")
		return cause(err)
	}},
	{name: "a service of this machine by a channel", want: "[invalid argument transport endpoint is already connected transport endpoint is already connected]", try: func(dir string) any {
		return byChannel(dir + "/d/service")
	}},
	{name: "a pair for datagrams", want: "operation not permitted", refused: true, try: func(string) any {
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		return err
	}},
	{name: "netlink of the firewall", want: "operation not permitted", refused: true, try: func(string) any {
		_, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
		return err
	}},
	{name: "hold of another process", want: pidfdOfOthers(), refused: hasPeerPIDFD(), try: func(string) any {
		_, err := unix.PidfdOpen(parent, 0)
		return err
	}},
	{name: "hold of another process by /proc", want: "permission denied", files: true, try: func(string) any {
		_, err := os.Open(fmt.Sprintf("/proc/%d", parent))
		return errors.Unwrap(err)
	}},
	{name: "a signal of no business of ours", want: "operation not permitted", refused: true, try: func(string) any {
		self, err := unix.PidfdOpen(os.Getpid(), 0)
		return errors.Join(err, unix.PidfdSendSignal(self, unix.SIGSTOP, nil, 0))
	}},
	{name: "have a descriptor send signals", want: "operation not permitted", refused: true, try: func(string) any {
		_, err := unix.FcntlInt(0, unix.F_SETOWN, parent)
		return err
	}},
	{name: "an unknown ioctl", want: "operation not permitted", refused: true, try: func(string) any { return unix.IoctlSetInt(0, unix.TIOCSTI, 0) }},
	{name: "a call of later kernels", want: "function not implemented", refused: true, try: func(string) any {
		_, _, errno := unix.RawSyscall(1000, 0, 0, 0)
		return errno
	}},
	{name: "execute", want: "killed", try: func(string) any { return syscall.Exec("/bin/true", []string{"true"}, nil) }},
	{name: "fork", want: "killed", try: func(string) any {
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		return errno
	}},
	{name: "another namespace", want: "killed", try: func(string) any { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{name: "trace", want: "killed", try: func(string) any { return unix.PtraceAttach(1) }},
	{name: "memory to run", want: "killed", try: func(string) any {
		_, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}},
	{name: "another user", want: "killed", try: func(string) any {
		_, _, errno := unix.RawSyscall(unix.SYS_SETUID, 12345, 0, 0)
		return errno
	}},
}

func TestLockIn(t *testing.T) {
	for _, trial := range trials {
		for _, mode := range []Mode{On, Strict} {
			t.Run(trial.name+"/"+string(mode), func(t *testing.T) {
				if trial.files && LandlockABI() == 0 {
					lab.NotRun(t, noLandlock, "boot with lsm=landlock,…")
				}
				want := trial.want
				if trial.refused && mode == Strict {
					want = "SIGSYS"
				}
				if got := inProcess(t, trial.name, mode); !strings.Contains(got, want) {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	}
}

// With the lock-in off nothing is given up.
func TestLockInOff(t *testing.T) {
	if got := inProcess(t, "a file beside", Off); got != "<nil>" {
		t.Errorf("a file beside: %s", got)
	}
	if got := inProcess(t, "its status", Off); !strings.Contains(got, "NoNewPrivs:0 Seccomp:0") {
		t.Errorf("status: %s", got)
	}
}

// inProcess makes a trial in a process of its own and returns what it printed,
// or how it ended.
func inProcess(t *testing.T, trial string, mode Mode) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "d"), 0o700), os.Mkdir(filepath.Join(dir, "etc"), 0o700),
		os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600), os.WriteFile(filepath.Join(dir, "etc", "resolv.conf"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	service, err := net.Listen("unixpacket", filepath.Join(dir, "d", "service"))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), trialVariable+"="+trial, Variable+"="+string(mode), "LOCKIN_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() && ws.Signal() == unix.SIGSYS {
			return "killed"
		}
		return fmt.Sprintf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// status is what the kernel says of this thread.
func status() string {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err.Error()
	}
	var said []string
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "CapEff", "CapBnd", "NoNewPrivs", "Seccomp":
			if strings.HasPrefix(name, "Cap") {
				value = strings.TrimLeft(value, "0")
			}
			if value == "400" || value == "" || name == "CapBnd" && os.Geteuid() != 0 { // CAP_NET_BIND_SERVICE
				value = "0"
			}
			said = append(said, name+":"+value)
		}
	}
	slices.Sort(said)
	return strings.Join(said, " ")
}

// inThreads looks at the threads of a process that makes more of them.
func inThreads() error {
	done := make(chan error)
	for range 16 {
		go func() {
			said := status()
			if !strings.Contains(said, "NoNewPrivs:1 Seccomp:2") {
				done <- errors.New(said)
				return
			}
			done <- nil
		}()
	}
	var errs []error
	for range 16 {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// pidfdOfOthers is what a kernel says to who wants hold of another process.
func pidfdOfOthers() string {
	if hasPeerPIDFD() {
		return "operation not permitted"
	}
	return "<nil>"
}

// cause is what the kernel said.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// byChannel tries to have one end of a channel be connected elsewhere.
func byChannel(path string) any {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		return err
	}
	unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(p[0]), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	err1 := unix.Connect(p[0], &unix.SockaddrUnix{Name: path})
	unix.Close(p[1])
	return []error{errno, err1, unix.Connect(p[0], &unix.SockaddrUnix{Name: path})}
}

// talk sends a word over the loopback.
func talk() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	_, err = s.Read(make([]byte, 4))
	return err
}

// The filter decides as the list says, whatever order it is in, for each call
// there is and for those of other architectures.
func TestFilter(t *testing.T) {
	for _, mode := range []Mode{On, Strict} {
		filter, err := assemble(mode, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(filter) > 4096 { // BPF_MAXINSNS
			t.Errorf("%d instructions", len(filter))
		}
		vm := machine(t, filter)
		otherwise := uint32(unknown)
		if mode == Strict {
			otherwise = trap
		}
		list := allowed()
		for number := range uint32(600) {
			want := otherwise
			if slices.Contains(absent(), uintptr(number)) {
				want = unknown
			}
			if slices.Contains(hostile(), uintptr(number)) {
				want = kill
			}
			i := slices.IndexFunc(list, func(c call) bool { return c.number == uintptr(number) })
			if i >= 0 && list[i].only != nil {
				continue
			} else if i >= 0 {
				want = allow
			}
			if got := vm(arch, number); got != want {
				t.Errorf("%s: call %d: %#x, want %#x", mode, number, got, want)
			}
		}
		if got := vm(arch^1, unix.SYS_READ); got != kill {
			t.Errorf("another architecture: %#x", got)
		}
		if got := vm(arch, 0x40000000|unix.SYS_READ); got != kill {
			t.Errorf("x32: %#x", got)
		}
	}
}

// Arguments decide where they are looked at.
func TestFilterArguments(t *testing.T) {
	filter, err := assemble(On, 7)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, filter)
	mprotect := uint32(unknown) // what the C library alone makes
	if len(ofC()) > 0 {
		mprotect = kill
	}
	others := uint32(allow)
	if hasPeerPIDFD() {
		others = refuse
	}
	threads := uint32(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD)
	for _, c := range []struct {
		number uint32
		args   []uint32
		want   uint32
	}{
		{unix.SYS_SOCKET, []uint32{unix.AF_INET, unix.SOCK_DGRAM, 0}, allow},
		{unix.SYS_SOCKET, []uint32{unix.AF_INET6, unix.SOCK_DGRAM, 0}, allow},
		{unix.SYS_SOCKET, []uint32{unix.AF_UNIX, unix.SOCK_DGRAM, 0}, refuse},
		{unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}, allow},
		{unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_DGRAM, 0}, refuse},
		{unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, 0}, refuse},
		{unix.SYS_SOCKETPAIR, []uint32{unix.AF_TIPC, unix.SOCK_SEQPACKET, 0}, refuse},
		{unix.SYS_SOCKET, []uint32{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, allow},
		{unix.SYS_SOCKET, []uint32{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT}, refuse},
		{unix.SYS_SOCKET, []uint32{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, refuse},
		{unix.SYS_CLONE, []uint32{threads}, allow},
		{unix.SYS_CLONE, []uint32{uint32(unix.SIGCHLD)}, kill},
		{unix.SYS_CLONE, []uint32{threads | unix.CLONE_NEWNET}, kill},
		{unix.SYS_MMAP, []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
		{unix.SYS_MMAP, []uint32{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, kill},
		{unix.SYS_MPROTECT, []uint32{0, 4096, unix.PROT_EXEC}, mprotect},
		{unix.SYS_TGKILL, []uint32{7, 9}, allow},
		{unix.SYS_TGKILL, []uint32{8, 9}, refuse},
		{unix.SYS_PIDFD_SEND_SIGNAL, []uint32{3, uint32(unix.SIGKILL)}, allow},
		{unix.SYS_PIDFD_SEND_SIGNAL, []uint32{3, 0}, allow},
		{unix.SYS_PIDFD_SEND_SIGNAL, []uint32{3, uint32(unix.SIGUSR1)}, refuse},
		{unix.SYS_PIDFD_OPEN, []uint32{7}, allow},
		{unix.SYS_PIDFD_OPEN, []uint32{8}, others},
		{unix.SYS_FCNTL, []uint32{3, unix.F_SETFL, unix.O_NONBLOCK}, allow},
		{unix.SYS_FCNTL, []uint32{3, unix.F_SETSIG, uint32(unix.SIGKILL)}, refuse},
		{unix.SYS_FCHMOD, []uint32{3, 0o644}, allow},
		{unix.SYS_FCHMOD, []uint32{3, 0o4755}, refuse},
		{unix.SYS_OPENAT, []uint32{3, 0, unix.O_CREAT, 0o600}, allow},
		{unix.SYS_OPENAT, []uint32{3, 0, unix.O_CREAT, 0o4755}, kill},
		{unix.SYS_IOCTL, []uint32{3, unix.TUNSETOFFLOAD}, allow},
		{unix.SYS_IOCTL, []uint32{3, unix.TUNSETIFF}, refuse},
		{unix.SYS_PRCTL, []uint32{unix.PR_SET_VMA}, allow},
		{unix.SYS_PRCTL, []uint32{unix.PR_SET_DUMPABLE, 1}, refuse},
	} {
		if got := vm(arch, c.number, c.args...); got != c.want {
			t.Errorf("call %d with %#x: %#x, want %#x", c.number, c.args, got, c.want)
		}
	}
}

// machine runs a filter as the kernel does, on a struct seccomp_data.
func machine(t *testing.T, filter []unix.SockFilter) func(arch, number uint32, args ...uint32) uint32 {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(filter))
	for i, f := range filter {
		raw[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	code, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return func(arch, number uint32, args ...uint32) uint32 {
		data := make([]byte, 64)
		put := func(at int, v uint32) { // the machine reads in network order, the kernel in its own
			data[at], data[at+1], data[at+2], data[at+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
		}
		put(offNumber, number)
		put(offArch, arch)
		for i, a := range args {
			put(offArgs+8*i, a)
		}
		got, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(got)
	}
}

// Each call is on the list once, with what it is for.
func TestList(t *testing.T) {
	seen := map[uintptr]string{}
	for _, c := range allowed() {
		if c.why == "" || seen[c.number] != "" {
			t.Errorf("%s: for %q, and %q has its number", c.name, c.why, seen[c.number])
		}
		seen[c.number] = c.name
	}
	for _, number := range slices.Concat(hostile(), absent()) {
		if seen[number] != "" {
			t.Errorf("%s is allowed and hostile", seen[number])
		}
	}
}

func TestParseMode(t *testing.T) {
	for s, want := range map[string]Mode{"": On, "on": On, "off": Off, "strict": Strict} {
		if got, err := ParseMode(s); got != want || err != nil {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if _, err := ParseMode("no"); err == nil {
		t.Error("no is taken")
	}
}
