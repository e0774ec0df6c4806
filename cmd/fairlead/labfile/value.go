package labfile

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A value is one place of the grammar: how what stands there is read, and how the
// schema describes it. So the two cannot differ.
type value struct {
	read   func(d *decoder, n *yaml.Node)
	schema schema
}

// A field is a key of a mapping.
type field struct {
	key, doc string
	value    value
}

// maxText bounds a text that is no command.
const maxText = 4096

// scalar is one text of at most most bytes. set takes it, or says what is wrong.
func scalar(kind string, most int, s schema, set func(text string) error) value {
	return value{schema: s, read: func(d *decoder, n *yaml.Node) {
		switch {
		case isNull(n):
			d.fail(n, "there is no value; it takes %s", kind)
		case n.Kind != yaml.ScalarNode:
			d.fail(n, "it takes %s, and this is %s", kind, kindOf(n))
		case len(n.Value) > most:
			d.fail(n, "a text of %d bytes, %d are the most", len(n.Value), most)
		case strings.ContainsRune(n.Value, 0):
			d.fail(n, "it holds a zero byte")
		default:
			if err := set(n.Value); err != nil {
				d.fail(n, "%v", err)
			}
		}
	}}
}

// text is a text that check takes, if there is one.
func text(into *string, kind string, check func(string) error) value {
	return scalar(kind, maxText, schema{"type": "string"}, func(s string) error {
		if check != nil {
			if err := check(s); err != nil {
				return err
			}
		}
		*into = s
		return nil
	})
}

// number is a whole number within bounds.
func number(into *int, least, most int) value {
	s := schema{"type": "integer", "minimum": least, "maximum": most}
	return scalar("a number", maxText, s, func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", text, least, most)
		}
		*into = n
		return nil
	})
}

// onOff is yes or no, in the words of YAML and of our options.
func onOff(into *bool) value {
	return scalar("true or false", maxText, schema{"enum": []any{true, false, "on", "off", "yes", "no"}}, func(text string) error {
		switch text {
		case "true", "on", "yes":
			*into = true
		case "false", "off", "no":
			*into = false
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
		return nil
	})
}

// address is an IPv4 address.
func address(into *string) value {
	return scalar("an address", maxText, schema{"type": "string", "format": "ipv4"}, func(text string) (err error) {
		*into, err = parseAddress(text)
		return err
	})
}

func parseAddress(text string) (string, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return "", fmt.Errorf("%q is not an IPv4 address, such as 10.1.0.2", text)
	}
	return a.String(), nil
}

// subnet is an IPv4 subnet.
func subnet(into *string) value {
	return scalar("a subnet", maxText, schema{"type": "string", "pattern": `^[0-9.]+/[0-9]+$`}, func(text string) error {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || !p.Addr().Is4():
			return fmt.Errorf("%q is not an IPv4 subnet, such as 10.1.0.0/24", text)
		case p != p.Masked():
			return fmt.Errorf("%s has bits behind its length; %s is the subnet", p, p.Masked())
		}
		*into = p.String()
		return nil
	})
}

// mac is a MAC address of one station.
func mac(into *string) value {
	return scalar("a MAC address", maxText, schema{"type": "string", "pattern": `^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$`}, func(text string) error {
		hw, err := net.ParseMAC(text)
		if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
			return fmt.Errorf("%q is not the MAC address of a station, such as 02:42:0a:01:00:02", text)
		}
		*into = hw.String()
		return nil
	})
}

// list is a list of texts. One text is a list of one.
func list(into *[]string, kind string, check func(string) error) value {
	one := func() value {
		*into = append(*into, "")
		return text(&(*into)[len(*into)-1], kind, check)
	}
	item := scalar(kind, maxText, schema{"type": []any{"string", "number"}}, nil).schema
	return value{
		schema: schema{"oneOf": []any{item, schema{"type": "array", "items": item}, schema{"type": "null"}}},
		read: func(d *decoder, n *yaml.Node) {
			switch {
			case isNull(n):
			case n.Kind == yaml.SequenceNode:
				d.each(n, one)
			case n.Kind == yaml.ScalarNode:
				one().read(d, n)
			default:
				d.fail(n, "it takes a list, and this is %s", kindOf(n))
			}
		},
	}
}

