package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"fairlead/node/api"
	"fairlead/node/box"
)

// parseRun reads a command line of `run` as cobra does, and checks it.
func parseRun(t *testing.T, args ...string) (*runOptions, error) {
	t.Helper()
	o := new(runOptions)
	cmd := &cobra.Command{Use: "run"}
	o.define(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		return o, explainFlag(cmd, err)
	}
	o.command = cmd.Flags().Args()
	return o, o.check(cmd)
}

func TestRunGrammar(t *testing.T) {
	for _, test := range []struct {
		name string
		args string
		want func(*runOptions) bool
	}{
		{"options end at the command", "-d sleep -t 5", func(o *runOptions) bool {
			return o.detach && !o.tty && slices.Equal(o.command, []string{"sleep", "-t", "5"})
		}},
		{"or at --", "-i -- -x --name y", func(o *runOptions) bool {
			return o.interactive && o.name == "" && slices.Equal(o.command, []string{"-x", "--name", "y"})
		}},
		{"a -- of the command's stays", "sh -c true -- a", func(o *runOptions) bool {
			return slices.Equal(o.command, []string{"sh", "-c", "true", "--", "a"})
		}},
		{"letters together", "-itdw /tmp sh", func(o *runOptions) bool {
			return o.interactive && o.tty && o.detach && o.workdir == "/tmp"
		}},
		{"-h is Docker's host name", "-h web sh", func(o *runOptions) bool { return o.hostname == "web" }},
		{"--net is --network", "--net none sh", func(o *runOptions) bool { return o.network == "none" }},
		{"--mac-address is --mac", "--mac-address 02:00:00:00:00:01 sh", func(o *runOptions) bool { return o.mac == "02:00:00:00:00:01" }},
		{"what bridge is says the node", "--net=bridge sh", func(o *runOptions) bool { return o.request().Network == "bridge" }},
		{"without --network", "sh", func(o *runOptions) bool { return o.network == "default" }},
		{"--rm says nothing", "--rm -d sh", func(o *runOptions) bool { return o.detach }},
		{"options of the link", "--opt offload=off --opt isolated=on sh", func(o *runOptions) bool {
			return maps.Equal(o.options, map[string]string{"offload": "off", "isolated": "on"})
		}},
		{"a value with =", "--sysctl net.x=a=b sh", func(o *runOptions) bool { return o.parameters["net.x"] == "a=b" }},
		{"here is where it starts", "sh", func(o *runOptions) bool { d, _ := os.Getwd(); return o.dir == d }},
		{"in another tree that is /", "--rootfs / sh", func(o *runOptions) bool { return o.dir == "" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, err := parseRun(t, strings.Fields(test.args)...)
			if err != nil || !test.want(o) {
				t.Errorf("run %s: %+v, %v", test.args, o, err)
			}
		})
	}
}

func TestRunEnvironment(t *testing.T) {
	t.Setenv("HOSTNAME", "outside")
	t.Setenv("TERM", "")
	t.Setenv("COLOUR", "red")
	t.Setenv("PASSED", "on")
	for _, test := range []struct {
		args, name, want string
	}{
		{"sh", "COLOUR", "red"},
		{"-e COLOUR=blue sh", "COLOUR", "blue"},
		{"-e COLOUR= sh", "COLOUR", ""},
		{"sh", "HOSTNAME", ""}, // init knows
		{"-t sh", "TERM", "xterm"},
		{"--rootfs / sh", "COLOUR", ""},
		{"--rootfs / -e PASSED sh", "PASSED", "on"},
		{"--rootfs / -e NOSUCHVARIABLE sh", "NOSUCHVARIABLE", ""},
		{"--rootfs / sh", "HOME", "/root"},
		{"--rootfs / -t sh", "TERM", "xterm"},
	} {
		o, err := parseRun(t, strings.Fields(test.args)...)
		if got := lookEnv(o.environ, test.name); err != nil || got != test.want {
			t.Errorf("run %s: %s=%q, %v; want %q", test.args, test.name, got, err, test.want)
		}
	}
	o, err := parseRun(t, "-e", "A=1", "-e", "A=2", "sh")
	count := 0
	for _, kv := range o.environ {
		if strings.HasPrefix(kv, "A=") {
			count++
		}
	}
	if err != nil || count != 1 || lookEnv(o.environ, "A") != "2" {
		t.Errorf("of two values the last counts, once: %q, %v", o.environ, err)
	}
}

