package test

import (
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tries are what it took to have connections begin: a SYN that is not answered is sent
// again after a second (RFC 6298), a question for a name after more, and this host waits
// no longer than a second. How fast the machine is says nothing: it takes them some
// milliseconds.
type tries struct {
	synsAgain, datagrams uint64
	late                 int // of this host
}

// exceed says whether it took more of anything.
func (t tries) exceed(o tries) bool {
	return t.synsAgain > o.synsAgain || t.datagrams > o.datagrams || t.late > o.late
}

// connects has a new connection of each kind begin and be answered, and says what that
// took.
func (n *node) connects(web string) (took tries) {
	n.t.Helper()
	before := n.tried()
	if out := n.exec("wire", "fairlead", "probe", "get", "http://"+web+"/"); !strings.HasPrefix(out, "Hello ") {
		n.t.Errorf("a new connection between containers: %s", out)
	}
	if out := n.exec("sharer", "fairlead", "probe", "ping", "-c", "1", "deux"); !strings.Contains(out, "1 received") {
		n.t.Errorf("a name on a network: %s", out)
	}
	after := n.tried()
	took = tries{synsAgain: after.synsAgain - before.synsAgain, datagrams: after.datagrams - before.datagrams}
	for _, port := range []string{"8080", "8081"} {
		out, err := getWithin(time.Second, port)
		if os.IsTimeout(err) {
			took.late++
			out, err = getWithin(patience, port)
		}
		if err != nil || !strings.HasPrefix(out, "Hello ") {
			n.t.Errorf("a new connection to port %s: %s, %v", port, out, err)
		}
	}
	return took
}

// getWithin asks what is published at a port of this host.
func getWithin(within time.Duration, port string) (string, error) {
	client := http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:" + port + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return string(out), err
}

// tried is what the containers have sent that begin connections.
func (n *node) tried() (sum tries) {
	n.t.Helper()
	for _, name := range []string{"wire", "sharer"} {
		sum.synsAgain += n.synsAgain(name)
		sum.datagrams += n.counted(name, "snmp", "Udp:", "OutDatagrams")
	}
	return sum
}

func (n *node) synsAgain(name string) uint64 {
	n.t.Helper()
	return n.counted(name, "netstat", "TcpExt:", "TCPSynRetrans")
}

// counted is a counter of the kernel's inside, as /proc/net has it: a line of names, and
// one of values.
func (n *node) counted(container, file, line, name string) uint64 {
	n.t.Helper()
	var rows [][]string
	for row := range strings.Lines(n.exec(container, "cat", "/proc/net/"+file)) {
		if strings.HasPrefix(row, line) {
			rows = append(rows, strings.Fields(row))
		}
	}
	if len(rows) == 2 {
		if i := slices.Index(rows[0], name); i > 0 && i < len(rows[1]) {
			if value, err := strconv.ParseUint(rows[1][i], 10, 64); err == nil {
				return value
			}
		}
	}
	n.t.Fatalf("/proc/net/%s of %s has no %s %s: %q", file, container, line, name, rows)
	return 0
}