// each reads every element of a list by a value of its own.
func (d *decoder) each(n *yaml.Node, next func() value) {
	for i, item := range n.Content {
		d.read(fmt.Sprintf("[%d]", i), item, item, next())
	}
}

// settings are NAME=VALUE, as a mapping or as a list. A name without a value is
// kept without =, where alone allows it.
func settings(into *[]string, alone bool, check func(name, value string) error) value {
	set := func(d *decoder, n *yaml.Node, name, value string, hasValue bool) {
		switch {
		case !hasValue && !alone:
			d.fail(n, "%q is not NAME=VALUE", name)
		case slices.ContainsFunc(*into, func(s string) bool { return before(s, "=") == name }):
			d.fail(n, "%s is given twice", name)
		default:
			if check != nil {
				if err := check(name, value); err != nil {
					d.fail(n, "%v", err)
					return
				}
			}
			if hasValue {
				name += "=" + value
			}
			*into = append(*into, name)
		}
	}
	one := schema{"type": []any{"string", "number", "boolean", "null"}}
	return value{
		schema: schema{"oneOf": []any{
			schema{"type": "object", "additionalProperties": one},
			schema{"type": "array", "items": schema{"type": "string"}},
			schema{"type": "null"},
		}},
		read: func(d *decoder, n *yaml.Node) {
			switch {
			case isNull(n):
			case n.Kind == yaml.SequenceNode:
				d.each(n, func() value {
					return value{read: func(d *decoder, n *yaml.Node) {
						scalar("NAME=VALUE", maxText, nil, func(text string) error {
							name, value, has := strings.Cut(text, "=")
							set(d, n, name, value, has)
							return nil
						}).read(d, n)
					}}
				})
			case n.Kind == yaml.MappingNode:
				for _, p := range d.pairs(n, 0) {
					name := p.key.Value
					d.read("."+name, p.key, p.value, value{read: func(d *decoder, n *yaml.Node) {
						if isNull(n) {
							set(d, n, name, "", false)
							return
						}
						scalar("a text", maxText, nil, func(text string) error { set(d, n, name, text, true); return nil }).read(d, n)
					}})
				}
			default:
				d.fail(n, "it takes a mapping or a list of NAME=VALUE, and this is %s", kindOf(n))
			}
		},
	}
}

// before is what stands before the first sign.
func before(s, sign string) string {
	front, _, _ := strings.Cut(s, sign)
	return front
}

// object is a mapping with known keys. Nothing written is a mapping without any.
func object(fields []field) value {
	properties := schema{}
	for _, f := range fields {
		s := schema{"description": f.doc}
		for k, v := range f.value.schema {
			s[k] = v
		}
		properties[f.key] = s
	}
	return value{
		schema: schema{"type": []any{"object", "null"}, "properties": properties, "additionalProperties": false},
		read: func(d *decoder, n *yaml.Node) {
			switch {
			case isNull(n):
				return
			case n.Kind != yaml.MappingNode:
				d.fail(n, "it takes keys such as %s, and this is %s", fields[0].key, kindOf(n))
				return
			}
			for _, p := range d.pairs(n, 0) {
				i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.key.Value })
				switch {
				case i < 0 && len(d.path) == 1 && strings.HasPrefix(p.key.Value, "x-"):
					continue // a place for anchors, as in others' files
				case i < 0:
					d.unknown(p.key, fields)
					continue
				}
				d.read("."+p.key.Value, p.key, p.value, fields[i].value)
			}
		},
	}
}

// mapping is a mapping from names to objects of some fields. add takes a name and
// returns the fields of what stands behind it.
func mapping(kind string, like []field, check func(name string) error, add func(name string) []field) value {
	return value{
		schema: schema{"type": []any{"object", "null"}, "additionalProperties": object(like).schema},
		read: func(d *decoder, n *yaml.Node) {
			switch {
			case isNull(n):
				return
			case n.Kind != yaml.MappingNode:
				d.fail(n, "it takes %s by name, and this is %s", kind, kindOf(n))
				return
			}
			for _, p := range d.pairs(n, 0) {
				if err := check(p.key.Value); err != nil {
					d.fail(p.key, "%v", err)
					continue
				}
				d.read("."+p.key.Value, p.key, p.value, object(add(p.key.Value)))
			}
		},
	}
}
