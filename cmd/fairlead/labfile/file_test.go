package labfile

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// All keys there are.
const everything = `
name: all
x-common: &common
  env: {A: 1}
networks:
  left:
    subnet: 10.1.0.0/24
    gateway: 10.1.0.254
    ip-range: 10.1.0.128/25
    aux-addresses: {printer: 10.1.0.9}
    internal: yes
    options: {mtu: 1400, hub: on}
    egress: internet
    host-loopback: on
    uplinks: [host]
    rules: web db:5432
    labels: {use: test}
  right:
  old: {external: true}
containers:
  web:
    <<: *common
    command: echo $HOME; sleep infinity
    networks:
      left: {ip: 10.1.0.130, mac: "02:42:0A:01:00:82", interface: lan0, aliases: [www, web.example], priority: 7, routes: [10.2.0.0/16 via 10.1.0.131], options: [offload=off]}
      old:
    ports: ["8080:80", 53/udp]
    expose: 443
    publish-all: true
    links: [db:sql]
    env: [A=2, HOME, B=x=y]
    workdir: /
    hostname: www
    sysctls: {net.ipv4.ip_forward: 1}
    rate-in: 100mbit
    rate-out: 10mbit
    egress: none
    labels: [a=b]
    wait-for: [db:5432]
  db:
    command: [sleep, 1000]
  probe:
    command: [sh]
    networks: container:web
  two:
    command: [sh]
    networks: [left, right]
`

func TestRead(t *testing.T) {
	f, err := Read("all.yaml", "/all.yaml", []byte(everything), "file")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range f.Containers {
		names = append(names, c.Name)
	}
	if want := []string{"db", "web", "probe", "two"}; f.Name != "all" || !reflect.DeepEqual(names, want) {
		t.Errorf("lab %s, containers start as %q, want %q", f.Name, names, want)
	}
	for got, want := range map[string]string{
		f.network("left").Config(): `{"subnet":"10.1.0.0/24","gateway":"10.1.0.254","ip-range":"10.1.0.128/25","aux-addresses":["printer=10.1.0.9"],"internal":true,` +
			`"options":["mtu=1400","hub=on"],"egress":"internet","host-loopback":true,"uplinks":["host"],"rules":["web db:5432"],"labels":["use=test"]}`,
		f.network("right").Config(): `{}`,
		f.network("old").Config():   `{"external":true}`,
		f.container("web").Config(): `{"command":["sh","-c","echo $HOME; sleep infinity"],"networks":[{"network":"left","ip":"10.1.0.130","mac":"02:42:0a:01:00:82","interface":"lan0",` +
			`"aliases":["www","web.example"],"priority":7,"routes":["10.2.0.0/16 via 10.1.0.131"],"options":["offload=off"]},{"network":"old"}],"ports":["8080:80","53/udp"],"expose":["443"],` +
			`"publish-all":true,"links":["db:sql"],"env":["A=2","HOME","B=x=y"],"workdir":"/","hostname":"www","sysctls":["net.ipv4.ip_forward=1"],` +
			`"rate-in":"100mbit","rate-out":"10mbit","egress":"none","labels":["a=b"]}`,
		f.container("db").Config():    `{"command":["sleep","1000"]}`,
		f.container("probe").Config(): `{"command":["sh"],"mode":"container:web"}`,
		f.container("two").Config():   `{"command":["sh"],"networks":[{"network":"left"},{"network":"right"}]}`,
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// Each file of wrong.txt is wrong in one place or more, and all of them are said.
func TestWrongFiles(t *testing.T) {
	name := filepath.Join("testdata", "wrong.txt")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(data), "=== file\n")
	files := strings.Split(rest, "=== file\n")
	for i, entry := range files {
		file, want, _ := strings.Cut(entry, "=== says\n")
		_, err := Read("lab.yaml", "/lab.yaml", []byte(file), "lab")
		got := "nothing"
		if err != nil {
			got = err.Error()
		}
		if got += "\n"; got != want && !*update {
			t.Errorf("%s\ngot\n%s\nwant\n%s", file, got, want)
		}
		files[i] = file + "=== says\n" + got
	}
	if len(files) < 50 {
		t.Errorf("%d wrong files, want 50 at least", len(files))
	}
	if *update {
		if err := os.WriteFile(name, []byte(head+"=== file\n"+strings.Join(files, "=== file\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A few lines of aliases stand for more than fits anywhere.
func TestBombs(t *testing.T) {
	lists := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'z'; c++ {
		lists += strings.ReplaceAll("N: &N [*P,*P,*P,*P,*P,*P,*P,*P,*P]\n", "N", string(c))
		lists = strings.ReplaceAll(lists, "*P", "*"+string(c-1))
	}
	merges := "x-a: &a {k: 1}\n"
	for c := 'b'; c < 'q'; c++ {
		merges += "x-" + string(c) + ": &" + string(c) + " {<<: [" + strings.Repeat("*"+string(c-1)+", ", 9) + "]}\n"
	}
	merges += "networks: {w: {options: *p}}\n"
	wide := "x-a: &a\n"
	for range 1000 {
		wide += "  - a=b\n"
	}
	wide += "containers:\n"
	for i := range 200 {
		wide += "  c" + strings.Repeat("x", i%60) + string(rune('a'+i/60)) + ": {command: *a}\n"
	}
	long := "networks: {w: {labels: {a: " + strings.Repeat("x", 3000) + ", b: " + strings.Repeat("x", 3000) + ", c: " + strings.Repeat("x", 3000) + "}}}\n" +
		"containers: {c: {command: [" + strings.Repeat("x", 70_000) + "]}}"
	for name, file := range map[string]string{"long": long, "lists": "x-l:\n  " + strings.ReplaceAll(lists, "\n", "\n  "), "merges": merges, "wide": wide} {
		_, err := Read("lab.yaml", "/lab.yaml", []byte(file), "lab")
		if err == nil {
			t.Errorf("%s: nothing is said", name)
			continue
		}
		t.Log(name, err)
	}
}

var update = flag.Bool("update", false, "write docs/lab.schema.json and testdata/wrong.txt anew")

// The schema that is shipped is that of the grammar.
func TestSchema(t *testing.T) {
	name := filepath.Join("..", "..", "..", "docs", "lab.schema.json")
	if *update {
		if err := os.WriteFile(name, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shipped, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(shipped, Schema()) {
		t.Errorf("%s is not what `fairlead up --schema` prints (%v); go test ./cmd/fairlead/labfile -run TestSchema -update", name, err)
	}
}

// docs/lab.md is about every key.
func TestKeysAreDescribed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "lab.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if key := k.Name[strings.LastIndexByte(k.Name, '.')+1:]; !bytes.Contains(text, []byte("`"+key+"`")) {
			t.Errorf("docs/lab.md says nothing of %s", k.Name)
		}
		if k.Doc == "" || strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: %q", k.Name, k.Doc)
		}
	}
}
