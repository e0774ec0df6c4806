package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// reserve reserves a container as a client does; its descriptors are to come.
func (n *node) reserve(request api.CreateRequest) api.Created {
	n.t.Helper()
	if request.Foreign == "" && request.Command == nil {
		request.Command = []string{"true"}
	}
	var created api.Created
	if err := api.NewClient(n.dir).Post(n.t.Context(), "/v1/containers", request, &created); err != nil {
		n.t.Fatal(err)
	}
	return created
}

// hand hands descriptors over, named as the message has them.
func (n *node) hand(id string, names []string, fds ...int) error {
	ctx, cancel := contextWithPatience()
	defer cancel()
	return api.NewClient(n.dir).Hand(ctx, "/v1/containers/"+id+"/attach",
		api.Attach{Descriptors: names, Interface: "eth0"}, fds)
}

// What a client hands over is looked at before it is used. What is not what it
// is said to be is refused by name, and the node keeps nothing of it.
func TestWrongDescriptors(t *testing.T) {
	n := newNode(t)
	before := n.holdings()
	file := openFile(t, os.DevNull)
	regular := openFile(t, filepath.Join(t.TempDir(), "file"))
	pipe, _ := unixPipe(t)
	stream, _ := socketPair(t, unix.SOCK_STREAM)
	channel, _ := socketPair(t, unix.SOCK_SEQPACKET)
	inet := inetSocket(t)
	sleep := sleeper(t)
	ended := endedProcess(t)
	const (
		tapFlags  = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
		wireFlags = unix.IFF_TAP | unix.IFF_NO_PI
	)
	for _, c := range []struct {
		what    string
		request api.CreateRequest
		names   string
		fds     []int
		want    string
	}{
		{"nothing", foreign(""), "", nil, `descriptor "tap" is missing`},
		{"a name too many", foreign(""), "tap", nil, "names 1 descriptors and brought 0"},
		{"a descriptor too many", foreign(""), "tap", []int{file, file}, "names 1 descriptors and brought 2"},
		{"the same twice", foreign(""), "tap tap", []int{file, file}, `"tap" is not wanted`},
		{"an unknown one", foreign(""), "tap gun", []int{file, file}, `"gun" is not wanted`},
		{"nine", foreign(""), "tap", repeat(file, 9), "more than 8 descriptors"},
		{"as many as can travel", foreign(""), "tap", repeat(file, 253), "more than 8 descriptors"},
		{"an init where there is none", foreign(""), "init channel tap", []int{sleep, channel, file}, `"init" is not wanted`},
		{"a device", foreign(""), "tap", []int{file}, "is not of /dev/net/tun"},
		{"a file", foreign(""), "tap", []int{regular}, "is not of /dev/net/tun"},
		{"a pipe", foreign(""), "tap", []int{pipe}, "is not of /dev/net/tun"},
		{"a socket", foreign(""), "tap", []int{inet}, "is not of /dev/net/tun"},
		{"a pidfd", foreign(""), "tap", []int{sleep}, "is not of /dev/net/tun"},
		{"a TAP without an interface", foreign(""), "tap", []int{openTUN(t, 0)}, "has no interface"},
		{"a TUN", foreign(""), "tap", []int{openTUN(t, unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)}, "has flags"},
		{"a TAP with packet information", foreign(""), "tap", []int{openTUN(t, unix.IFF_TAP|unix.IFF_VNET_HDR)}, "has flags"},
		{"a TAP with NAPI", foreign(""), "tap", []int{openTUN(t, tapFlags|unix.IFF_NAPI)}, "has flags"},
		{"a wire for a TAP", foreign(""), "tap", []int{openTUN(t, wireFlags)}, "has flags"},
		{"a TAP for a wire", foreign("off"), "tap", []int{openTUN(t, tapFlags)}, "has flags"},

		{"a file for init", none, "init channel", []int{regular, channel}, "is not a pidfd"},
		{"an ended process", none, "init channel", []int{ended, channel}, "the process has ended"},
		{"a file for a channel", none, "init channel", []int{sleep, regular}, "is not a channel"},
		{"a pidfd for a channel", none, "init channel", []int{sleep, sleep}, "is not a channel"},
		{"a socket for a channel", none, "init channel", []int{sleep, inet}, "is not a channel"},
		{"a stream for a channel", none, "init channel", []int{sleep, stream}, "is not a channel"},
		{"the channel for init", none, "init channel", []int{channel, sleep}, "is not a pidfd"},
		{"a TAP without a network", none, "init channel tap", []int{sleep, channel, file}, `"tap" is not wanted`},
		{"no TAP on a network", api.CreateRequest{}, "init channel", []int{sleep, channel}, `"tap" is missing`},
		{"a file for the TAP of a network", api.CreateRequest{}, "init channel tap", []int{sleep, channel, regular}, "is not of /dev/net/tun"},
	} {
		id := n.reserve(c.request).ID
		if err := n.hand(id, strings.Fields(c.names), c.fds...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.what, err, c.want)
		}
		// Some mistakes end the reservation, others leave it to be tried again.
		_ = api.NewClient(n.dir).Delete(t.Context(), "/v1/containers/"+id, nil)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if list := n.containers(); len(list) > 0 {
			return fmt.Errorf("containers are left: %+v", list)
		}
		return before.exceeded()
	})
	if err := unix.PidfdSendSignal(sleep, 0, nil, 0); err != nil {
		t.Errorf("a process that was said to be an init is gone: %v", err)
	}
}

