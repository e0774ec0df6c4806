package nat

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unsafe"

	"fairlead/packet"
)

// A crowd is what fills a table: 50,000 inside endpoints (100 containers with
// 500 ports each), of which each talks to 20 addresses of the world. One outside
// address has 64,512 ports, so a million flows cannot be more mappings.
const (
	crowdContainers = 100
	crowdPorts      = 500
	crowdPeers      = 20
	million         = crowdContainers * crowdPorts * crowdPeers
)

func crowdConfig() Config {
	return Config{Flows: million, PerContainer: million, MaxContainers: crowdContainers, Seed: 1}
}

// crowdFlow is the first packet of the crowd's flow number i.
func crowdFlow(i int, v6 bool) (packet.ContainerID, packet.Tuple) {
	peer, endpoint := i%crowdPeers, i/crowdPeers
	c, port := endpoint/crowdPorts, endpoint%crowdPorts
	src, dst := [4]byte{172, 17, 0, byte(2 + c)}, [4]byte{198, 51, 100, byte(peer)}
	k := udp(packet.AddrFrom4(src), uint16(20000+c*crowdPorts%40000+port), packet.AddrFrom4(dst), 7000)
	if v6 {
		k.Src, k.Dst = v6Of(k.Src), v6Of(k.Dst)
	}
	return packet.ContainerID(1 + c), k
}

// v6Of is the address of a host in a network of IPv6.
func v6Of(a packet.Addr) packet.Addr {
	copy(a[:12], []byte{0x20, 0x01, 0x0d, 0xb8})
	return a
}

func crowdOurs(v6 bool) packet.Addr {
	if v6 {
		return v6Of(ours)
	}
	return ours
}

// join makes the crowd's flow number i.
func crowdJoin(t testing.TB, table *Table, i int, v6 bool, now int64) Flow {
	c, k := crowdFlow(i, v6)
	p, reason := table.PlanOut(net1, c, k, lan, crowdOurs(v6))
	if reason != packet.OK {
		t.Fatalf("flow %d: %v", i, reason)
	}
	f, reason := table.Commit(p, now)
	if reason != packet.OK {
		t.Fatalf("flow %d: %v", i, reason)
	}
	return f
}

func crowd(t testing.TB, n int, v6 bool, now int64) *Table {
	table := New(crowdConfig())
	for i := range n {
		crowdJoin(t, table, i, v6, now)
	}
	return table
}

// TestMillionFlows holds the budget of memory: 160 bytes for a flow of IPv4 with
// its part of index, mappings and timers. (With the race detector it is only
// about the numbers of flows and mappings.)
func TestMillionFlows(t *testing.T) {
	if got := unsafe.Sizeof(record4{}); got != 128 {
		t.Errorf("a record of IPv4 has %d bytes", got)
	}
	if got := unsafe.Sizeof(record6{}); got != 192 {
		t.Errorf("a record of IPv6 has %d bytes", got)
	}
	if got := unsafe.Sizeof(mapping{}); got != 64 {
		t.Errorf("a mapping has %d bytes", got)
	}
	for name, tt := range map[string]struct {
		v6   bool
		most float64
	}{"IPv4": {false, 160}, "IPv6": {true, 224}} {
		t.Run(name, func(t *testing.T) {
			flows := million
			if raceEnabled {
				flows /= 100
			}
			heap, resident := memory()
			table := crowd(t, flows, tt.v6, 1000*second)
			heapAfter, residentAfter := memory()
			if s := table.Stats(); s.Flows != flows || s.Mappings != flows/crowdPeers {
				t.Errorf("%+v", s)
			}
			perFlow := float64(heapAfter-heap) / million
			t.Logf("%.1f bytes of heap for each flow, %.1f resident", perFlow, float64(residentAfter-resident)/million)
			if perFlow > tt.most && !raceEnabled {
				t.Errorf("more than %v bytes", tt.most)
			}
			runtime.KeepAlive(table)
		})
	}
}

// memory returns the bytes of the live heap and the resident ones of the process.
func memory() (heap, resident int64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var pages [2]int64
	b, _ := os.ReadFile("/proc/self/statm")
	_, _ = fmt.Fscan(strings.NewReader(string(b)), &pages[0], &pages[1])
	return int64(m.HeapAlloc), pages[1] * int64(os.Getpagesize())
}

// many is how many flows benchmarks have: a million, unless it is only to be seen
// that they run.
func many() int {
	if testing.Short() {
		return million / 50
	}
	return million
}

// BenchmarkMemory is what the machine takes for a random record of so many, when
// the next one's place is known only from it: a lookup does that twice, for the
// index and for the record.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 17, 1 << 20} {
		records := make([]record4, n)
		for i := range records {
			records[i].key[0].addrs = uint64(i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := uint64(1)
			for range b.N {
				x = (x+records[x>>40&uint64(n-1)].key[0].addrs)*6364136223846793005 + 1442695040888963407
			}
			if x == 0 {
				b.Log(x)
			}
		})
	}
}

