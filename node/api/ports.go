package api

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A PortRange is the ports from First to Last. The zero PortRange is none.
type PortRange struct{ First, Last uint16 }

// Len is how many ports those are.
func (r PortRange) Len() int {
	if r == (PortRange{}) {
		return 0
	}
	return int(r.Last-r.First) + 1
}

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// A PortSpec is what `-p` says, taken apart.
type PortSpec struct {
	HostIP    netip.Addr // the zero Addr is every address
	Host      PortRange  // none: any that is free
	Container PortRange
	Proto     string // tcp, udp
}

// String writes the specification as ParsePublish reads it, in one form only.
func (s PortSpec) String() string {
	var b strings.Builder
	switch {
	case s.HostIP.Is6():
		b.WriteString("[" + s.HostIP.String() + "]:")
	case s.HostIP.IsValid():
		b.WriteString(s.HostIP.String() + ":")
	}
	if s.HostIP.IsValid() || s.Host.Len() > 0 {
		if s.Host.Len() > 0 {
			b.WriteString(s.Host.String())
		}
		b.WriteByte(':')
	}
	b.WriteString(s.Container.String() + "/" + s.Proto)
	return b.String()
}

// publishForm is the form of -p, for error messages.
const publishForm = "-p takes [ADDRESS:][PORT:]CONTAINERPORT[/udp], such as 8080:80"

// ParsePublish reads an argument of `-p` as Docker does: 80, 8080:80,
// 127.0.0.1:5353:53/udp, 127.0.0.1::80, [::1]:8080:80, 8000-8010:80-90. A range of host ports
// with one container port means any of them that is free. Errors are in
// Docker's words, as far as it has any.
func ParsePublish(s string) (PortSpec, error) {
	spec, err := parsePublish(s)
	if err != nil {
		return PortSpec{}, fmt.Errorf("%w; %s", err, publishForm)
	}
	return spec, nil
}

func parsePublish(s string) (spec PortSpec, err error) {
	ip, host, container := splitPublish(s)
	if spec.Container, spec.Proto, err = parsePorts(container); err != nil {
		return spec, err
	}
	if spec.HostIP, err = parseHostIP(ip); err != nil {
		return spec, err
	}
	if host == "" || host == "0" {
		return spec, nil
	}
	var ok bool
	if spec.Host, ok = parseRange(host); !ok {
		return spec, inDockersWords("Invalid hostPort: %s", host)
	}
	if spec.Container.Len() > 1 && spec.Host.Len() != spec.Container.Len() {
		container, _, _ = strings.Cut(container, "/")
		return spec, inDockersWords("Invalid ranges specified for container and host Ports: %s and %s", container, host)
	}
	return spec, nil
}

// inDockersWords is an error as Docker says it, with a capital where it has one.
func inDockersWords(format string, args ...any) error { return fmt.Errorf(format, args...) }

// splitPublish takes the parts at the colons; those of an IPv6 address are in
// front.
func splitPublish(s string) (ip, host, container string) {
	front, container, two := cutLast(s)
	if !two {
		return "", "", s
	}
	ip, host, three := cutLast(front)
	if !three {
		return "", front, container
	}
	return ip, host, container
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func parseHostIP(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		inner = strings.TrimSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(inner)
	switch {
	case err != nil || a.Is4() && bracketed:
		return a, inDockersWords("Invalid ip address: %s", s)
	case a.IsMulticast() || a.Is4() && a.As4()[0] >= 240 || a.Is4In6() || a.Zone() != "":
		return a, inDockersWords("Invalid ip address: %s", s)
	}
	return a, nil
}

// ParseExpose reads an argument of `--expose`: 80, 53/udp, 8000-8010.
func ParseExpose(s string) (ports PortRange, proto string, err error) {
	if strings.Contains(s, ":") {
		return ports, "", fmt.Errorf("invalid port format for --expose: %s; it takes PORT[-PORT][/PROTOCOL], such as 80/tcp, and -p 8080:80 publishes one", s)
	}
	if ports, proto, err = parsePorts(s); err != nil {
		return ports, "", fmt.Errorf("invalid range format for --expose: %s, error: %w; it takes PORT[-PORT][/PROTOCOL], such as 80/tcp", s, err)
	}
	return ports, proto, nil
}

// ParsePrivate reads a container's port as `port` takes it: 80, 53/udp.
func ParsePrivate(s string) (port uint16, proto string, err error) {
	ports, proto, err := parsePorts(s)
	if err == nil && ports.Len() != 1 {
		err = inDockersWords("Invalid containerPort: %s", s)
	}
	if err != nil {
		return 0, "", fmt.Errorf("%w; a container's port is PORT[/PROTOCOL], such as 80/tcp", err)
	}
	return ports.First, proto, nil
}

// parsePorts reads PORT[-PORT][/PROTOCOL].
func parsePorts(s string) (ports PortRange, proto string, err error) {
	number, proto, _ := strings.Cut(s, "/")
	if number == "" {
		return ports, "", fmt.Errorf("no port specified: %s<empty>", s)
	}
	switch proto = strings.ToLower(proto); proto {
	case "":
		proto = "tcp"
	case "tcp", "udp":
	default:
		return ports, "", inDockersWords("Invalid proto: %s", proto)
	}
	ports, ok := parseRange(number)
	if !ok {
		return ports, "", inDockersWords("Invalid containerPort: %s", number)
	}
	return ports, proto, nil
}

// parseRange reads PORT or PORT-PORT; port 0 is none.
func parseRange(s string) (r PortRange, ok bool) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	return PortRange{uint16(a), uint16(b)}, err == nil && err2 == nil && a > 0 && a <= b
}
