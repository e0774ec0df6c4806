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
// UDP and notes the longest pause.
//
// A machine that does anything else has pauses of its own, so the same is done
// with nobody dying, and the difference counts. And the kernel has work with
// the dead whoever connected them, on processors that would forward otherwise;
// how much is seen from the deaths of containers that hang on no switch.
func stall() *workload {
	w := &workload{name: "stall", unit: "ms", what: "longest pause of forwarding between two containers while twenty others die"}
	w.measure = func(l *lab, o *options, r *results) {
		n := startNode(l)
		self, err := os.Executable()
		l.check(err, "find this program")
		echo := n.container(l, "echo", "exec "+self+" echo")
		cases := []*stallCase{
			{figure: r.figure(w, "quiet"), victims: func(string) int { return 0 }},
			{figure: r.figure(w, "unattached"), victims: func(name string) int { return n.loner(l, name).Pid }},
			{figure: r.figure(w, "attached"), victims: func(name string) int { return n.container(l, name, "").Pid }},
		}
		quiet, attached := cases[0].figure, cases[2].figure
		for round := range o.pairs {
			for _, c := range cases {
				var pids []int
				for i := range deaths {
					if pid := c.victims(fmt.Sprintf("victim%d", i)); pid > 0 {
						pids = append(pids, pid)
					}
				}
				c.figure.add(sample{Round: round, Value: n.pause(l, echo.IP, time.Duration(o.duration())*time.Second, pids)})
				progress("%s  round %d of %d  %-10s %.2f %s", w.name, round+1, o.pairs, c.figure.Path, c.figure.Samples[round].Value, w.unit)
			}
			slices.Reverse(cases)
		}
		more := r.figure(w, "difference")
		for round, s := range attached.Samples {
			more.add(sample{Round: round, Value: s.Value - quiet.Samples[round].Value})
		}
		more.Note = "attached less quiet; it cannot tell less than the spread of quiet, and holds what unattached has more than quiet"
		r.atMost(more, "median", more.Value.Median, stallBar)
	}
	return w
}

// A stallCase is one kind of death, and where its pauses go.
type stallCase struct {
	figure  *figure
	victims func(name string) (pid int) // 0: nobody
}

// loner starts a container that hangs on no switch.
func (n *node) loner(l *lab, name string) *api.Container {
	run(l, n.bin, "run", "-d", "--name", name, "--net", "none", "--", "sleep", "1000")
	return n.known(l, name, 0)
}

// pause runs the prober in a container, kills processes meanwhile, evenly over
// the time, and returns the longest pause in milliseconds.
func (n *node) pause(l *lab, ip string, d time.Duration, victims []int) float64 {
	self, err := os.Executable()
	l.check(err, "find this program")
	cmd := exec.CommandContext(l.ctx, n.bin, "run", "--name", "prober", "--", self, "prober", ip, d.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	l.check(err, "start the prober")
	l.check(cmd.Start(), "start the prober")
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n') // it has begun
	l.check(err, "hear from the prober")
	for _, pid := range victims {
		time.Sleep(d / time.Duration(len(victims)+1))
		l.check(syscall.Kill(pid, syscall.SIGKILL), "kill a container")
	}
	var p probed
	l.check(json.NewDecoder(lines).Decode(&p), "hear from the prober")
	l.check(cmd.Wait(), "prober")
	return milliseconds(p.Pause)
}

// probed is what a prober found.
type probed struct {
	Echoes int
	Pause  time.Duration // the longest time without one
}

// echoPort is where the prober's partner listens.
const echoPort = 7

// prober plays ping-pong with an echo. Both do without the poller of the Go
// runtime, whose pauses would be counted.
func prober(args []string) error {
	if len(args) != 2 {
		return errors.New("it is started by bench only")
	}
	ip, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(args[1])
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
	for range 100 { // what is slow only once: ARP, and memory never touched
		if err := ping(); err != nil {
			return err
		}
	}
	fmt.Println("begun")
	var p probed
	for last, end := time.Now(), time.Now().Add(d); last.Before(end); p.Echoes++ {
		if err := ping(); err != nil {
			return err
		}
		now := time.Now()
		p.Pause = max(p.Pause, now.Sub(last))
		last = now
	}
	return json.NewEncoder(os.Stdout).Encode(p)
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
