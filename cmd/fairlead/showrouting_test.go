package main

import (
	"io"
	"testing"

	"fairlead/node/api"
)

func TestNATTable(t *testing.T) {
	golden(t, `
		|network  rule  kind        proto  source         destination      uplink  becomes                  container  flows  packets  bytes
		|default  7     publish     tcp    0.0.0.0/0      192.0.2.10:8080  -       to 172.17.0.2:80         web        1      9        750
		|default  -     hairpin     all    172.17.0.0/16  172.17.0.0/16    -       from the address it met  -          0      0        0
		|default  -     none        all    172.17.0.0/16  172.17.0.0/16    -       (as it is)               -          0      0        0
		|default  8     one-to-one  all    0.0.0.0/0      192.0.2.99       lan     to 172.17.0.9            db         0      0        0
		|default  1     masquerade  all    172.17.0.0/16  0.0.0.0/0        lan     from 192.0.2.10          -          3      12       1234
		|default  2     masquerade  all    172.17.0.0/16  0.0.0.0/0        wlan    (no address yet)         -          0      0        0`,
		func(w io.Writer) error {
			return natTable(w, []api.NATRule{
				{Network: "default", Number: 7, Kind: "publish", Proto: "tcp", Source: "0.0.0.0/0", Destination: "192.0.2.10", Port: 8080, To: "172.17.0.2", ToPort: 80, Container: "web", Flows: 1, Packets: 9, Bytes: 750},
				{Network: "default", Kind: "hairpin", Proto: "all", Source: "172.17.0.0/16", Destination: "172.17.0.0/16"},
				{Network: "default", Kind: "none", Proto: "all", Source: "172.17.0.0/16", Destination: "172.17.0.0/16"},
				{Network: "default", Number: 8, Kind: "one-to-one", Proto: "all", In: "lan", Source: "0.0.0.0/0", Destination: "192.0.2.99", To: "172.17.0.9", Container: "db"},
				{Network: "default", Number: 1, Kind: "masquerade", Proto: "all", Source: "172.17.0.0/16", Destination: "0.0.0.0/0", Out: "lan", To: "192.0.2.10", Flows: 3, Packets: 12, Bytes: 1234},
				{Network: "default", Number: 2, Kind: "masquerade", Proto: "all", Source: "172.17.0.0/16", Destination: "0.0.0.0/0", Out: "wlan"},
			})
		})
}

