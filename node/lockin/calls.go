package lockin

import (
	"slices"

	"golang.org/x/sys/unix"
)

// A call is a system call that the node may make, and what for.
type call struct {
	name   string
	number uintptr
	why    string
	only   condition // with these arguments; nil is any

	// seldom says why a recorded run of the tests need not have seen it.
	seldom string
}

// Who makes calls.
const (
	frames  = "frames: read and written by the workers"
	sockets = "sockets of containers' connections, and of the nameserver"
	control = "control socket and channels to inits"
	files   = "files of the node directory"
	goruns  = "the Go runtime: threads, memory, time"
	signals = "the Go runtime: signals"
)

// allowed are the calls of a node. `make syscalls` records those of a run of all
// tests in testdata/recorded.txt, and a test holds the two together.
//
// It is made when it is first asked for: inits and commands are this program, too.
func allowed() []call {
	return slices.Concat(ofEverybody(), ofArchitecture(), ofC())
}

func ofEverybody() []call {
	return []call{
		{name: "preadv2", number: unix.SYS_PREADV2, why: frames},
		{name: "pwritev2", number: unix.SYS_PWRITEV2, why: frames},
		{name: "epoll_pwait", number: unix.SYS_EPOLL_PWAIT, why: "workers wait, and the runtime for connections"},
		{name: "futex", number: unix.SYS_FUTEX, why: goruns},
		{name: "nanosleep", number: unix.SYS_NANOSLEEP, why: goruns},
		{name: "recvmsg", number: unix.SYS_RECVMSG, why: "descriptors that are handed in; errors of sockets; the kernel's news of addresses"},
		{name: "sendmsg", number: unix.SYS_SENDMSG, why: "descriptors to inits, datagrams with control messages"},
		{name: "recvmmsg", number: unix.SYS_RECVMMSG, why: sockets, seldom: "only where several datagrams wait at once"},
		{name: "sendmmsg", number: unix.SYS_SENDMMSG, why: sockets},
		{name: "recvfrom", number: unix.SYS_RECVFROM, why: sockets},
		{name: "sendto", number: unix.SYS_SENDTO, why: sockets},
		{name: "read", number: unix.SYS_READ, why: control},
		{name: "write", number: unix.SYS_WRITE, why: control + ", the log"},

		{name: "epoll_create1", number: unix.SYS_EPOLL_CREATE1, why: "one for each worker, and the runtime's"},
		{name: "epoll_ctl", number: unix.SYS_EPOLL_CTL, why: "links, sockets and pidfds come and go"},
		{name: "eventfd2", number: unix.SYS_EVENTFD2, why: "a worker is called"},
		{name: "timerfd_create", number: unix.SYS_TIMERFD_CREATE, why: "workers' timers"},
		{name: "timerfd_settime", number: unix.SYS_TIMERFD_SETTIME, why: "workers' timers"},
		{name: "ppoll", number: unix.SYS_PPOLL, why: "whether a process has ended, by its pidfd"},

		{name: "socket", number: unix.SYS_SOCKET, why: sockets, only: familiar},
		{name: "socketpair", number: unix.SYS_SOCKETPAIR, why: "sessions with an init", only: channelsOnly},
		{name: "bind", number: unix.SYS_BIND, why: "published ports, the control socket"},
		{name: "listen", number: unix.SYS_LISTEN, why: "published ports, the control socket"},
		{name: "accept4", number: unix.SYS_ACCEPT4, why: "published ports, the control socket"},
		{name: "connect", number: unix.SYS_CONNECT, why: sockets},
		{name: "shutdown", number: unix.SYS_SHUTDOWN, why: "half-closed connections"},
		{name: "getsockname", number: unix.SYS_GETSOCKNAME, why: sockets},
		{name: "getpeername", number: unix.SYS_GETPEERNAME, why: sockets + "; whether one that is handed in is connected"},
		{name: "getsockopt", number: unix.SYS_GETSOCKOPT, why: "errors of sockets, credentials of peers, what a descriptor is"},
		{name: "setsockopt", number: unix.SYS_SETSOCKOPT, why: sockets},
		{name: "ioctl", number: unix.SYS_IOCTL, why: "TAPs that are handed in, and how much a socket has queued", only: oneOf(1, controls()...)},

		{name: "close", number: unix.SYS_CLOSE, why: "everything ends"},
		{name: "dup3", number: unix.SYS_DUP3, why: "another log file, and a closed descriptor's place", seldom: "only when the log has grown to its bound"},
		{name: "fcntl", number: unix.SYS_FCNTL, why: "non-blocking, close-on-exec", only: oneOf(1, unix.F_DUPFD_CLOEXEC, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL)},
		{name: "openat", number: unix.SYS_OPENAT, why: "files of the node directory, /proc, resolv.conf; which, Landlock decides", only: neither(3, unix.S_ISUID|unix.S_ISGID)},
		{name: "fstat", number: unix.SYS_FSTAT, why: files},
		{name: "newfstatat", number: unix.SYS_NEWFSTATAT, why: files},
		{name: "statx", number: unix.SYS_STATX, why: "what a descriptor is that was handed in, without asking who serves it"},
		{name: "lseek", number: unix.SYS_LSEEK, why: "logs that are followed"},
		{name: "pread64", number: unix.SYS_PREAD64, why: "logs that are followed"},
		{name: "pwrite64", number: unix.SYS_PWRITE64, why: "/etc/hosts of a container, in place"},
		{name: "ftruncate", number: unix.SYS_FTRUNCATE, why: "/etc/hosts of a container, in place"},
		{name: "fsync", number: unix.SYS_FSYNC, why: "state.json"},
		{name: "getdents64", number: unix.SYS_GETDENTS64, why: files},
		{name: "mkdirat", number: unix.SYS_MKDIRAT, why: files},
		{name: "unlinkat", number: unix.SYS_UNLINKAT, why: files},
		{name: "renameat", number: unix.SYS_RENAMEAT, why: "state.json, the log"},
		{name: "fchmod", number: unix.SYS_FCHMOD, why: "/etc/hosts of a container, for all in it to read", only: oneOf(1, 0o644)},
		{name: "readlinkat", number: unix.SYS_READLINKAT, why: files},
		{name: "flock", number: unix.SYS_FLOCK, why: "node.lock, start.lock"},
		{name: "umask", number: unix.SYS_UMASK, why: "the control socket is for us alone"},

		{name: "pidfd_open", number: unix.SYS_PIDFD_OPEN, why: "ourselves, and a peer of the control socket", only: ourselves},
		{name: "pidfd_send_signal", number: unix.SYS_PIDFD_SEND_SIGNAL, why: "a container is killed, a node that has taken our place told to end", only: oneOf(1, 0, uint32(unix.SIGKILL), uint32(unix.SIGTERM))},
		{name: "getpid", number: unix.SYS_GETPID, why: control},
		{name: "geteuid", number: unix.SYS_GETEUID, why: control},
		{name: "uname", number: unix.SYS_UNAME, why: "fairlead version"},

		{name: "clone", number: unix.SYS_CLONE, why: goruns, only: aThread},
		{name: "exit", number: unix.SYS_EXIT, why: goruns, seldom: "only when a locked goroutine ends"},
		{name: "exit_group", number: unix.SYS_EXIT_GROUP, why: goruns},
		{name: "gettid", number: unix.SYS_GETTID, why: goruns},
		{name: "sched_yield", number: unix.SYS_SCHED_YIELD, why: goruns},
		{name: "sched_getaffinity", number: unix.SYS_SCHED_GETAFFINITY, why: goruns, seldom: "until GOMAXPROCS is set it asks again each second"},
		{name: "mmap", number: unix.SYS_MMAP, why: goruns, only: neither(2, unix.PROT_EXEC)},
		{name: "munmap", number: unix.SYS_MUNMAP, why: goruns, seldom: "only when the runtime gives memory's tables back"},
		{name: "madvise", number: unix.SYS_MADVISE, why: goruns},
		{name: "prctl", number: unix.SYS_PRCTL, why: "the Go runtime: names for its memory", only: oneOf(0, unix.PR_SET_VMA), seldom: "only when the heap grows by much"},
		{name: "getrandom", number: unix.SYS_GETRANDOM, why: "ids of containers and queries"},
		{name: "clock_gettime", number: unix.SYS_CLOCK_GETTIME, why: goruns},
		{name: "restart_syscall", number: unix.SYS_RESTART_SYSCALL, why: "the kernel's own, when a stopped process goes on", seldom: "only after SIGSTOP and a debugger"},
		{name: "rt_sigaction", number: unix.SYS_RT_SIGACTION, why: signals, seldom: "only in a crash, and when signals are asked for"},
		{name: "rt_sigprocmask", number: unix.SYS_RT_SIGPROCMASK, why: signals},
		{name: "rt_sigreturn", number: unix.SYS_RT_SIGRETURN, why: signals},
		{name: "sigaltstack", number: unix.SYS_SIGALTSTACK, why: signals},
		{name: "tgkill", number: unix.SYS_TGKILL, why: signals, only: ourThreads},
	}
}

// controls are the ioctls: of TAPs, of a socket's queues, and of pidfds and
// terminals that are asked what they are.
func controls() []uint32 {
	return []uint32{
		unix.TUNGETIFF, unix.TUNSETOFFLOAD, unix.TUNSETVNETHDRSZ, unix.TUNSETVNETLE, unix.TUNSETCARRIER,
		unix.TUNSETPERSIST, unix.TUNATTACHFILTER, unix.TUNDETACHFILTER, unix.TIOCINQ, unix.TIOCOUTQ, unix.TCGETS,
	}
}

// absent are calls that are asked for where an older one does as well.
func absent() []uintptr { return []uintptr{unix.SYS_CLONE3} }

// hostile are calls that nothing of ours makes on any way, and an intruder
// wants first: to become another program, another process or another user, to
// look into processes, to change what is mounted, to extend the kernel. They
// end the node at once; what was asked of it is not to be gone on with.
func hostile() []uintptr {
	return []uintptr{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
		unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
		unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER,
		unix.SYS_IO_URING_REGISTER, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT, unix.SYS_MEMFD_CREATE,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	}
}
