package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// elsewhere says what to do instead of a command that Docker has and we have
// not.
var elsewhere = map[string]string{
	"rm":      "a container is gone when its command ends; `fairlead stop NAME` ends it",
	"start":   "a container is gone when its command ends; `fairlead run` makes a new one",
	"restart": "a container is gone when its command ends; `fairlead run` makes a new one",
	"create":  "`fairlead run -d` makes and starts a container",
	"attach":  "`fairlead logs -f NAME` follows the output, `fairlead exec -it NAME sh` opens a shell",
	"pull":    "containers run programs of this machine, there are no images; try `fairlead run -it -- sh`",
	"build":   "containers run programs of this machine, there are no images; `fairlead run --rootfs DIR` uses another tree",
	"images":  "containers run programs of this machine, there are no images; try `fairlead run -it -- sh`",
	"top":     "try `fairlead exec NAME ps`",
}

// elsewhereFlags is the same for flags of `docker run`.
var elsewhereFlags = map[string]string{
	"publish":    "ports are not published yet; other containers reach every port by the container's address",
	"volume":     "a container sees the files of this machine already; --rootfs DIR gives it another tree",
	"user":       "the command has your rights outside and is root inside",
	"privileged": "inside, the command is root in namespaces of its own already",
	"restart":    "a container is gone when its command ends; start it again with `fairlead run`",
	"link":       "containers reach one another by address; `fairlead ps` shows them",
}

// aliases are other spellings of the flags above.
var aliases = map[string]string{
	"p": "publish", "P": "publish", "publish-all": "publish", "v": "volume", "mount": "volume",
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
	switch near, instead := closest(word, names), elsewhere[word]; {
	case instead != "" && !cmd.HasParent():
		return fmt.Errorf("unknown command %q: %s", word, instead)
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
		return fmt.Errorf("%s: %w: %s", short(cmd), unknown, instead)
	}
	if near := closest(name, flagNames(cmd)); near != "" && len(name) > 1 {
		return fmt.Errorf("%s: %w; did you mean --%s?", short(cmd), unknown, near)
	}
	return wrongCall(cmd, "%v", unknown)
}

// closest returns the candidate that word is most likely a misspelling of, or
// nothing: one or two slips of the finger away, or what word begins.
func closest(word string, candidates []string) string {
	best, bestDistance := "", 1+min(2, len(word)/2)
	for _, c := range candidates {
		d := distance(strings.ToLower(word), c)
		if len(word) > 1 && strings.HasPrefix(c, word) {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of slips from a to b: a letter too many, one missing,
// a wrong one, or two neighbours swapped (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			wrong := 1
			if a[i] == b[j] {
				wrong = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+wrong)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