func TestFlowsTable(t *testing.T) {
	half := func(src string, sport uint16, dst string, dport uint16, packets, octets uint64) api.FlowHalf {
		return api.FlowHalf{Source: src, SourcePort: sport, Destination: dst, DestinationPort: dport, Packets: packets, Bytes: octets}
	}
	golden(t, `
		|flow  proto  state        ttl     container  source            destination      kind        becomes                                  packets  answers  bytes  answered  socket            client
		|12    tcp    ESTABLISHED  7440 s  web        172.17.0.2:40000  192.0.2.1:80     masquerade  from 192.0.2.10:40001                    5        4        420    6000      -                 -
		|13    icmp   REPLIED      60 s    web        172.17.0.2:7      192.0.2.1:7      masquerade  from 192.0.2.10:7                        1        1        84     84        -                 -
		|14    udp    UNREPLIED    300 s   db         192.0.2.1:5000    192.0.2.10:5353  publish     to 172.17.0.3:53                         1        0        29     0         -                 -
		|15    tcp    SYN_SENT     240 s   web        172.17.0.2:1      192.0.2.10:80    hairpin     from 192.0.2.10:1024 to 172.17.0.3:8080  1        0        60     0         -                 -
		|16    udp    UNREPLIED    300 s   -          172.17.0.2:1      172.17.0.3:53    none        -                                        1        0        29     0         -                 -
		|17    tcp    ESTABLISHED  -       web        172.17.0.2:50000  198.51.100.7:80  masquerade  from 192.0.2.10:50000                    2        2        120    100       192.0.2.10:43210  -
		|18    tcp    ESTABLISHED  -       web        127.0.0.1:50001   127.0.0.1:8080   publish     from 172.17.0.1:50001 to 172.17.0.2:80   2        2        120    100       127.0.0.1:8080    hidden: loopback`,
		func(w io.Writer) error {
			return flowsTable(w, []api.Flow{
				{Number: 12, Proto: "tcp", State: "ESTABLISHED", TTL: 7440, Container: "web", Kind: "masquerade", Original: half("172.17.0.2", 40000, "192.0.2.1", 80, 5, 420), Reply: half("192.0.2.1", 80, "192.0.2.10", 40001, 4, 6000)},
				{Number: 13, Proto: "icmp", TTL: 60, Container: "web", Kind: "masquerade", Original: half("172.17.0.2", 7, "192.0.2.1", 7, 1, 84), Reply: half("192.0.2.1", 7, "192.0.2.10", 7, 1, 84)},
				{Number: 14, Proto: "udp", TTL: 300, Unreplied: true, Container: "db", Kind: "publish", Original: half("192.0.2.1", 5000, "192.0.2.10", 5353, 1, 29), Reply: half("172.17.0.3", 53, "192.0.2.1", 5000, 0, 0)},
				{Number: 15, Proto: "tcp", State: "SYN_SENT", TTL: 240, Unreplied: true, Container: "web", Kind: "hairpin", Original: half("172.17.0.2", 1, "192.0.2.10", 80, 1, 60), Reply: half("172.17.0.3", 8080, "192.0.2.10", 1024, 0, 0)},
				{Number: 16, Proto: "udp", TTL: 300, Unreplied: true, Kind: "none", Original: half("172.17.0.2", 1, "172.17.0.3", 53, 1, 29), Reply: half("172.17.0.3", 53, "172.17.0.2", 1, 0, 0)},
				{Number: 17, Proto: "tcp", State: "ESTABLISHED", Container: "web", Kind: "masquerade", Socket: "192.0.2.10:43210", Original: half("172.17.0.2", 50000, "198.51.100.7", 80, 2, 120), Reply: half("198.51.100.7", 80, "192.0.2.10", 50000, 2, 100)},
				{Number: 18, Proto: "tcp", State: "ESTABLISHED", Container: "web", Kind: "publish", Socket: "127.0.0.1:8080", Hidden: "loopback", Original: half("127.0.0.1", 50001, "127.0.0.1", 8080, 2, 120), Reply: half("172.17.0.2", 80, "172.17.0.1", 50001, 2, 100)},
			})
		})
}

func TestRulesTable(t *testing.T) {
	octets := uint64(1234)
	golden(t, `
		|network  chain    target  proto  in   out  source     destination    packets  bytes  reason       if
		|default  guard    drop    all    web  *    0.0.0.0/0  0.0.0.0/0      2        -      spoofed-mac  source MAC is not 02:42:ac:11:00:02
		|default  inbound  accept  tcp    *    web  0.0.0.0/0  172.17.0.2:80  9        1234   -            -
		|default  inbound  reject  all    up0  *    0.0.0.0/0  0.0.0.0/0      0        -      refused      everything else
		|
		|Not listed: 1 that drop or reject and have not done so yet; --json and --as kernel have them`,
		func(w io.Writer) error {
			return rulesTable(w, []api.FilterRule{
				{Network: "default", Chain: "guard", Target: "drop", Proto: "all", In: "web", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Packets: 2,
					Reason: "spoofed-mac", Match: "source MAC is not 02:42:ac:11:00:02"},
				{Network: "default", Chain: "inbound", Target: "accept", Proto: "tcp", Out: "web", Source: "0.0.0.0/0", Destination: "172.17.0.2", Port: 80, Packets: 9, Bytes: &octets},
				{Network: "default", Chain: "inbound", Target: "drop", Proto: "all", In: "up0", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Reason: "martian"},
				{Network: "default", Chain: "inbound", Target: "reject", Proto: "all", In: "up0", Source: "0.0.0.0/0", Destination: "0.0.0.0/0", Reason: "refused", Match: "everything else"},
			})
		})
}

func TestRoutesTable(t *testing.T) {
	golden(t, `
		|network  destination    via        dev      source      scope   mtu   state
		|default  172.17.0.0/16  -          default  172.17.0.1  link    1500  up
		|default  0.0.0.0/0      192.0.2.1  lan      192.0.2.10  global  1400  up`,
		func(w io.Writer) error {
			return routesTable(w, []api.IPRoute{
				{Network: "default", Destination: "172.17.0.0/16", Dev: "default", Source: "172.17.0.1", Scope: "link", MTU: 1500, State: "up"},
				{Network: "default", Destination: "0.0.0.0/0", Via: "192.0.2.1", Dev: "lan", Source: "192.0.2.10", Scope: "global", MTU: 1400, State: "up"},
			})
		})
}
