package labfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a file holds, reading it ends soon and with a lab or with errors that
// name their place, and a lab that was made has no changes left.
func FuzzLabFile(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(before1))
	wrong, err := os.ReadFile(filepath.Join("testdata", "wrong.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range strings.Split(string(wrong), "=== file\n") {
		file, _, _ := strings.Cut(entry, "=== says\n")
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lab, err := Read("lab.yaml", "/lab.yaml", data, "lab")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), "lab.yaml:") {
				t.Errorf("%v", err)
			}
			return
		}
		if named, err := ReadName("lab.yaml", "/lab.yaml", data, "lab"); err != nil || named.Name != lab.Name {
			t.Errorf("the name is %q, %v; want %q", named.Name, err, lab.Name)
		}
		h := &Have{}
		for _, w := range lab.Networks {
			w.Rules, w.Uplinks = nil, nil // there are none in what follows
			h.Networks = append(h.Networks, HaveNetwork{Name: w.Name, Labels: lab.Labels(w.Config(), w.Labels)})
		}
		for _, c := range lab.Containers {
			on := map[string]string{}
			for _, name := range c.networks() {
				on[name] = ""
			}
			h.Containers = append(h.Containers, HaveContainer{Name: c.Name, Labels: lab.Labels(c.Config(), c.Labels), Networks: on})
		}
		plan, err := lab.Plan(h, false)
		if err != nil || plan.Changes() != 0 {
			t.Errorf("a lab that is up: %v, %v", plan, err)
		}
	})
}
