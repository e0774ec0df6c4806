package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"fairlead/node/network"
)

// What Docker has and we have not is answered with what to do instead, and
// what we have is none of it.
func TestElsewhere(t *testing.T) {
	t.Setenv("FAIRLEAD_DIR", t.TempDir())
	for words := range elsewhere {
		var out, stderr bytes.Buffer
		code := execute(strings.Fields(words), &out, &stderr)
		if text := stderr.String(); code != exitFailure || !strings.Contains(text, "unknown command") || strings.Contains(text, "did you mean") || strings.Contains(text, "--help") {
			t.Errorf("fairlead %s: %d %s", words, code, text)
		}
	}
}

// An option that belongs elsewhere is named as it was typed.
func TestElsewhereFlags(t *testing.T) {
	t.Setenv("FAIRLEAD_DIR", t.TempDir())
	for args, want := range map[string]string{
		"run -v /a:/b sh":                            "run: -v: a container sees",
		"run -itv /a:/b sh":                          "run: -v: a container sees",
		"run --volume /a:/b sh":                      "run: --volume: a container sees",
		"run --cap-add X sh":                         "run: --cap-add: inside, ",
		"run --opt mtu=9000 sh":                      "run: --opt mtu is not a container's: `fairlead up --opt mtu=9000` sets up the network",
		"run --opt ageing=1s sh":                     "run: --opt ageing is not a container's: `fairlead up --opt ageing=1s` sets up the network",
		"network connect --opt hub=on default pid:1": "network connect: --opt hub is not a container's: `fairlead up --opt hub=on` sets up the network",
	} {
		var out, stderr bytes.Buffer
		code := execute(strings.Fields(args), &out, &stderr)
		if text := stderr.String(); code != exitFailure || !strings.HasPrefix(text, "fairlead: "+want) {
			t.Errorf("fairlead %s: %d %s, want %s", args, code, text, want)
		}
	}
	for _, key := range networkOptions {
		if _, err := network.ParseOptions(map[string]string{key: ""}); err != nil && strings.Contains(err.Error(), "unknown option") {
			t.Errorf("option %s: %v", key, err)
		}
	}
}

// Every command has a description and, unless it is a mere group, examples that
// call it; its help is a screen.
func TestHelp(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" {
			return // cobra's
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: description %q", cmd.CommandPath(), cmd.Short)
		}
		if !cmd.Hidden && !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s has no example that calls it", cmd.CommandPath())
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Error(err)
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if len(line) > 90 {
				t.Errorf("%s --help: too wide: %q", cmd.CommandPath(), line)
			}
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(newRoot())
}

// Every error is one line, with our name before it, and no usage behind it.
func TestErrorsAreLines(t *testing.T) {
	t.Setenv("FAIRLEAD_DIR", t.TempDir())
	for _, args := range []string{"frob", "run", "run --frob", "show frob", "mac frob", "stop", "ps x", "exec -", "logs --tail", "trace -n -1 web", "network connect a b", "publish web", "network set default", "port"} {
		var out, stderr bytes.Buffer
		code := execute(strings.Fields(args), &out, &stderr)
		if text := stderr.String(); code != exitFailure || out.Len() > 0 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "fairlead: ") {
			t.Errorf("fairlead %s: %d\n%s%s", args, code, &out, text)
		}
	}
}
