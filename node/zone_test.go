package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What somebody inside wrote into /etc/hosts stays, ours is as it is now.
func TestEdited(t *testing.T) {
	const head = "127.0.0.1\tlocalhost\n"
	a, b, c := "10.0.0.2\ta\n", "10.0.0.3\tb\n", "10.0.0.4\tc\n"
	for _, x := range []struct {
		text     string
		was, now []string
		want     string
	}{
		{head + a, []string{a}, []string{a, b}, head + a + b},
		{head + a + b, []string{a, b}, []string{b}, head + b},
		{head + a + b, []string{a, b}, nil, head},
		{head, nil, []string{a}, head + a},
		{head + a, []string{a}, []string{b, a}, head + b + a},
		{head + "mine x\n" + a + "mine y\n", []string{a}, []string{b, c}, head + "mine x\n" + b + c + "mine y\n"},
		{head + "mine", nil, []string{a}, head + "mine\n" + a},
		{head + "mine\n", []string{a}, []string{b}, head + "mine\n" + b}, // ours was taken out
		{head + a + a, []string{a}, []string{b}, head + b + a},           // one of them is mine
		{"", []string{a}, []string{b}, b},
		{"", nil, nil, ""},
	} {
		if got := edited(x.text, x.was, x.now); got != x.want {
			t.Errorf("%q, of which %q become %q:\n%q, want\n%q", x.text, x.was, x.now, got, x.want)
		}
	}
}

func FuzzEdited(f *testing.F) {
	f.Add("127.0.0.1 localhost\n10.0.0.2\ta\n# mine", "10.0.0.2\ta", "10.0.0.3\tb")
	f.Fuzz(func(t *testing.T, text, was, now string) {
		if strings.Contains(was, "\n") || strings.Contains(now, "\n") {
			return
		}
		got := edited(text, []string{was + "\n"}, []string{now + "\n"})
		if !slices.Contains(slices.Collect(strings.Lines(got)), now+"\n") {
			t.Errorf("%q has no line %q", got, now)
		}
		if len(got) > len(text)+len(now)+2 {
			t.Errorf("%q is longer than %q and a line", got, text)
		}
	})
}

func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(path)
		must(err)
		return string(b)
	}
	must(os.WriteFile(path, []byte("longer than what follows"), 0o644))
	before, err := os.Stat(path)
	must(err)
	for _, to := range []string{"short", "somewhat longer", ""} {
		must(rewrite(path, func(string) string { return to }))
		if got := read(); got != to {
			t.Errorf("%q, want %q", got, to)
		}
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it is another file: %v", err)
	}
	// Who made it large may keep it.
	large := strings.Repeat("x", maxRewritten+1)
	must(os.WriteFile(path, []byte(large), 0o644))
	must(rewrite(path, func(string) string { return "small" }))
	if read() != large {
		t.Error("a large file was rewritten")
	}
	if err := rewrite(path+"none", func(s string) string { return s }); !os.IsNotExist(err) {
		t.Errorf("without a file: %v", err)
	}
}

func TestReserved(t *testing.T) {
	const was, now = "nameserver 172.17.0.1\n", "nameserver 127.0.0.11\noptions ndots:0\n"
	for text, want := range map[string]string{
		"search x\n" + was:             "search x\n" + now,
		was:                            now,
		"nameserver 192.0.2.1\n":       "nameserver 192.0.2.1\n",
		was + "nameserver 192.0.2.1\n": was + "nameserver 192.0.2.1\n",
		"":                             "",
	} {
		if got := reserved(text, was, now); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
