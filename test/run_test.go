package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

func TestRunOptions(t *testing.T) {
	lab.Need(t, "ip")
	n := newNode(t)
	t.Setenv("PASSED", "on")
	const script = `hostname; pwd; echo "$SET-$PASSED-$UNSET"; ip -o -4 addr show eth0; cat /sys/class/net/eth0/address; tail -n1 /etc/hosts; id -u`
	out := n.run("run", "--name", "opts", "--ip", "172.17.0.50", "--mac", "02:00:00:00:00:50", "--hostname", "web",
		"-e", "SET=a b", "-e", "PASSED", "-e", "UNSET", "-w", "/etc", "--network", "bridge", "--rm", "--", "sh", "-c", script)
	lines := strings.Split(out, "\n")
	for i, want := range []string{"^web$", "^/etc$", "^a b-on-$", " inet 172.17.0.50/16 ", "^02:00:00:00:00:50$", "^172.17.0.50\tweb$", "^0$"} {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line %d is %q, want %s", i+1, lines[i], want)
		}
	}
	here, err := os.Getwd()
	if got := n.run("run", "--", "pwd"); err != nil || got != here+"\n" {
		t.Errorf("a command starts in %q, want %q (%v)", got, here, err)
	}

	n.start("taken", "--mac", "02:00:00:00:00:51")
	n.refuses(`The container name "/taken" is already in use`, "run", "--name", "taken", "--", "true")
	n.refuses("MAC address 02:00:00:00:00:51 is already in use by container taken", "run", "--mac", "02:00:00:00:00:51", "--", "true")
	n.refuses("MAC address 02:42:ac:11:00:01 is the gateway's", "run", "--mac", "02:42:ac:11:00:01", "--", "true")
	n.refuses("the working directory 'etc' is invalid, it needs to be an absolute path", "run", "-w", "etc", "--", "true")
}

// Another tree: the files are there, the network is the same.
func TestRunRootfs(t *testing.T) {
	n := newNode(t)
	tree := filepath.Dir(n.dir) + "/tree"
	for _, dir := range []string{"bin", "proc", "etc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// fairlead is a static program, so it is all a tree needs.
	program, err := os.ReadFile(n.bin)
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "bin", "fairlead"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.serve("web")
	page := n.run("run", "--rootfs", tree, "--", "fairlead", "probe", "get", "http://172.17.0.2/")
	if !strings.HasPrefix(page, "Hello 172.17.0.3:") {
		t.Errorf("from another tree: %q", page)
	}
	if r := n.try("run", "--rootfs", tree, "--", "sh"); r.code != 127 {
		t.Errorf("there is no sh in that tree: %v", r)
	}
	n.refuses("no such file or directory", "run", "--rootfs", tree+"/nowhere", "--", "true")
}

func TestRunInput(t *testing.T) {
	n := newNode(t)
	if r := n.tryWith(strings.NewReader("one\ntwo\n"), "run", "-i", "--", "cat"); r.code != 0 || r.stdout != "one\ntwo\n" {
		t.Errorf("with -i: %v", r)
	}
	if r := n.tryWith(strings.NewReader("one\n"), "run", "--", "cat"); r.code != 0 || r.stdout != "" {
		t.Errorf("without -i: %v", r)
	}
	if r := n.try("run", "--", "sh", "-c", "echo out; echo err >&2"); r.stdout != "out\n" || r.stderr != "err\n" {
		t.Errorf("the two outputs: %v", r)
	}
	// More than any pipe holds, both ways.
	big := strings.Repeat("0123456789abcde\n", 1<<16)
	if r := n.tryWith(strings.NewReader(big), "run", "-i", "--", "cat"); r.code != 0 || r.stdout != big {
		t.Errorf("of %d bytes %d came back, exit status %d, %s", len(big), len(r.stdout), r.code, r.stderr)
	}
}

// 125 is our error, 126 cannot run, 127 not found, 128+n a signal; the rest is
// the command's own.
func TestRunExitStatus(t *testing.T) {
	n := newNode(t)
	n.start("c")
	for _, c := range []struct {
		want    int
		command []string
	}{
		{0, []string{"true"}},
		{1, []string{"false"}},
		{3, []string{"sh", "-c", "exit 3"}},
		{125, []string{"sh", "-c", "exit 125"}},
		{126, []string{"/etc/passwd"}},
		{126, []string{"/etc"}},
		{127, []string{"no-such-command"}},
		{127, []string{"/no/such/command"}},
		{129, []string{"sh", "-c", "kill -HUP $$"}},
		{137, []string{"sh", "-c", "kill -KILL $$"}},
		{143, []string{"sh", "-c", "kill -TERM $$"}},
	} {
		for _, args := range [][]string{{"run", "--"}, {"exec", "c"}} {
			if r := n.try(append(args, c.command...)...); r.code != c.want {
				t.Errorf("want exit status %d: %v", c.want, r)
			}
		}
	}
	for _, r := range []result{
		n.try("run", "--no-such-flag", "--", "true"),
		n.try("run", "--ip", "1.2.3", "--", "true"),
		n.try("run"),
		n.try("run", "alpine", "sh"),
		n.try("exec", "nobody", "true"),
	} {
		if r.code != 125 || strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "fairlead: ") {
			t.Errorf("want exit status 125 and one line: %v", r)
		}
	}
}

