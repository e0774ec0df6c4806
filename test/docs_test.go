package test

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/docker.md has every difference from Docker's answers that the comparison knows.
func TestDockerDocumentNamesDifferences(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "docker.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differings {
		if line := fmt.Sprintf("\n| %s | %s | %s | ", d.kind, d.docker, d.ours); !strings.Contains(string(text), line) {
			t.Errorf("docs/docker.md has no line %q", line)
		}
	}
	if n := strings.Count(string(text), "\n| "); n != len(differings)+2 {
		t.Errorf("docs/docker.md has a table of %d lines for %d differences", n, len(differings))
	}
}

// docs/nat.md says which test shows that a requirement is kept, and
// docs/security.md which shows that a mistake cannot be made: what they name is
// there.
func TestDocumentsNameTests(t *testing.T) {
	there := map[string]bool{}
	for _, f := range sources(t) {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.isTest() && fn.Recv == nil {
				there[path.Dir(f.path)+"."+fn.Name.Name] = true
			}
		}
	}
	for _, page := range []string{"nat.md", "security.md"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile("`([a-z/]+\\.(?:Test|Fuzz)[A-Za-z0-9_]*)`").FindAllSubmatch(text, -1)
		if len(named) < 30 {
			t.Errorf("docs/%s names %d tests; is the table gone?", page, len(named))
		}
		for _, m := range named {
			if !there[string(m[1])] {
				t.Errorf("docs/%s names %s, which there is not", page, m[1])
			}
		}
	}
}
