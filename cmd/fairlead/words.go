package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"fairlead/node/api"
)

// printJSON prints v for programs, indented so that people can read it too.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func isNoNode(err error) bool { return errors.Is(err, api.ErrNoNode) }

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// usualWidth is where lines are broken that no terminal shows.
const usualWidth = 80

// terminalWidth is how many characters a line of standard output has room for.
func terminalWidth() int {
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
		return max(width, usualWidth/2)
	}
	return usualWidth
}

// wrap breaks text at blanks into lines of at most width characters. A command,
// which is between backticks, stays on one line: it is to be copied.
func wrap(text string, width int) (lines []string) {
	const kept = "\x00" // a blank of a command
	parts := strings.Split(text, "`")
	for i := 1; i < len(parts)-1; i += 2 {
		parts[i] = strings.ReplaceAll(parts[i], " ", kept)
	}
	line := ""
	for _, word := range strings.Fields(strings.Join(parts, "`")) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	lines = append(lines, line)
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], kept, " ")
	}
	return lines
}

// shortID cuts an id to the twelve digits people use.
func shortID(id string, whole bool) string {
	if whole || len(id) < 12 {
		return id
	}
	return id[:12]
}

// maxCommand is how much of a command `ps` shows, as docker ps.
const maxCommand = 20

// quoteCommand is a command as docker ps shows it.
func quoteCommand(args []string, whole bool) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' ' // a script must not break the table
		}
		return r
	}, strings.Join(args, " "))
	if r := []rune(s); !whole && len(r) > maxCommand {
		s = string(r[:maxCommand-1]) + "…"
	}
	return `"` + s + `"`
}

// ago is a time as docker ps says it.
func ago(d time.Duration) string {
	plural := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch {
	case d < time.Minute:
		return plural(max(1, int(d.Seconds())), "second")
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour")
	}
	return plural(int(d.Hours()/24), "day")
}

// bytesWord is a number of bytes for people, in powers of 1000 as `ip -h` has.
func bytesWord(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