// Signals go to the command, which decides.
func TestRunSignals(t *testing.T) {
	n := newNode(t)
	for sig, name := range map[syscall.Signal]string{
		syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT", syscall.SIGUSR1: "USR1",
	} {
		script := `trap 'echo got ` + name + `; exit 42' ` + name + `; echo ready; while :; do sleep 0.1; done`
		c := n.background("run", "--", "sh", "-c", script)
		c.says("ready")
		c.signal(sig)
		if code := c.wait(); code != 42 || !strings.Contains(c.out.String(), "got "+name) {
			t.Errorf("%v: exit status %d\n%s%s", sig, code, c.out.String(), c.errors.String())
		}
	}
	c := n.background("run", "--name", "deaf", "--", "sh", "-c", "echo ready; exec sleep 1000")
	c.says("ready")
	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 143 {
		t.Errorf("a command that SIGTERM ends: exit status %d, want 143", code)
	}
	// Without its client a container in the foreground has nobody left.
	c = n.background("run", "--name", "orphan", "--", "sh", "-c", "echo ready; exec sleep 1000")
	c.says("ready")
	c.signal(syscall.SIGKILL)
	c.wait()
	n.gone("orphan")
}

// A signal that comes while the container is being made ends the attempt, and
// nothing of it is left.
func TestRunInterruptedWhileItStarts(t *testing.T) {
	n := newNode(t)
	var slowest time.Duration
	for range 3 {
		start := time.Now()
		n.run("run", "--", "true")
		slowest = max(slowest, time.Since(start))
	}
	const steps = 30
	for i := range steps {
		sig := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}[i%2]
		c := n.background("run", "--name", "x", "--", "sleep", "1000")
		time.Sleep(slowest * time.Duration(i) / steps)
		c.signal(sig)
		// Until Go has set up its handlers a signal ends the client itself.
		if code := c.wait(); code != 128+int(sig) && code != -1 {
			t.Errorf("%v at moment %d: exit status %d, %s", sig, i, code, c.errors.String())
		}
		n.gone("x") // so the name is free again
	}
	if s := n.theSwitch(); len(s.Ports) != 0 {
		t.Errorf("ports: %+v", s.Ports)
	}
}

// A detached container and the node have nothing to do with the terminal they
// were started from: not with its Ctrl-C, and not with its end.
func TestDetachedOutlivesTerminal(t *testing.T) {
	n := newNodeDir(t)
	cmd := n.command(t.Context(), "run")
	cmd.Args = []string{"sh", "-ec", n.bin + " run -d --name d -- sleep 1000; echo started; cat"}
	cmd.Path = "/bin/sh"
	terminal, err := pty.StartWithAttrs(cmd, nil, &syscall.SysProcAttr{Setsid: true, Setctty: true})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var said []byte
	buf := make([]byte, 4096)
	step := func(keys, until string, times int) {
		t.Helper()
		if _, err := terminal.WriteString(keys); err != nil {
			t.Fatal(err)
		}
		for strings.Count(string(said), until) < times {
			k, err := terminal.Read(buf)
			if said = append(said, buf[:k]...); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
		}
	}
	// A shell that hears Ctrl-C before it has started cat waits for it all the
	// same, so cat has to say first what the terminal has said.
	step("", "started", 1)
	step("hello\n", "hello", 2)
	step("\x03", "", 0)
	_ = cmd.Wait() // cat was interrupted
	terminal.Close()
	n.followLog()
	if got := n.exec("d", "echo", "alive"); got != "alive\n" {
		t.Errorf("exec: %q", got)
	}
	for _, pid := range []int{n.pid("d"), n.nodePid()} {
		// pid (comm) state ppid pgrp session tty_nr, see proc(5)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if err != nil || fields[4] != "0" {
			t.Errorf("process %d has a terminal: %s (%v)", pid, text, err)
		}
	}
}