func foreign(offload string) api.CreateRequest {
	r := api.CreateRequest{Foreign: "netns:/somewhere"}
	if offload != "" {
		r.Options = map[string]string{"offload": offload}
	}
	return r
}

var none = api.CreateRequest{Network: "none"}

// A client may say it wrong, slowly or not at all. It hears what is wrong, if it
// still listens, and the node keeps none of the descriptors that came along.
func TestWrongMessages(t *testing.T) {
	n := newNode(t)
	before := n.holdings()
	file := openFile(t, os.DevNull)
	rights := unix.UnixRights(file, file)
	const attach = `{"descriptors":["tap"]`
	for _, c := range []struct {
		what string
		say  func(conn *net.UnixConn)
		want string // "" is no answer
	}{
		{"no JSON", func(c *net.UnixConn) { send(c, "hello\n", rights) }, "malformed JSON: invalid character"},
		{"an unknown field", func(c *net.UnixConn) { send(c, attach+`,"fancy":1}`+"\n", rights) }, `unknown field \"fancy\"`},
		{"a wrong type", func(c *net.UnixConn) { send(c, `{"descriptors":"tap"}`+"\n", rights) }, "cannot unmarshal string"},
		{"too deep", func(c *net.UnixConn) { send(c, strings.Repeat("[", 20000)+"\n", rights) }, "malformed JSON"},
		{"too long", func(c *net.UnixConn) { send(c, strings.Repeat(" ", 300<<10), rights) }, "longer than"},
		{"descriptors piece by piece", func(c *net.UnixConn) {
			for range 5 {
				send(c, " ", rights)
			}
		}, "more than 8 descriptors"},
		{"half and goodbye", func(c *net.UnixConn) { send(c, attach, rights); _ = c.CloseWrite() }, "EOF"},
		{"goodbye", func(c *net.UnixConn) { _ = c.CloseWrite() }, "EOF"},
		{"two messages", func(c *net.UnixConn) {
			send(c, attach+"}\n", rights)
			send(c, attach+"}\n", rights)
		}, "names 1 descriptors and brought 2"},
	} {
		conn := n.upgraded("/v1/containers/" + n.reserve(foreign("")).ID + "/attach")
		c.say(conn)
		if answer := hear(conn); !strings.Contains(answer, c.want) {
			t.Errorf("%s: answer %q, want one with %q", c.what, answer, c.want)
		}
		conn.Close()
	}
	// Those who say nothing more, and those who leave without listening.
	var silent []*net.UnixConn
	for i := range 20 {
		conn := n.upgraded("/v1/containers/" + n.reserve(foreign("")).ID + "/attach")
		send(conn, attach, rights)
		if i%2 == 0 {
			send(conn, "}\n", nil)
		}
		silent = append(silent, conn)
	}
	// Descriptors before the node agreed to take any.
	conn := n.dial()
	id := n.reserve(foreign("")).ID
	send(conn, upgradeRequest("/v1/containers/"+id+"/attach")+attach+"}\n", rights)
	if answer := hear(conn); strings.Contains(answer, "101") {
		t.Errorf("who speaks before the answer gets %q", answer)
	}
	conn.Close()
	n.run("ps") // the silent ones are still there
	for _, conn := range silent {
		conn.Close()
	}
	for id := range n.containers() {
		_ = api.NewClient(n.dir).Delete(t.Context(), "/v1/containers/"+id, nil)
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// send sends a text with control messages.
func send(conn *net.UnixConn, text string, oob []byte) {
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if size, _, err := conn.WriteMsgUnix([]byte(text), oob, nil); err == nil && size < len(text) {
		_, _ = conn.Write([]byte(text[size:])) // the node may have heard enough
	}
}

// hear is what comes until the other side hangs up.
func hear(conn *net.UnixConn) string {
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var heard []byte
	buf := make([]byte, 4096)
	for {
		size, err := conn.Read(buf)
		heard = append(heard, buf[:size]...)
		if err != nil {
			return string(heard)
		}
	}
}

func (n *node) dial() *net.UnixConn {
	n.t.Helper()
	conn, err := net.Dial("unix", api.Socket(n.dir))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func upgradeRequest(path string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: " + api.Protocol + "\r\n\r\n"
}

// upgraded is a connection on which the node waits for descriptors.
func (n *node) upgraded(path string) *net.UnixConn {
	n.t.Helper()
	conn := n.dial()
	send(conn, upgradeRequest(path), nil)
	answer := make([]byte, 4096)
	size, err := conn.Read(answer)
	if err != nil || !strings.HasPrefix(string(answer[:size]), "HTTP/1.1 101 ") {
		n.t.Fatalf("POST %s: %q (%v), want 101", path, answer[:size], err)
	}
	return conn
}

// A process that is no init of ours can be handed over as one. Its end is the
// container's, and that is all.
func TestAnotherProcessAsInit(t *testing.T) {
	n := newNode(t)
	before := n.holdings()
	for _, how := range []string{"kill", "stop", "by itself"} {
		victim := exec.Command("sleep", "1000")
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(victim.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		near, far := socketPair(t, unix.SOCK_SEQPACKET)
		created := n.reserve(api.CreateRequest{Name: "strange", Network: "none"})
		if err := n.hand(created.ID, []string{"init", "channel"}, pidfd, far); err != nil {
			t.Fatal(err)
		}
		unix.Close(pidfd)
		// It says something that is no message, and a lot of it.
		for range 1000 {
			_ = unix.Sendmsg(near, []byte(strings.Repeat("x", 1000)), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		if got := n.pid("strange"); got != victim.Process.Pid {
			t.Errorf("its process is %d, want %d", got, victim.Process.Pid)
		}
		switch how {
		case "kill":
			n.run("kill", "strange")
		case "stop":
			n.run("stop", "-t", "0", "strange")
		default:
			_ = victim.Process.Kill()
		}
		n.gone("strange")
		_ = victim.Process.Kill()
		_ = victim.Wait()
		unix.Close(near)
		unix.Close(far)
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// Whoever handed a TAP over may keep a copy of the descriptor, which is the same
// open file. What he does with it spoils his own link and no other, and neither
// stops nor slows the node.
func TestSharedTAP(t *testing.T) {
	n := newNode(t, "--opt", "guard=off")
	heart := n.beating("a", "b")
	n.start("flooder")
	tap := openTUN(t, unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	created := n.reserve(api.CreateRequest{Name: "shared", Foreign: "netns:/somewhere"})
	if err := n.hand(created.ID, []string{"tap"}, tap); err != nil {
		t.Fatal(err)
	}
	up(t, tap)
	// Frames for it all the time: everybody hears a broadcast.
	n.exec("flooder", "ip", "neigh", "add", "172.17.9.9", "lladdr", "ff:ff:ff:ff:ff:ff", "dev", "eth0")
	flood := n.background("exec", "flooder", "bash", "-c", "while :; do echo to all >/dev/udp/172.17.9.9/9; done")
	pick := func(request uint, values ...int) func() {
		i := 0
		return func() { i++; _ = unix.IoctlSetPointerInt(tap, request, values[i%len(values)]) }
	}
	setInt := func(request uint, values ...int) func() {
		i := 0
		return func() { i++; _ = unix.IoctlSetInt(tap, request, values[i%len(values)]) }
	}
	buf := make([]byte, 1<<16)
	for _, trick := range []struct {
		what string
		do   func()
	}{
		// First, so that whoever does not ask for it with each call may hang.
		{"O_NONBLOCK cleared", func() { _, _ = unix.FcntlInt(uintptr(tap), unix.F_SETFL, unix.O_RDWR) }},
		{"send buffer", pick(unix.TUNSETSNDBUF, 1, 1<<20)},
		{"header length", pick(unix.TUNSETVNETHDRSZ, 10, 12, 20, 24)},
		{"byte order", pick(unix.TUNSETVNETBE, 0, 1)},
		{"offload", setInt(unix.TUNSETOFFLOAD, 0, 1, 0xf)},
		{"carrier", pick(unix.TUNSETCARRIER, 0, 1)},
		{"persistence", setInt(unix.TUNSETPERSIST, 1, 0)},
		{"frames taken away", func() { _, _ = unix.Preadv2(tap, [][]byte{buf}, -1, unix.RWF_NOWAIT) }},
		{"frames put in", func() { _, _ = unix.Pwritev2(tap, [][]byte{buf[:100]}, -1, unix.RWF_NOWAIT) }},
		{"signals", func() { _, _ = unix.FcntlInt(uintptr(tap), unix.F_SETFL, unix.O_ASYNC) }},
		{"link type", setInt(unix.TUNSETLINK, 1, 772)},
	} {
		start := time.Now()
		for time.Since(start) < 100*time.Millisecond {
			trick.do()
		}
		asked := time.Now()
		n.run("ps")
		if took := time.Since(asked); took > 5*time.Second {
			t.Errorf("%s: `ps` takes %v", trick.what, took)
		}
	}
	_ = unix.IoctlSetInt(tap, unix.TUNSETPERSIST, 0)
	flood.signal(syscall.SIGKILL)
	flood.wait()
	heart.stop()
	t.Logf("its counters: %+v", n.port("shared").Counts)
	n.run("network", "disconnect", "default", "shared")
	n.gone("shared")
}

// Many clients that say nothing, or say it slowly, keep nobody from the node.
func TestIdleClients(t *testing.T) {
	n := newNode(t)
	before := n.holdings()
	memory := residentKB(t, before.pid)
	say := []string{
		"",
		"GET /v1/ver",
		"GET /v1/version HTTP/1.1\r\nHost: node\r\nX-Long: " + strings.Repeat("x", 60<<10),
		"POST /v1/containers HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000\r\n\r\n{",
		"GET /v1/version HTTP/1.1\r\nHost: node\r\n\r\n",
		"GET /v1/trace HTTP/1.1\r\nHost: node\r\n\r\n",
	}
	var idle []*net.UnixConn
	for i := range 200 {
		conn := n.dial()
		send(conn, say[i%len(say)], nil)
		idle = append(idle, conn)
	}
	slow := n.dial()
	var worst time.Duration
	for _, letter := range "GET /v1/version HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n" {
		send(slow, string(letter), nil)
		start := time.Now()
		if err := n.ask("/v1/containers", new([]api.Container)); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(start))
	}
	if answer := hear(slow); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("a slow client gets %q", answer)
	}
	if out := n.run("run", "--", "echo", "well"); out != "well\n" {
		t.Errorf("beside idle clients a container says %q", out)
	}
	grown := residentKB(t, before.pid) - memory
	t.Logf("beside 200 idle clients the slowest answer took %v; the node grew by %d KiB", worst, grown)
	if worst > 5*time.Second {
		t.Errorf("beside idle clients an answer took %v", worst)
	}
	n.grewAtMost(grown, 32<<10)
	for _, conn := range idle {
		conn.Close()
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// Requests that are no HTTP, or ask for what there is not.
func TestWrongRequests(t *testing.T) {
	n := newNode(t)
	before := n.holdings()
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	for _, c := range []struct{ say, want string }{
		{"hello\r\n\r\n", "400 Bad Request"},
		{"\x00\x01\x02\r\n\r\n", "400 Bad Request"},
		{"GET /v1/version HTTP/9.9\r\n\r\n", "505"},
		{"GET /v1/version HTTP/1.1\r\nHost: node\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", "431"},
		{"GET /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHost: node\r\n\r\n", "431"},
		{"GET /v2/version HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n", "no such request: GET /v2/version"},
		{"PUT /v1/version HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n", "40"},
		{"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n", "30"},
		{"GET /v1/containers/..%2f..%2fetc HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n", "No such container"},
		{post("/v1/containers", ""), "malformed JSON"},
		{post("/v1/containers", "["), "malformed JSON"},
		{post("/v1/containers", strings.Repeat("[", 100<<10)), "malformed JSON"},
		{post("/v1/containers", `{"command":["x"],"privileged":true}`), `unknown field \"privileged\"`},
		{post("/v1/containers", `{"command":"x"}`), "cannot unmarshal string"},
		{post("/v1/containers", `{"command":["x"],"name":"`+strings.Repeat("n", 200<<10)+`"}`), "Invalid container name"},
		{post("/v1/containers", `{"command":["x"],"env":["`+strings.Repeat("e", 1<<20)+`"]}`), "malformed JSON"},
		{post("/v1/containers", `{"command":["x"],"hostname":"a/b"}`), "invalid hostname"},
		{post("/v1/containers/none/attach", ""), "No such container"},
		{post("/v1/down", `{"all":"yes"}`), "cannot unmarshal string"},
		{post("/v1/up", `{"bip":"x"}`), "is not an address with a length"},
	} {
		conn := n.dial()
		send(conn, c.say, nil)
		if answer := hear(conn); !strings.Contains(answer, c.want) {
			t.Errorf("%.60q: answer %.300q, want one with %q", c.say, answer, c.want)
		}
		conn.Close()
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

func repeat(fd, times int) []int {
	fds := make([]int, times)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

// The descriptors below are closed when the test ends.

func closeAtEnd(t *testing.T, fd int, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func openFile(t *testing.T, path string) int {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	return closeAtEnd(t, fd, err)
}

func unixPipe(t *testing.T) (r, w int) {
	var p [2]int
	err := unix.Pipe2(p[:], unix.O_CLOEXEC)
	return closeAtEnd(t, p[0], err), closeAtEnd(t, p[1], err)
}

func socketPair(t *testing.T, kind int) (a, b int) {
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	return closeAtEnd(t, p[0], err), closeAtEnd(t, p[1], err)
}

func inetSocket(t *testing.T) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return closeAtEnd(t, fd, err)
}

// sleeper is a pidfd of a process that does nothing until the test ends.
func sleeper(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	return closeAtEnd(t, fd, err)
}

// endedProcess is a pidfd of a process that is gone.
func endedProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return closeAtEnd(t, fd, err)
}

// openTUN makes a device with flags in the test's network namespace, or none
// when there are no flags.
func openTUN(t *testing.T, flags uint16) int {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	closeAtEnd(t, fd, err)
	if flags != 0 {
		var ifr unix.Ifreq
		ifr.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, &ifr); err != nil {
			t.Fatalf("make a device with flags %#x: %v", flags, err)
		}
	}
	return fd
}

// up sets the interface of a TAP up.
func up(t *testing.T, tap int) {
	t.Helper()
	var ifr unix.Ifreq
	err := unix.IoctlIfreq(tap, unix.TUNGETIFF, &ifr)
	if err == nil {
		var out []byte
		if out, err = exec.Command("ip", "link", "set", ifr.Name(), "up").CombinedOutput(); err != nil {
			err = errors.Join(err, errors.New(string(out)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
