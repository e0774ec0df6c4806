package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingOptions is how `probe ping` pings.
type pingOptions struct {
	count, size       int
	interval, timeout time.Duration
}

func newPing() *cobra.Command {
	var o pingOptions
	cmd := &cobra.Command{
		Use:   "ping [OPTIONS] HOST",
		Short: "Send ICMP echo requests until Ctrl-C",
		Example: `  fairlead run -- fairlead probe ping -c 3 172.17.0.2
  fairlead run -- fairlead probe ping -c 1 -s 1472 172.17.0.2
  fairlead run -- fairlead probe ping fe80::42:acff:fe11:2%eth0`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.size < 0 || o.size > maxPing:
				return wrongCall(cmd, "--size %d is not between 0 and %d", o.size, maxPing)
			case o.interval < time.Millisecond:
				return wrongCall(cmd, "--interval %v is less than 1ms", o.interval)
			}
			host, err := net.ResolveIPAddr("ip", args[0])
			if err != nil {
				return noAnswer(cmd, fmt.Errorf("probe ping %s: %w", args[0], err))
			}
			p, err := newPinger(host)
			if err != nil {
				return fmt.Errorf("probe ping %s: %w", args[0], err)
			}
			defer p.conn.Close()
			if p.run(cmd.Context(), cmd.OutOrStdout(), args[0], o) == 0 {
				return exitStatus(1)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "c", 0, "Stop after `N` requests (default: at Ctrl-C)")
	f.DurationVarP(&o.interval, "interval", "i", time.Second, "`TIME` between requests")
	f.DurationVarP(&o.timeout, "timeout", "W", 2*time.Second, "Wait this `TIME` for the last answer")
	f.IntVarP(&o.size, "size", "s", 56, "`BYTES` of data in a request")
	return cmd
}

// maxPing is what an IPv4 packet holds beside its own header and ICMP's.
const maxPing = 65535 - 20 - 8

// A pinger sends echo requests to one host and matches the answers.
type pinger struct {
	conn  *icmp.PacketConn
	to    net.Addr
	host  *net.IPAddr
	v6    bool
	raw   bool // else a ping socket, whose identifiers the kernel makes and checks
	id    int
	sent  map[int]time.Time // by sequence number, until answered
	rtt   []time.Duration
	total int // requests
	errs  int // answers that say it did not arrive
}

// newPinger opens a ping socket where the kernel lets us have one
// (net.ipv4.ping_group_range), else a raw socket, which root may have and so
// every container.
func newPinger(host *net.IPAddr) (*pinger, error) {
	p := &pinger{host: host, v6: host.IP.To4() == nil, sent: map[int]time.Time{}, id: rand.IntN(1 << 16)}
	ping, raw, local := "udp4", "ip4:icmp", "0.0.0.0"
	if p.v6 {
		ping, raw, local = "udp6", "ip6:ipv6-icmp", "::"
	}
	var err error
	if p.conn, err = icmp.ListenPacket(ping, local); err == nil {
		p.to = &net.UDPAddr{IP: host.IP, Zone: host.Zone}
	} else {
		if p.conn, err = icmp.ListenPacket(raw, local); errors.Is(err, os.ErrPermission) {
			return nil, errors.New("neither a ping socket nor a raw one is allowed; a container may: `fairlead run -- fairlead probe ping …`")
		} else if err != nil {
			return nil, err
		}
		p.to, p.raw = host, true
	}
	if p.v6 {
		err = p.conn.IPv6PacketConn().SetControlMessage(ipv6.FlagHopLimit, true)
	} else {
		err = p.conn.IPv4PacketConn().SetControlMessage(ipv4.FlagTTL, true)
	}
	if err != nil {
		p.conn.Close()
		return nil, fmt.Errorf("ask for the TTL of answers: %w", err)
	}
	return p, nil
}

// run pings, prints as ping(8) does and returns how many answers came.
func (p *pinger) run(ctx context.Context, out io.Writer, name string, o pingOptions) int {
	fmt.Fprintf(out, "PING %s (%s): %d data bytes\n", name, p.host, o.size)
	start := time.Now()
	answers := make(chan answer)
	done := make(chan struct{})
	defer close(done)
	go p.receive(answers, done)

	next := time.NewTimer(0)
	defer next.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case a := <-answers:
			p.take(out, a)
			if o.count > 0 && p.total == o.count && len(p.sent) == 0 {
				return p.summary(out, name, start)
			}
		case <-next.C:
			if o.count > 0 && p.total == o.count {
				return p.summary(out, name, start) // waited for the last long enough
			}
			if err := p.send(o.size); err != nil {
				fmt.Fprintf(out, "icmp_seq=%d: %v\n", p.total, err)
			}
			next.Reset(o.interval)
			if p.total == o.count {
				next.Reset(o.timeout)
			}
		}
	}
	return p.summary(out, name, start)
}

