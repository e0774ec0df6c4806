package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairlead/cmd/fairlead/spell"
)

// What is said of several of them.
const (
	noImages  = "containers run programs of this machine, there are no images; try `fairlead run -it -- sh`"
	noStopped = "a container is gone when its command ends; "
	noVolumes = "a container sees the files of this machine already; --rootfs DIR gives it another tree"
)

// elsewhere says what to do instead of a command that Docker has and we have
// not.
var elsewhere = map[string]string{
	"rm":      noStopped + "`fairlead stop NAME` ends it",
	"start":   noStopped + "`fairlead run` makes a new one",
	"restart": noStopped + "`fairlead run` makes a new one",
	"create":  "`fairlead run -d` makes and starts a container",
	"attach":  "`fairlead logs -f NAME` follows the output, `fairlead exec -it NAME sh` opens a shell",
	"wait":    "`fairlead run` without -d waits, and exits with the command's status",
	"pause":   "`fairlead kill -s STOP NAME` stops the command, and -s CONT has it go on",
	"unpause": "`fairlead kill -s CONT NAME` has a stopped command go on",
	"cp":      noVolumes,
	"volume":  noVolumes,
	"top":     "try `fairlead exec NAME ps`",
	"stats":   "`fairlead show switch -v` counts what each container sends and gets",
	"info":    "try `fairlead version` and `fairlead show switch`",

	"compose":   "`fairlead up -f FILE` brings up a file of networks and containers, `fairlead down -f FILE` takes it away; see docs/lab.md",
	"container": "leave that word out: `fairlead ps`, `fairlead run`, `fairlead inspect`",
	"build":     "containers run programs of this machine, there are no images; `fairlead run --rootfs DIR` uses another tree",
	"pull":      noImages, "push": noImages, "image": noImages, "images": noImages, "rmi": noImages, "tag": noImages,
	"commit": noImages, "save": noImages, "load": noImages, "import": noImages, "history": noImages,
	"search": noImages, "login": noImages, "logout": noImages,
}

// elsewhereFlags is the same for flags of `docker run`.
var elsewhereFlags = map[string]string{
	"volume":     noVolumes,
	"user":       "the command has your rights outside and is root inside",
	"privileged": "inside, the command is root in namespaces of its own already",
	"restart":    noStopped + "start it again with `fairlead run`",
}

// aliases are other spellings of the flags above.
var aliases = map[string]string{
	"v": "volume", "mount": "volume",
	"u": "user", "cap-add": "privileged",
}

// unknownCommand is the error for a word that is no command below cmd.
func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			names = append(append(names, c.Name()), c.Aliases...)
		}
	}
	prefix := ""
	if cmd.HasParent() {
		prefix = short(cmd) + ": "
	}
	path := word
	if cmd.HasParent() {
		path = short(cmd) + " " + word
	}
	switch near, instead := spell.Closest(word, names), elsewhere[path]; {
	case instead != "":
		return fmt.Errorf("%sunknown command %q: %s", prefix, word, instead)
	case near != "":
		return fmt.Errorf("%sunknown command %q; did you mean `%s %s`?", prefix, word, cmd.CommandPath(), near)
	}
	return fmt.Errorf("%sunknown command %q; see `%s --help`", prefix, word, cmd.CommandPath())
}

// explainFlag puts a flag error into one line, with the flag that may be meant.
func explainFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &invalid) && errors.Is(invalid, strconv.ErrSyntax):
		text, _, _ := strings.Cut(invalid.Error(), ": strconv.") // which function of Go's refused it helps nobody
		return wrongCall(cmd, "%s", text)
	case !errors.As(err, &unknown):
		return wrongCall(cmd, "%v", err)
	}
	name := unknown.GetSpecifiedName()
	if alias := aliases[name]; alias != "" {
		name = alias
	}
	if instead := elsewhereFlags[name]; instead != "" && cmd.Name() == "run" {
		typed := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			typed = typed[1:]
		}
		return fmt.Errorf("%s: %s: %s", short(cmd), typed, instead)
	}
	if near := spell.Closest(name, flagNames(cmd)); near != "" && len(name) > 1 {
		return fmt.Errorf("%s: %w; did you mean --%s?", short(cmd), unknown, near)
	}
	return wrongCall(cmd, "%v", unknown)
}
