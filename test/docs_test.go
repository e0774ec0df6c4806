package test

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"testing"
)

// docs/nat.md says which test shows that a requirement is kept: what it names
// is there.
func TestNATDocumentNamesTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "nat.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range sources(t) {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.isTest() && fn.Recv == nil {
				there[path.Dir(f.path)+"."+fn.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile("`([a-z/]+\\.(?:Test|Fuzz)[A-Za-z0-9_]*)`").FindAllSubmatch(text, -1)
	if len(named) < 30 {
		t.Errorf("docs/nat.md names %d tests; is the table gone?", len(named))
	}
	for _, m := range named {
		if !there[string(m[1])] {
			t.Errorf("docs/nat.md names %s, which there is not", m[1])
		}
	}
}
