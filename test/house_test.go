// Package test uses the house as a whole: the scenarios, and the rules of the
// house as tests, each with its reason.
//
// Its tests run one after another.
package test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// module is the name in go.mod.
const module = "fairlead"

// maxLines bounds a file: what is longer is more than one concept.
const maxLines = 600

// Every package says what it is for and who may use it at the same time.
func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range sources(t) {
		dir := path.Dir(f.path)
		text := f.syntax.Doc.Text()
		starts := strings.HasPrefix(text, "Package "+f.syntax.Name.Name+" ") || strings.HasPrefix(text, "Command "+path.Base(dir)+" ")
		documented[dir] = documented[dir] || starts
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no comment that begins with Package or Command and its name", dir)
		}
	}
}

// One form of writing, so that a difference is a change.
func TestFormat(t *testing.T) {
	var paths []string
	for _, f := range sources(t) {
		paths = append(paths, filepath.Join(root, f.path))
	}
	if out, err := exec.Command("gofmt", append([]string{"-l"}, paths...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("not as gofmt writes it (%v); try: gofmt -w\n%s", err, out)
	}
}

func TestFileLength(t *testing.T) {
	for _, f := range sources(t) {
		if n := bytes.Count(f.text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines; more than %d are more than one concept", f.path, n, maxLines)
		}
	}
}

// What is open is an issue, not a comment; what cannot run is listed by lab,
// because a silent skip looks like a success.
func TestNoOpenEnds(t *testing.T) {
	for _, f := range sources(t) {
		for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
			if bytes.Contains(f.text, []byte(word)) {
				t.Errorf("%s holds %s; file an issue", f.path, word)
			}
		}
		if !f.isTest() || path.Dir(f.path) == "test/lab" {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if s, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
					t.Errorf("%s skips; use lab.Need… or lab.NotRun", f.position(n))
				}
			}
			return true
		})
	}
}

// The project says nothing of the place where it was written.
func TestNoWordsOfWorkplaces(t *testing.T) {
	// Taken apart, so that this file does not hold them.
	words := [][]string{
		{"/wo", "rk/"}, {"/fa", "rm/"}, {".libr", "ary"}, {"farm-", "studio"}, {"farm-", "bench"}, {"before-", "stop"},
		{"sub", "agent"}, {"helper", " agent"}, {"proxy.", "golang.org"}, {"rese", "arch/"},
		{"shared/", "plan"}, {"shared/", "scenarios"}, {"shared/", "baselines"}, {"shared/", "hooks"},
	}
	for _, name := range files(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ToLower(text)
		for _, parts := range words {
			word := []byte(strings.Join(parts, ""))
			if at := bytes.Index(text, word); at >= 0 {
				t.Errorf("%s:%d holds %q", name, 1+bytes.Count(text[:at], []byte("\n")), word)
			}
		}
	}
}

// A reader of go.mod finds in ARCHITECTURE.md why each dependency is there.
func TestDependenciesAreExplained(t *testing.T) {
	architecture, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if os.IsNotExist(err) {
		t.Log("there is no ARCHITECTURE.md yet")
		return
	}
	mod, err2 := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+/\S+) v\S+$`).FindAllSubmatch(mod, -1) {
		if !bytes.Contains(architecture, m[1]) {
			t.Errorf("ARCHITECTURE.md does not say why %s is needed", m[1])
		}
	}
}

func TestPapers(t *testing.T) {
	for name, holds := range map[string]string{
		"LICENSE":      "Apache License",
		"CHANGELOG.md": "## [Unreleased]",
	} {
		if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Contains(text, []byte(holds)) {
			t.Errorf("%s: no %q in it (%v)", name, holds, err)
		}
	}
}

// Every test that a text names exists, needs-root.txt among them, and the tests
// of scenarios carry the scenario's number.
func TestTestNames(t *testing.T) {
	functions := map[string]bool{}
	scenario := regexp.MustCompile(`^TestS(0[1-9]|[123][0-9]|40)_[A-Z]`)
	for _, f := range sources(t) {
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.isTest() || fn.Recv != nil {
				continue
			}
			name := fn.Name.Name
			functions[name] = true
			if regexp.MustCompile(`^TestS[0-9]`).MatchString(name) && !scenario.MatchString(name) {
				t.Errorf("%s: the test of a scenario is called TestS01_What to TestS40_What, not %s", f.path, name)
			}
		}
	}
	named := regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w*`)
	for _, name := range files(t) {
		if ext := path.Ext(name); ext != ".md" && ext != ".txt" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range named.FindAllString(string(text), -1) {
			if !functions[test] {
				t.Errorf("%s names %s, which does not exist", name, test)
			}
		}
	}
	for _, line := range strings.Split(read(t, "test/needs-root.txt"), "\n") {
		if line != "" && line[0] != '#' && !regexp.MustCompile(`^Test\w+ +\S+ \S+`).MatchString(line) {
			t.Errorf("test/needs-root.txt: a line is a test's name and the reason, not %q", line)
		}
	}
}

// A source is one parsed Go file.
type source struct {
	path    string // from the root, with slashes
	text    []byte
	syntax  *ast.File
	imports []string
	files   *token.FileSet
}

func (f *source) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func (f *source) position(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.files.Position(n.Pos()).Line)
}

// selector takes unix.Read apart into the import path and the name; both are
// empty when e is something else.
func (f *source) selector(e ast.Expr) (pkg, name string) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok || x.Obj != nil { // a variable of that name
		return "", ""
	}
	for i, spec := range f.syntax.Imports {
		imported := path.Base(f.imports[i])
		if spec.Name != nil {
			imported = spec.Name.Name
		}
		if imported == x.Name {
			return f.imports[i], s.Sel.Name
		}
	}
	return "", ""
}

// root is the checkout, seen from this package's folder.
const root = ".."

// sources are all Go files of the project.
func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var parsed = sync.OnceValues(func() ([]*source, error) {
	var all []*source
	err := walk(func(name string) error {
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		f := &source{path: name, text: text, files: token.NewFileSet()}
		if f.syntax, err = parser.ParseFile(f.files, name, text, parser.ParseComments); err != nil {
			return err
		}
		for _, spec := range f.syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		all = append(all, f)
		return nil
	})
	return all, err
})

// files are the names of all files of the project.
func files(t *testing.T) []string {
	t.Helper()
	var names []string
	if err := walk(func(name string) error { names = append(names, name); return nil }); err != nil {
		t.Fatal(err)
	}
	return names
}

// walk visits every file of the checkout but those git ignores.
func walk(visit func(name string) error) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", ".cache", "bin"}, d.Name()) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || slices.Contains([]string{".test", ".prof", ".pprof"}, path.Ext(name)) {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel))
	})
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
