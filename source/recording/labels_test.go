package recording

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"noroshi/event"
)

// seen is one record of a capture with its payload.
type seen struct {
	event.Flow
	payload string
}

// fact is something that a capture must hold so often: how many records are so,
// or with by, how many different values they have.
type fact struct {
	what string
	want int
	is   func(f *seen) bool
	by   func(f *seen) any
}

func tcp(flags uint8, port uint16) func(*seen) bool {
	return func(f *seen) bool {
		return f.Proto == event.TCP && f.TCPFlags == flags && (port == 0 || f.DstPort == port)
	}
}

func udpFrom(port uint16) func(*seen) bool {
	return func(f *seen) bool { return f.Proto == event.UDP && f.SrcPort == port }
}

func ports(list ...uint16) func(*seen) bool {
	return func(f *seen) bool {
		for _, p := range list {
			if f.SrcPort == p || f.DstPort == p {
				return true
			}
		}
		return false
	}
}

func marked(m event.Marks) func(*seen) bool { return func(f *seen) bool { return f.Has(m) } }
func icmp(f *seen) bool                     { return f.Proto == event.ICMP }
func any1(*seen) bool                       { return true }
func src(f *seen) any                       { return f.Src }
func dst(f *seen) any                       { return f.Dst }
func dstPort(f *seen) any                   { return f.DstPort }
func srcPort(f *seen) any                   { return f.SrcPort }
func tcpWindow(f *seen) any                 { return f.Window }

