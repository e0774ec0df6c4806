package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
)

// stallBar is how much longer than on a quiet machine the others may have to
// wait for a frame, in milliseconds.
const stallBar = 2.0

// stall measures how long forwarding between two containers stands still while
// twenty others are killed one after the other. A prober plays ping-pong with
// UDP and notes the longest pause after each death.
//
// A machine that does anything else has pauses of its own, so the same is done
// with nobody dying, and the difference counts. And the kernel has work with
// the dead whoever connected them, on processors that would forward otherwise;
// how much is seen from the deaths of containers that hang on no switch.
func stall() *workload {
	w := &workload{name: "stall", unit: "ms", what: "longest pause of forwarding between two containers while twenty others die"}
	w.takes = func(o *options) time.Duration {
		return time.Duration(o.Pairs) * time.Duration(3*o.Seconds+2) * time.Second
	}
	w.measure = func(l *lab, o *options, r *results) {
		n := startNode(l)
		self, err := os.Executable()
		l.check(err, "find this program")
		echo := n.container(l, "echo", "exec "+self+" echo")
		cases := []*stallCase{
			{figure: r.figure(w, "quiet"), victim: func(string) int { return 0 }},
			{figure: r.figure(w, "unattached"), victim: func(name string) int { return n.loner(l, name).Pid }},
			{figure: r.figure(w, "attached"), victim: func(name string) int { return n.container(l, name, "").Pid }},
		}
		quiet, attached, more := cases[0], cases[2], r.figure(w, "difference")
		window := time.Duration(o.Seconds) * time.Second / deaths
		for round := range o.Pairs {
			for _, c := range cases {
				c.pids = nil
				for i := range deaths {
					c.pids = append(c.pids, c.victim(fmt.Sprintf("victim%d", i)))
				}
				pauses := n.pauses(l, echo.IP, window, deaths, func(i int) {
					if c.pids[i] != 0 {
						l.check(syscall.Kill(c.pids[i], syscall.SIGKILL), "kill a container")
					}
				})
				c.worst = slices.Max(pauses)
				for i, p := range pauses {
					c.figure.add(sample{Round: round*deaths + i, Value: p})
				}
				progress("%s  round %d of %d  %-10s %.2f %s", w.name, round+1, o.Pairs, c.figure.Path, c.worst, w.unit)
			}
			more.add(sample{Round: round, Value: attached.worst - quiet.worst})
			slices.Reverse(cases)
		}
		for _, c := range cases {
			c.figure.Note = fmt.Sprintf("worst of all %.2f ms", c.figure.Value.Max)
		}
		more.Note = "worst of a round attached less worst of the round quiet: no finer than the pauses of quiet, and with what unattached costs too"
		r.atMost(more, "median", more.Value.Median, stallBar)
	}
	return w
}

// A stallCase is one kind of death, and what was measured of it.
type stallCase struct {
	figure *figure
	victim func(name string) (pid int) // 0: nobody
	pids   []int                       // of this round
	worst  float64                     // pause of this round
}

// loner starts a container that hangs on no switch.
func (n *node) loner(l *lab, name string) *api.Container {
	run(l, n.bin, "run", "-d", "--name", name, "--net", "none", "--", "sleep", "1000")
	return n.known(l, name, 0)
}

// pauses runs the prober in a container, calls do at the start of each window of
// time, and returns the longest pause in each window in milliseconds.
func (n *node) pauses(l *lab, ip string, window time.Duration, windows int, do func(i int)) (pauses []float64) {
	self, err := os.Executable()
	l.check(err, "find this program")
	cmd := exec.CommandContext(l.ctx, n.bin, "run", "--name", "prober", "--",
		self, "prober", ip, window.String(), strconv.Itoa(windows))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	l.check(err, "start the prober")
	l.check(cmd.Start(), "start the prober")
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n') // it has begun
	l.check(err, "hear from the prober")
	for start, i := time.Now(), 0; i < windows; i++ {
		time.Sleep(time.Until(start.Add(time.Duration(i) * window)))
		do(i)
	}
	var each []time.Duration
	l.check(json.NewDecoder(lines).Decode(&each), "hear from the prober")
	l.check(cmd.Wait(), "prober")
	for _, p := range each {
		pauses = append(pauses, milliseconds(p))
	}
	return pauses
}

// echoPort is where the prober's partner listens.
const echoPort = 7

// prober plays ping-pong with an echo. Both do without the poller of the Go
// runtime, whose pauses would be counted.
func prober(args []string) error {
	if len(args) != 3 {
		return errors.New("it is started by bench only")
	}
	ip, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	window, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	windows, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	fd, err := udpSocket()
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: echoPort, Addr: ip.As4()}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	buf := make([]byte, 18)
	ping := func() error {
		if _, err := unix.Write(fd, buf); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		for {
			_, err := unix.Read(fd, buf)
			if err == nil {
				return nil
			}
			if !errors.Is(err, unix.EINTR) { // the runtime sends itself signals
				return fmt.Errorf("receive: %w", err)
			}
		}
	}
	soon := time.Now().Add(patience * time.Second)
	for rounds := 0; rounds < 100; { // what is slow only once: ARP, and memory never touched
		switch err := ping(); {
		case err == nil:
			rounds++
		case !errors.Is(err, unix.ECONNREFUSED) || time.Now().After(soon):
			return err
		default: // its partner is just starting
			time.Sleep(time.Millisecond)
		}
	}
	fmt.Println("begun")
	pauses := make([]time.Duration, windows)
	start := time.Now()
	for last := start; ; {
		if err := ping(); err != nil {
			return err
		}
		now := time.Now()
		i := int(now.Sub(start) / window)
		if i >= windows {
			return json.NewEncoder(os.Stdout).Encode(pauses)
		}
		pauses[i] = max(pauses[i], now.Sub(last))
		last = now
	}
}

// echo sends every datagram back.
func echo([]string) error {
	fd, err := udpSocket()
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: echoPort}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("receive: %w", err)
		}
		if err == nil {
			_ = unix.Sendto(fd, buf[:n], 0, from) // who does not get it says so
		}
	}
}

// udpSocket makes a socket whose reads give up after a second: a lost datagram
// is an error, not a pause without end.
func udpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a UDP socket: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return -1, fmt.Errorf("set SO_RCVTIMEO: %w", err)
	}
	return fd, nil
}