func (p *pinger) send(size int) error {
	p.total++
	seq := p.total & 0xffff
	var kind icmp.Type = ipv4.ICMPTypeEcho
	if p.v6 {
		kind = ipv6.ICMPTypeEchoRequest
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i)
	}
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: p.id, Seq: seq, Data: data}}
	b, err := m.Marshal(nil) // the kernel sums ICMPv6, whose pseudo header it knows
	if err != nil {
		return err
	}
	p.sent[seq] = time.Now()
	if _, err = p.conn.WriteTo(b, p.to); err != nil {
		delete(p.sent, seq)
	}
	return err
}

// An answer is an ICMP message with what came beside it.
type answer struct {
	message *icmp.Message
	from    net.Addr
	ttl     int
	size    int
	at      time.Time
}

// receive reads until the socket is closed or done.
func (p *pinger) receive(answers chan<- answer, done <-chan struct{}) {
	buf := make([]byte, 1<<16)
	for {
		a, err := p.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil || a.message == nil {
			continue
		}
		select {
		case answers <- a:
		case <-done:
			return
		}
	}
}

func (p *pinger) read(buf []byte) (a answer, err error) {
	protocol := 1 // ICMP
	if p.v6 {
		var cm *ipv6.ControlMessage
		a.size, cm, a.from, err = p.conn.IPv6PacketConn().ReadFrom(buf)
		if cm != nil {
			a.ttl = cm.HopLimit
		}
		protocol = 58 // ICMPv6
	} else {
		var cm *ipv4.ControlMessage
		a.size, cm, a.from, err = p.conn.IPv4PacketConn().ReadFrom(buf)
		if cm != nil {
			a.ttl = cm.TTL
		}
	}
	if err != nil {
		return a, err
	}
	a.at = time.Now()
	a.message, err = icmp.ParseMessage(protocol, buf[:a.size])
	return a, err
}

// take prints an answer to one of ours. A raw socket hears everybody's.
func (p *pinger) take(out io.Writer, a answer) {
	if _, ours := a.from.(*net.UDPAddr); ours {
		a.from = p.host // without the port a ping socket has in its place
	}
	switch body := a.message.Body.(type) {
	case *icmp.Echo:
		sent, waiting := p.sent[body.Seq]
		reply := a.message.Type == ipv4.ICMPTypeEchoReply || a.message.Type == ipv6.ICMPTypeEchoReply
		if !reply || p.raw && body.ID != p.id || !waiting {
			return
		}
		delete(p.sent, body.Seq)
		rtt := a.at.Sub(sent)
		p.rtt = append(p.rtt, rtt)
		fmt.Fprintf(out, "%d bytes from %s: icmp_seq=%d ttl=%d time=%.3f ms\n", a.size, a.from, body.Seq, a.ttl, millis(rtt))
	case *icmp.DstUnreach:
		if seq, ours := p.quoted(body.Data); ours {
			delete(p.sent, seq)
			p.errs++
			fmt.Fprintf(out, "From %s: icmp_seq=%d %s\n", a.from, seq, unreachable(a.message, p.v6))
		}
	}
}

// quoted finds our request in the packet an ICMP error quotes: its IP header
// and at least the first eight bytes behind it (RFC 792).
func (p *pinger) quoted(packet []byte) (seq int, ours bool) {
	header := 40
	if !p.v6 && len(packet) > 0 {
		header = int(packet[0]&15) * 4
	}
	if len(packet) < header+8 {
		return 0, false
	}
	echo := packet[header:]
	return int(binary.BigEndian.Uint16(echo[6:])), int(binary.BigEndian.Uint16(echo[4:])) == p.id
}

// unreachable names the code as ping(8) does (RFC 792, RFC 4443).
func unreachable(m *icmp.Message, v6 bool) string {
	words := []string{"Destination Net Unreachable", "Destination Host Unreachable", "Destination Protocol Unreachable",
		"Destination Port Unreachable", "Frag needed and DF set"}
	if v6 {
		words = []string{"Destination unreachable: No route", "Destination unreachable: Administratively prohibited",
			"Destination unreachable: Beyond scope of source address", "Destination unreachable: Address unreachable",
			"Destination unreachable: Port unreachable"}
	}
	if m.Code < len(words) {
		return words[m.Code]
	}
	return fmt.Sprintf("Destination unreachable, code %d", m.Code)
}

// summary prints the figures and returns how many answers came.
func (p *pinger) summary(out io.Writer, name string, start time.Time) int {
	got := len(p.rtt)
	loss := 0.0
	if p.total > 0 {
		loss = 100 * float64(p.total-got) / float64(p.total)
	}
	errs := ""
	if p.errs > 0 {
		errs = fmt.Sprintf("+%d errors, ", p.errs)
	}
	fmt.Fprintf(out, "\n--- %s ping statistics ---\n%d packets transmitted, %d received, %s%.0f%% packet loss, time %dms\n",
		name, p.total, got, errs, loss, time.Since(start).Milliseconds())
	if got == 0 {
		return 0
	}
	least, most, total, squares := math.Inf(1), 0.0, 0.0, 0.0
	for _, d := range p.rtt {
		ms := millis(d)
		least, most = min(least, ms), max(most, ms)
		total += ms
		squares += ms * ms
	}
	mean := total / float64(got)
	fmt.Fprintf(out, "rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms\n", least, mean, most, math.Sqrt(max(0, squares/float64(got)-mean*mean)))
	return got
}