// labels is what decoding owes for each capture that labels.tsv describes. What
// the labels want beyond that is for detectors and for decoders of RADIUS, DHCP,
// SMB and telnet, which work on these records.
var labels = map[string][]fact{
	"mirai-syn-2020.pcap": {
		{"marked SYNs to 23 with a bad offset", 2, func(f *seen) bool {
			return tcp(event.SYN, 23)(f) && f.Has(event.SeqIsDst|event.BadOffset) && f.TTL == 54 && f.Bytes == 40
		}, nil},
		{"sources", 1, any1, src},
		{"source ports", 2, any1, srcPort},
		{"windows", 2, any1, tcpWindow},
		{"options or payload read from padding", 0, func(f *seen) bool { return f.payload != "" || f.Has(event.NoOptions) }, nil},
	},
	"mirai-syn-2017-anonymised.pcap": {
		{"SYNs of 40 octets with window 1460", 10, func(f *seen) bool { return tcp(event.SYN, 0)(f) && f.Bytes == 40 && f.Window == 1460 }, nil},
		{"their targets", 10, tcp(event.SYN, 0), dst}, // the label says 9; another reader counts 10 too
		{"SYNs to 80", 6, tcp(event.SYN, 80), nil},
		{"SYNs to 8080", 2, tcp(event.SYN, 8080), nil},
		{"SYNs to 88", 2, tcp(event.SYN, 88), nil},
		{"marks on SYNs", 0, marked(event.SeqIsDst), nil},
		{"marks in quotes", 6, func(f *seen) bool { return f.Has(event.QuoteSeqIsDst) && icmp(f) && f.DstPort>>8 == 3 }, nil},
		{"sources quoted", 1, marked(event.QuoteSeqIsDst), dst},
	},
	"adb-worm.pcap": {
		{"segments of ADB", 13, ports(5555), nil},
		{"shell lines", 1, func(f *seen) bool { return f.DstPort == 5555 && strings.Contains(f.payload, "shell:") }, nil},
		{"marks", 0, func(f *seen) bool { return f.Marks&(event.SeqIsDst|event.NoOptions|event.BadOffset) != 0 }, nil},
	},
	"cldap.pcap":        {{"requests of 137 octets", 1, func(f *seen) bool { return f.DstPort == 389 && len(f.payload) == 137 }, nil}, {"replies of 151", 1, func(f *seen) bool { return f.SrcPort == 389 && len(f.payload) == 151 }, nil}},
	"snmp-getbulk.pcap": {{"requests", 1, func(f *seen) bool { return f.DstPort == 161 }, nil}, {"responses", 1, udpFrom(161), nil}},
	"ntp-mode6-7.pcap": {
		{"requests to 123", 9, func(f *seen) bool { return f.Proto == event.UDP && f.DstPort == 123 }, nil},
		{"of mode 6", 6, func(f *seen) bool { return f.payload != "" && f.payload[0]&7 == 6 }, nil},
		{"of mode 7", 3, func(f *seen) bool { return f.payload != "" && f.payload[0]&7 == 7 }, nil},
		{"monlist", 1, func(f *seen) bool { return len(f.payload) > 3 && f.payload[0]&7 == 7 && f.payload[3] == 42 }, nil},
	},
	"amp-snmp.pcapng": {
		{"UDP from 161", 4079, udpFrom(161), nil},
		{"reflectors", 4028, udpFrom(161), src},
		{"victims", 1, udpFrom(161), dst},
		{"ports of the victim", 3, udpFrom(161), dstPort},
		{"ICMP errors", 294, icmp, nil},
		{"quoted packets taken for traffic", 0, func(f *seen) bool { return f.Proto != event.UDP && !icmp(f) || f.Has(event.Tunnelled) }, nil},
	},
	"amp-isakmp.pcap": {
		{"204 octets from 4500", 3984, func(f *seen) bool { return udpFrom(4500)(f) && len(f.payload) == 204 }, nil},
		{"reflectors", 2767, udpFrom(4500), src},
		{"victims", 1, udpFrom(4500), dst},
		{"ports of the victim", 3853, udpFrom(4500), dstPort},
	},
	"amp-bacnet-dvr.pcapng": {
		{"from 47808", 6737, udpFrom(47808), nil},
		{"reflectors of BACnet", 3559, udpFrom(47808), src},
		{"from 37810", 2377, udpFrom(37810), nil},
		{"reflectors of DVR discovery", 2254, udpFrom(37810), src},
		{"from 30120", 338, udpFrom(30120), nil},
		{"UDP sources", 6145, func(f *seen) bool { return f.Proto == event.UDP }, src},
		{"ICMP", 155, icmp, nil},
	},
	// Two more say IP versions 2 and 5, which no host would take; the label counts one.
	"radius-mixed-malformed.pcap": {{"unfragmented RADIUS", 334, func(f *seen) bool {
		return f.Proto == event.UDP && f.Marks&(event.Fragment|event.FirstFragment|event.Tunnelled) == 0 && ports(1645, 1646, 1812, 1813, 3799)(f)
	}, nil}},
	"radius-accounting-interim.pcap": {{"accounting", 2, ports(1813), nil}, {"requests", 1, func(f *seen) bool { return f.payload != "" && f.payload[0] == 4 }, nil}},
	"radius-coa-disconnect.pcap":     {{"codes 40 to 45", 6, func(f *seen) bool { return f.payload != "" && f.payload[0] >= 40 && f.payload[0] <= 45 }, func(f *seen) any { return f.payload[0] }}},
	"dhcp-exchange.pcap":             {{"DHCP", 9, ports(67, 68), nil}},
	"dhcp-ack-option82.pcap":         {{"DHCP", 1, ports(67, 68), nil}},
	"scan-445.pcap": {
		{"kernel SYNs to 445", 21, func(f *seen) bool { return tcp(event.SYN, 445)(f) && !f.Has(event.NoOptions) && !f.Has(event.SeqIsDst) }, nil},
		{"targets", 9, any1, dst},
		{"scanners", 1, any1, src},
	},
	"scan-ports-one-host.pcap": {
		{"kernel SYNs", 10, func(f *seen) bool { return tcp(event.SYN, 0)(f) && !f.Has(event.NoOptions) }, nil},
		{"ports", 10, any1, dstPort},
		{"targets", 1, any1, dst},
	},
	"scan-telnet-zero-window.pcap": {
		{"bare SYNs to 23 with window 0", 10, func(f *seen) bool {
			return tcp(event.SYN, 23)(f) && f.Window == 0 && f.Bytes == 40 && f.Has(event.NoOptions)
		}, nil},
		{"targets", 10, any1, dst},
		{"source ports", 10, any1, srcPort},
		{"marks", 0, marked(event.SeqIsDst), nil},
	},
	"backscatter-24h.pcap": {
		{"SYN+ACK of the victim", 3431, func(f *seen) bool {
			return tcp(event.SYN|event.ACK, 0)(f) && f.SrcPort == 80 && f.Src.String() == "202.229.120.98"
		}, nil},
		// The label says 515; another reader counts 511 too.
		{"addresses answered", 511, tcp(event.SYN|event.ACK, 0), dst},
		{"resets", 1310, func(f *seen) bool { return f.Proto == event.TCP && f.TCPFlags&event.RST != 0 }, nil},
		{"ICMP unreachable", 28, func(f *seen) bool { return icmp(f) && f.DstPort>>8 == 3 }, nil},
		{"DNS", 2, func(f *seen) bool { return f.Proto == event.UDP && ports(53)(f) }, nil},
		{"SYNs", 0, tcp(event.SYN, 0), nil},
		{"marks", 0, func(f *seen) bool { return f.Marks&(event.SeqIsDst|event.QuoteSeqIsDst) != 0 }, nil},
	},
	"smb1-negotiate-lanman.pcap": {{"SMB1", 7, ports(139, 445), nil}},
	"smb1-trans.pcap":            {{"SMB1", 16, ports(139, 445), nil}},
	"smb1-trans-secondary.pcap":  {{"SMB1", 15, ports(139, 445), nil}},
	"smb1-trans2.pcap":           {{"SMB1", 14, ports(139, 445), nil}},
	"smb1-trans2-secondary.pcap": {{"SMB1", 16, ports(139, 445), nil}},
	"telnet-login.pcap": {
		{"segments of telnet", 92, ports(23), nil},
		{"marks", 0, func(f *seen) bool { return f.Marks&(event.SeqIsDst|event.NoOptions|event.BadOffset) != 0 }, nil},
	},
}

