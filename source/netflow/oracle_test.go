package netflow

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	oracle "github.com/netsampler/goflow2/v2/decoders/netflow"
	oracle5 "github.com/netsampler/goflow2/v2/decoders/netflowlegacy"

	"noroshi/event"
)

// oracleFlows are the flows in a packet that goflow2 decoded, as text, by the
// mapping of values.flow.
func oracleFlows(packet any) (all []string) {
	var sets []any
	switch packet := packet.(type) {
	case *oracle5.PacketNetFlowV5:
		for _, r := range packet.Records {
			f := event.Flow{
				Src: four(uint32(r.SrcAddr)), Dst: four(uint32(r.DstAddr)), SrcPort: r.SrcPort, DstPort: r.DstPort,
				Proto: r.Proto, TCPFlags: r.TCPFlags, InIf: uint32(r.Input), OutIf: uint32(r.Output), Packets: uint64(r.DPkts), Bytes: uint64(r.DOctets),
			}
			finish(&f)
			all = append(all, flowText(&f))
		}
		return all
	case *oracle.NFv9Packet:
		sets = packet.FlowSets
	case *oracle.IPFIXPacket:
		sets = packet.FlowSets
	}
	for _, s := range sets {
		data, ok := s.(oracle.DataFlowSet)
		if !ok {
			continue
		}
		for _, r := range data.Records {
			v := values{}
			for _, f := range r.Values {
				v.add(f.Pen, uint32(f.Type), f.Value.([]byte))
			}
			if f, ok := v.flow(); ok {
				all = append(all, f)
			}
		}
	}
	return all
}

func four(v uint32) (a event.Addr) {
	setFour(&a, v)
	return a
}

// forwards are the flows of b that aren't the second half of another, as text.
func forwards(b *event.Batch) (all []string) {
	for i := range b.Flows {
		if f := &b.Flows[i]; !f.Has(event.Reverse) {
			all = append(all, flowText(f))
		}
	}
	return all
}

// goflow2 and this decoder find the same flows in datagrams of random templates
// with random records.
func TestOracle(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	flows := 0
	for round := range 2000 {
		version := []uint16{v5, v9, ipfix}[round%3]
		d := NewDecoder(exact)
		templates := oracle.CreateTemplateSystem()
		for range 3 {
			p := randomDatagram(chance, version)
			var b event.Batch
			if _, err := d.Decode(p, router, arrival, &b); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			want := oracleFlows(oracleDecode(t, p, templates))
			if got := forwards(&b); !slices.Equal(got, want) {
				t.Fatalf("round %d: version %d, %x\ngot\n%s\ngoflow2\n%s", round, version, p, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			flows += len(b.Flows)
		}
	}
	if flows < 20_000 {
		t.Errorf("only %d flows compared", flows)
	}
}

// elementsForChance are elements that mean something here, and some that don't.
var elementsForChance = []field{
	{8, 4}, {12, 4}, {27, 16}, {28, 16}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {6, 2}, {10, 2}, {10, 4}, {14, 4}, {1, 4}, {1, 8}, {2, 4}, {2, 3},
	{85, 8}, {86, 8}, {23, 4}, {24, 4}, {152, 8}, {153, 8}, {150, 4}, {21, 4}, {22, 4}, {9, 1}, {56, 6}, {61, 1}, {48, 2}, {34, 4}, {32, 2}, {136, 1}, {83, 20}, {225, 4}, {227, 2}, {0, 3},
}

// randomDatagram is a whole datagram: a template with up to 30 fields, and up
// to 20 of its records.
func randomDatagram(chance *rand.Rand, version uint16) []byte {
	records := chance.IntN(20)
	if version == v5 {
		p := v5Datagram(0, 0, records)
		for i := v5Header; i < len(p); i++ {
			p[i] = byte(chance.Uint32())
		}
		return p
	}
	fields := []field{{4, 1}} // goflow2 wants one of fixed length
	for range chance.IntN(30) {
		f := elementsForChance[chance.IntN(len(elementsForChance))]
		if version == ipfix && chance.IntN(8) == 0 {
			f = field{enterprise(1+chance.Uint32N(1000), uint16(chance.Uint32N(0x8000))), uint16(1 + chance.IntN(12))}
		}
		if version == ipfix && chance.IntN(8) == 0 {
			f = field{82, variableLength}
		}
		fields = append(fields, f)
	}
	var data []byte
	for range records {
		for _, f := range fields {
			n := int(f.length)
			if f.length == variableLength {
				n = chance.IntN(20)
				data = append(data, byte(n))
			}
			for range n {
				data = append(data, byte(chance.Uint32()))
			}
		}
	}
	if version == v9 {
		return v9Datagram(0, 0, set(0, tpl(256, fields...)), set(256, data))
	}
	return ipfixDatagram(0, 0, set(2, tpl(256, fields...)), set(256, data))
}

// goflow2 and this decoder find the same flows in what routers sent, except
// where goflow2 gives up on a datagram.
func TestCorpusOracle(t *testing.T) {
	flows := 0
	structure(t, func(t testing.TB, c structureCase, datagrams [][]byte) {
		d := NewDecoder(exact)
		templates := oracle.CreateTemplateSystem()
		for i, p := range datagrams {
			var b event.Batch
			d.Decode(p, router, exportTime(p)+1, &b)
			packet, err := oracleTry(p, templates)
			want := oracleFlows(packet)
			got := forwards(&b)
			switch {
			case c.Case == "Netflow 9 invalid 01":
				return // goflow2 believes the header's count of sets, which is too small
			case be.Uint16(p) == v5 && len(got) <= len(want):
				want = want[:len(got)] // goflow2 believes a count of 55,582 records
			}
			if err == nil && !slices.Equal(got, want) {
				t.Errorf("datagram %d: got\n%s\ngoflow2\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			flows += len(want)
		}
	})
	if flows < 200 {
		t.Errorf("only %d flows compared", flows)
	}
}
