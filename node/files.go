package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"fairlead/node/box"
)

// files are a container's own below the node directory. init binds the first
// three over those of /etc; they are written in place, so that what a container
// sees follows.
type files struct {
	dir                         string
	hosts, resolvConf, hostname string // empty: the container sees the caller's
	log                         string // empty unless detached

	// holders are the container, those that share its namespace and who reads
	// its log; with the last of them the files go. Guarded by Node.mu.
	holders int
}

// makeFiles writes the files of a container. Those of the mode host are the
// host's own, and who shares a namespace shares its files.
func (n *Node) makeFiles(c *container) error {
	c.files.holders = 1
	c.files.dir = filepath.Join(n.conf.Dir, "containers", c.id)
	f := &c.files
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make the files of container %s: %w", c.name(), err)
	}
	if c.req.Detached {
		f.log = filepath.Join(f.dir, "log")
		// Empty until init opens it: so it can be followed from the first moment.
		if err := os.WriteFile(f.log, nil, 0o600); err != nil {
			return fmt.Errorf("make the files of container %s: %w", c.name(), err)
		}
	}
	switch c.mode {
	case modeShared:
		f.hosts, f.resolvConf, f.hostname = c.share.files.hosts, c.share.files.resolvConf, c.share.files.hostname
	case modeBridge:
		f.resolvConf = filepath.Join(f.dir, "resolv.conf")
		if err := writePublic(f.resolvConf, n.resolvConf(c.attachments[0].lan)); err != nil {
			return fmt.Errorf("make the files of container %s: %w", c.name(), err)
		}
		fallthrough
	case modeNone:
		f.hosts, f.hostname = filepath.Join(f.dir, "hosts"), filepath.Join(f.dir, "hostname")
		if err := writePublic(f.hosts, c.hostsFile()); err != nil {
			return fmt.Errorf("make the files of container %s: %w", c.name(), err)
		}
		if err := writePublic(f.hostname, []byte(c.hostname+"\n")); err != nil {
			return fmt.Errorf("make the files of container %s: %w", c.name(), err)
		}
	}
	return nil
}

// writePublic writes a file that every user in a container may read, whatever
// the umask of the node is.
func writePublic(path string, b []byte) error {
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
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

// remove takes the files away.
func (f *files) remove() { _ = os.RemoveAll(f.dir) }

// hostsFile is /etc/hosts as Docker writes it: six standard lines, then the
// container's own, one for each network.
func (c *container) hostsFile() []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, a := range c.attachments {
		fmt.Fprintf(&b, "%s\t%s\n", a.addr.Addr(), c.hostname)
	}
	return b.Bytes()
}

// resolvConf is /etc/resolv.conf: the host's search line and the gateway as
// nameserver.
func (n *Node) resolvConf(l *lan) []byte {
	var b bytes.Buffer
	host, _ := os.ReadFile(n.conf.ResolvConf) // none is as good as one without search
	for _, line := range strings.Split(string(host), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "search" {
			fmt.Fprintln(&b, strings.Join(f, " "))
		}
	}
	fmt.Fprintf(&b, "nameserver %s\n", l.net.Config().Gateway.Addr())
	return b.Bytes()
}

// logLimit bounds one log file; there are two of them, see box.Log.
const logLimit = box.DefaultLogLimit