// Every capture that others labelled: all its packets are read, in the order of
// time, and hold what the labels say.
func TestLabels(t *testing.T) {
	dir := filepath.Join(cmp.Or(os.Getenv("NOROSHI_CORPUS"), "../../../shared/corpus"), "packets")
	text, err := os.ReadFile(filepath.Join(dir, "labels.tsv"))
	if err != nil {
		t.Skip("SKIPPED: the corpus of real captures is not here; set NOROSHI_CORPUS")
	}
	labelled := map[string]bool{"labels.tsv": true, "SOURCES.md": true}
	for line := range strings.Lines(string(text)) {
		w := strings.Split(line, "\t")
		packets, err := strconv.Atoi(w[1])
		if err != nil {
			continue // the heading
		}
		labelled[w[0]] = true
		t.Run(w[0], func(t *testing.T) { checkLabels(t, filepath.Join(dir, w[0]), packets, labels[w[0]]) })
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !labelled[f.Name()] {
			t.Errorf("%s has no label", f.Name())
		}
	}
	t.Logf("%d captures", len(labelled)-2)
}

func checkLabels(t *testing.T, path string, packets int, facts []fact) {
	if len(facts) == 0 {
		t.Fatal("nothing is asserted of it")
	}
	r := New([]string{path}, Config{})
	var all []seen
	last := event.Time(0)
	err := r.Run(context.Background(), func(b *event.Batch) {
		for i := range b.Flows {
			f := &b.Flows[i]
			if f.Seen < last {
				t.Errorf("%v after %v", f.Seen, last)
			}
			last = f.Seen
			all = append(all, seen{*f, b.CloneText(f.Payload)})
		}
		b.Release()
	})
	if err != nil || count(r, "packets", "") != uint64(packets) {
		t.Errorf("%d packets, %v; want %d", count(r, "packets", ""), err, packets)
	}
	var refused, inner uint64
	for c := range r.Counts() {
		if c.Name == "refused" {
			refused += c.Value
		}
	}
	for i := range all {
		if all[i].Has(event.Tunnelled) {
			inner++
		}
	}
	if got := uint64(len(all)) - inner + refused; got != uint64(packets) {
		t.Errorf("%d packets are a record or refused, want %d", got, packets)
	}
	for _, fact := range facts {
		n, different := 0, map[any]bool{}
		for i := range all {
			if fact.is(&all[i]) {
				n++
				if fact.by != nil {
					different[fact.by(&all[i])] = true
				}
			}
		}
		if fact.by != nil {
			n = len(different)
		}
		if n != fact.want {
			t.Errorf("%d %s, want %d", n, fact.what, fact.want)
		}
	}
}
