package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/gateway"
	"fairlead/node/box"
)

// files are a container's own below the node directory. init binds the first
// three over those of /etc; they are written in place, so that what a container
// sees follows.
type files struct {
	dir                         string
	hosts, resolvConf, hostname string // empty: the container sees the caller's
	log                         string // empty unless detached

	// What is ours in the first two, as it was written last. Guarded by Node.mu.
	hostLines  []string
	nameserver string
	again      bool // a timer has what changed written

	// holders are the container, those that share its namespace and who reads
	// its log; with the last of them the files go. Guarded by Node.mu.
	holders int
}

// filesAt are those of a container of a mode, by where they are; who shares a
// namespace shares the other's.
func filesAt(dir string, c *container) (f files) {
	f.dir = filepath.Join(dir, "containers", c.id)
	if c.req.Detached {
		f.log = filepath.Join(f.dir, "log")
	}
	switch c.mode {
	case modeBridge:
		f.resolvConf = filepath.Join(f.dir, "resolv.conf")
		fallthrough
	case modeNone:
		f.hosts, f.hostname = filepath.Join(f.dir, "hosts"), filepath.Join(f.dir, "hostname")
	case modeShared:
		if c.share != nil {
			f.hosts, f.resolvConf, f.hostname = c.share.files.hosts, c.share.files.resolvConf, c.share.files.hostname
		}
	}
	return f
}

// makeFiles writes the files of a container. Those of the mode host are the
// host's own.
func (n *Node) makeFiles(c *container) error {
	c.files = filesAt(n.conf.Dir, c)
	c.files.holders = 1
	if err := n.writeFiles(c); err != nil {
		return fmt.Errorf("make the files of container %s: %w", c.name(), err)
	}
	return nil
}

func (n *Node) writeFiles(c *container) error {
	f := &c.files
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	if f.log != "" {
		// Empty until init opens it: so it can be followed from the first moment.
		if err := os.WriteFile(f.log, nil, 0o600); err != nil {
			return err
		}
	}
	if c.mode == modeBridge {
		f.nameserver = c.nameserverLocked()
		if err := writePublic(f.resolvConf, n.resolvConf(f.nameserver)); err != nil {
			return err
		}
	}
	if c.mode != modeBridge && c.mode != modeNone {
		return nil
	}
	f.hostLines = n.hostLinesLocked(c)
	if err := writePublic(f.hosts, []byte(hostsHead+strings.Join(f.hostLines, ""))); err != nil {
		return err
	}
	return writePublic(f.hostname, []byte(c.hostname+"\n"))
}

// writePublic writes a file that every user in a container may read, whatever
// the umask of the node is. The lock-in lets a node give no other mode.
func writePublic(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

// holdFiles keeps a container's files beyond its end, until releaseFiles.
func (n *Node) holdFiles(c *container) {
	n.mu.Lock()
	c.files.holders++
	n.mu.Unlock()
}

func (n *Node) releaseFiles(c *container) {
	n.mu.Lock()
	c.files.holders--
	last := c.files.holders == 0
	n.mu.Unlock()
	if last {
		c.files.remove()
	}
}

// remove takes the files away, whatever an init that only begins puts there
// meanwhile: the file of its exit status, and its log.
func (f *files) remove() {
	const most = 4 // more than an init makes files
	var err error
	for range most {
		if err = os.RemoveAll(f.dir); !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	if err != nil {
		slog.Error("files of a container that is gone are left", "path", f.dir, "err", err)
	}
}

// followFilesLocked has the files of a container follow what has changed about its
// networks and its neighbours. What somebody inside wrote into them stays.
func (n *Node) followFilesLocked(c *container) error {
	if n.handed != nil { // they are as the node before has them, which may go on
		return nil
	}
	f := &c.files
	if f.holders == 0 { // they go
		return nil
	}
	if lines := n.hostLinesLocked(c); f.hosts != "" && !slices.Equal(lines, f.hostLines) {
		err := rewrite(f.hosts, func(text string) string { return edited(text, f.hostLines, lines) })
		if errors.Is(err, unix.EWOULDBLOCK) {
			n.followLaterLocked(c)
			return nil
		}
		f.hostLines = lines
		n.renoteLocked(c)
		if err != nil {
			return fmt.Errorf("rewrite /etc/hosts of container %s: %w", c.name(), err)
		}
	}
	if now := c.nameserverLocked(); f.resolvConf != "" && now != "" && now != f.nameserver {
		err := rewrite(f.resolvConf, func(text string) string { return reserved(text, f.nameserver, now) })
		if errors.Is(err, unix.EWOULDBLOCK) {
			n.followLaterLocked(c)
			return nil
		}
		f.nameserver = now
		n.renoteLocked(c)
		if err != nil {
			return fmt.Errorf("rewrite /etc/resolv.conf of container %s: %w", c.name(), err)
		}
	}
	return nil
}

// followLaterLocked tries again in a moment, as long as somebody has the files.
func (n *Node) followLaterLocked(c *container) {
	if c.files.again {
		return
	}
	c.files.again = true
	time.AfterFunc(lookEvery, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		c.files.again = false
		if c.files.holders == 0 {
			return
		}
		if err := n.followFilesLocked(c); err != nil {
			slog.Warn("names inside are those of before", "err", err)
		}
	})
}

// maxRewritten bounds a file that is changed: one that somebody inside has made
// larger than this is his.
const maxRewritten = 1 << 20

// rewrite changes a file in place, for it is bound over another: what is longer
// than before is never missing to who reads it meanwhile. Somebody inside may hold
// a lease on it (F_SETLEASE in fcntl(2)), for which open waits 45 s and the node
// with it; so it fails with EWOULDBLOCK, and the kernel takes the lease away.
func rewrite(path string, change func(text string) string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	was, err := io.ReadAll(io.LimitReader(f, maxRewritten+1))
	if err != nil || len(was) > maxRewritten {
		return err
	}
	now := change(string(was))
	if now == string(was) {
		return nil
	}
	if _, err := f.WriteAt([]byte(now), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(now)))
}

