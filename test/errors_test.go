package test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var updateErrors = flag.Bool("update-errors", false, "write test/errors.txt anew from what fairlead says")

// Every wrong call gets the text and the exit status errors.txt has for it.
func TestErrors(t *testing.T) {
	n := newNodeDir(t)
	home := filepath.Join(filepath.Dir(n.dir), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	var updated bytes.Buffer
	calls := 0
	for _, e := range readErrors(t) {
		text, code := n.sayWrong(e.line, home)
		answer := fmt.Sprintf("exit %d\n%s", code, text)
		switch {
		case e.setup && code != 0:
			t.Fatalf("errors.txt:%d: %s\n%s", e.number, e.line, answer)
		case !e.call && !e.setup:
			updated.WriteString(e.line + "\n")
			continue
		case e.setup:
			updated.WriteString("+ " + e.line + "\n")
			continue
		case answer != e.answer && !*updateErrors:
			t.Errorf("errors.txt:%d: %s\n%swant\n%s", e.number, e.line, answer, e.answer)
		}
		calls++
		updated.WriteString("$ " + e.line + "\n" + answer)
	}
	if calls < 40 {
		t.Errorf("errors.txt has %d wrong calls, want 40 at least", calls)
	}
	if *updateErrors {
		if err := os.WriteFile("errors.txt", updated.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// An errorsEntry is a line of errors.txt, with the answer that follows a call.
type errorsEntry struct {
	number      int
	line        string // without the mark of a call or a setup
	call, setup bool
	answer      string // "exit N" and the text, each line ended
}

// readErrors takes errors.txt apart.
func readErrors(t *testing.T) (entries []errorsEntry) {
	t.Helper()
	data, err := os.ReadFile("errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		e := errorsEntry{number: i + 1, line: line}
		if rest, ok := strings.CutPrefix(line, "$ "); ok {
			e.line, e.call = rest, true
		} else if rest, ok := strings.CutPrefix(line, "+ "); ok {
			e.line, e.setup = rest, true
		} else if last := len(entries) - 1; line != "" && line[0] != '#' && last >= 0 && entries[last].call {
			entries[last].answer += line + "\n"
			continue
		}
		entries = append(entries, e)
	}
	return entries
}

var anID = regexp.MustCompile(`\b([0-9a-f]{64}|[0-9a-f]{12})\b`)

// sayWrong has a shell make a call and returns standard error, with what
// differs from run to run replaced, and the exit status.
func (n *node) sayWrong(line, home string) (text string, code int) {
	n.t.Helper()
	if strings.HasPrefix(line, "#") || line == "" {
		return "", 0
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := n.command(ctx)
	shell, err := exec.LookPath("sh")
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Path, cmd.Args, cmd.Dir = shell, []string{"sh", "-c", line}, home
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	_ = cmd.Run() // the exit status says it
	n.followLog()
	if ctx.Err() != nil {
		n.t.Fatalf("%s: takes longer than %v", line, patience)
	}
	text = strings.NewReplacer(n.dir, "$DIR", home, "$PWD").Replace(stderr.String())
	return anID.ReplaceAllString(text, "<id>"), cmd.ProcessState.ExitCode()
}
