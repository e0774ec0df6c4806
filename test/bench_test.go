package test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/test/lab"
)

// benchCall prepares `fairlead bench` as somebody calls it who has installed it:
// without a checkout, without Go, outside of any world.
func benchCall(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	lab.Need(t, "iperf3")
	dir := t.TempDir()
	for _, name := range []string{"fairlead", "fairlead-bench"} {
		program, err := os.ReadFile(filepath.Join(filepath.Dir(lab.Binary(t)), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "fairlead"), append([]string{"bench"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir}
	return cmd
}

// measured is what is read here of the JSON.
type measured struct{ Figures []figure }

type figure struct {
	Workload, Path string
	Samples        []struct{ Value float64 }
}

func readMeasured(t *testing.T, file string) (m measured) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What is installed measures, and what is resumed is not measured again.
func TestBenchInstalled(t *testing.T) {
	cmd := benchCall(t, "--only", "tcp-1-cubic", "--paths", "fairlead,kernel", "--pairs", "2", "--seconds", "1", "--resume", "bench.json")
	again := exec.Command(cmd.Path, cmd.Args[1:]...)
	again.Dir, again.Env = cmd.Dir, cmd.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := readMeasured(t, filepath.Join(cmd.Dir, "bench.json"))
	if len(m.Figures) != 2 || len(m.Figures[0].Samples) != 2 || m.Figures[0].Samples[0].Value <= 0 {
		t.Errorf("measured %+v", m)
	}
	for _, want := range []string{"1 workload, about ", "fairlead", "÷ kernel"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err = again.CombinedOutput(); err != nil || !strings.Contains(string(out), "0 workloads") || !strings.Contains(string(out), "÷ kernel") {
		t.Errorf("resumed: %v\n%s", err, out)
	}
	if m := readMeasured(t, filepath.Join(cmd.Dir, "bench.json")); len(m.Figures) != 2 || len(m.Figures[0].Samples) != 2 {
		t.Errorf("resumed: measured %+v", m)
	}
}

// The switches of others carry beside us, where they are installed.
func TestEngineSwitchesCarry(t *testing.T) {
	lab.NeedEngine(t, "ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "vde_switch", "vde_plug2tap", "ethtool")
	cmd := benchCall(t, "--only", "tcp-1-cubic", "--paths", "ovs,ovs-tso,vde", "--pairs", "1", "--seconds", "1", "--json", "bench.json")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := readMeasured(t, filepath.Join(cmd.Dir, "bench.json"))
	for _, name := range []string{"ovs", "ovs-tso", "vde"} {
		if !slices.ContainsFunc(m.Figures, func(f figure) bool { return f.Path == name && len(f.Samples) == 1 && f.Samples[0].Value > 0 }) {
			t.Errorf("%s: nothing measured\n%s", name, out)
		}
	}
}

// Whoever interrupts it gets what there is, and nothing is left behind.
func TestBenchInterrupted(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) { benchInterrupted(t, sig) })
	}
}

func benchInterrupted(t *testing.T, sig os.Signal) {
	cmd := benchCall(t, "--only", "tcp-1-cubic", "--paths", "fairlead,kernel", "--pairs", "1000", "--seconds", "1", "--json", "bench.json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for piece := make([]byte, 4096); !strings.Contains(text.String(), "round 2 of 1000"); {
		n, err := said.Read(piece)
		if err != nil {
			t.Fatalf("%v\n%s", err, text.String())
		}
		text.Write(piece[:n])
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	_, _ = text.ReadFrom(said) // until nobody holds it
	_ = cmd.Wait()             // the exit status says it
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("exit status %d, want 130\n%s", got, text.String())
	}
	if !strings.Contains(out.String(), "÷ kernel") {
		t.Errorf("no table in\n%s", out.String())
	}
	if m := readMeasured(t, filepath.Join(cmd.Dir, "bench.json")); len(m.Figures) != 2 || len(m.Figures[0].Samples) == 0 {
		t.Errorf("measured %+v", m)
	}
}
