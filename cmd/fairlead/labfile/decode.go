package labfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"fairlead/cmd/fairlead/spell"
)

// MaxBytes bounds a file: what people write is far below.
const MaxBytes = 1 << 20

// And so are these bounds.
const (
	maxVisits = 100_000 // keys and values, those that aliases repeat counted each time
	maxMerges = 16      // << within <<, aliases of aliases
	maxKey    = 256     // bytes of a key
	maxNoted  = 1000    // errors that are noted, of which
	maxErrors = 20      // are said
)

// A Mark is a place in a file, both counted from 1.
type Mark struct{ Line, Column int }

// An Error is one thing that is wrong with a file.
type Error struct {
	File string
	Mark
	Where string // containers.web.ports[0]; empty: the file itself
	Text  string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Where != "" {
		b.WriteString(": " + e.Where)
	}
	return b.String() + ": " + e.Text
}

// A decoder reads the nodes of one file by a grammar of values, and notes what is
// wrong and where everything was.
type decoder struct {
	file   string
	path   []string // to the value that is read
	at     map[string]Mark
	errs   []*Error
	visits int
}

// parse makes the tree of a file. It holds aliases, not what they stand for.
func (d *decoder) parse(data []byte) *yaml.Node {
	if len(data) > MaxBytes {
		d.errs = append(d.errs, &Error{File: d.file, Text: fmt.Sprintf("it has %d bytes, %d are the most", len(data), MaxBytes)})
		return nil
	}
	if len(bytes.TrimSpace(data)) == 0 {
		d.failAt(Mark{1, 1}, "", "it is empty; a lab has networks: and containers:")
		return nil
	}
	doc, next := new(yaml.Node), new(yaml.Node)
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err == nil {
		err = loader.Load(doc)
	}
	if err != nil {
		d.errs = append(d.errs, d.syntax(err))
		return nil
	}
	switch err := loader.Load(next); {
	case err == nil:
		d.failAt(Mark{next.Line, next.Column}, "", "a second document begins; a lab is one")
	case !errors.Is(err, io.EOF):
		d.errs = append(d.errs, d.syntax(err))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return doc // a document is what a tree begins with
	}
	return doc.Content[0]
}

// syntax is what the parser of YAML says, with its place in our form.
func (d *decoder) syntax(err error) *Error {
	e := &Error{File: d.file, Text: err.Error()}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		e.Text = load.Message
		if load.ContextMsg != "" {
			e.Text = load.ContextMsg + ": " + e.Text
		}
		if load.Mark.Line > 0 {
			e.Mark = Mark{load.Mark.Line, max(1, load.Mark.Column)}
		}
	}
	e.Text = "not YAML: " + e.Text
	return e
}

// fail notes that the value that is read is wrong.
func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	d.failAt(Mark{n.Line, n.Column}, strings.Join(d.path, ""), format, args...)
}

func (d *decoder) failAt(m Mark, where, format string, args ...any) {
	if len(d.errs) == maxNoted {
		return
	}
	d.errs = append(d.errs, &Error{File: d.file, Mark: m, Where: strings.TrimPrefix(where, "."), Text: fmt.Sprintf(format, args...)})
}

// read reads n by the grammar v, as the part of the value above that step names.
// What has parts, or is not there, is where its
// key is.
func (d *decoder) read(step string, key, n *yaml.Node, v value) {
	if !d.spend(n, 1) {
		return
	}
	d.path = append(d.path, step)
	defer func() { d.path = d.path[:len(d.path)-1] }()
	n = follow(n)
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		key = n
	}
	d.at[strings.TrimPrefix(strings.Join(d.path, ""), ".")] = Mark{key.Line, key.Column}
	if n.Style&yaml.TaggedStyle != 0 {
		d.fail(n, "the tag %s means nothing here; leave it out", n.Tag)
		return
	}
	v.read(d, n)
}

// spend reports whether count more keys and values are within the bounds of a
// file. What aliases repeat is paid for each time: a few lines of them can stand
// for more than any memory holds.
func (d *decoder) spend(n *yaml.Node, count int) bool {
	if d.visits > maxVisits {
		return false
	}
	if d.visits += count; d.visits > maxVisits {
		d.fail(n, "the file has more than %d keys and values, aliases followed", maxVisits)
		return false
	}
	return true
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for range maxMerges {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}

// isNull reports whether nothing is written, or ~ or null.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf says in a word what a value is.
func kindOf(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "empty"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.ScalarNode && len(n.Value) <= 40:
		return strconv.Quote(n.Value)
	}
	return "a text"
}

// A pair is a key of a mapping and its value.
type pair struct{ key, value *yaml.Node }

// pairs are those of a mapping, in order: its own, and behind them those it
// merges (<<) and has not itself.
func (d *decoder) pairs(n *yaml.Node, depth int) (list []pair) {
	if !d.spend(n, len(n.Content)) {
		return nil
	}
	seen := map[string]*yaml.Node{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := follow(n.Content[i]), n.Content[i+1]
		first := seen[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || isNull(key):
			d.fail(key, "%s cannot be a key", kindOf(key))
		case len(key.Value) > maxKey:
			d.fail(key, "a key of %d characters, %d are the most", len(key.Value), maxKey)
		case key.ShortTag() == "!!merge":
			merged = append(merged, d.sources(follow(value))...)
		case first != nil:
			d.fail(key, "%s is given twice; the other one is in line %d", key.Value, first.Line)
		default:
			seen[key.Value] = key
			list = append(list, pair{key, value})
		}
	}
	for _, m := range merged {
		switch m = follow(m); {
		case m.Kind != yaml.MappingNode:
			d.fail(m, "<< takes a mapping or a list of them, and this is %s", kindOf(m))
			continue
		case depth == maxMerges:
			d.fail(m, "<< within << more than %d deep", maxMerges)
			return list
		}
		for _, p := range d.pairs(m, depth+1) {
			if seen[p.key.Value] == nil {
				seen[p.key.Value] = p.key
				list = append(list, p)
			}
		}
	}
	return list
}

// sources are the mappings a << names: one, or a list of them.
func (d *decoder) sources(n *yaml.Node) []*yaml.Node {
	switch {
	case n.Kind != yaml.SequenceNode:
		return []*yaml.Node{n}
	case !d.spend(n, len(n.Content)):
		return nil
	}
	return n.Content
}

// unknown refuses a key, with the one that may be meant.
func (d *decoder) unknown(key *yaml.Node, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	if instead := foreignWords[key.Value]; instead != "" && !slices.Contains(names, key.Value) {
		d.fail(key, "unknown key %q: %s", key.Value, instead)
		return
	}
	if near := spell.Closest(key.Value, names); near != "" {
		d.fail(key, "unknown key %q; did you mean %q?", key.Value, near)
		return
	}
	d.fail(key, "unknown key %q; there are %s", key.Value, strings.Join(names, ", "))
}

// problems are the errors found, in the order of the file.
func (d *decoder) problems() error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	var errs []error
	for i, e := range d.errs {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", d.file, len(d.errs)-i))
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}
