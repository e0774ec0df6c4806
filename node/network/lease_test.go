package network

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/link"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// TestLease: an uplink that gets its address by DHCP is a way out as long as the
// lease lasts, and its flows end with it.
func TestLease(t *testing.T) {
	lab.NoLeaks(t)
	n := newNetwork(t, 2)
	web := attach(t, n, 1<<16|1)
	near, far := link.NewPair(packet.BatchFrames)
	u, err := n.router.AddUplink(UplinkConfig{Name: "up0", MAC: upMAC, DHCP: true}, near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.router.Close)
	if err := n.SetUplinks("up0"); err != nil {
		t.Fatal(err)
	}
	lend(t, far, 2*time.Second)
	lab.Eventually(t, 10*time.Second, func() error {
		if u.Addr() != packet.AddrFromNetip(upAddr.Addr()) {
			return fmt.Errorf("%+v", u.State(0))
		}
		return nil
	})
	up := &plug{Station: router1, far: far}
	gw := packettest.Station{MAC: n.GatewayMAC(), IP: outsider.IP}
	web.send(t, packettest.UDP(web.Station, gw, 40000, 53, []byte("query")))
	if f := up.get(t); f.Tuple().Src != packet.AddrFromNetip(upAddr.Addr()) {
		t.Errorf("masqueraded to %+v", f.Tuple())
	}
	flows := func() (live int) {
		n.router.Flows(func(table *nat.Table) { live = table.Stats().Flows })
		return live
	}
	if live := flows(); live != 1 {
		t.Errorf("%d flows", live)
	}
	lab.Eventually(t, 10*time.Second, func() error { // nobody renews it
		if live := flows(); u.Addr() != (packet.Addr{}) || live != 0 {
			return fmt.Errorf("%d flows; %+v", live, u.State(0))
		}
		return nil
	})
	check(t, n)
}

// lend is a DHCP server for one lease: what is at the other end of the uplink
// until it is acknowledged.
func lend(t *testing.T, far *link.Mem, length time.Duration) {
	t.Helper()
	server := &plug{Station: router1, far: far}
	batch := packet.NewBatch()
	answer := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck,
	}
	done := false
	lab.Eventually(t, 10*time.Second, func() error {
		batch.Reset()
		if _, err := far.ReadBatch(batch); err != nil {
			return err
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			if packet.Parse(f) != packet.OK || f.DstPort != 67 {
				continue
			}
			m, err := dhcpv4.FromBytes(packet.UDP(f.Transport()).Payload())
			if err != nil {
				return err
			}
			kind := answer[m.MessageType()]
			reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(upAddr.Addr().AsSlice()),
				dhcpv4.WithOption(dhcpv4.OptServerIdentifier(router1.IP.AsSlice())),
				dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
				dhcpv4.WithOption(dhcpv4.OptRouter(router1.IP.AsSlice())),
				dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(length)))
			if err != nil {
				return err
			}
			server.send(t, packettest.UDP(router1, ourSide, 67, 68, reply.ToBytes()))
			done = done || kind == dhcpv4.MessageTypeAck
		}
		if !done {
			return errors.New("nothing was lent")
		}
		return nil
	})
}
