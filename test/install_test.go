package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// make install puts everything where it belongs, and what it installs runs.
func TestInstall(t *testing.T) {
	lab.Need(t, "make", "bash")
	lab.Binary(t)
	dest := t.TempDir()
	install := exec.Command("make", "-s", "-o", "build", "install", "DESTDIR="+dest, "PREFIX=/opt/fairlead")
	install.Dir = root
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	prefix := filepath.Join(dest, "opt", "fairlead")
	for _, name := range []string{"fairlead", "fairlead-bench"} {
		if info, err := os.Stat(filepath.Join(prefix, "bin", name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("bin/%s: %v (%v)", name, info, err)
		}
	}
	for name, holds := range map[string]string{
		"share/man/man1/fairlead.1":                     ".TH",
		"share/man/man1/fairlead-network-connect.1":     ".TH",
		"share/man/man5/fairlead-lab.5":                 "wait",
		"share/bash-completion/completions/fairlead":    "__start_fairlead",
		"share/zsh/site-functions/_fairlead":            "#compdef fairlead",
		"share/fish/vendor_completions.d/fairlead.fish": "complete -c fairlead",
		"share/fairlead/lab.schema.json":                "$schema",
		"lib/systemd/system/fairlead.service":           "ExecStart=/opt/fairlead/bin/fairlead up --foreground",
		"lib/systemd/user/fairlead-lab@.service":        "ExecStop=/opt/fairlead/bin/fairlead down -f",
	} {
		if text, err := os.ReadFile(filepath.Join(prefix, name)); err != nil || !strings.Contains(string(text), holds) {
			t.Errorf("%s: no %q in it (%v)", name, holds, err)
		}
	}
	if out, err := exec.Command(filepath.Join(prefix, "bin", "fairlead"), "up", "--schema").Output(); err != nil || string(out) != read(t, "docs/lab.schema.json") {
		t.Errorf("up --schema of what is installed: %v\n%s", err, out)
	}
}

// systemd finds nothing wrong in the units, for the system and for users.
func TestUnits(t *testing.T) {
	lab.Need(t, "systemd-analyze")
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"fairlead.service", "fairlead-lab@.service"} {
		unit := filepath.Join(dir, name)
		text := strings.ReplaceAll(read(t, "docs/systemd/"+name), "/usr/local/bin/fairlead", lab.Binary(t))
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, strings.Replace(unit, "@", "@office", 1))
	}
	for _, manager := range []string{"--system", "--user"} {
		verify := exec.Command("systemd-analyze", append([]string{manager, "verify", "--man=no"}, units...)...)
		verify.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "HOME="+dir)
		out, err := verify.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "fairlead") {
				t.Errorf("systemd-analyze %s verify: %s", manager, line)
			}
		}
		if err != nil {
			t.Errorf("systemd-analyze %s verify: %v\n%s", manager, err, out)
		}
	}
}

// bash completes names the node knows, and options.
func TestCompletionInBash(t *testing.T) {
	lab.Need(t, "bash")
	n := newNode(t)
	n.start("web")
	n.start("worker")
	ctx, cancel := contextWithPatience()
	defer cancel()
	for line, want := range map[string]string{
		"fairlead stop w":             "web worker",
		"fairlead stop web w":         "worker",
		"fairlead run --network d":    "default",
		"fairlead ps --no-":           "--no-trunc",
		"fairlead unpub":              "unpublish",
		"fairlead bench --paths ov":   "ovs ovs-tso",
		"fairlead bench --only tcp-8": "tcp-8-bbr tcp-8-cubic",
	} {
		// What the shell does when the Tab key is pressed; _init_completion is what
		// the script needs of the package bash-completion.
		script := `source <(fairlead completion bash)
_init_completion() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}; }
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<<"$1"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
__start_fairlead 2>/dev/null
for word in "${COMPREPLY[@]}"; do echo ${word%%  *}; done | sort`
		cmd := n.command(ctx)
		bash, err := exec.LookPath("bash")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = bash, []string{"bash", "-c", script, "bash", line}
		out, err := cmd.Output()
		if got := strings.Join(strings.Fields(string(out)), " "); got != want {
			t.Errorf("%s: %q, want %q (%v)", line, got, want, err)
		}
	}
}
