package labfile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v4"
)

// validator says whether a file is as the schema has it, as an editor would.
func validator(t *testing.T) func(file string) error {
	t.Helper()
	s := new(jsonschema.Schema)
	if err := json.Unmarshal(Schema(), s); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(file string) error {
		var v any
		if err := yaml.Load([]byte(file), &v); err != nil {
			return err
		}
		return resolved.Validate(v)
	}
}

// What the examples hold is right, by the grammar and by the schema.
func TestExamples(t *testing.T) {
	validate := validator(t)
	examples, err := filepath.Glob(filepath.Join("..", "..", "..", "docs", "examples", "*.yaml"))
	if err != nil || len(examples) < 2 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	files := map[string]string{"everything": everything, "before": before1}
	for _, name := range examples {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	for name, file := range files {
		if _, err := Read(name, "", []byte(file), "lab"); err != nil {
			t.Error(err)
		}
		if err := validate(file); err != nil {
			t.Errorf("%s: by the schema: %v", name, err)
		}
	}
}

// What the grammar takes for an unknown key or another kind of value, the schema
// does too.
func TestSchemaRefuses(t *testing.T) {
	validate := validator(t)
	wrong, err := os.ReadFile(filepath.Join("testdata", "wrong.txt"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, entry := range strings.Split(string(wrong), "=== file\n")[1:] {
		file, says, _ := strings.Cut(entry, "=== says\n")
		if !strings.Contains(says, "unknown key") && !strings.Contains(says, "and this is a") {
			continue
		}
		refused++
		if validate(file) == nil {
			t.Errorf("the schema takes\n%s\nof which we say\n%s", file, says)
		}
	}
	if refused < 10 {
		t.Errorf("%d files, want 10 at least", refused)
	}
}
