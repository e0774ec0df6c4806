package test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// What all packages, and one of this house, may allocate before main: some half
// more than they do.
const (
	maxBeforeMain = 256 << 10
	maxBeforeOurs = 12 << 10
)

// An init is this program too, one for each container, and keeps what was set up
// before main: docs/decisions/init-memory.md.
func TestLittleBeforeMain(t *testing.T) {
	cmd := exec.Command(lab.Binary(t), "help")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, trace.Bytes())
	}
	sum := 0
	for _, m := range regexp.MustCompile(`(?m)^init (\S+) @.* (\d+) bytes, \d+ allocs$`).FindAllStringSubmatch(trace.String(), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
		if ours := m[1] == "main" || strings.HasPrefix(m[1], module+"/"); ours && n > maxBeforeOurs {
			t.Errorf("%s allocates %d bytes before main, more than %d: let its tables and regexps be made when they are first asked for", m[1], n, maxBeforeOurs)
		}
	}
	if sum == 0 || sum > maxBeforeMain {
		t.Errorf("%d bytes are allocated before main, more than %d or nothing:\n%s", sum, maxBeforeMain, trace.Bytes())
	}
}
