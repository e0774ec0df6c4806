package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	hosts "fairlead/test/lab"
)

// The ports of the far end.
const (
	httpPort    = 7008 // TCP: answers HTTP requests
	bulkPort    = 7009 // TCP: reads
	oncePort    = 7010 // TCP: reads a request, writes an answer, closes
	echoTCPPort = 7011 // TCP: writes back what it reads
	sinkPort    = 7012 // UDP: counts; and the ports behind it, one for each flow
)

// A job is what the near end is asked to do, or the far end to count.
type job struct {
	Do    string // once, echo, stream, datagrams; count
	To    netip.AddrPort
	Dev   string        // the interface of an attack
	For   time.Duration // how long
	Count uint64        // at most so many; 0 is no bound
	Rate  float64       // datagrams, or bytes of a stream, in a second; 0 is as fast as they are taken

	Control   string    // congestion control of a stream
	Datagrams datagrams // what they are like
}

// most is how many there may be.
func (j job) most() uint64 { return cmp.Or(j.Count, math.MaxUint64) }

// An outcome is what came of it.
type outcome struct {
	Count          uint64        // of connections made, requests answered, datagrams sent or received
	Bytes          uint64        // of payload
	Took           time.Duration // until the last of them
	P50, P99, P999 time.Duration // of a request and its answer
	Damaged        uint64        // datagrams received that are not as they were sent
	Disordered     uint64        // datagrams received after later ones, or twice
	Overflowed     uint64        // datagrams that came as far as the sink's socket and found no room
	Problem        string
}

// minus is what a sink has counted since.
func (o outcome) minus(before outcome) outcome {
	return outcome{
		Count: o.Count - before.Count, Bytes: o.Bytes - before.Bytes, Damaged: o.Damaged - before.Damaged,
		Disordered: o.Disordered - before.Disordered, Overflowed: o.Overflowed - before.Overflowed,
	}
}

// An endProcess is a process of this program that does what one side of a
// measurement does.
type endProcess struct {
	in  *json.Encoder
	out *json.Decoder
}

// startEnd starts a role of this program where command has it started.
func startEnd(l *lab, command func(name string, args ...string) *hosts.Cmd, role string, args ...string) *endProcess {
	self, err := os.Executable()
	l.check(err, "find this program")
	cmd := command(self, append([]string{role}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	l.check(err, "start the %s end", role)
	out, err := cmd.StdoutPipe()
	l.check(err, "start the %s end", role)
	l.check(cmd.Start(), "start the %s end", role)
	l.Cleanup(func() {
		_ = in.Close() // it ends then
		_ = cmd.Wait()
	})
	e := &endProcess{in: json.NewEncoder(in), out: json.NewDecoder(out)}
	_, err = e.do(job{Do: "count"})
	l.check(err, "start the %s end", role)
	return e
}

// do has a job done.
func (e *endProcess) do(j job) (o outcome, err error) {
	if err = e.begin(j); err == nil {
		o, err = e.end()
	}
	return o, err
}

// begin has a job done while the caller does something else, and then calls end.
func (e *endProcess) begin(j job) error { return e.in.Encode(j) }

// end waits until the job is done that was begun.
func (e *endProcess) end() (o outcome, err error) {
	if err = e.out.Decode(&o); err == nil && o.Problem != "" {
		err = errors.New(o.Problem)
	}
	return o, err
}

// endRole reads jobs and does them until its standard input ends.
func endRole(do func(job) (outcome, error)) error {
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var j job
		if err := in.Decode(&j); err != nil {
			return nil
		}
		o, err := do(j)
		if err != nil {
			o.Problem = err.Error()
		}
		if err := out.Encode(o); err != nil {
			return err
		}
	}
}

// far serves on all its ports, and says what its sink has counted. Its argument
// says what datagrams will come. All calls block: the Go runtime's poller is not
// to be measured.
func far(args []string) error {
	var d datagrams
	if len(args) != 1 {
		return errors.New("it is started by bench only")
	}
	if err := json.Unmarshal([]byte(args[0]), &d); err != nil {
		return err
	}
	for _, s := range services {
		if err := s.start(); err != nil {
			return err
		}
	}
	s, err := openSink(d)
	if err != nil {
		return err
	}
	go func() { exit("far", s.serve()) }()
	return endRole(func(job) (outcome, error) { return s.outcome(), nil })
}

// startFar starts a far end that counts datagrams of a kind.
func startFar(l *lab, command func(name string, args ...string) *hosts.Cmd, d datagrams) *endProcess {
	arg, err := json.Marshal(d)
	l.check(err, "describe the datagrams")
	return startEnd(l, command, "far", string(arg))
}

// near does what clients do.
func near([]string) error {
	return endRole(func(j job) (outcome, error) {
		switch j.Do {
		case "once":
			return connects(j)
		case "echo":
			return requests(j)
		case "stream":
			return stream(j)
		case "datagrams":
			return flood(j)
		}
		return outcome{}, nil
	})
}

// spin keeps every processor from going idle until its standard input ends. Its
// threads run only where nothing else wants to (SCHED_IDLE).
func spin([]string) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("ask for the processors: %w", err)
	}
	runtime.GOMAXPROCS(set.Count() + 1)
	result := make(chan error)
	for cpu := range len(set) * 64 {
		if !set.IsSet(cpu) {
			continue
		}
		go func() {
			runtime.LockOSThread()
			var one unix.CPUSet
			one.Set(cpu)
			err := unix.SchedSetaffinity(0, &one)
			if err == nil {
				err = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0)
			}
			result <- err
			for err == nil { //nolint:staticcheck // SA5002: that is what it is for
			}
		}()
	}
	for range set.Count() {
		if err := <-result; err != nil {
			return fmt.Errorf("spin: %w", err)
		}
	}
	return endRole(func(job) (outcome, error) { return outcome{}, nil })
}
