package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// stallBar is how long the others may have to wait for a frame, in milliseconds, at the
// worst.
const stallBar = 2.0

// noLonger is the bar that the worst pause of all is no longer than stallBar. A machine
// has pauses of its own, which as much time shows in which nothing happened. Where those
// are longer than the bar themselves, nobody can tell whether it is met: one of ours may
// hide behind them. It is missed there when the worst is longer than theirs by the bar.
func (r *results) noLonger(f, quiet *figure) {
	if len(f.Samples) == 0 || len(quiet.Samples) == 0 {
		return
	}
	r.atMost(f, "worst pause of all", (*figure).worst, stallBar)
	b := r.last()
	b.Have += fmt.Sprintf("; %s are longer than the bar, and when nothing happens %s, the worst %s ms",
		f.above(stallBar), quiet.above(stallBar), number(quiet.worst()))
	if !b.Met && quiet.worst() > stallBar && f.worst() <= quiet.worst()+stallBar {
		b.Open = true
		b.Have += ": the machine's own hide any of ours"
	}
}

// above says how many of the samples are longer than a bound.
func (f *figure) above(bound float64) string {
	n := 0
	for _, s := range f.Samples {
		if s.Value > bound {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, len(f.Samples))
}

// stall measures how long forwarding between two containers stands still while
// twenty others are killed one after the other. A prober plays ping-pong with
// UDP and notes the longest pause after each death.
//
// A machine that does anything else has pauses of its own, so the same is done
// with nobody dying. And the kernel has work with
// the dead whoever connected them, on processors that would forward otherwise;
// how much is seen from the deaths of containers that hang on no switch.
func stall() *workload {
	w := &workload{name: "stall", unit: "ms", less: true, what: "longest pause of forwarding between two containers while twenty others die"}
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
		quiet, attached := cases[0].figure, cases[2].figure
		window := time.Duration(o.Seconds) * time.Second / deaths
		for round := range o.Pairs {
			for _, c := range cases {
				c.pids = nil
				for i := range deaths {
					c.pids = append(c.pids, c.victim(fmt.Sprintf("victim%d", i)))
				}
				pauses := n.prober(echo.IP)(l, window, deaths, func(i int) {
					if c.pids[i] != 0 {
						l.check(syscall.Kill(c.pids[i], syscall.SIGKILL), "kill a container")
					}
				})
				for i, p := range pauses {
					c.figure.add(sample{Round: round*deaths + i, Value: p})
				}
				progress("%s  round %d of %d  %-10s %.2f %s", w.name, round+1, o.Pairs, c.figure.Path, slices.Max(pauses), w.unit)
			}
			slices.Reverse(cases)
		}
		for _, c := range cases {
			c.figure.Note = fmt.Sprintf("worst of all %.2f ms", c.figure.Value.Max)
		}
		r.noLonger(attached, quiet)
	}
	return w
}

// A stallCase is one kind of death, and what was measured of it.
type stallCase struct {
	figure *figure
	victim func(name string) (pid int) // 0: nobody
	pids   []int                       // of this round
}

// loner starts a container that hangs on no switch.
func (n *node) loner(l *lab, name string) *api.Container {
	run(l, n.bin, "run", "-d", "--name", name, "--net", "none", "--", "sleep", "1000")
	return n.known(l, name, 0)
}

// A prober plays ping-pong with an echo and calls do at the start of each window of time.
// It returns the longest pause in each window in milliseconds.
type prober func(l *lab, window time.Duration, windows int, do func(i int)) []float64

// probing is a prepared command.
type probing interface {
	StdoutPipe() (io.ReadCloser, error)
	Start() error
	Wait() error
}

// prober runs in a container of the node.
func (n *node) prober(ip string) prober {
	return proberIn(ip, func(l *lab, name string, args ...string) probing {
		cmd := exec.CommandContext(l.ctx, n.bin, append([]string{"run", "--name", "prober", "--", name}, args...)...)
		cmd.Stderr = os.Stderr
		return cmd
	})
}

// proberIn runs where command has it run.
func proberIn(ip string, command func(l *lab, name string, args ...string) probing) prober {
	return func(l *lab, window time.Duration, windows int, do func(i int)) []float64 {
		self, err := os.Executable()
		l.check(err, "find this program")
		return pauses(l, command(l, self, "prober", ip, window.String(), strconv.Itoa(windows)), window, windows, do)
	}
}

// pauses is what a prober does.
func pauses(l *lab, cmd probing, window time.Duration, windows int, do func(i int)) (pauses []float64) {
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

// probe plays ping-pong with an echo. Both do without the poller of the Go
// runtime, whose pauses would be counted.
func probe(args []string) error {
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
		case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EAGAIN) || time.Now().After(soon):
			return err
		default: // its partner is just starting, and its host soon says no more that nobody is there
			time.Sleep(time.Millisecond)
		}
	}
	fmt.Println("begun")
	pauses := make([]time.Duration, windows)
	start := time.Now()
	for last := start; ; {
		if err := ping(); errors.Is(err, unix.EAGAIN) {
			continue // a datagram was lost: the pause goes on
		} else if err != nil {
			return err
		}
		now := time.Now()
		i := min(int(now.Sub(start)/window), windows-1)
		pauses[i] = max(pauses[i], now.Sub(last))
		if now.Sub(start) >= window*time.Duration(windows) {
			return json.NewEncoder(os.Stdout).Encode(pauses)
		}
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

// udpSocket makes a socket whose reads give up after a second: a lost datagram is no
// pause without end.
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
