package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// quiet keeps a container from speaking of itself: without IPv6 a kernel sends
// nothing that nobody asked for.
const quiet = "--sysctl=net.ipv6.conf.all.disable_ipv6=1"

// tcpdump is a command line of tcpdump. As root it always becomes another user,
// and gives up when that fails; but a plain user's container has one user only,
// and may not even set its groups (user_namespaces(7)). So strace answers those
// three system calls.
func tcpdump(t *testing.T, args ...string) []string {
	t.Helper()
	lab.Need(t, "tcpdump", "strace")
	return append([]string{"strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=setgroups,setgid,setuid",
		"-e", "inject=setgroups,setgid,setuid:retval=0", "tcpdump"}, args...)
}

// An ear is a third container that listens to what the switch sends it.
type ear struct {
	n    *node
	name string
	at   int // how much of the log was heard
}

// ear runs tcpdump in a container; filter is what it heeds.
func (n *node) ear(name, filter string, options ...string) *ear {
	n.t.Helper()
	n.start(name, append(append(options, "--"), tcpdump(n.t, "-lnte", "--immediate-mode", "-i", "eth0", filter)...)...)
	n.logSays(name, "listening on eth0")
	return &ear{n: n, name: name, at: len(n.run("logs", name))}
}

// marks counts the marks set in this process. Each is for an address of its
// own: who asks twice for one waits for an answer first.
var marks int

// mark has a container send a broadcast that says "this far": the ARP request
// for an address nobody has. It returns that address.
func (n *node) mark(from string) string {
	n.t.Helper()
	marks++
	address := fmt.Sprintf("172.17.%d.%d", 200+marks/200%50, 1+marks%200)
	n.exec(from, "bash", "-c", "echo > /dev/udp/"+address+"/9")
	return address
}

// isMark finds lines about marks, also those that are asked for again.
var isMark = regexp.MustCompile(`\b172\.17\.2[0-4]\d\.`)

// since returns the lines the ear heard since it was asked last. A mark from a
// container whose frames were to be heard, or not, says when to stop waiting.
func (e *ear) since(from string) []string {
	e.n.t.Helper()
	mark := "who-has " + e.n.mark(from) + " "
	var text string
	lab.Eventually(e.n.t, 5*time.Second, func() error {
		text = e.n.run("logs", e.name)[e.at:]
		// The line of the mark must be there to its end.
		if i := strings.Index(text, mark); i >= 0 {
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				text = text[:i+end+1]
				return nil
			}
		}
		return fmt.Errorf("%s does not hear the mark; it heard:\n%s", e.name, text)
	})
	e.at += len(text)
	var lines []string
	for line := range strings.Lines(text) {
		if !isMark.MatchString(line) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// heard fails the test unless the ear has heard exactly one line for each
// pattern, in this order, since it was asked last.
func (e *ear) heard(what, from string, patterns ...string) {
	e.n.t.Helper()
	lines := e.since(from)
	ok := len(lines) == len(patterns)
	for i := range patterns {
		ok = ok && regexp.MustCompile(patterns[i]).MatchString(lines[i])
	}
	if !ok {
		e.n.t.Errorf("%s: a third container heard\n%s\nwant\n%s", what, strings.Join(lines, "\n"), strings.Join(patterns, "\n"))
	}
}
