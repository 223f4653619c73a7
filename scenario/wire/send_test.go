package wire_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/scenario"
	"noroshi/scenario/wire"
	"noroshi/source/export"
	"noroshi/source/packet"
)

func all(to netip.AddrPort) map[scenario.Protocol]netip.AddrPort {
	return map[scenario.Protocol]netip.AddrPort{scenario.NetFlow5: to, scenario.NetFlow9: to, scenario.IPFIX: to, scenario.SFlow: to}
}

// Nothing is ever sent off this machine.
func TestSenderRefuses(t *testing.T) {
	for to, want := range map[string]string{
		"192.0.2.1:2055": "only loopback", "[2001:db8::1]:2055": "only loopback", "0.0.0.0:2055": "only loopback", "[::ffff:192.0.2.1]:2055": "only loopback",
	} {
		_, err := wire.NewSender(scenario.Demo().Provider, all(netip.MustParseAddrPort(to)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", to, err)
		}
	}
	if _, err := wire.NewSender(scenario.Demo().Provider, nil); err == nil {
		t.Error("nobody listens, and no error")
	}
	if _, err := wire.NewSender(scenario.Find("mirai-roles").Provider, all(netip.MustParseAddrPort("127.0.0.1:9"))); err == nil {
		t.Error("a tap's packets can't be sent, and no error")
	}
}

// What is sent arrives, in order, from an address for each exporter, and ends
// when the context does.
func TestSender(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skip("SKIPPED: no UDP socket on loopback:", err)
	}
	defer conn.Close()
	s := scenario.Demo()
	sender, err := wire.NewSender(s.Provider, all(conn.LocalAddr().(*net.UDPAddr).AddrPort()))
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		buf := make([]byte, 2048)
		froms := map[netip.Addr]bool{}
		for n := 0; len(froms) < 3 || n < 50; n++ {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil || !export.IsDatagram(buf[:size]) {
				t.Errorf("%d octets from %v: %v", size, from, err)
				break
			}
			froms[from.Addr()] = true
		}
		cancel()
	}()
	if _, err := sender.Play(ctx, s, 1, event.TimeOf(time.Now())); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if sender.Sent() < 50 {
		t.Errorf("%d sent", sender.Sent())
	}
}

// A capture holds whole packets with true checksums, among them the exporters'
// datagrams, from which the same records come.
func TestCapture(t *testing.T) {
	s := scenario.Find("flood-udp")
	s.Length = 15 * time.Second
	var file bytes.Buffer
	if err := wire.WriteCapture(context.Background(), &file, s, 3); err != nil {
		t.Fatal(err)
	}
	told := uint64(0)
	s.Play(3, s.Start(), func(b *event.Batch) bool { told += uint64(b.Len()); return true })
	r, err := packet.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	dec := export.NewDecoder(export.Config{})
	var p packet.Packet
	var b event.Batch
	got := uint64(0)
	for r.Next(&p) == nil {
		if sum(p.Data[:20]) != 0xffff {
			t.Fatalf("checksum of %x", p.Data[:20])
		}
		pseudo := append([]byte{0, 17, 0, 0}, p.Data[12:20]...)
		pseudo[2], pseudo[3] = byte((len(p.Data)-20)>>8), byte(len(p.Data)-20)
		if sum(append(pseudo, p.Data[20:]...)) != 0xffff {
			t.Fatal("UDP checksum")
		}
		b.Reset()
		res := packet.Decode(&p, 0, &b)
		from := b.Flows[0].Src
		b.Reset()
		n, err := dec.Decode(res.Payload, from, p.Time, &b)
		if err != nil {
			t.Fatal(err)
		}
		got += uint64(n)
	}
	if got != told || told == 0 {
		t.Errorf("%d records told, %d in the capture", told, got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := wire.WriteCapture(ctx, &file, s, 3); err == nil {
		t.Error("an interrupted capture, and no error")
	}
}

// sum is RFC 1071's, the slow way.
func sum(p []byte) uint16 {
	s := uint32(0)
	for i, c := range p {
		if i%2 == 0 {
			s += uint32(c) << 8
		} else {
			s += uint32(c)
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
