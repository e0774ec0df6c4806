package api

import (
	"reflect"
	"strings"
	"time"
)

// OpenAPI describes Routes as an OpenAPI 3.1 document, ready to be encoded as
// JSON. It is made from the wire types, so it cannot differ from them.
func OpenAPI(version string) map[string]any {
	schemas := map[string]any{}
	paths := map[string]any{}
	for _, r := range Routes {
		methods, _ := paths[r.Path].(map[string]any)
		if methods == nil {
			methods = map[string]any{}
			paths[r.Path] = methods
		}
		methods[strings.ToLower(r.Method)] = r.operation(schemas)
	}
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title":       "fairlead node",
			"version":     version,
			"description": "HTTP and JSON on the unix socket control.sock of a node directory.",
		},
		"servers":    []any{map[string]any{"url": "http://node"}},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas},
	}
}

func (r *Route) operation(schemas map[string]any) map[string]any {
	op := map[string]any{"summary": r.Summary}
	var params []any
	for name, description := range map[string]string{
		"id":     "of a container: name, id, or unique beginning of the id",
		"name":   "of an uplink: that of its device; of a network: name, id, or unique beginning of the id",
		"number": "of a rule",
	} {
		if strings.Contains(r.Path, "{"+name+"}") { // never both
			params = append(params, map[string]any{
				"name": name, "in": "path", "required": true, "schema": map[string]any{"type": "string"}, "description": description,
			})
		}
	}
	for _, q := range r.Query {
		params = append(params, map[string]any{"name": q, "in": "query", "schema": map[string]any{"type": "string"}})
	}
	if params != nil {
		op["parameters"] = params
	}
	body := func(v any) map[string]any {
		return map[string]any{"application/json": map[string]any{"schema": schemaOf(reflect.TypeOf(v), schemas)}}
	}
	ok := map[string]any{"description": "done"}
	switch {
	case r.Upgrade:
		op["description"] = "Asks for Upgrade: " + Protocol + ". Behind 101 the client sends the message " +
			schemaName(r.In) + " as one line of JSON with its descriptors (SCM_RIGHTS) and reads " + schemaName(r.Out) + "."
		schemaOf(reflect.TypeOf(r.In), schemas)
		schemaOf(reflect.TypeOf(r.Out), schemas)
		op["responses"] = map[string]any{"101": map[string]any{"description": "the connection speaks " + Protocol}}
		return op
	case r.Stream && r.Out == nil:
		ok["content"] = map[string]any{"application/octet-stream": map[string]any{}}
	case r.Stream:
		ok["content"] = map[string]any{"application/x-ndjson": body(r.Out)["application/json"]}
	case r.Out != nil:
		ok["content"] = body(r.Out)
	}
	if r.In != nil {
		op["requestBody"] = map[string]any{"required": true, "content": body(r.In)}
	}
	op["responses"] = map[string]any{
		"200":     ok,
		"default": map[string]any{"description": "refused", "content": body(Error{})},
	}
	return op
}

func schemaName(v any) string { return reflect.TypeOf(v).Name() }

// schemaOf describes a wire type; structs land in schemas and are referred to.
func schemaOf(t reflect.Type, schemas map[string]any) map[string]any {
	switch {
	case t == reflect.TypeOf(time.Time{}):
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), schemas)}
	case t.Kind() == reflect.Struct:
		if schemas[t.Name()] == nil {
			properties := map[string]any{}
			schemas[t.Name()] = map[string]any{"type": "object", "properties": properties}
			for i := range t.NumField() {
				f := t.Field(i)
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				switch name {
				case "-": // the client's own
					continue
				case "":
					name = f.Name
				}
				properties[name] = schemaOf(f.Type, schemas)
			}
		}
		return map[string]any{"$ref": "#/components/schemas/" + t.Name()}
	case t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return map[string]any{"type": "number"}
	}
	return map[string]any{"type": "integer"}
}
