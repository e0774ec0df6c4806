package main

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"

	"fairlead/node/api"
)

// The samples have lines the tools printed in a namespace with a bridge docker0,
// an interface eth0 to 192.0.2.1 and rules as Docker sets them: brctl 1.7,
// net-tools 2.10, iptables 1.8.9, conntrack 1.4.7, iproute2 6.1. Blanks at the
// ends of lines are theirs.

// asTool compares what print prints with a tool's sample.
func asTool(t *testing.T, sample string, print func(io.Writer) error) {
	t.Helper()
	var out bytes.Buffer
	if err := print(&out); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(sample, "\n"); out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

// named has the protocols of a sample as names: iptables 1.8.9 printed numbers
// with -n, versions before and after it print names as we do.
func named(sample string) string {
	for number, name := range map[string]string{"0   ": "all ", "6   ": "tcp ", "17  ": "udp "} {
		sample = regexp.MustCompile(`(?m)^( *\d+ +\d+ \S+ +)`+number+` --`).ReplaceAllString(sample, "${1}"+name+" --")
	}
	return sample
}

func TestSwitchAsBrctl(t *testing.T) {
	asTool(t, "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n"+
		"docker0\t\t8000.0242ac110001\tno\t\tv0\n"+
		"\t\t\t\t\t\t\tv1\n"+
		"empty\t\t8000.000000000000\tno\t\t\n", func(w io.Writer) error {
		return switchAsBrctl(w, []api.Switch{
			{Network: "docker0", BridgeID: "8000.0242ac110001", Ports: []api.Port{{Container: "v0"}, {Container: "v1"}}},
			{Network: "empty", BridgeID: "8000.000000000000"},
		})
	})
}

func TestMACsAsBrctl(t *testing.T) {
	asTool(t, "port no\tmac addr\t\tis local?\tageing timer\n"+
		"  1\t02:42:ac:11:00:02\tno\t\t   0.52\n"+
		"  1\t1a:ea:0c:fe:65:93\tyes\t\t   0.00\n", func(w io.Writer) error {
		return macsAsBrctl(w, []api.MAC{{Port: 1, MAC: "02:42:ac:11:00:02", Age: 0.52}, {Port: 1, MAC: "1a:ea:0c:fe:65:93", Local: true}})
	})
}

func TestNeighboursAsARP(t *testing.T) {
	asTool(t, `
Address                  HWtype  HWaddress           Flags Mask            Iface
172.17.0.2               ether   02:42:ac:11:00:02   C                     docker0
192.0.2.1                ether   a2:14:1f:c0:02:ac   C                     eth0
10.0.0.9                         (incomplete)                              v0
192.0.2.3                ether   02:00:00:00:00:03   CM                    eth0
`, func(w io.Writer) error {
		return neighboursAsARP(w, []api.Neighbour{
			{IP: "172.17.0.2", MAC: "02:42:ac:11:00:02", Network: "docker0"}, {IP: "192.0.2.1", MAC: "a2:14:1f:c0:02:ac", Network: "eth0"},
			{IP: "10.0.0.9", State: "INCOMPLETE", Network: "v0"}, {IP: "192.0.2.3", MAC: "02:00:00:00:00:03", State: "PERMANENT", Network: "eth0"},
		})
	})
}

func TestNATAsIptables(t *testing.T) {
	asTool(t, named(`
Chain PREROUTING (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         
    1    60 DNAT       6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcp dpt:8080 to:172.17.0.2:80
    1    29 DNAT       17   --  *      *       0.0.0.0/0            192.0.2.10           udp dpt:5353 to:172.17.0.2:53
    0     0 DNAT       0    --  eth0   *       0.0.0.0/0            192.0.2.99           to:172.17.0.9

Chain INPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         

Chain OUTPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         

Chain POSTROUTING (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         
    0     0 MASQUERADE  0    --  *      *       172.17.0.0/16        172.17.0.0/16        ctstate DNAT
    0     0 RETURN     0    --  *      *       172.17.0.0/16        172.17.0.0/16       
    0     0 SNAT       0    --  *      eth0    172.17.0.9           0.0.0.0/0            to:192.0.2.99
    3   204 MASQUERADE  0    --  *      eth0    172.17.0.0/16        0.0.0.0/0           
`), func(w io.Writer) error {
		return natAsIptables(w, []api.NATRule{
			{Kind: "hairpin", Proto: "all", Source: "172.17.0.0/16", Destination: "172.17.0.0/16"},
			{Kind: "none", Proto: "all", Source: "172.17.0.0/16", Destination: "172.17.0.0/16"},
			{Kind: "publish", Proto: "tcp", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Port: 8080, To: "172.17.0.2", ToPort: 80, Flows: 1, Packets: 1, Bytes: 60},
			{Kind: "publish", Proto: "udp", Source: "0.0.0.0/0", Destination: "192.0.2.10", Port: 5353, To: "172.17.0.2", ToPort: 53, Flows: 1, Packets: 1, Bytes: 29},
			{Kind: "one-to-one", Proto: "all", In: "eth0", Source: "0.0.0.0/0", Destination: "192.0.2.99", To: "172.17.0.9"},
			{Kind: "masquerade", Proto: "all", Out: "eth0", Source: "172.17.0.0/16", Destination: "0.0.0.0/0", Flows: 3, Packets: 3, Bytes: 204},
		})
	})
}

func TestRulesAsIptables(t *testing.T) {
	octets := func(n uint64) *uint64 { return &n }
	asTool(t, named(`
Chain INPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         

Chain FORWARD (policy DROP 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         
    7     0 DROP       0    --  web    *       0.0.0.0/0            0.0.0.0/0            /* spoofed */
   30  2756 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ctstate RELATED,ESTABLISHED
    1    60 ACCEPT     6    --  *      docker0  0.0.0.0/0            172.17.0.2           tcp dpt:80
    0     0 ACCEPT     0    --  docker0 docker0  0.0.0.0/0            0.0.0.0/0           
    3   204 ACCEPT     0    --  docker0 eth0    0.0.0.0/0            0.0.0.0/0           

Chain OUTPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination         
`), func(w io.Writer) error {
		return rulesAsIptables(w, []api.FilterRule{
			{Target: "drop", Proto: "all", In: "web", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Match: "spoofed", Packets: 7},
			{Target: "accept", Proto: "all", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Match: "established", Packets: 30, Bytes: octets(2756)},
			{Target: "accept", Proto: "tcp", Out: "docker0", Source: "0.0.0.0/0", Destination: "172.17.0.2", Port: 80, Packets: 1, Bytes: octets(60)},
			{Target: "accept", Proto: "all", In: "docker0", Out: "docker0", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Bytes: octets(0)},
			{Target: "accept", Proto: "all", In: "docker0", Out: "eth0", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Packets: 3, Bytes: octets(204)},
		})
	})
}

func TestAbbreviated(t *testing.T) {
	for n, want := range map[uint64]string{0: "    0", 99999: "99999", 100000: " 100K", 9_999_499: "9999K", 9_999_500: "  10M", 12_345_678_901: "  12G", 1e17: "100000T"} {
		if got := abbreviated(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestFlowsAsConntrack(t *testing.T) {
	half := func(src string, sport uint16, dst string, dport uint16, packets, octets uint64) api.FlowHalf {
		return api.FlowHalf{Source: src, SourcePort: sport, Destination: dst, DestinationPort: dport, Packets: packets, Bytes: octets}
	}
	asTool(t, `
tcp      6 119 TIME_WAIT src=192.0.2.1 dst=192.0.2.10 sport=47618 dport=8080 packets=7 bytes=451 src=172.17.0.2 dst=192.0.2.1 sport=80 dport=47618 packets=6 bytes=750 [ASSURED] mark=0 use=1
tcp      6 431999 ESTABLISHED src=172.17.0.2 dst=192.0.2.1 sport=47916 dport=80 packets=2 bytes=112 src=192.0.2.1 dst=192.0.2.10 sport=80 dport=47916 packets=1 bytes=60 [ASSURED] mark=0 use=1
icmp     1 29 src=172.17.0.2 dst=192.0.2.1 type=8 code=0 id=22964 packets=3 bytes=252 src=192.0.2.1 dst=192.0.2.10 type=0 code=0 id=22964 packets=3 bytes=252 mark=0 use=1
udp      17 28 src=192.0.2.1 dst=192.0.2.10 sport=41000 dport=5353 packets=1 bytes=29 [UNREPLIED] src=172.17.0.2 dst=192.0.2.1 sport=53 dport=41000 packets=0 bytes=0 mark=0 use=1
`, func(w io.Writer) error {
		return flowsAsConntrack(w, []api.Flow{
			{Proto: "tcp", TTL: 119, State: "TIME_WAIT", Assured: true, Original: half("192.0.2.1", 47618, "192.0.2.10", 8080, 7, 451), Reply: half("172.17.0.2", 80, "192.0.2.1", 47618, 6, 750)},
			{Proto: "tcp", TTL: 431999, State: "ESTABLISHED", Assured: true, Original: half("172.17.0.2", 47916, "192.0.2.1", 80, 2, 112), Reply: half("192.0.2.1", 80, "192.0.2.10", 47916, 1, 60)},
			{Proto: "icmp", TTL: 29, Original: half("172.17.0.2", 22964, "192.0.2.1", 22964, 3, 252), Reply: half("192.0.2.1", 22964, "192.0.2.10", 22964, 3, 252)},
			{Proto: "udp", TTL: 28, Unreplied: true, Original: half("192.0.2.1", 41000, "192.0.2.10", 5353, 1, 29), Reply: half("172.17.0.2", 53, "192.0.2.1", 41000, 0, 0)},
		})
	})
}

func TestRoutesAsIP(t *testing.T) {
	asTool(t, `
default via 192.0.2.1 dev eth0 
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.10 
198.51.100.0/24 via 192.0.2.1 dev eth0 
203.0.113.0/24 dev eth1 scope link linkdown 
`, func(w io.Writer) error {
		return routesAsIP(w, []api.IPRoute{
			{Destination: "192.0.2.0/24", Dev: "eth0", Source: "192.0.2.10", Scope: "link", State: "up"},
			{Destination: "203.0.113.0/24", Dev: "eth1", Scope: "link", State: "down"},
			{Destination: "0.0.0.0/0", Dev: "eth2", Scope: "link", State: "no-address"},
			{Destination: "198.51.100.0/24", Via: "192.0.2.1", Dev: "eth0", Scope: "global", State: "up"},
			{Destination: "172.17.0.0/16", Dev: "docker0", Source: "172.17.0.1", Scope: "link", State: "up"},
			{Destination: "0.0.0.0/0", Via: "192.0.2.1", Dev: "eth0", Scope: "global", State: "up"},
			{Network: "another", Destination: "0.0.0.0/0", Via: "192.0.2.1", Dev: "eth0", Scope: "global", State: "up"},
		})
	})
}
