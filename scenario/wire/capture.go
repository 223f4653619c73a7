package wire

import (
	"context"
	"io"
	"net/netip"
	"time"

	"noroshi/event"
	"noroshi/scenario"
	"noroshi/source/packet"
)

// collector is to whom captures say that datagrams were sent.
var collector = event.AddrOf(netip.MustParseAddr("192.0.2.200"))

// Port returns the port on which collectors expect a protocol; 0 for packets.
func Port(p scenario.Protocol) uint16 {
	return map[scenario.Protocol]uint16{scenario.NetFlow5: 2055, scenario.NetFlow9: 2055, scenario.IPFIX: 4739, scenario.SFlow: 6343}[p]
}

// WriteCapture plays s and writes all its exporters send, and the packets of
// its tap, as a pcap file.
func WriteCapture(ctx context.Context, w io.Writer, s *scenario.Scenario, seed uint64) error {
	out, err := packet.NewWriter(w, packet.Raw)
	if err != nil {
		return err
	}
	enc := NewEncoder(s.Provider, s.Start().Add(-240*time.Hour))
	var buf []byte
	send := func(d *Datagram) {
		data := d.Data
		if d.Exporter.Protocol != scenario.Packets {
			f := event.Flow{
				Seen: d.At, Src: d.Exporter.Addr, Dst: collector, SrcPort: 50000, DstPort: Port(d.Exporter.Protocol), Proto: event.UDP,
				TTL: 64, Bytes: uint64(28 + len(d.Data)), Packets: 1, Sampling: 1,
			}
			buf = appendPacket(buf[:0], &f, string(d.Data), 1<<16)
			data = buf
		}
		if err == nil {
			err = out.Write(d.At, data)
		}
	}
	s.Play(seed, s.Start(), func(b *event.Batch) bool {
		enc.Encode(b, send)
		return err == nil && ctx.Err() == nil
	})
	enc.Flush(send)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = out.Flush()
	}
	return err
}