// A packetKey is what a packet's flow is found by.
type packetKey struct {
	tuple packet.Tuple
	scope packet.NetworkID
}

// BenchmarkFind looks up random flows of few and of many, in both directions. The
// keys lie ready, as those of packets do that have arrived: one lookup does not
// depend on another, and the processor begins the next while it waits.
func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1000, many() / 10, many()} {
		for _, v6 := range []bool{false, true} {
			table := crowd(b, n, v6, 1000*second)
			questions := make([]packetKey, 1<<20)
			for i := range questions {
				x := mix(uint64(i)+1, 0x9e3779b97f4a7c15)
				_, k := crowdFlow(int(x%uint64(n)), v6)
				questions[i] = packetKey{k, net1}
				if x>>63 == 0 {
					f, _ := table.Find(net1, &k, 1000*second, 0)
					table.Seen(FlowOf(f.Number(), true), 1000*second, 1, 0, 0)
					questions[i] = packetKey{table.Translation(f).After.Reverse(), lan}
				}
			}
			name := fmt.Sprintf("%d/v4", n)
			if v6 {
				name = fmt.Sprintf("%d/v6", n)
			}
			missed := 0
			b.Run(name+"/find", func(b *testing.B) {
				for i := range b.N {
					q := &questions[i&(len(questions)-1)]
					if _, ok := table.Find(q.scope, &q.tuple, 1000*second, 0); !ok {
						missed++
					}
				}
			})
			b.Run(name+"/packet", func(b *testing.B) { // all that a packet of a known flow needs
				for i := range b.N {
					q := &questions[i&(len(questions)-1)]
					f, ok := table.Find(q.scope, &q.tuple, 1000*second, 0)
					if !ok {
						missed++
					}
					tr := table.Translation(f)
					table.Seen(f, 1000*second, 1, int(tr.After.SrcPort), 0)
				}
			})
			if missed > 0 {
				b.Errorf("%d not found", missed)
			}
		}
	}
}

// BenchmarkCreate makes a million flows, BenchmarkExpire ends them.
func BenchmarkCreate(b *testing.B) {
	for b.Loop() {
		crowd(b, many(), false, 1000*second)
	}
	b.ReportMetric(float64(many())*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}

func BenchmarkExpire(b *testing.B) {
	looks := 0
	for b.Loop() {
		b.StopTimer()
		table := crowd(b, many(), false, 1000*second)
		now := 1000*second + int64(table.config.Timeouts.UDP) + 2*second
		b.StartTimer()
		for table.Expire(now, 4096) {
			looks++
		}
		if s := table.Stats(); s.Flows != 0 || s.Mappings != 0 {
			b.Fatalf("%+v", s)
		}
	}
	b.ReportMetric(float64(many())*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(looks), "µs/4096")
}

// BenchmarkIdle is what a second of a table costs in which a million flows live.
func BenchmarkIdle(b *testing.B) {
	now := 1000 * second
	table := crowd(b, many(), false, now)
	refs := make([]Flow, many())
	for i := range refs {
		_, k := crowdFlow(i, false)
		refs[i], _ = table.Find(net1, &k, now, 0)
	}
	for b.Loop() {
		b.StopTimer()
		now += second
		for _, f := range refs {
			table.Seen(f, now, 1, 0, 0)
		}
		b.StartTimer()
		for table.Expire(now, 4096) {
		}
	}
	if s := table.Stats(); s.Flows != many() {
		b.Fatalf("%+v", s)
	}
}

// BenchmarkFlush is a container that goes while a million flows live.
func BenchmarkFlush(b *testing.B) {
	table := crowd(b, many(), false, 1000*second)
	for b.Loop() {
		table.FlushContainer(9999)
	}
}

// BenchmarkLastPort takes the last port of an address, again and again.
func BenchmarkLastPort(b *testing.B) {
	table := New(Config{Flows: 70000, PerContainer: 70000, MaxContainers: 1, Seed: 1})
	now := 1000 * second
	commit := func(i uint32) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|i)
		p, reason := table.PlanOut(net1, alice, udp(packet.AddrFrom4(a), 500, world, 7000), lan, ours)
		if reason != packet.OK {
			b.Fatal(reason)
		}
		if _, reason = table.Commit(p, now); reason != packet.OK {
			b.Fatal(reason)
		}
	}
	i := uint32(0)
	for ; i < 64511; i++ {
		commit(i)
	}
	for b.Loop() {
		commit(i)
		now += int64(time.Second)
		table.end(table.holderOf(alice).classes[others].tail)
		table.Recycle(table.Retired())
		i++
	}
}