func TestSpec(t *testing.T) {
	o, err := parseRun(t, "-d", "-i", "-t", "--sysctl", "net.a=1", "--", "sh")
	if err != nil {
		t.Fatal(err)
	}
	created := &api.Created{
		ID: "0123456789abcdef", Hostname: "0123456789ab", Mode: "bridge", Hosts: "/n/hosts", Log: "/n/log", LogBytes: 9,
		Link: &api.Interface{Name: "eth0", MAC: "02:42:ac:11:00:02", Address: "172.17.0.2/16", Gateway: "172.17.0.1", MTU: 1400, Textbook: true},
	}
	spec, err := o.spec(created)
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Validate(); err != nil {
		t.Error(err)
	}
	i := spec.Interface
	switch {
	case spec.Network != box.NetworkOwn, i.Name != "eth0", i.MAC.String() != "02:42:ac:11:00:02", i.MTU != 1400, !i.Plain,
		i.Addresses[0].String() != "172.17.0.2/16", i.Gateways[0].String() != "172.17.0.1":
		t.Errorf("interface %+v", i)
	case !spec.TTY || !spec.Stdin || !spec.Detached || spec.Log.Path != "/n/log" || spec.Log.Limit != 9:
		t.Errorf("detached there is a log, and a terminal if asked for: %+v", spec)
	case len(spec.Files) != 1 || spec.Files[0] != box.File{Source: "/n/hosts", Target: "/etc/hosts"}:
		t.Errorf("files %+v", spec.Files)
	case spec.Sysctls["net.a"] != "1":
		t.Errorf("sysctls %+v", spec.Sysctls)
	}
	for mode, want := range map[string]box.Network{"none": box.NetworkNone, "host": box.NetworkHost, "shared": box.NetworkShared} {
		spec, err := o.spec(&api.Created{ID: "x", Mode: mode, SharePid: 7})
		if err != nil || spec.Network != want || (spec.SharePID == 7) != (mode == "shared") {
			t.Errorf("mode %s: %+v, %v", mode, spec, err)
		}
	}
	for _, link := range []*api.Interface{nil, {MAC: "x"}, {MAC: "02:42:ac:11:00:02", Address: "x"},
		{MAC: "02:42:ac:11:00:02", Address: "172.17.0.2/16", Gateway: "x"}} {
		if _, err := o.spec(&api.Created{ID: "x", Mode: "bridge", Link: link}); err == nil {
			t.Errorf("the node's %+v was taken", link)
		}
	}
}

func TestImageHint(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ping", "redis", "bin/tool"} {
		path := filepath.Join(dir, name)
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	found := commandFinder("/no/such:"+dir, dir)
	for _, test := range []struct{ command, try string }{ // an empty try: no image
		{"alpine", "fairlead run -it -- sh"},
		{"nginx", "fairlead run -it -- sh"},
		{"ubuntu:22.04 bash -l", "fairlead run -- bash -l"},
		{"docker.io/library/alpine", "fairlead run -it -- sh"},
		{"localhost:5000/team/app:v1.2 serve", "fairlead run -- serve"},
		{"grafana/grafana", "fairlead run -it -- sh"},
		{"app@sha256:" + strings.Repeat("0a", 32), "fairlead run -it -- sh"},
		{"redis", ""},              // there is a command of that name
		{"ping", ""},               // no image
		{"nosuchcommand", ""},      // no image anybody knows
		{"bin/tool", ""},           // a file here
		{"./nginx", ""},            // a path
		{"/usr/sbin/nginx", ""},    // a path
		{"NGINX:latest", ""},       // images are lower case
		{"echo:hello:world:x", ""}, // two tags
	} {
		args := strings.Fields(test.command)
		err := imageHint(args, false, false, found)
		switch {
		case test.try == "" && err != nil:
			t.Errorf("%s: %v", test.command, err)
		case test.try != "" && (err == nil || !strings.Contains(err.Error(), "`"+test.try+"`") || !strings.Contains(err.Error(), args[0])):
			t.Errorf("%s: %v; want it to say %q", test.command, err, test.try)
		}
		if imageHint(args, false, true, found) != nil {
			t.Errorf("%s: with --rootfs everything is a command", test.command)
		}
	}
}

// Whatever is typed, the answer is a text or nothing, and a command that exists
// is never taken for an image.
func FuzzImageHint(f *testing.F) {
	for _, seed := range []string{"alpine", "ubuntu:22.04", "a/b@sha256:00", "::", "/", "-", "a:b/c:d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if imageHint([]string{name}, false, false, func(string) bool { return true }) != nil {
			t.Errorf("%q exists and was called an image", name)
		}
		_ = imageHint([]string{name}, true, false, func(string) bool { return false })
	})
}
