package spell

import "testing"

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"run", "run", 0}, {"rn", "run", 1}, {"runn", "run", 1}, {"ran", "run", 1}, {"rnu", "run", 1},
		{"", "run", 3}, {"stop", "logs", 4}, {"sotp", "stop", 1}, {"ca", "abc", 3},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("from %q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestClosest(t *testing.T) {
	words := []string{"exec", "inspect", "kill", "logs", "ps", "run", "stop", "timeout"}
	for word, want := range map[string]string{
		"rnu": "run", "exce": "exec", "insp": "inspect", "Stop": "stop", "tineout": "timeout", "p": "", "xy": "", "frobnicate": "", "": "",
		"lo": "logs", "cs": "", "sp": "", "login": "", "instect": "inspect", "insptec": "inspect",
	} {
		if got := Closest(word, words); got != want {
			t.Errorf("closest to %q is %q, want %q", word, got, want)
		}
	}
}
