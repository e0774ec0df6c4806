package box

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"fairlead/link"
	"fairlead/test/lab"
)

// BenchmarkStart measures a container from Start to the command's start, and
// what its init costs in memory. The node's answer is immediate.
func BenchmarkStart(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for b.Loop() {
		box, err := Start(own("sleep", "1000"), [3]*os.File{null, null, null})
		if err != nil {
			b.Fatal(err)
		}
		tap, err := link.AdoptTAP(box.TAP)
		if err != nil {
			b.Fatal(err)
		}
		if err := tap.SetCarrier(true); err != nil {
			b.Fatal(err)
		}
		if err := box.Started(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(memory(b, box.PID, "Pss"), "kB-PSS")
		b.ReportMetric(memory(b, box.PID, "Pss_Anon"), "kB-anon")
		_ = SignalPIDFD(box.PIDFD, 9)
		box.TAP = -1
		tap.Close()
		_, _ = box.Wait()
		box.Close()
		b.StartTimer()
	}
}

// memory is one line of a process's smaps_rollup, in kB.
func memory(t testing.TB, pid int, what string) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + what + `: +(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in:\n%s", what, text)
	}
	kb, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// Every container has an init of its own, so it has to be small. What other
// programs and files share is not counted: it is there once.
func TestReleaseInitMemory(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedRelease(t)
	r := start(t, own("sleep", "1000"))
	if kb := memory(t, r.PID, "Pss_Anon"); kb > 2500 {
		t.Errorf("init has %.0f kB of its own", kb)
	}
}
