package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// document is the description as a client reads it.
func document(t *testing.T) map[string]any {
	t.Helper()
	b, err := json.Marshal(OpenAPI("1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// in walks down keys; nil where there is nothing.
func in(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func TestOpenAPICoversEveryRoute(t *testing.T) {
	d := document(t)
	if in(d, "openapi") != "3.1.0" || in(d, "info", "version") != "1.2.3" {
		t.Errorf("%v, %v", in(d, "openapi"), in(d, "info"))
	}
	operations := 0
	for _, methods := range in(d, "paths").(map[string]any) {
		operations += len(methods.(map[string]any))
	}
	if operations != len(Routes) {
		t.Errorf("%d operations for %d routes", operations, len(Routes))
	}
	for _, r := range Routes {
		op := in(d, "paths", r.Path, strings.ToLower(r.Method))
		if op == nil || in(op, "summary") != r.Summary || r.Summary == "" {
			t.Errorf("%s %s: %v", r.Method, r.Path, op)
			continue
		}
		var params []string
		list, _ := in(op, "parameters").([]any)
		for _, p := range list {
			params = append(params, in(p, "in").(string)+" "+in(p, "name").(string))
		}
		var want []string
		for _, name := range []string{"id", "name", "number"} {
			if strings.Contains(r.Path, "{"+name+"}") {
				want = append(want, "path "+name)
			}
		}
		for _, q := range r.Query {
			want = append(want, "query "+q)
		}
		if !reflect.DeepEqual(params, want) {
			t.Errorf("%s %s: parameters %v, want %v", r.Method, r.Path, params, want)
		}
		if r.Upgrade {
			if in(op, "responses", "101") == nil || !strings.Contains(in(op, "description").(string), Protocol) {
				t.Errorf("%s %s: %v", r.Method, r.Path, op)
			}
			continue
		}
		if (in(op, "requestBody") != nil) != (r.In != nil) || in(op, "responses", "200") == nil || in(op, "responses", "default") == nil {
			t.Errorf("%s %s: %v", r.Method, r.Path, op)
		}
		content := in(op, "responses", "200", "content")
		if kind := map[bool]string{false: "application/json", true: "application/x-ndjson"}[r.Stream]; r.Out != nil && in(content, kind) == nil {
			t.Errorf("%s %s: answers with %v", r.Method, r.Path, content)
		}
	}
}

// TestOpenAPICoversEveryField holds each schema against an encoded value of its
// type.
func TestOpenAPICoversEveryField(t *testing.T) {
	d := document(t)
	seen := map[reflect.Type]bool{}
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			check(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		properties, _ := in(d, "components", "schemas", typ.Name(), "properties").(map[string]any)
		encoded := encodedFields(t, typ)
		if len(properties) != len(encoded) {
			t.Errorf("%v has fields %v, the schema %v", typ, encoded, properties)
		}
		for name := range encoded {
			if properties[name] == nil {
				t.Errorf("%v: no field %s in the schema", typ, name)
			}
		}
		for i := range typ.NumField() {
			check(typ.Field(i).Type)
		}
	}
	for _, r := range Routes {
		for _, v := range []any{r.In, r.Out} {
			if v != nil {
				check(reflect.TypeOf(v))
			}
		}
	}
	check(reflect.TypeFor[Error]())
	if n := len(in(d, "components", "schemas").(map[string]any)); n != len(seen) {
		t.Errorf("%d schemas for %d types", n, len(seen))
	}
}

// encodedFields are the keys encoding/json gives a value whose fields are all
// set.
func encodedFields(t *testing.T, typ reflect.Type) map[string]any {
	t.Helper()
	v := reflect.New(typ).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		case reflect.Uint16, reflect.Uint64:
			f.SetUint(1)
		case reflect.Float64:
			f.SetFloat(1)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Map:
			f.Set(reflect.MakeMap(f.Type()))
			f.SetMapIndex(reflect.Zero(f.Type().Key()), reflect.Zero(f.Type().Elem()))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	b, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

// TestOpenAPITypes looks at one field of each kind.
func TestOpenAPITypes(t *testing.T) {
	d := document(t)
	for _, c := range []struct {
		schema, field string
		want          map[string]any
	}{
		{"Container", "id", map[string]any{"type": "string"}},
		{"Container", "detached", map[string]any{"type": "boolean"}},
		{"Container", "created", map[string]any{"type": "string", "format": "date-time"}},
		{"Container", "pid", map[string]any{"type": "integer"}},
		{"Container", "command", map[string]any{"type": "array", "items": map[string]any{"type": "string"}}},
		{"MAC", "age_seconds", map[string]any{"type": "number"}},
		{"SignalRequest", "timeout", map[string]any{"type": "integer"}},
		{"Created", "link", map[string]any{"$ref": "#/components/schemas/Interface"}},
		{"Counts", "dropped", map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "integer"}}},
		{"Inspect", "Id", map[string]any{"type": "string"}},
		{"InspectNetworkSettings", "Ports", map[string]any{"type": "object",
			"additionalProperties": map[string]any{"type": "array", "items": map[string]any{"$ref": "#/components/schemas/InspectBinding"}}}},
		{"InspectNetworkSettings", "Networks", map[string]any{"type": "object",
			"additionalProperties": map[string]any{"$ref": "#/components/schemas/InspectNetwork"}}},
	} {
		if got := in(d, "components", "schemas", c.schema, "properties", c.field); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s.%s: %v, want %v", c.schema, c.field, got, c.want)
		}
	}
}
