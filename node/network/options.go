package network

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	vswitch "fairlead/switch"
)

// Options are what `--opt` sets.
type Options struct {
	MTU        int           // mtu
	Hub        bool          // hub
	Ageing     time.Duration // ageing: of MAC addresses
	Unguarded  bool          // guard=off: ports may use any source but the gateway's
	LoopsLeft  bool          // loop-guard=off: ports that are joined elsewhere stay open
	FloodLimit int           // flood-limit: copies of flooded frames a second and port; negative is none
	Textbook   bool          // offload=off: links are textbook wires, unless a container's own says otherwise
	Veth       bool          // link=veth: links are pairs of interfaces

	// What may change while the network is used.
	ICCOff         bool // icc=off: containers do not reach one another
	NotMasqueraded bool // masquerade=off: what leaves keeps the containers' addresses
	Unjoined       bool // join=off: every packet gets to its container as it came
	Routed         bool // routed=on: it and others that are routed reach one another
	DHCP           DHCP
}

// An option is one that `--opt` may name.
type option struct {
	set  func(o *Options, value string) error
	live bool // may change while the network is used
}

var options = map[string]option{
	"mtu": {set: func(o *Options, value string) (err error) { o.MTU, err = number(value, 576, 65521); return err }},
	"ageing": {set: func(o *Options, value string) (err error) {
		if o.Ageing, err = time.ParseDuration(value); err != nil || o.Ageing < time.Second || o.Ageing > 1e6*time.Second {
			return fmt.Errorf("%q is not a time from 1s to 1000000s, such as 300s", value)
		}
		return nil
	}},
	"flood-limit": {set: func(o *Options, value string) (err error) {
		if o.FloodLimit, err = number(value, 0, 100_000_000); o.FloodLimit == 0 {
			o.FloodLimit = -1
		}
		return err
	}},
	"link": {set: func(o *Options, value string) error {
		if value != "tap" && value != "veth" {
			return fmt.Errorf("%q is neither tap nor veth", value)
		}
		o.Veth = value == "veth"
		return nil
	}},
	"hub":        {set: flag(func(o *Options, on bool) { o.Hub = on })},
	"guard":      {set: flag(func(o *Options, on bool) { o.Unguarded = !on })},
	"loop-guard": {set: flag(func(o *Options, on bool) { o.LoopsLeft = !on })},
	"offload":    {set: flag(func(o *Options, on bool) { o.Textbook = !on })},
	"join":       {live: true, set: flag(func(o *Options, on bool) { o.Unjoined = !on })},
	"icc":        {live: true, set: flag(func(o *Options, on bool) { o.ICCOff = !on })},
	"masquerade": {live: true, set: flag(func(o *Options, on bool) { o.NotMasqueraded = !on })},
	"routed":     {live: true, set: flag(func(o *Options, on bool) { o.Routed = on })},

	// Of the DHCP server, by dnsmasq's names where it has them.
	"dhcp":       {live: true, set: setDHCP},
	"dhcp-lease": {live: true, set: setLease},
	"dhcp-range": {live: true, set: setRange},
	"dhcp-host":  {live: true, set: setHosts},
	"dhcp-route": {live: true, set: setRoutes},
	"domain":     {live: true, set: setDomain},
}

// dockers are Docker's names of options, by which they may be called too.
var dockers = map[string]string{
	"com.docker.network.bridge.enable_icc":           "icc",
	"com.docker.network.bridge.enable_ip_masquerade": "masquerade",
	"com.docker.network.driver.mtu":                  "mtu",
}

func flag(set func(o *Options, on bool)) func(o *Options, value string) error {
	return func(o *Options, value string) error {
		on, err := onOff(value)
		if err == nil {
			set(o, on)
		}
		return err
	}
}

// ParseOptions reads `--opt` pairs. The error names the option.
func ParseOptions(pairs map[string]string) (Options, error) {
	o := Options{MTU: DefaultMTU, Ageing: vswitch.DefaultAgeing}
	if err := o.read(pairs, false); err != nil {
		return o, err
	}
	if o.FloodLimit == 0 {
		o.FloodLimit = vswitch.DefaultFloodLimit
		if o.Hub {
			o.FloodLimit = -1 // a hub floods everything, that is what it is for
		}
	}
	return o, nil
}

// Changed is what becomes of the options of a network that is used. The error
// names the option that cannot change then.
func (o Options) Changed(pairs map[string]string) (Options, error) {
	return o, o.read(pairs, true)
}

func (o *Options) read(pairs map[string]string, live bool) error {
	keys := make([]string, 0, len(pairs))
	for key := range pairs {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	named := map[string]string{}
	for _, key := range keys {
		name := key
		if own := dockers[key]; own != "" {
			name = own
		}
		x, known := options[name]
		switch {
		case !known:
			return fmt.Errorf("unknown option %q; a network has %s, and all together flows and flows-per-container", key, optionNames(false))
		case named[name] != "":
			return fmt.Errorf("option %s: it is given as %s too", key, named[name])
		case live && !x.live:
			return fmt.Errorf("option %s cannot change while the network is there; %s can, and `fairlead network create` makes another", key, optionNames(true))
		}
		named[name] = key
		if err := x.set(o, pairs[key]); err != nil {
			return fmt.Errorf("option %s: %w", key, err)
		}
	}
	if o.Textbook && o.Veth {
		return errors.New("options offload=off and link=veth exclude each other: a textbook wire is a TAP; leave one of them out")
	}
	return nil
}

// OptionNames lists the options, or with live those that may change while a
// network is used.
func OptionNames(live bool) []string {
	var names []string
	for name, x := range options {
		if x.live || !live {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// optionNames has them as a sentence has.
func optionNames(live bool) string {
	names := OptionNames(live)
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

func number(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not a number from %d to %d", s, least, most)
	}
	return n, nil
}

func onOff(s string) (bool, error) {
	switch s {
	case "on", "true", "1", "yes":
		return true, nil
	case "off", "false", "0", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", s)
}