// What a command started and left behind ends with it.
func TestRunLeavesNothing(t *testing.T) {
	n := newNode(t)
	n.run("run", "--", "sh", "-c", "setsid sleep 1000 & sleep 1000 & (sleep 1000 &); exit 0")
	n.start("d", "--", "sh", "-c", "setsid sleep 1000 & exec sleep 1000")
	n.run("kill", "d")
	n.gone("d")
	if s := n.theSwitch(); len(s.Ports) != 0 {
		t.Errorf("ports: %+v", s.Ports)
	}
	// lab.NoLeaks looks for the processes.
}

// Through a terminal: its size, also when it changes, Ctrl-C, the exit status;
// and ours is as it was before.
func TestRunTerminal(t *testing.T) {
	n := newNode(t)
	n.start("c")
	for _, args := range [][]string{{"run", "-it", "-e", "PS1=> ", "--", "sh"}, {"exec", "-it", "-e", "PS1=> ", "c", "sh"}} {
		t.Run(args[0], func(t *testing.T) {
			cmd := n.command(t.Context(), args...)
			terminal, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 33, Cols: 99}, &syscall.SysProcAttr{Setsid: true, Setctty: true})
			if err != nil {
				t.Fatal(err)
			}
			defer terminal.Close()
			var screen transcript
			copied := make(chan struct{})
			go func() {
				defer close(copied)
				buf := make([]byte, 4096)
				for {
					k, err := terminal.Read(buf)
					_, _ = screen.Write(buf[:k])
					if err != nil {
						return // EIO: the other side is closed
					}
				}
			}()
			step := func(keys, want string) {
				t.Helper()
				if _, err := terminal.WriteString(keys); err != nil {
					t.Fatal(err)
				}
				lab.Eventually(t, 10*time.Second, func() error { return contains(screen.String(), want) })
			}
			step("stty size; tty; echo $TERM-$((1+1))\n", "33 99\r\n/dev/")
			if err := pty.Setsize(terminal, &pty.Winsize{Rows: 22, Cols: 77}); err != nil {
				t.Fatal(err)
			}
			step("until [ \"$(stty size)\" = '22 77' ]; do sleep 0.05; done; echo resized-$((1+2))\n", "resized-3")
			// Once tr has answered it is there; before that Ctrl-C would be the
			// shell's.
			step("tr a-z A-Z\nhello\n", "HELLO\r\n")
			step("\x03", "^C\r\n> ")
			step("echo alive-$((1+3))\n", "alive-4")
			step("exit 7\n", "")
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("exit 7 ended with %v:\n%s", err, screen.String())
			}
			// Only its opener holds the slave now; a raw terminal would not echo.
			state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
			if err == nil && (state.Lflag&unix.ECHO == 0 || state.Lflag&unix.ICANON == 0) {
				t.Errorf("the terminal was left raw: %+v", state)
			}
			terminal.Close()
			<-copied
		})
	}
	if r := n.tryWith(strings.NewReader(""), "run", "-it", "--", "sh"); r.code != 125 || !strings.Contains(r.stderr, "the input device is not a TTY") {
		t.Error(r)
	}
}

// Detached, a terminal is the container's, and the log has what was written
// there.
func TestDetachedTerminal(t *testing.T) {
	n := newNode(t)
	n.start("with", "-t", "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo terminal; sleep 1000")
	n.start("without", "--", "sh", "-c", "test -t 0 || test -t 1 || test -t 2 || echo none; sleep 1000")
	lab.Eventually(t, 10*time.Second, func() error {
		return errors.Join(contains(n.run("logs", "with"), "terminal\r\n"), contains(n.run("logs", "without"), "none\n"))
	})
	for name, want := range map[string]string{"with": "true\n", "without": "false\n"} {
		if tty := n.run("inspect", "-f", "{{.Config.Tty}}", name); tty != want {
			t.Errorf("inspect says of %s: %s", name, tty)
		}
	}
}

