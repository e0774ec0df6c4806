package box

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"fairlead/link"
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
		b.ReportMetric(pss(b, box.PID), "kB-init")
		_ = SignalPIDFD(box.PIDFD, 9)
		box.TAP = -1
		tap.Close()
		_, _ = box.Wait()
		box.Close()
		b.StartTimer()
	}
}

// pss is a process's proportional share of memory, in kB.
func pss(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	kb, err := strconv.ParseFloat(string(regexp.MustCompile(`Pss: +(\d+)`).FindSubmatch(text)[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb
}
