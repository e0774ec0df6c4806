package api

import (
	"fmt"
	"strings"
)

// Any is, in a rule, every container of the network.
const Any = "any"

// RuleRequest is the body of POST /v1/rules: From may open connections to To.
type RuleRequest struct {
	Network string `json:"network,omitempty"` // empty is the default network
	From    string `json:"from"`              // the name of a container, or any
	To      string `json:"to"`                // NAME[:PORT[-PORT][/tcp|/udp]]; NAME may be any
}

// Rule is one that was added: an element of GET /v1/rules/added. Names follow the
// containers that have them; there may be none yet.
type Rule struct {
	Number  int    `json:"number"`
	Network string `json:"network"`
	From    string `json:"from"`
	To      string `json:"to"`
	// Needed says that containers of the network do not talk to one another by
	// themselves (icc=off). Else the rule opens nothing they have not.
	Needed  bool     `json:"needed"`
	Missing []string `json:"missing,omitempty"` // names of no container on the network
	Packets uint64   `json:"packets"`
	Bytes   uint64   `json:"bytes"`
}

// A RuleSpec is what a RuleRequest says, taken apart.
type RuleSpec struct {
	From, To string
	Ports    PortRange // none: everything
	Proto    string    // tcp, udp; empty without ports
}

// ruleForm is the form of a rule, for error messages.
const ruleForm = "a rule is FROM TO[:PORT[-PORT][/tcp|/udp]], such as web db:5432, with names of containers or any"

// ValidName reports whether a container, a network or an alias can have the name s:
// [a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}. It is no regexp because one that is compiled when
// the program starts is in the memory of every container's init.
func ValidName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// ParseRule reads the two words of a rule: web db:5432.
func ParseRule(from, to string) (s RuleSpec, err error) {
	name, ports, has := strings.Cut(to, ":")
	s = RuleSpec{From: from, To: name}
	for _, name := range []string{s.From, s.To} {
		if !ValidName(name) {
			return RuleSpec{}, fmt.Errorf("%q is no name of a container; %s", name, ruleForm)
		}
	}
	if s.From == s.To && s.From != Any {
		return RuleSpec{}, fmt.Errorf("%s reaches itself without a rule; %s", s.From, ruleForm)
	}
	if has {
		if s.Ports, s.Proto, err = parsePorts(ports); err != nil {
			return RuleSpec{}, fmt.Errorf("%s: %w; %s", to, err, ruleForm)
		}
	}
	return s, nil
}

// Target is the second word of the rule, in one form only.
func (s RuleSpec) Target() string {
	if s.Ports.Len() == 0 {
		return s.To
	}
	return fmt.Sprintf("%s:%s/%s", s.To, s.Ports, s.Proto)
}

func (s RuleSpec) String() string { return s.From + " → " + s.Target() }

// ParseLink reads NAME[:ALIAS] as Docker's --link does; NAME may be an id, and
// without an alias it is one itself.
func ParseLink(s string) (name, alias string, err error) {
	name, alias, has := strings.Cut(s, ":")
	if !has {
		alias = name
	}
	name, alias = strings.TrimPrefix(name, "/"), strings.TrimPrefix(alias, "/") // as docker inspect has them
	if s == "" || name == "" || alias == "" || strings.Contains(alias, ":") {
		return "", "", fmt.Errorf("bad format for links: %s; --link takes NAME or NAME:ALIAS, such as web1:db", s)
	}
	for _, w := range []string{name, alias} {
		if !ValidName(w) {
			return "", "", fmt.Errorf("bad format for links: %s: %q is no name; --link takes NAME or NAME:ALIAS, such as web1:db", s, w)
		}
	}
	return name, alias, nil
}

// UpdateRequest is the body of POST /v1/containers/ID/update: what is to change of
// a container that runs. What is missing stays as it is.
type UpdateRequest struct {
	RateIn  *string `json:"rate_in,omitempty"` // as in CreateRequest; none takes it away
	RateOut *string `json:"rate_out,omitempty"`
}