func TestDetachedLogs(t *testing.T) {
	n := newNode(t)
	fifo := filepath.Dir(n.dir) + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	n.start("d", "--", "sh", "-c", "echo out; echo err >&2; for i in 1 2 3; do echo $i; done; cat "+fifo)
	n.logSays("d", "3\n")
	if got := n.run("logs", "d"); got != "out\nerr\n1\n2\n3\n" {
		t.Errorf("logs: %q", got)
	}
	for tail, want := range map[string]string{"2": "2\n3\n", "0": "", "100": "out\nerr\n1\n2\n3\n", "all": "out\nerr\n1\n2\n3\n"} {
		if got := n.run("logs", "--tail", tail, "d"); got != want {
			t.Errorf("logs --tail %s: %q, want %q", tail, got, want)
		}
	}
	n.refuses("--tail some is neither a number of lines nor \"all\"", "logs", "--tail", "some", "d")
	follow := n.background("logs", "-f", "--tail", "1", "d")
	follow.says("3\n")
	if err := os.WriteFile(fifo, []byte("at last\n"), 0); err != nil { // cat ends with it, and the container
		t.Fatal(err)
	}
	if code := follow.wait(); code != 0 || follow.out.String() != "3\nat last\n" {
		t.Errorf("logs -f: exit status %d, %q", code, follow.out.String())
	}
	n.refuses("No such container: d", "logs", "d")

	c := n.background("run", "--name", "fg", "--", "sh", "-c", "echo ready; exec sleep 1000")
	c.says("ready")
	n.refuses("container fg runs in the foreground", "logs", "fg")
	follow = n.background("logs", "-f", n.start("e", "--", "sh", "-c", "echo ready; exec sleep 1000"))
	follow.says("ready")
	follow.signal(interrupt)
	if code := follow.wait(); code != 0 {
		t.Errorf("Ctrl-C ends logs -f with %d: %s", code, follow.errors.String())
	}
}

func TestStopAndKill(t *testing.T) {
	n := newNode(t)
	dir := filepath.Dir(n.dir)
	script := func(name string) string {
		return fmt.Sprintf(`for s in TERM HUP USR1; do trap "echo $s >> %[1]s/%[2]s; [ $s = HUP ] || exit 0" $s; done
			echo ready; while :; do sleep 0.05; done`, dir, name)
	}
	heard := func(name, want string) {
		t.Helper()
		lab.Eventually(t, 10*time.Second, func() error {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil && string(got) != want {
				err = fmt.Errorf("%s heard %q, want %q", name, got, want)
			}
			return err
		})
	}
	for _, name := range []string{"a", "b", "deaf"} {
		s := script(name)
		if name == "deaf" {
			s = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
		}
		n.start(name, "--", "sh", "-c", s)
		n.logSays(name, "ready")
	}
	n.run("kill", "-s", "HUP", "a")
	heard("a", "HUP\n")
	if got := n.run("stop", "a"); got != "a\n" {
		t.Errorf("stop says %q", got)
	}
	heard("a", "HUP\nTERM\n")
	n.gone("a")
	n.run("stop", "--signal", "SIGUSR1", "b")
	heard("b", "USR1\n")

	start := time.Now()
	n.run("stop", "-t", "1", "deaf")
	if took := time.Since(start); took < time.Second || took > 5*time.Second {
		t.Errorf("stop -t 1 of a container that does not listen took %v", took)
	}
	n.gone("deaf")

	for _, name := range []string{"c", "d"} {
		n.start(name)
	}
	if r := n.try("kill", "c", "nobody", "d"); r.code != 125 || r.stdout != "c\nd\n" || !strings.Contains(r.stderr, "No such container: nobody") {
		t.Errorf("kill goes on after an error: %v", r)
	}
	n.gone("c")
	n.gone("d")
	n.start("e")
	n.refuses("invalid signal: NONSENSE", "kill", "-s", "NONSENSE", "e")
	n.run("kill", "-s", "15", "e")
	n.gone("e")
}

func TestExec(t *testing.T) {
	n := newNode(t)
	n.start("c", "-e", "OF=container", "-w", "/etc", "--hostname", "inside")
	const script = `echo "$OF-$MORE"; pwd; hostname; cat`
	r := n.tryWith(strings.NewReader("input"), "exec", "-i", "-e", "MORE=exec", "-w", "/usr", "c", "sh", "-c", script)
	if r.code != 0 || r.stdout != "container-exec\n/usr\ninside\ninput" {
		t.Errorf("exec: %v", r)
	}
	if got := n.sh("c", "pwd; cat"); got != "/etc\n" {
		t.Errorf("exec without -w and -i: %q", got)
	}
	// Processes of the container, and no others: its init, the command, sh.
	if got := n.sh("c", "set -- /proc/[0-9]*; echo $#"); got != "3\n" {
		t.Errorf("%s processes inside, want init, sleep and sh", strings.TrimSpace(got))
	}
	// When the client is killed, what it started in there is hung up.
	x := n.background("exec", "c", "sh", "-c", "echo ready; exec sleep 997")
	x.says("ready")
	x.signal(syscall.SIGKILL)
	x.wait()
	lab.Eventually(t, 10*time.Second, func() error {
		if got := n.sh("c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(got, "sleep 997") {
			return fmt.Errorf("it still runs: %s", got)
		}
		return nil
	})
	c := n.background("run", "--name", "fg", "--", "sh", "-c", "echo ready; exec sleep 1000")
	c.says("ready")
	if got := n.exec("fg", "echo", "here"); got != "here\n" {
		t.Errorf("exec in a container in the foreground: %q", got)
	}
}
