package test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

var updatePosts = flag.Bool("posts", false, "write what S40's walks print into test/posts")

// The walks of well-known introductions to Docker networking, with fairlead in the
// place of docker: test/posts has them as they look on a terminal. A line that
// begins with $ was typed on the machine, with outside$ on another one; the lines
// below are what is answered, with ids, times and counters masked (see mask).
func TestS40_Walks(t *testing.T) {
	posts, err := filepath.Glob(filepath.Join("posts", "*.txt"))
	if err != nil || len(posts) != 4 {
		t.Fatalf("%d walks, %v", len(posts), err)
	}
	for _, file := range posts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { walkPost(t, file) })
	}
}

func walkPost(t *testing.T, file string) {
	lab.Need(t, "dnsmasq", "dig", "traceroute", "mtr", "arp", "ifconfig", "unshare", "ip", "ping", "curl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o := newHostMachine(t)
	o.upWithNames()
	o.serveHTTP(o.Host, 80)
	var now strings.Builder
	for _, step := range walkSteps(string(text)) {
		now.WriteString(step.before)
		if step.command == "" {
			continue
		}
		host := o.Machine
		if step.outside {
			host = o.Host
		}
		fmt.Fprintf(&now, "%s\n", step.line)
		got := mask(o.shell(host, step.command))
		if name := serverStarted.FindStringSubmatch(step.command); name != nil {
			o.logSays(name[1], "serving on")
		}
		now.WriteString(got)
		if got != step.want && !*updatePosts {
			t.Errorf("%s\n%s\nwant\n%s", step.line, got, step.want)
		}
	}
	if *updatePosts {
		if err := os.WriteFile(file, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// serverStarted finds the name of a container that a server was started in.
var serverStarted = regexp.MustCompile(`^fairlead run -d .*--name (\S+) .*http-server`)

// A walkStep is one command of a walk. The last one has none.
type walkStep struct {
	before  string // comments and empty lines
	line    string // as it stands there
	command string
	outside bool
	want    string
}

func walkSteps(text string) (steps []walkStep) {
	step := walkStep{}
	for line := range strings.Lines(text) {
		bare := strings.TrimSuffix(line, "\n")
		command, here := strings.CutPrefix(bare, "$ ")
		outside := false
		if !here {
			command, outside = strings.CutPrefix(bare, "outside$ ")
		}
		comment := bare == "" || strings.HasPrefix(bare, "# ")
		switch {
		case here || outside:
			if step.command != "" {
				steps = append(steps, step)
				step = walkStep{}
			}
			step.line, step.command, step.outside = bare, command, outside
		case comment:
			if step.command != "" {
				steps = append(steps, step)
				step = walkStep{}
			}
			step.before += line
		default:
			step.want += line
		}
	}
	return append(steps, step)
}

// shell has a shell on a host do a command, and returns all it printed.
func (o *outside) shell(h *lab.Host, command string) string {
	o.t.Helper()
	out, status := h.Try(o.t, "env", "FAIRLEAD_DIR="+o.dir, "PATH="+filepath.Dir(o.bin)+":"+os.Getenv("PATH"), "LC_ALL=C", "sh", "-c", "exec </dev/null; "+command)
	if status != 0 {
		out += fmt.Sprintf("exit status %d\n", status)
	}
	return out
}

// upWithNames starts the node on a machine whose nameserver is outside.
func (o *outside) upWithNames() {
	o.t.Helper()
	far := o.Router.FarHost
	o.Host.Serve(o.t, "dnsmasq", "--no-daemon", "--user=root", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file",
		"--bind-interfaces", "--listen-address="+far, "--local=/example/", "--local=/in-addr.arpa/", "--host-record=www.example,"+far,
		"--host-record=router.example,"+o.Router.Addr)
	lab.Eventually(o.t, 10*time.Second, func() error {
		if out, status := o.Host.Try(o.t, "dig", "@"+far, "+time=1", "+tries=1", "www.example"); status != 0 {
			return fmt.Errorf("dnsmasq does not answer: %s", out)
		}
		return nil
	})
	file := filepath.Join(filepath.Dir(o.dir), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+far+"\n"), 0o644); err != nil {
		o.t.Fatal(err)
	}
	out, status := o.Machine.Try(o.t, "unshare", "--mount", "sh", "-ec", `mount -n --bind "$0" /etc/resolv.conf; exec "$@"`, file,
		"env", "FAIRLEAD_DIR="+o.dir, o.bin, "up")
	if status != 0 {
		o.t.Fatal(out)
	}
}

// masks are what is different each time, and what stands for it. Blanks that
// align columns go with it.
var masks = []struct {
	what *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "ID"},
	{regexp.MustCompile(`(^|[\s"])[0-9a-f]{12}([\s".]|$)`), "${1}SHORTID${2}"},
	{regexp.MustCompile(`\btime[= ][0-9.]+ ?ms`), "time=T ms"},
	{regexp.MustCompile(`[0-9.]+/[0-9.]+/[0-9.]+/[0-9.]+ ms`), "T/T/T/T ms"},
	{regexp.MustCompile(`[0-9]+\.[0-9]+ ms`), "T ms"},
	{regexp.MustCompile(`(?m)^(\s+[0-9]+\.\|-- \S+\s+[0-9.]+%\s+[0-9]+)(\s+[0-9.]+)+$`), "$1 T"}, // mtr
	{regexp.MustCompile(`(?m)^Start: .*$`), "Start: TIME"},
	{regexp.MustCompile(`(?m)^ *[0-9]+[KMG]? +[0-9]+[KMG]? `), "PKTS BYTES "}, // iptables
	{regexp.MustCompile(`\(policy [A-Z]+ [0-9]+[KMG]? packets, [0-9]+[KMG]? bytes\)`), "(policy)"},
	{regexp.MustCompile(`(RX|TX) (packets|errors) [0-9].*`), "$1 $2 N"}, // ifconfig
	{regexp.MustCompile(`\b(qlen|txqueuelen) [0-9]+`), "$1 N"},
	{regexp.MustCompile(`(?m)^([0-9]+): (\S+?)(@if[0-9]+)?:`), "N: $2:"},
	{regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?s\b`), "AGE"},
	{regexp.MustCompile(`(?m)\b(yes|no)\s+[0-9]+\.[0-9]{2}$`), "$1 AGE"}, // brctl showmacs
	{regexp.MustCompile(`(?m)\b[0-9]+ s$`), "AGE"},
	{regexp.MustCompile(`\bin network namespace [0-9]+ of pid [0-9]+`), "in network namespace N of pid P"},
	{regexp.MustCompile(`\b(in|out)( +)[0-9]+ frames?( of [0-9]+ segments)?, .*`), "$1 N frames"},
	{regexp.MustCompile(`\(([0-9a-f]{12})\)`), "(SHORTID)"},
	{regexp.MustCompile(`\b(REACHABLE|STALE|DELAY|PROBE)\b`), "STATE"},
	{regexp.MustCompile(`:[3-6][0-9]{4}\b`), ":PORT"},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) +$`), ""},
	{regexp.MustCompile(`\n\n+`), "\n"}, // empty lines are between the steps
}

func mask(s string) string {
	for _, m := range masks {
		s = m.what.ReplaceAllString(s, m.mask)
	}
	return s
}
