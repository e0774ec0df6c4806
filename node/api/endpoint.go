package api

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// endpointForm is the long form of --network, for error messages.
const endpointForm = "--network takes NETWORK, or name=NETWORK,ip=…,mac-address=…,alias=…,ifname=…,gw-priority=…"

// ParseEndpoint reads an argument of `run --network` that is the name of a network
// or, as Docker has it, name=NETWORK with what is wanted there:
//
//	name=lab,ip=172.18.0.9,alias=db,alias=sql,mac-address=02:42:00:00:00:09,gw-priority=1,ifname=lab0
//
// further route=SUBNET@ROUTER, link=NAME:ALIAS and driver-opt=KEY=VALUE. An ip of
// dhcp asks for one on the network.
func ParseEndpoint(s string) (EndpointRequest, error) {
	if !strings.Contains(s, "=") {
		return EndpointRequest{Network: s}, nil
	}
	// As Docker reads it: a field with a comma stands in quotes.
	r := csv.NewReader(strings.NewReader(s))
	fields, err := r.Read()
	if _, more := r.Read(); err == nil && !errors.Is(more, io.EOF) {
		err = errors.New("it has more than one line")
	}
	if err != nil {
		return EndpointRequest{}, fmt.Errorf("invalid network %q: %w; %s", s, err, endpointForm)
	}
	var e EndpointRequest
	seen := map[string]bool{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !ok || key == "" {
			return EndpointRequest{}, fmt.Errorf("invalid field %s: it is no KEY=VALUE; %s", field, endpointForm)
		}
		if value = strings.TrimSpace(value); value == "" {
			return EndpointRequest{}, fmt.Errorf("invalid field %s: its value is missing; %s", field, endpointForm)
		}
		if seen[key] && !repeated[key] {
			return EndpointRequest{}, fmt.Errorf("invalid field %s: there is one already; %s", field, endpointForm)
		}
		seen[key] = true
		if err := e.set(key, value); err != nil {
			return EndpointRequest{}, fmt.Errorf("invalid field %s: %w; %s", field, err, endpointForm)
		}
	}
	if e.Network == "" {
		return EndpointRequest{}, fmt.Errorf("network name required: %q has no name=; %s", s, endpointForm)
	}
	return e, nil
}

// repeated are keys that may come more than once.
var repeated = map[string]bool{"alias": true, "link": true, "route": true, "driver-opt": true}

func (e *EndpointRequest) set(key, value string) error {
	switch key {
	case "name":
		e.Network = value
	case "ip":
		return e.SetIP(value)
	case "mac-address", "mac":
		e.MAC = value
	case "ifname":
		e.Interface = value
	case "gw-priority":
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", value)
		}
		e.Priority = n
	case "alias":
		e.Aliases = append(e.Aliases, value)
	case "link":
		e.Links = append(e.Links, value)
	case "route":
		if _, _, err := ParseRoute(value); err != nil {
			return err
		}
		e.Routes = append(e.Routes, value)
	case "driver-opt":
		option, value, ok := strings.Cut(value, "=")
		if !ok || option == "" {
			return fmt.Errorf("%q is no option, such as offload=off", option)
		}
		if e.Options == nil {
			e.Options = map[string]string{}
		}
		e.Options[option] = value
	default:
		return fmt.Errorf("invalid field key %s", key)
	}
	return nil
}

// SetIP sets the address that is wanted; dhcp is one the network gives out.
func (e *EndpointRequest) SetIP(s string) error {
	if s == "dhcp" {
		e.IP, e.DHCP = "", true
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return fmt.Errorf("invalid IPv4 address: %s", s)
	}
	e.IP, e.DHCP = s, false
	return nil
}

// String writes the request as ParseEndpoint reads it, in one form only.
func (e EndpointRequest) String() string {
	var fields []string
	add := func(key string, values ...string) {
		for _, v := range values {
			if v != "" {
				fields = append(fields, key+"="+v)
			}
		}
	}
	add("ip", e.IP)
	if e.DHCP {
		add("ip", "dhcp")
	}
	add("mac-address", e.MAC)
	add("ifname", e.Interface)
	if e.Priority != 0 {
		add("gw-priority", strconv.Itoa(e.Priority))
	}
	add("alias", e.Aliases...)
	add("link", e.Links...)
	add("route", e.Routes...)
	for _, key := range sortedKeys(e.Options) {
		add("driver-opt", key+"="+e.Options[key])
	}
	if len(fields) == 0 && !strings.Contains(e.Network, "=") {
		return e.Network
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(append([]string{"name=" + e.Network}, fields...)) // a Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func sortedKeys(m map[string]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ParseRoute reads SUBNET@ROUTER, 10.1.0.0/16@172.18.0.2: what a container reaches
// by another one. Without a router the subnet is on the link itself.
func ParseRoute(s string) (to netip.Prefix, via netip.Addr, err error) {
	subnet, router, by := strings.Cut(s, "@")
	to, err = netip.ParsePrefix(subnet)
	if err != nil || !to.Addr().Is4() {
		return netip.Prefix{}, via, fmt.Errorf("invalid route %s: %q is no subnet; a route is SUBNET@ROUTER, such as 10.1.0.0/16@172.18.0.2", s, subnet)
	}
	if to != to.Masked() {
		return netip.Prefix{}, via, fmt.Errorf("invalid route %s: %s is an address of the subnet %s; a route is SUBNET@ROUTER", s, to, to.Masked())
	}
	if !by {
		return to, via, nil
	}
	if via, err = netip.ParseAddr(router); err != nil || !via.Is4() {
		return netip.Prefix{}, netip.Addr{}, fmt.Errorf("invalid route %s: %q is no IPv4 address; a route is SUBNET@ROUTER, such as 10.1.0.0/16@172.18.0.2", s, router)
	}
	return to, via, nil
}
