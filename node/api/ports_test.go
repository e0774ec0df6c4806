package api

import (
	"strings"
	"testing"
)

func TestParsePublish(t *testing.T) {
	for arg, want := range map[string]string{
		"80":                          "80/tcp",
		"80/tcp":                      "80/tcp",
		"80/":                         "80/tcp",
		"53/UDP":                      "53/udp",
		"80:80":                       "80:80/tcp",
		"8080:80":                     "8080:80/tcp",
		":80":                         "80/tcp",
		"0:80":                        "80/tcp",
		"0.0.0.0:8080:80":             "0.0.0.0:8080:80/tcp",
		"[::]:8080:80":                "[::]:8080:80/tcp",
		"[::1]:8080:80":               "[::1]:8080:80/tcp",
		"::1:8080:80":                 "[::1]:8080:80/tcp",
		"[2001:db8::1]::80/udp":       "[2001:db8::1]::80/udp",
		"127.0.0.1:5353:53/udp":       "127.0.0.1:5353:53/udp",
		"127.0.0.1::80":               "127.0.0.1::80/tcp",
		"192.0.2.2:1-65535:1-65535":   "192.0.2.2:1-65535:1-65535/tcp",
		"8000-8010:80-90":             "8000-8010:80-90/tcp",
		"8000-8010:80":                "8000-8010:80/tcp",
		"8000-8010":                   "8000-8010/tcp",
		"8000-8000:80-80/udp":         "8000:80/udp",
		"192.0.2.2:8000-8001:80/tcp ": "Invalid proto: tcp ",

		"":                          "no port specified: <empty>",
		"/tcp":                      "no port specified: /tcp<empty>",
		"8080:":                     "no port specified: <empty>",
		"x":                         "Invalid containerPort: x",
		"8080:x":                    "Invalid containerPort: x",
		"8080:0":                    "Invalid containerPort: 0",
		"8080:65536":                "Invalid containerPort: 65536",
		"8080:90-80":                "Invalid containerPort: 90-80",
		"8080:80-":                  "Invalid containerPort: 80-",
		"8080:-80":                  "Invalid containerPort: -80",
		"8080:+80":                  "Invalid containerPort: +80",
		"x:80":                      "Invalid hostPort: x",
		"65536:80":                  "Invalid hostPort: 65536",
		"9-8:80":                    "Invalid hostPort: 9-8",
		"8080:80/sctp":              "Invalid proto: sctp",
		"8080:80/tcp/udp":           "Invalid proto: tcp/udp",
		"8080:80-81":                "Invalid ranges specified for container and host Ports: 80-81 and 8080",
		"8000-8010:80-82/udp":       "Invalid ranges specified for container and host Ports: 80-82 and 8000-8010",
		"localhost:8080:80":         "Invalid ip address: localhost",
		"192.0.2.256:8080:80":       "Invalid ip address: 192.0.2.256",
		"[192.0.2.2]:8080:80":       "Invalid ip address: [192.0.2.2]",
		"224.0.0.1:8080:80":         "Invalid ip address: 224.0.0.1",
		"255.255.255.255:8080:80":   "Invalid ip address: 255.255.255.255",
		"1:2:3:4":                   "Invalid ip address: 1:2",
		"[::ffff:192.0.2.2]:80:80":  "Invalid ip address: [::ffff:192.0.2.2]",
		"[fe80::1%eth0]:80:80":      "Invalid ip address: [fe80::1%eth0]",
		"[ff02::1]:80:80":           "Invalid ip address: [ff02::1]",
		"192.0.2.2:8080:80/icmp":    "Invalid proto: icmp",
		"192.0.2.2:8080:80:80:80":   "Invalid ip address: 192.0.2.2:8080:80",
		"8080 :80":                  "Invalid hostPort: 8080 ",
		"99999999999999999999999":   "Invalid containerPort: 99999999999999999999999",
		"https://192.0.2.2:8080:80": "Invalid ip address: https://192.0.2.2",
	} {
		spec, err := ParsePublish(arg)
		if err != nil {
			if text, ok := strings.CutSuffix(err.Error(), "; "+publishForm); !ok || text != want {
				t.Errorf("-p %q: %v; want %s", arg, err, want)
			}
			continue
		}
		if spec.String() != want {
			t.Errorf("-p %q is %s, want %s", arg, spec, want)
		}
		if again, err := ParsePublish(spec.String()); err != nil || again != spec {
			t.Errorf("-p %s, as it is written, is %+v, %v; want %+v", spec, again, err, spec)
		}
	}
}

func TestParseExpose(t *testing.T) {
	for arg, want := range map[string]string{
		"80": "80/tcp", "53/udp": "53/udp", "8000-8010/TCP": "8000-8010/tcp",
		"8080:80": "invalid port format for --expose: 8080:80; ",
		"x":       "invalid range format for --expose: x, error: Invalid containerPort: x; ",
		"80/x":    "invalid range format for --expose: 80/x, error: Invalid proto: x; ",
		"":        "invalid range format for --expose: , error: no port specified: <empty>; ",
	} {
		ports, proto, err := ParseExpose(arg)
		if err != nil {
			if !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(want, "; ") {
				t.Errorf("--expose %s: %v, want %s", arg, err, want)
			}
		} else if got := ports.String() + "/" + proto; got != want {
			t.Errorf("--expose %s is %s, want %s", arg, got, want)
		}
	}
}

func TestParsePrivate(t *testing.T) {
	if port, proto, err := ParsePrivate("53/udp"); port != 53 || proto != "udp" || err != nil {
		t.Error(port, proto, err)
	}
	for _, arg := range []string{"", "http", "80-81", "80/http", "8080:80", "0"} {
		if _, _, err := ParsePrivate(arg); err == nil || !strings.HasSuffix(err.Error(), "such as 80/tcp") {
			t.Errorf("%q: %v", arg, err)
		}
	}
}

func TestPortRange(t *testing.T) {
	for r, want := range map[PortRange]int{{}: 0, {80, 80}: 1, {1, 65535}: 65535} {
		if r.Len() != want {
			t.Errorf("%v has %d ports, want %d", r, r.Len(), want)
		}
	}
}

// What is taken is written so that it is taken again, and means the same.
func FuzzParsePublish(f *testing.F) {
	for _, seed := range []string{"80", "8080:80", "127.0.0.1:5353:53/udp", "127.0.0.1::80", "[::1]:80:80", "8000-8010:80-90", "1-2:3", "::::", "-", "/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		_, _, _ = ParseExpose(arg)
		_, _, _ = ParsePrivate(arg)
		spec, err := ParsePublish(arg)
		if err != nil {
			return
		}
		if again, err := ParsePublish(spec.String()); err != nil || again != spec {
			t.Errorf("-p %q is written %s, which is %+v, %v", arg, spec, again, err)
		}
		if n := spec.Container.Len(); n == 0 || n > 1 && spec.Host.Len() > 0 && spec.Host.Len() != n || spec.Proto == "" {
			t.Errorf("-p %q is %+v", arg, spec)
		}
	})
}
