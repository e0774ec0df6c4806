package test

import (
	"fmt"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A packet to the outside and its answer in every decision; whoever follows one
// container sees both.
func TestS24_TraceOutAndBack(t *testing.T) { eachRouter(t, traceOutAndBack) }

func traceOutAndBack(t *testing.T, o *outside) {
	o.start("a", quiet)
	o.start("other", quiet)
	o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.FarHost) // so that all MACs are known
	mac := strings.Fields(o.Router.Run(t, "ip", "-br", "link", "show", "up0"))[2]
	trace := o.background("trace", "--json", "a")
	var out, back *api.TraceLine
	lab.Eventually(t, patience, func() error { // until the trace has begun
		o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.FarHost)
		for _, l := range traceLines(t, trace) {
			switch {
			case strings.Contains(l.Summary, "echo request"):
				out = &l
			case strings.Contains(l.Summary, "echo reply"):
				back = &l
			}
		}
		if out == nil || back == nil {
			return fmt.Errorf("no ping in the trace:\n%s%s", trace.out.String(), trace.errors.String())
		}
		return nil
	})
	steps := func(l *api.TraceLine, want ...string) {
		t.Helper()
		rest := strings.Join(l.Walk, "\n") + "\n"
		for _, w := range want {
			_, after, ok := strings.Cut(rest, w+"\n")
			if !ok {
				t.Errorf("no %q, or not in its place, in\n%s", w, strings.Join(l.Walk, "\n"))
				continue
			}
			rest = after
		}
	}
	if out.Network != "default" || out.In != "a" || len(out.Out) != 1 || out.Out[0] != "up0" || out.Verdict != "unicast" || out.Reason != "routed" {
		t.Errorf("out: %+v", out)
	}
	steps(out,
		"1 parse      172.17.0.2 > 198.51.100.2 ICMP echo request, 98 bytes",
		"2 guard      a may use source 02:42:ac:11:00:02",
		"3 look up    02:42:ac:11:00:01 is the gateway",
		"4 admit      nothing forbids it",
		"5.1 for me   no, for 198.51.100.2",
		"5.2 TTL      64 → 63",
		"5.3 egress   nothing forbids it",
		"masquerade by rule 1, new flow",
		"5.5 MTU      84 bytes fit",
		"5.6 next hop not on-link: default via 192.0.2.1 dev up0",
		"             192.0.2.1 is at "+mac,
		"5.7 uplink   leaves by up0, as "+o.uplink("up0").MAC,
		"6 emit       unicast to up0")
	if back.Network != "up0" || back.In != "up0" || len(back.Out) != 1 || back.Out[0] != "a" || back.Verdict != "unicast" {
		t.Errorf("back: %+v", back)
	}
	steps(back,
		"1 parse      198.51.100.2 > 192.0.2.2 ICMP echo reply, 98 bytes",
		"2 guard      up0 is an uplink: any source may be behind it",
		"5.1 for me   192.0.2.2 is an address of ours",
		"5.2 TTL      63 → 62",
		"5.6 next hop on-link: 172.17.0.0/16 dev default",
		"             172.17.0.2 is at 02:42:ac:11:00:02",
		"3 look up    02:42:ac:11:00:02 is behind a",
		"6 emit       unicast to a")
	if err := contains(strings.Join(back.Walk, "\n"), "5.4 NAT      masquerade by rule 1, answer, flow ", "198.51.100.2 > 192.0.2.2 id ", "→ 198.51.100.2 > 172.17.0.2 id "); err != nil {
		t.Error(err)
	}
}

// What the router makes of a packet that gets no further: the ICMP error, and a
// wait for a station that is not there.
func TestS24_TraceOfErrors(t *testing.T) { eachRouter(t, traceOfErrors) }

func traceOfErrors(t *testing.T, o *outside) {
	o.start("a", quiet)
	trace := o.trace("--words", "a")
	o.try("exec", "a", "ping", "-c", "1", "-W", "5", "-t", "1", o.Router.FarHost)
	o.try("exec", "a", "ping", "-c", "1", "-W", "5", "192.0.2.77") // on the router's segment, and nobody
	trace.says("5.6 next hop dropped, host-unreachable: ")
	for _, want := range [][]string{
		{"drop (ttl-exceeded); ICMP time exceeded to a\n", "5.2 TTL      dropped, ttl-exceeded: ", "6 emit       ICMP time exceeded to a\n"},
		{"hold (next-hop); masquerade: 192.0.2.2 > 192.0.2.77 id ", "; asks who has 192.0.2.77 on up0\n",
			"5.6 next hop on-link: 192.0.2.0/24 dev up0\n", "waits for 192.0.2.77, next-hop: ", "6 emit       asks who has 192.0.2.77 on up0\n"},
		{"drop (host-unreachable); after waiting; ", "; ICMP host unreachable to a\n", "1 parse      it has waited, and begins again\n",
			"5.6 next hop dropped, host-unreachable: "},
	} {
		if err := contains(trace.out.String(), want...); err != nil {
			t.Error(err)
		}
	}
}
