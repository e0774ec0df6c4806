package test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
)

// Where /proc shows only what one may trace (hidepid in proc_pid(5)), who is confined by
// Landlock would see nobody: the node goes without, says so, and knows its peers from
// containers all the same.
func TestHiddenProcesses(t *testing.T) {
	n := newNodeDir(t)
	hidden := func(args ...string) string {
		t.Helper()
		ctx, cancel := contextWithPatience()
		defer cancel()
		cmd := n.command(ctx, args...)
		cmd.Path = "/bin/sh"
		cmd.Args = append([]string{"sh", "-c", `mount -n -t proc -o hidepid=2 proc /proc && exec "$0" "$@"`, n.bin}, args...)
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	judge := func() {
		t.Helper()
		var info api.VersionInfo
		if err := n.ask("/v1/version", &info); err != nil {
			t.Fatal(err)
		}
		l := info.LockIn
		if l.Mode != "strict" || l.Calls == 0 || l.Landlock != 0 || !slices.Contains(l.Capabilities, "CAP_SYS_PTRACE") {
			t.Errorf("%+v", l)
		}
		n.exec("a", "true")
		hidden("exec", "a", "true")
		r := n.try("exec", "-e", "FAIRLEAD_DIR="+n.dir, "a", "fairlead", "ps")
		if r.code != 125 || !strings.Contains(r.stderr, "refused: peer is process") {
			t.Errorf("a container asks: %v", r)
		}
	}
	hidden("up")
	hidden("run", "-d", "--name", "a", "--", "sleep", "1000")
	judge()
	if out := hidden("version"); !strings.Contains(out, "/proc is mounted with hidepid") {
		t.Errorf("version:\n%s", out)
	}
	hidden("up", "--replace")
	judge()
	n.killNode()
	if out := hidden("ps"); !strings.Contains(out, "a\n") {
		t.Errorf("ps:\n%s", out)
	}
	judge()
	n.run("down", "--all")
}
