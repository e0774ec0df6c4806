package labfile

import "encoding/json"

// A schema is a part of a JSON schema (draft 2020-12).
type schema map[string]any

// Schema is the JSON schema of a file, for editors. It is made from the grammar
// the file is read by.
func Schema() []byte {
	s := object(new(File).fields()).schema
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "A lab of fairlead: networks and containers, for `fairlead up -f`"
	s["type"] = "object"
	s["patternProperties"] = schema{"^x-": schema{"description": "Anything; a place for anchors"}}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // of maps and texts of our own
	}
	return append(b, '\n')
}
