package api

import (
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"web", "db:5432", "web → db:5432/tcp"},
		{"web", "db:5432/tcp", "web → db:5432/tcp"},
		{"web", "db:53/UDP", "web → db:53/udp"},
		{"any", "db:8000-8010", "any → db:8000-8010/tcp"},
		{"web", "any", "web → any"},
		{"any", "any:80", "any → any:80/tcp"},
		{"a.b-c_d", "1", "a.b-c_d → 1"},
	} {
		if s, err := ParseRule(c.from, c.to); err != nil || s.String() != c.want {
			t.Errorf("%s %s: %v, %v; want %s", c.from, c.to, s, err, c.want)
		}
	}
	for _, c := range []struct{ from, to, words string }{
		{"", "db:80", `"" is no name`}, {"web", "", `"" is no name`}, {"web", ":80", `"" is no name`},
		{"web:80", "db", `"web:80" is no name`}, {"web", "db/x", `"db/x" is no name`}, {"we b", "db", "is no name"},
		{"web", "web:80", "web reaches itself"}, {"web", "db:", "no port specified"}, {"web", "db:0", "Invalid containerPort: 0"},
		{"web", "db:9-8", "Invalid containerPort"}, {"web", "db:80/icmp", "Invalid proto: icmp"}, {"web", "db:65536", "Invalid containerPort"},
		{"web", "db:80:81", "Invalid containerPort: 80:81"},
	} {
		if s, err := ParseRule(c.from, c.to); err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), "web db:5432") {
			t.Errorf("%s %s: %v, %v; want %q", c.from, c.to, s, err, c.words)
		}
	}
}

// FuzzParseRule: what can be read reads the same as it is written.
func FuzzParseRule(f *testing.F) {
	for _, s := range [][2]string{{"web", "db:5432/tcp"}, {"any", "db"}, {"web", "any:1-2/udp"}, {"x", "x"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, from, to string) {
		s, err := ParseRule(from, to)
		if err != nil {
			return
		}
		if again, err := ParseRule(s.From, s.Target()); err != nil || again != s {
			t.Errorf("%q %q is %v, written so it is %v (%v)", from, to, s, again, err)
		}
	})
}

func TestParseLink(t *testing.T) {
	for in, want := range map[string][2]string{
		"web1:db": {"web1", "db"}, "web1": {"web1", "web1"}, "/web1:/db": {"web1", "db"},
	} {
		if name, alias, err := ParseLink(in); err != nil || [2]string{name, alias} != want {
			t.Errorf("%s: %s, %s, %v", in, name, alias, err)
		}
	}
	for _, in := range []string{"", ":", "web:", ":db", "a:b:c", "a b:c", "a:b/c", "a:b\nc"} {
		if name, alias, err := ParseLink(in); err == nil || !strings.Contains(err.Error(), "bad format for links: "+in) {
			t.Errorf("%q: %s, %s, %v", in, name, alias, err)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add("web1:db")
	f.Fuzz(func(t *testing.T, s string) {
		name, alias, err := ParseLink(s)
		if err != nil {
			return
		}
		if n, a, err := ParseLink(name + ":" + alias); err != nil || n != name || a != alias {
			t.Errorf("%q is %s and %s, and that %s and %s (%v)", s, name, alias, n, a, err)
		}
	})
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "0": true, "A.b-c_d": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "_a": false, ".a": false, "-a": false,
		"a b": false, "a/b": false, "a\n": false, "ä": false, "a\xff": false, "a:b": false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}
