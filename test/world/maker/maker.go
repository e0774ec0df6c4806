// Package maker makes worlds, in which tests and measurements run.
//
// A world is a set of new user, mount, network, process, IPC and host name
// namespaces in which the command is root, whoever started it: it may make
// network namespaces, bridges and TAPs, mount, and signal every process it
// sees, and none of that touches the machine. So the same tests run as root
// and as a plain user.
//
//	/proc, /sys         fresh: they show this world's processes and interfaces
//	/tmp, /run, $HOME   empty, gone at the end
//	network             nothing but lo
//	environment         what a Go build needs; nothing of the caller's session
//	modules             those in the module cache, nothing is downloaded
//	everything else     the machine's files, with the caller's rights
//
// When the command ends, is interrupted or its starter dies, the kernel ends
// every process of the world with it.
//
// Started inside a world, it makes a smaller one in it with the same user
// namespace. `go test -exec` runs every package's tests in such a room, where
// two packages cannot meet in /run, and what a test leaves behind is seen.
//
// A world is made by one thread of control, plus a goroutine that passes signals
// on. A program makes one world.
package maker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// initName is argv[0] of the world's first process.
const initName = "world-init"

// Failed is the exit status of failures of our own, as with env and nohup.
const Failed = 125

// grace is how long an interrupted command may clean up. It is less than the
// ten seconds most CI systems wait before they kill.
const grace = 8 * time.Second

// A World is what a world has beside what every one has.
type World struct {
	Keep  []string   // folders that are seen inside though they lie in a fresh one
	Env   []string   // NAME=VALUE, of those that environment lets in
	Files []*os.File // descriptors of the command, from 3 on
}

// Play is called first of all in main: the world's first process is the program
// that makes it, by another name.
func Play() {
	if os.Args[0] == initName {
		runtime.LockOSThread()
		os.Exit(first(os.Args[1:]))
	}
}

// wanted is what the first process is told of its world, in its first argument.
type wanted struct {
	Keep  []string
	Files int
}

// Run runs a command in the world and returns its exit status.
func (w World) Run(args ...string) (status int) {
	// The kernel ties the parent-death signal to the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr, rank, err := namespaces()
	if err != nil {
		return fail(err)
	}
	told, err := json.Marshal(wanted{w.Keep, len(w.Files)})
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{initName, string(told)}, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, w.Files
	cmd.Env = environment(append(os.Environ(), w.Env...), rank)
	cmd.SysProcAttr = attr
	signals := listen()
	if err := cmd.Start(); err != nil {
		return fail(fmt.Errorf("make the namespaces: %w%s", err, mend()))
	}
	go func() {
		pass(signals, cmd.Process)
		time.AfterFunc(grace, func() { _ = cmd.Process.Kill() })
		for {
			pass(signals, cmd.Process)
		}
	}()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return fail(err)
	}
	return ended(cmd.ProcessState.Sys().(syscall.WaitStatus))
}

// first is process 1 of the world: it furnishes it, starts the command, reaps,
// and leaves with the command's status, which ends everything else.
func first(args []string) int {
	var w wanted
	err := json.Unmarshal([]byte(args[0]), &w)
	if args = args[1:]; err == nil {
		err = furnish(args[0], w.Keep)
	}
	if err != nil {
		return fail(fmt.Errorf("%w%s", err, mend()))
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i := range w.Files {
		files = append(files, os.NewFile(uintptr(len(files)), "file "+strconv.Itoa(i)))
	}
	path, err := exec.LookPath(args[0])
	if errors.Is(err, fs.ErrPermission) {
		return fail(err, 126)
	}
	if err != nil {
		return fail(err, 127)
	}
	signals := listen()
	child, err := os.StartProcess(path, args, &os.ProcAttr{Files: files})
	if err != nil {
		return fail(err, 126)
	}
	go func() {
		for {
			pass(signals, child)
		}
	}()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == nil && pid == child.Pid {
			return ended(ws)
		}
	}
}

// namespaces says what the world is made of and who makes it: "root" when
// more than one user of the machine exists inside, else "user".
func namespaces() (*syscall.SysProcAttr, string, error) {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig: syscall.SIGKILL,
	}
	if rank := os.Getenv(rankVariable); rank != "" {
		return attr, rank, nil
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		return attr, "user", nil
	}
	var err error
	if attr.UidMappings, err = everyID("/proc/self/uid_map"); err != nil {
		return nil, "", err
	}
	if attr.GidMappings, err = everyID("/proc/self/gid_map"); err != nil {
		return nil, "", err
	}
	groups, _ := os.ReadFile("/proc/self/setgroups")
	attr.GidMappingsEnableSetgroups = strings.TrimSpace(string(groups)) == "allow"
	if m := attr.UidMappings; len(m) == 1 && m[0].Size == 1 {
		return attr, "user", nil // root in a user namespace somebody else made
	}
	return attr, "root", nil
}

// everyID maps every id we have ourselves to itself.
func everyID(file string) ([]syscall.SysProcIDMap, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var maps []syscall.SysProcIDMap
	for line := range strings.Lines(string(data)) {
		var inside, outside, size int
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		maps = append(maps, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
	}
	return maps, nil
}

// mend names the setting of this machine that forbids what we tried.
func mend() string {
	for _, s := range []struct{ name, off, on string }{
		{"user.max_user_namespaces", "0", "15000"},
		{"kernel.unprivileged_userns_clone", "0", "1"},             // Debian up to 10
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"}, // Ubuntu from 23.10
	} {
		data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
		if err == nil && strings.TrimSpace(string(data)) == s.off {
			return fmt.Sprintf("\nThis machine keeps user namespaces from you. Try: sudo sysctl -w %s=%s", s.name, s.on)
		}
	}
	return ""
}

func listen() chan os.Signal {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return c
}

// pass waits for a signal and hands it to p. If that is gone, so are we soon.
func pass(signals chan os.Signal, p *os.Process) { _ = p.Signal(<-signals) }

// ended is the exit status a shell would show.
func ended(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func fail(err error, status ...int) int {
	fmt.Fprintln(os.Stderr, "world: "+err.Error())
	if len(status) > 0 {
		return status[0]
	}
	return Failed
}

// fd names an open file to calls that want a path.
func fd(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
