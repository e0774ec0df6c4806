package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Need asks for client programs of the machine, such as "iperf3". Where one is
// missing the test is listed as not run, with the command that brings it.
// Every program is listed in test/packages.txt.
func Need(t T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		pkg := packageOf(t, program)
		if _, err := exec.LookPath(program); err != nil {
			NotRun(t, "needs the program "+program, "sudo apt-get install "+pkg)
		}
	}
}

// NeedTUN asks for the right to open /dev/net/tun, which makes TAPs.
func NeedTUN(t T) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		NotRun(t, "may not open /dev/net/tun", "sudo chmod 666 /dev/net/tun")
	case err != nil: // also ENODEV: the file is there, the driver is not
		NotRun(t, "finds no /dev/net/tun", "sudo modprobe tun")
	}
	must(t, f.Close(), "close /dev/net/tun")
}

// NeedRoot says that the test needs the machine's real root. It is then listed
// in test/needs-root.txt, with the reason. Being a plain user is no failure,
// also under CI, which runs everything both ways.
func NeedRoot(t T) {
	t.Helper()
	why := ""
	for _, line := range table(t, "needs-root.txt") {
		if test, reason, _ := strings.Cut(line, " "); test == t.Name() {
			why = strings.TrimSpace(reason)
		}
	}
	if why == "" {
		t.Fatalf("lab: say in test/needs-root.txt why %s needs root", t.Name())
	}
	needWorld(t)
	if os.Getenv("FAIRLEAD_WORLD") != "root" {
		note(t, "needs root: "+why, "sudo make test")
	}
}

// NeedRelease says that the test's figures mean nothing under the race
// detector, which allocates and waits where the program does not. `make test`
// runs these tests in a second round without it; their names hold "Release".
func NeedRelease(t T) {
	t.Helper()
	if !strings.Contains(t.Name(), "Release") {
		t.Fatalf("lab: put Release into the name of %s, or it never runs", t.Name())
	}
	if race {
		t.Skipf("runs in the round without the race detector")
	}
}

// NeedEngine says that the test compares us with another container engine. `make
// engines` runs these tests; their names hold "Engine", their programs are listed in
// test/engines.txt. It returns the control group of the engine.
func NeedEngine(t T, programs ...string) string {
	t.Helper()
	if !strings.Contains(t.Name(), "Engine") {
		t.Fatalf("lab: put Engine into the name of %s, or it never runs", t.Name())
	}
	group := os.Getenv("FAIRLEAD_ENGINES")
	if group == "" {
		t.Skipf("runs in `make engines`")
	}
	Need(t, programs...)
	return group
}

// needWorld keeps what follows away from the machine's own network.
func needWorld(t T) {
	t.Helper()
	if os.Getenv("FAIRLEAD_WORLD") == "" {
		NotRun(t, "needs namespaces of its own", "make test")
	}
}

// NotRun ends a test that cannot run here: it is listed with the reason and the
// command that would help, and `make test` shows the list at its end. Under CI
// everything has to run, so there it fails.
func NotRun(t T, reason, command string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s; try: %s", reason, command)
	}
	note(t, reason, command)
}

func note(t T, reason, command string) {
	t.Helper()
	if list := os.Getenv("FAIRLEAD_NOTRUN"); list != "" {
		f, err := os.OpenFile(list, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		must(t, err, "list %s as not run", t.Name())
		_, err = fmt.Fprintf(f, "%s: %s\t%s\n", t.Name(), reason, command)
		must(t, err, "list %s as not run", t.Name())
		must(t, f.Close(), "list %s as not run", t.Name())
	}
	t.Skipf("%s; try: %s", reason, command)
}

// Binary is the fairlead program under test: what make built.
func Binary(t T) string {
	t.Helper()
	path := os.Getenv("FAIRLEAD_BIN")
	if path == "" {
		path = filepath.Join(checkout(t), "bin", "fairlead")
	}
	if _, err := os.Stat(path); err != nil {
		NotRun(t, "needs the program under test", "make build")
	}
	return path
}

// packageOf finds the Debian package of a program in test/packages.txt, or among
// the engines. A program that is no test may have a list of its own.
func packageOf(t T, program string) string {
	t.Helper()
	if own, ok := t.(interface{ PackageOf(program string) string }); ok {
		return own.PackageOf(program)
	}
	for _, line := range append(table(t, "packages.txt"), table(t, "engines.txt")...) {
		fields := strings.Fields(line)
		if slices.Contains(fields[1:], program) {
			return fields[0]
		}
	}
	t.Fatalf("lab: name the package that has %s in test/packages.txt", program)
	return ""
}

// table reads the lines of a file in test/, without comments and empty ones.
func table(t T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(checkout(t), "test", name))
	must(t, err, "read test/%s", name)
	var lines []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// checkout is the folder of go.mod. Go runs every test in its package's folder.
func checkout(t T) string {
	t.Helper()
	dir, err := os.Getwd()
	must(t, err, "find the checkout")
	for at := dir; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	t.Fatalf("lab: no go.mod above %s", dir)
	return ""
}
