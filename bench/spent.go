package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// spent is the time processors have spent on a process, in seconds.
type spent struct {
	CPU    float64 `json:"cpu_seconds"`              // 0 where a path is no process
	Kernel float64 `json:"kernel_seconds,omitempty"` // of those, in the kernel
}

func (s spent) plus(o spent) spent  { return spent{s.CPU + o.CPU, s.Kernel + o.Kernel} }
func (s spent) minus(o spent) spent { return spent{s.CPU - o.CPU, s.Kernel - o.Kernel} }

// spentHere is that of this process, which may be locked in as a node is: then it
// has a clock and files of /proc, and can list no directory there.
func spentHere() (spent, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return spent{}, fmt.Errorf("read the clock of this process: %w", err)
	}
	return spent{CPU: float64(t.Nano()) / 1e9, Kernel: kernelCPU(os.Getpid())}, nil
}

// spentOn is that of another process.
func spentOn(pid int) spent { return spent{CPU: threadsCPU(pid), Kernel: kernelCPU(pid)} }

// kernelCPU is the kernel's part, of which the kernel tells hundredths of a second.
func kernelCPU(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // of one that has just ended
	_, rest, _ := strings.Cut(string(text), ") ")             // behind its name
	f := strings.Fields(rest)
	if len(f) <= 12 {
		return 0
	}
	ticks, _ := strconv.ParseUint(f[12], 10, 64) // stime, in USER_HZ (proc_pid_stat(5))
	return float64(ticks) / 100
}

// threadsCPU adds up what the scheduler counts, in seconds.
func threadsCPU(pid int) (seconds float64) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file) // of a thread that has just ended
		if f := strings.Fields(string(text)); len(f) > 0 {
			ns, _ := strconv.ParseUint(f[0], 10, 64)
			seconds += float64(ns) / 1e9
		}
	}
	return seconds
}

// A theft is what the hypervisor took of the machine's processors since some
// moment. A row of which it took more than tooMuchStolen is marked: its figures
// are those of a smaller machine.
type theft struct{ stolen, all uint64 }

const tooMuchStolen = 0.05

// watchTheft begins now.
func watchTheft() theft {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	return parseTheft(line)
}

// parseTheft reads the first line of /proc/stat: user nice system idle iowait irq
// softirq steal, and what guests had, which is in the first two (proc_stat(5)).
func parseTheft(line string) (t theft) {
	for i, field := range strings.Fields(line) {
		if i == 0 || i > 8 {
			continue
		}
		ticks, _ := strconv.ParseUint(field, 10, 64)
		t.all += ticks
		if i == 8 {
			t.stolen = ticks
		}
	}
	return t
}

// until is the share that was stolen up to another moment.
func (t theft) until(now theft) float64 {
	if now.all <= t.all {
		return 0
	}
	return float64(now.stolen-t.stolen) / float64(now.all-t.all)
}
