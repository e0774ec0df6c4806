package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// A plain user who was lent CAP_NET_RAW for one command makes an interface an
// uplink of a node that has no right, as the README says.
func TestReleaseUplinkWithLentRight(t *testing.T) {
	lab.NeedRelease(t) // with C in it a program cannot give rights back
	lab.NeedRoot(t)
	lab.Need(t, "setpriv")
	n := newNodeDir(t)
	station := lab.NewHost(t, "station")
	lab.Join(t, station, "eth0", lab.NewHost(t, "other"), "eth0")
	// The user's own directory, and a binary he may run.
	bin := filepath.Join(filepath.Dir(n.dir), "fairlead")
	image, err := os.ReadFile(n.bin)
	if err == nil {
		err = os.WriteFile(bin, image, 0o755)
	}
	if err == nil {
		err = os.Chown(filepath.Dir(n.dir), 1234, 1234)
	}
	if err != nil {
		t.Fatal(err)
	}
	as := func(rights string, args ...string) (string, error) {
		prefix := append([]string{"--reuid=1234", "--regid=1234", "--clear-groups"}, strings.Fields(rights)...)
		cmd := exec.Command("setpriv", append(append(prefix, bin), args...)...)
		cmd.Env = append(os.Environ(), "FAIRLEAD_DIR="+n.dir)
		var out []byte
		err := station.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err })
		return string(out), err
	}
	if out, err := as("", "up"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defer func() {
		if out, err := as("", "down", "--all"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}()
	set := []string{"network", "set", "default", "--uplink", "if:eth0,ip=192.0.2.2/24"}
	if out, err := as("", set...); err == nil || !strings.Contains(out, "takes CAP_NET_RAW") {
		t.Errorf("without the right: %v\n%s", err, out)
	}
	if out, err := as("--inh-caps=+net_raw --ambient-caps=+net_raw", set...); err != nil || out != "uplink eth0: 192.0.2.2/24\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
