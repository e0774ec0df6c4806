package labfile

import (
	"encoding/json"
	"slices"
)

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

// A Key is a key of the file, such as containers.NAME.command, and what it is for.
type Key struct{ Name, Doc string }

// Keys are all of them, in the order of the grammar.
func Keys() []Key {
	below := func(prefix string, fields []field) (keys []Key) {
		for _, f := range fields {
			keys = append(keys, Key{prefix + f.key, f.doc})
		}
		return keys
	}
	return slices.Concat(below("", new(File).fields()), below("networks.NAME.", new(Network).fields()),
		below("containers.NAME.", new(Container).fields()), below("containers.NAME.networks.NAME.", new(Endpoint).fields()))
}