// edited puts lines in the place of those of ours that were there, or at the end.
func edited(text string, was, now []string) string {
	ours := make(map[string]int, len(was))
	for _, line := range was {
		ours[line]++
	}
	var b strings.Builder
	put := false
	for line := range strings.Lines(text) {
		if ours[line] == 0 {
			b.WriteString(line)
			continue
		}
		ours[line]--
		if !put {
			put = true
			b.WriteString(strings.Join(now, ""))
		}
	}
	if !put {
		if b.Len() > 0 && !strings.HasSuffix(text, "\n") {
			b.WriteString("\n")
		}
		b.WriteString(strings.Join(now, ""))
	}
	return b.String()
}

// reserved puts one nameserver of ours in the place of another. Where that is not
// there any more somebody has written his own.
func reserved(text, was, now string) string {
	if was == "" || !strings.HasSuffix(text, was) {
		return text
	}
	return strings.TrimSuffix(text, was) + now
}

// hostsHead are the six lines /etc/hosts begins with, as Docker writes it.
const hostsHead = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\n" +
	"ff02::1\tip6-allnodes\n" +
	"ff02::2\tip6-allrouters\n"

// hostLinesLocked are the others: the containers it is linked to on the default
// network, where names are not answered, and then itself on each network.
func (n *Node) hostLinesLocked(c *container) (lines []string) {
	for _, a := range c.liveLocked() {
		if a.lan != n.defaultLocked() {
			continue
		}
		for _, link := range a.links {
			name, alias, _ := strings.Cut(link, ":")
			if to := n.linkedLocked(a.lan, name); to != nil {
				line := fmt.Sprintf("%s\t%s %s", to.onLocked(a.lan).addr.Addr(), alias, to.hostname)
				if alias != to.name() {
					line += " " + to.name()
				}
				lines = append(lines, line+"\n")
			}
		}
	}
	for _, a := range c.liveLocked() {
		if a.addr.IsValid() {
			lines = append(lines, fmt.Sprintf("%s\t%s\n", a.addr.Addr(), c.hostname))
		}
	}
	return lines
}

// linkedLocked is the container of that name on a network, nil while there is
// none: another one may come.
func (n *Node) linkedLocked(l *lan, name string) *container {
	c := n.named[name]
	if c == nil || c.ending || c.share != nil {
		return nil
	}
	if a := c.onLocked(l); a == nil || !a.up() || !a.addr.IsValid() {
		return nil
	}
	return c
}

// nameserverLocked is how a container's resolv.conf says who answers: on a network
// with names the nameserver it has on its own loopback, which knows all of them,
// and on the default one the gateway. A container on no network keeps what it has.
func (c *container) nameserverLocked() string {
	said := ""
	for _, a := range c.liveLocked() {
		if a.lan.number() != defaultID {
			return fmt.Sprintf("nameserver %s\noptions ndots:0\n", gateway.Nameserver)
		}
		said = fmt.Sprintf("nameserver %s\n", a.lan.net.Config().Gateway.Addr())
	}
	return said
}

// resolvConf is /etc/resolv.conf: the host's search line, and who answers.
func (n *Node) resolvConf(nameserver string) []byte {
	var b bytes.Buffer
	host, _ := os.ReadFile(n.conf.ResolvConf) // none is as good as one without search
	for line := range strings.Lines(string(host)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "search" {
			fmt.Fprintln(&b, strings.Join(f, " "))
		}
	}
	b.WriteString(nameserver)
	return b.Bytes()
}

// logLimit bounds one log file; there are two of them, see box.Log.
const logLimit = box.DefaultLogLimit
