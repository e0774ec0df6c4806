package test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fairlead/arp"
	"fairlead/cmd/fairlead/labfile"
	"fairlead/dhcp"
	"fairlead/dns"
	"fairlead/gateway"
	"fairlead/link"
	"fairlead/nat"
	nodes "fairlead/node"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/policy"
	vswitch "fairlead/switch"
	"fairlead/trace"
	"fairlead/uplink"
	"fairlead/uplink/sockets"
)

//go:generate go test . -run ^TestLimitsPage$ -args -write

var writePage = flag.Bool("write", false, "write the tables of docs/limits.md anew")

// limits are the bounds of all packages, in the order of the page.
var limits = []struct {
	title, folder string
	list          func() []packet.Limit
}{
	{"A frame", "packet", packet.Limits},
	{"A link", "link", link.Limits},
	{"A switch", "switch", vswitch.Limits},
	{"Neighbours", "arp", arp.Limits},
	{"The router", "gateway", gateway.Limits},
	{"NAT", "nat", nat.Limits},
	{"Uplinks that are a link", "uplink", uplink.Limits},
	{"The uplink of host sockets", "uplink/sockets", sockets.Limits},
	{"Names", "dns", dns.Limits},
	{"DHCP", "dhcp", dhcp.Limits},
	{"Policies", "policy", policy.Limits},
	{"Traces", "trace", trace.Limits},
	{"Networks", "node/network", network.Limits},
	{"A node", "node", nodes.Limits},
	{"Containers' inits", "node/box", box.Limits},
	{"Requests", "node/api", api.Limits},
	{"The file of a lab", "cmd/fairlead/labfile", labfile.Limits},
}

// Where the tables stand in the page.
const limitsBegin, limitsEnd = "<!-- made by go generate ./test of what the code says -->\n", "<!-- end -->\n"

// The page says what the code says.
func TestLimitsPage(t *testing.T) {
	const name = "docs/limits.md"
	page := read(t, name)
	before, rest, ok := strings.Cut(page, limitsBegin)
	_, after, ok2 := strings.Cut(rest, limitsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no part between %q and %q", name, limitsBegin, limitsEnd)
	}
	want := before + limitsBegin + limitTables() + limitsEnd + after
	if *writePage {
		if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if page != want {
		t.Errorf("%s says something else than the code; try: go generate ./test", name)
	}
}

func limitTables() string {
	var b bytes.Buffer
	for _, part := range limits {
		fmt.Fprintf(&b, "\n### %s\n\n| of what | at most | one container | beyond that |\n| --- | --- | --- | --- |\n", part.title)
		for _, l := range part.list() {
			beyond := l.Beyond
			if len(l.Reasons) > 0 {
				names := make([]string, len(l.Reasons))
				for i, r := range l.Reasons {
					names[i] = "`" + r.String() + "`"
				}
				beyond += " (" + strings.Join(names, ", ") + ")"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.What, l.Most, l.Share, beyond)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// bounds are constants that bound something, by their names.
var bounds = regexp.MustCompile(`^(max|Max|most)[A-Z]|(Per(Container|Port|Conn|Source)|Slots|Limit|AtOnce|OfOne|OfAll)$`)

// noLimits are constants with such a name that bound nothing that grows.
var noLimits = map[string]string{
	"arp MaxAge":                       "a time",
	"arp maxAsks":                      "how often one address is asked for",
	"cmd/fairlead/labfile maxArgument": "the kernel's",
	"dhcp leastPerContainer":           "a least",
	"dhcp maxRequests":                 "how often one server is asked",
	"link sendAtOnce":                  "of one call",
	"nat maxNumber":                    "of the index' words; maxFlows is below",
	"nat maxSYN":                       "the length of a packet",
	"nat wheelSlots":                   "of a fixed ring",
	"node flowsAtOnce":                 "of one call",
	"node logLimit":                    "node/box's",
	"node mostFlows":                   "nat's maxFlows",
	"node/box maxMTU":                  "the kernel's",
	"node/box maxProc":                 "of files of the kernel",
	"node/network maxPacket":           "IPv4's",
	"packet AddressLimit":              "a Reason",
	"packet FloodLimit":                "a Reason",
	"packet RateLimit":                 "a Reason",
	"policy maxVLAN":                   "IEEE 802.1Q's",
	"policy mostBandwidth":             "of a number",
	"switch maxNetworks":               "of an index; node/network has fewer",
	"uplink/sockets maxAheadBits":      "maxAhead's",
	"uplink/sockets maxDuplicates":     "RFC 9293's",
	"uplink/sockets maxMSS":            "TCP's",
	"uplink/sockets maxPacket":         "IPv4's",
	"uplink/sockets maxPayload":        "UDP's",
	"uplink/sockets maxQuoted":         "the length of a packet",
	"uplink/sockets maxRTO":            "a time",
	"uplink/sockets maxSkip":           "of one read",
	"uplink/sockets sendAtOnce":        "of one call",
}

// A constant that bounds something is in a function Limits, so that the page has
// it.
func TestLimitsAreListed(t *testing.T) {
	constants, listed := map[string]string{}, map[string]bool{}
	for _, f := range sources(t) {
		dir := path.Dir(f.path)
		if f.isTest() || !hasLimits(dir) {
			continue
		}
		for _, d := range f.syntax.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				for _, spec := range g.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						if bounds.MatchString(name.Name) {
							constants[dir+" "+name.Name] = f.position(name)
						}
					}
				}
			}
		}
		if path.Base(f.path) != "limits.go" && f.path != "packet/limit.go" {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				listed[dir+" "+id.Name] = true
			}
			return true
		})
	}
	for name, at := range constants {
		if _, none := noLimits[name]; !listed[name] && !none {
			t.Errorf("%s: %s is in no function Limits", at, name)
		}
	}
	for name := range noLimits {
		if _, ok := constants[name]; !ok || listed[name] {
			t.Errorf("noLimits holds %s for nothing", name)
		}
	}
}

func hasLimits(dir string) bool {
	for _, part := range limits {
		if part.folder == dir {
			return true
		}
	}
	return false
}
