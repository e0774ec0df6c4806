package box

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A namespace to join: a descriptor of it and its CLONE_NEW… kind.
type namespace struct {
	fd   int
	kind int
}

// forkInto executes this binary as argv with the descriptors files as 0, 1, 2…
// in the namespaces join, entered in that order, and in new ones of the kinds
// in born, which belong to the user namespace joined. The child is ours to
// reap and leads a session.
//
// A process with threads may not enter a user namespace (setns(2): EINVAL), so
// a fresh fork must, and a fork of a Go process has no runtime: everything
// between the clone and the execve is one function without allocation.
func forkInto(join []namespace, born uintptr, argv, env []string, files []uintptr) (pid int, err error) {
	p := joinPlan{join: join, born: born, files: make([]int, len(files))}
	if p.path, err = syscall.BytePtrFromString(selfExe); err != nil {
		return 0, err
	}
	if p.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return 0, err
	}
	if p.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return 0, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(pipe[0])
	// Copies above every number they will be copied down to, so that the
	// child's dup3 never overwrites one it still needs.
	first := len(files)
	if p.report, err = unix.FcntlInt(uintptr(pipe[1]), unix.F_DUPFD_CLOEXEC, first); err == nil {
		for i, fd := range files {
			if p.files[i], err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, first); err != nil {
				break
			}
		}
	}
	unix.Close(pipe[1])
	if err != nil {
		closeAll(append(p.files, p.report))
		return 0, err
	}

	syscall.ForkLock.Lock()
	middle, errno := forkIntoRaw(&p)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(&p)
	closeAll(append(p.files, p.report))
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	pid, err = readReport(pipe[0])
	_, werr := retryInt(func() (int, error) { return unix.Wait4(middle, nil, 0, nil) })
	if err != nil && pid != 0 { // the child was born and could not be executed
		_, _ = retryInt(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
		return 0, err
	}
	if err == nil {
		err = werr
	}
	return pid, err
}

// A joinStep is where forkIntoRaw was when it wrote its report.
type joinStep int32

const (
	stepBorn joinStep = iota // value is the child's pid; every other step failed with errno value
	stepSetns
	stepCaps
	stepClone
	stepSetsid
	stepFiles
	stepExec
)

func (s joinStep) String() string {
	return [...]string{"clone", "enter namespace", "keep capabilities", "make namespaces", "lead a session",
		"pass descriptors", "execute " + selfExe}[s]
}

// A joinReport is one atomic write into the pipe, made by either process.
type joinReport struct {
	step  joinStep
	value int32
}

// readReport reads until both writers have closed the pipe, by execve or by
// their end. pid is set whenever the child was born.
func readReport(fd int) (pid int, err error) {
	for {
		var r joinReport
		buf := (*[unsafe.Sizeof(r)]byte)(unsafe.Pointer(&r))[:]
		n, rerr := retryInt(func() (int, error) { return unix.Read(fd, buf) })
		switch {
		case rerr != nil:
			return pid, os.NewSyscallError("read", rerr)
		case n == 0 && pid == 0 && err == nil:
			return 0, fmt.Errorf("%v: killed", stepClone)
		case n == 0:
			return pid, err
		case r.step == stepBorn:
			pid = int(r.value)
		default:
			err = fmt.Errorf("%v: %w", r.step, syscall.Errno(r.value))
		}
	}
}

// A joinPlan is everything forkIntoRaw needs, made before the fork.
type joinPlan struct {
	join      []namespace
	born      uintptr
	path      *byte
	argv, env []*byte
	files     []int
	report    int
}

// The capabilities the join helper needs where our uid is not root of the
// namespace joined: execve drops what is not ambient (capabilities(7)). They
// are what makes an empty network namespace, a TAP in it, and moves it.
const joinCaps = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN

// The runtime's fork hooks: they block signals and any growth of the stack
// around a fork, and reset the handlers in the child. The runtime keeps these
// three names for gVisor's sake (go.dev/issue/67401), so they link without
// -checklinkname=0. There is no other linkname in this project.
//
//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// forkIntoRaw is the fork. What runs in the child must not allocate, lock,
// grow the stack or be instrumented, so all variables are declared before, and
// only raw system calls follow.
//
// The child enters the namespaces and clones once more: a new pid namespace
// holds only children of who makes it. CLONE_PARENT makes that one a child of
// ours, and the one in the middle only tells its number.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkIntoRaw(p *joinPlan) (middle int, errno syscall.Errno) {
	var (
		pid, euid, c uintptr
		err          syscall.Errno
		i            int
		r            joinReport
		capHeader    = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		capData      [2]unix.CapUserData
	)
	beforeFork()
	pid, _, err = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if err != 0 || pid != 0 {
		afterFork()
		return int(pid), err
	}
	afterForkInChild()

	// Root of the namespace joined must not be able to look into us before
	// the execve, which makes us dumpable again; what he finds then is this
	// binary, the channel and nothing else.
	_, _, _ = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0)
	r.step = stepSetns
	for i = 0; i < len(p.join); i++ {
		if _, _, err = syscall.RawSyscall(unix.SYS_SETNS, uintptr(p.join[i].fd), uintptr(p.join[i].kind), 0); err != 0 {
			goto fail
		}
	}
	r.step = stepCaps
	euid, _, _ = syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	if euid != 0 && len(p.join) > 0 {
		if _, _, err = syscall.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capData[0])), 0); err != 0 {
			goto fail
		}
		capData[0].Inheritable |= capData[0].Permitted & joinCaps
		if _, _, err = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capData[0])), 0); err != 0 {
			goto fail
		}
		for c = 0; c < 32; c++ {
			if capData[0].Inheritable&joinCaps&(1<<c) != 0 {
				if _, _, err = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0, 0); err != 0 {
					goto fail
				}
			}
		}
	}
	r.step = stepClone
	pid, _, err = syscall.RawSyscall6(unix.SYS_CLONE, p.born|unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if err != 0 {
		goto fail
	}
	if pid != 0 {
		r.step, r.value = stepBorn, int32(pid)
		_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.report), uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
		goto exit
	}
	r.step = stepSetsid
	if _, _, err = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); err != 0 {
		goto fail
	}
	r.step = stepFiles
	for i = 0; i < len(p.files); i++ {
		if _, _, err = syscall.RawSyscall(unix.SYS_DUP3, uintptr(p.files[i]), uintptr(i), 0); err != 0 {
			goto fail
		}
	}
	r.step = stepExec
	_, _, err = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
		uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.env[0])))
fail:
	r.value = int32(err)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.report), uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
exit:
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
