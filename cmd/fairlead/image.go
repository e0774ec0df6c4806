package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// imageRef is how an image is written, distribution/reference in short:
// [HOST[:PORT]/][PATH/]NAME[:TAG][@DIGEST]. Compiled when needed: a container's
// init has this package's variables too.
var imageRef = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([a-z0-9][a-z0-9.-]*(:[0-9]+)?/)?([a-z0-9]+([._-]+[a-z0-9]+)*/)*[a-z0-9]+([._-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
})

// knownImages are names that people type out of habit and that are no command.
var knownImages = []string{
	"alpine", "amazonlinux", "archlinux", "busybox", "centos", "debian", "fedora", "golang", "haproxy",
	"hello-world", "httpd", "mariadb", "memcached", "mongo", "mysql", "nginx", "node", "opensuse",
	"oraclelinux", "php", "postgres", "python", "rabbitmq", "redis", "rockylinux", "traefik", "ubuntu",
}

// imageHint is the error for a command line that begins with the name of an
// image, nil when it does not. found tells whether a command of that name
// exists.
func imageHint(command []string, interactive, otherTree bool, found func(string) bool) error {
	name := command[0]
	if otherTree || !looksLikeImage(name) || found(name) {
		return nil
	}
	try := "fairlead run "
	if interactive || len(command) == 1 {
		try += "-it "
	}
	try += "-- "
	if len(command) > 1 {
		try += strings.Join(command[1:], " ")
	} else {
		try += "sh"
	}
	return fmt.Errorf("run: %q looks like an image, and containers run programs of this machine: try `%s`, or --rootfs DIR for another tree", name, try)
}

func looksLikeImage(name string) bool {
	if !imageRef().MatchString(name) {
		return false // an absolute path or ./x as well
	}
	return strings.ContainsAny(name, ":/@") || slices.Contains(knownImages, name)
}

// commandFinder returns a function that tells whether a command exists, looked
// up as init will do it: in path, or from dir when the name has a slash.
func commandFinder(path, dir string) func(string) bool {
	return func(name string) bool {
		if strings.Contains(name, "/") {
			_, err := exec.LookPath(filepath.Join(dir, name))
			return err == nil
		}
		for _, p := range filepath.SplitList(path) {
			if _, err := exec.LookPath(filepath.Join(p, name)); err == nil {
				return true
			}
		}
		return false
	}
}
