package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Servers are where queries go, and how.
type Servers struct {
	Addrs    []netip.AddrPort
	Timeout  time.Duration // of one try
	Attempts int           // at each server
	Rotate   bool          // begin with another one each time
}

// Limits of resolv.conf(5).
const (
	maxServers      = 3
	maxAttempts     = 5
	defaultAttempts = 2
)

// localServer is asked when resolv.conf names none, as resolv.conf(5) has it.
var localServer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)

// port is that of DNS.
const port = 53

// ParseResolvConf reads nameservers and options of an /etc/resolv.conf. What it
// does not know it passes over, as the C library does.
func ParseResolvConf(text string) Servers {
	s := Servers{Timeout: perTry, Attempts: defaultAttempts}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			a, err := netip.ParseAddr(f[1])
			at := netip.AddrPortFrom(a, port)
			if err == nil && len(s.Addrs) < maxServers && !slices.Contains(s.Addrs, at) {
				s.Addrs = append(s.Addrs, at)
			}
		case "options":
			for _, option := range f[1:] {
				s.option(option)
			}
		}
	}
	if len(s.Addrs) == 0 {
		s.Addrs = []netip.AddrPort{localServer}
	}
	return s
}

func (s *Servers) option(option string) {
	name, value, _ := strings.Cut(option, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "rotate":
		s.Rotate = true
	case err != nil || n < 1:
	case name == "timeout":
		s.Timeout = min(time.Duration(min(n, 30))*time.Second, perTry)
	case name == "attempts":
		s.Attempts = min(n, maxAttempts)
	}
}

// A server is one of Servers with what is known of it.
type server struct {
	addr     netip.AddrPort
	silent   bool  // it answered nobody during a try that got no answer
	answered int64 // when it did so last
}

// says takes down that it has answered.
func (s *server) says(now int64) { s.silent, s.answered = false, now }

// saysNothing takes down that a try that began then got no answer. One that answered
// somebody else since is there: it has none for this name, and a container that asks
// for such names alone is not to have others wait less for theirs.
func (s *server) saysNothing(began int64) { s.silent = s.answered < began }
