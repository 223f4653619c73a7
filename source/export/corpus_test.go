package export

import (
	"cmp"
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"noroshi/event"
	"noroshi/source/packet"
)

// flowCorpus returns the folder with other people's datagrams, or skips.
func flowCorpus(t *testing.T) string {
	dir := filepath.Join(cmp.Or(os.Getenv("NOROSHI_CORPUS"), "../../../shared/corpus"), "flow")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("SKIPPED: the corpus of real datagrams is not here; set NOROSHI_CORPUS")
	}
	return dir
}

// notAsserted are the files that hold nothing to decode, and why, by how their
// names end.
var notAsserted = map[string]string{
	"SOURCES.md": "where the files are from", "LICENSE": "a licence", "COPYING": "a licence", "NOTICE.TXT": "a licence",
	"telegraf.conf":                "how the other program was run",
	"ntop-35632.csv":               "names of enterprise elements, which are not needed",
	"telegraf/netflow_mapping.csv": "names of enterprise elements, which are not needed",
}

// Every file of the corpus is held to its expectation by some test; a new file
// that none knows fails here. Datagrams are asserted by TestCorpusStructure below
// (and by those of netflow and sflow, value by value), what other programs print
// of them by the tests named here.
func TestCorpusComplete(t *testing.T) {
	dir := flowCorpus(t)
	datagrams := map[string]bool{}
	for _, c := range corpusCases(t, dir) {
		for _, d := range c.Datagrams {
			datagrams[c.Set+"/"+cmp.Or(d.File, c.Case)] = true
		}
	}
	byTest := map[string]int{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		name = filepath.ToSlash(name)
		byTest["files"]++
		switch ext := filepath.Ext(name); {
		case datagrams[name]:
			byTest["export.TestCorpusStructure"]++
		case name == "structure.jsonl":
			byTest["read here"]++
		case name == "logstash/expected.json":
			byTest["netflow.TestCorpusExpected"]++
		case strings.HasPrefix(name, "telegraf/sflow") && e.Name() == "expected.out":
			byTest["export.TestCorpusTelegraf"]++
		case strings.HasPrefix(name, "telegraf/") && e.Name() == "expected.out":
			byTest["netflow.TestCorpusTelegraf"]++
		case strings.HasPrefix(name, "tcpdump/") && ext == ".out":
			byTest["export.TestCorpusTcpdump"]++
		default:
			for end := range notAsserted {
				if name == end || strings.HasSuffix(name, "/"+end) {
					byTest["hold no datagram"]++
					return nil
				}
			}
			t.Errorf("%s is asserted by no test", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", byTest)
}

// corpusCase is a line of structure.jsonl: what a separate, strict program read.
type corpusCase struct {
	Set, Case string
	Datagrams []struct {
		File    string
		Frame   int
		Error   string
		Records []string // v5
		Sets    []struct {
			Kind    string
			Records []json.RawMessage
		}
		Samples []struct{ Type int }
	}
}

func corpusCases(t *testing.T, dir string) (all []corpusCase) {
	text, err := os.ReadFile(filepath.Join(dir, "structure.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var c corpusCase
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// frame is the UDP payload of a captured packet, and who sent it when.
type frame struct {
	payload []byte
	from    event.Addr
	at      event.Time
}

// frames reads a capture of exports.
func frames(t *testing.T, path string) (all []frame) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := packet.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var p packet.Packet
		if err := r.Next(&p); err != nil {
			return all // one capture is cut short on purpose
		}
		var b event.Batch
		res := packet.Decode(&p, 0, &b)
		if res.N == 0 {
			t.Fatalf("%s: frame %d is no packet: %v", path, len(all)+1, res.Reason)
		}
		all = append(all, frame{append([]byte(nil), res.Payload...), b.Flows[0].Src, p.Time})
	}
}

// sums are the counters of all exporters together, and by exporter.
func sums(d *Decoder) map[string]int {
	m := map[string]int{}
	for c := range d.Counts() {
		m[strings.TrimSuffix(c.Name+": "+c.Reason, ": ")] += int(c.Value)
	}
	return m
}

// outer counts flows that are a record or a sample of their own.
func outer(b *event.Batch) (n int) {
	for i := range b.Flows {
		if f := &b.Flows[i]; f.Marks&(event.Reverse|event.Tunnelled) == 0 {
			n++
		}
	}
	return n
}

// Each datagram, of whatever protocol and from whatever file, holds the records,
// options and samples that a separate reading found.
func TestCorpusStructure(t *testing.T) {
	dir := flowCorpus(t)
	// The header says that the last set ends two octets after the datagram's end.
	tolerant := map[string]int{"issue_14370": 1}
	total := 0
	for _, c := range corpusCases(t, dir) {
		t.Run(c.Set+"/"+c.Case, func(t *testing.T) {
			var captured []frame
			if strings.HasSuffix(c.Case, ".pcap") {
				captured = frames(t, filepath.Join(dir, c.Set, c.Case))
				if len(captured) != len(c.Datagrams) {
					t.Errorf("%d frames, want %d", len(captured), len(c.Datagrams))
				}
			}
			d := NewDecoder(Config{})
			var b event.Batch
			want := map[string]int{"records": tolerant[c.Case]}
			for _, w := range c.Datagrams {
				p, from, at := []byte(nil), router, arrival
				if w.File != "" {
					var err error
					if p, err = os.ReadFile(filepath.Join(dir, c.Set, w.File)); err != nil {
						t.Fatal(err)
					}
				} else {
					f := captured[w.Frame-1]
					p, from, at = f.payload, f.from, f.at
				}
				n := b.Len()
				if got, _ := d.Decode(p, from, at, &b); got != b.Len()-n {
					t.Errorf("Decode = %d, appended %d", got, b.Len()-n)
				}
				total++
				if w.Error != "" {
					want["refused"]++
				}
				want["records"] += len(w.Records)
				for _, s := range w.Sets {
					switch s.Kind {
					case "data":
						want["records"] += len(s.Records)
					case "options data":
						want["options"] += len(s.Records)
					case "no template":
						want["held"]++
					}
				}
				for _, s := range w.Samples {
					switch s.Type {
					case 1, 3:
						want["records"]++
					case 2, 4:
						want["counters"]++
					case 5:
						want["discards"]++
					}
				}
			}
			m := sums(d)
			got := map[string]int{
				"records": outer(&b) + m["records: event without volume"] + m["records: no IP address"] + m["samples: no IP packet"],
				"options": m["records: options"], "held": m["sets: held for template"], "counters": m["samples: interface counters"],
				"discards": m["samples: discarded packets"], "refused": m["refused: short header"],
			}
			for name, n := range got {
				if n != want[name] {
					t.Errorf("%d %s, want %d", n, name, want[name])
				}
			}
			for name, n := range m {
				if strings.HasPrefix(name, "samples: malformed") || strings.HasPrefix(name, "samples: cut") || strings.HasPrefix(name, "refused: unknown") {
					t.Errorf("%s: %d", name, n)
				}
			}
		})
	}
	t.Logf("%d datagrams", total)
}

var pair = regexp.MustCompile(`(\w+)=("[^"]*"|[^,\s]+)`)

// What telegraf reads in sFlow datagrams is so here, sample by sample.
func TestCorpusTelegraf(t *testing.T) {
	dir := flowCorpus(t)
	cases, _ := filepath.Glob(filepath.Join(dir, "telegraf/sflow*"))
	if len(cases) < 4 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, dir := range cases {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, "expected.out"))
			if err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*.bin"))
			d := NewDecoder(Config{})
			var b event.Batch
			for _, name := range files {
				p, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Decode(p, router, arrival, &b); err != nil {
					t.Error(err)
				}
			}
			flows, counters, discards := 0, 0, 0
			for line := range strings.Lines(string(text)) {
				want := map[string]string{}
				if !strings.HasPrefix(line, "netflow,") {
					continue
				}
				for _, m := range pair.FindAllStringSubmatch(line, -1) {
					want[m[1]] = strings.TrimSuffix(strings.Trim(m[2], `"`), "u")
				}
				switch {
				case want["reason"] != "":
					discards++
					continue
				case want["src"] == "":
					counters++
					continue
				}
				if flows++; flows > b.Len() {
					continue
				}
				f := &b.Flows[flows-1]
				number := func(name string) (n uint64) { n, _ = strconv.ParseUint(want[name], 10, 64); return n }
				size := number("ipv4_total_len")
				if size == 0 {
					size = number("ip_total_len") + 40 // IPv6 says the length behind its header
				}
				egress := want["direction"] == "egress"
				in := number("in_snmp")
				if egress { // telegraf then has the outgoing interface in both places
					in = uint64(f.InIf)
				}
				got := []any{f.Exporter.String(), f.Src.String(), f.Dst.String(), uint64(f.Sampling), f.Has(event.Egress), uint64(f.InIf), uint64(f.OutIf), uint64(f.TTL), f.Bytes, f.Packets}
				should := []any{want["agent_ip"], want["src"], want["dst"], number("sampling_interval"), egress, in, number("out_snmp"), number("ttl"),
					size * number("sampling_interval"), number("sampling_interval")}
				if f.Proto == event.UDP {
					got = append(got, uint64(f.SrcPort), uint64(f.DstPort))
					should = append(should, number("src_port"), number("dst_port"))
				}
				if !slices.Equal(got, should) {
					t.Errorf("flow %d is %v, want %v", flows, got, should)
				}
			}
			if m := sums(d); flows != b.Len() || counters != m["samples: interface counters"] || discards != m["samples: discarded packets"] {
				t.Errorf("%d flows, %v; want %d flows, %d counter samples, %d discards", b.Len(), m, flows, counters, discards)
			}
		})
	}
}

var (
	printedAgent = regexp.MustCompile(`sFlowv5, IPv[46] agent (\S+), agent-id (\d+)(?:, seqnum \d+, uptime \d+, samples (\d+))?, length (\d+)`)
	printedFlow  = regexp.MustCompile(`flow sample \([13]\), .* rate (\d+), pool \d+, drops \d+, input (\d+)`)
)

// What tcpdump prints of captures of sFlow is so here: agents, lengths, samples,
// rates, interfaces; and what it can't read is either NetFlow or refused.
func TestCorpusTcpdump(t *testing.T) {
	dir := filepath.Join(flowCorpus(t), "tcpdump")
	texts, _ := filepath.Glob(filepath.Join(dir, "*.out"))
	if len(texts) < 5 {
		t.Errorf("only %d files", len(texts))
	}
	for _, name := range texts {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			// Each frame begins with its number; the rest of it is indented more.
			parts := regexp.MustCompile(`(?m)^ *\d+  \d`).Split(string(text), -1)[1:]
			all := frames(t, filepath.Join(dir, strings.TrimSuffix(strings.TrimSuffix(filepath.Base(name), ".out"), "-nv")+".pcap"))
			if len(all) != len(parts) {
				t.Fatalf("%d frames, want %d", len(all), len(parts))
			}
			for i, f := range all {
				d := NewDecoder(Config{})
				var b event.Batch
				n, err := d.Decode(f.payload, f.from, f.at, &b)
				m := printedAgent.FindStringSubmatch(parts[i])
				if m == nil {
					// tcpdump can't: sFlow of 8 octets, or NetFlow on sFlow's port.
					if invalid := strings.Contains(parts[i], "invalid"); invalid != (err != nil) || invalid == (n > 0) {
						t.Errorf("frame %d: %d flows, %v", i+1, n, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("frame %d: %v", i+1, err)
				}
				followed := false
				for c := range d.Counts() {
					followed = followed || c.Name == "datagrams" && c.Exporter == event.AddrOf(netip.MustParseAddr(m[1])) && strconv.Itoa(int(c.Domain)) == m[2]
				}
				if !followed || strconv.Itoa(len(f.payload)) != m[4] {
					t.Errorf("frame %d: %d octets; want agent %s, sub-agent %s, %s octets", i+1, len(f.payload), m[1], m[2], m[4])
				}
				if m[3] == "" {
					continue // the short form says no more
				}
				samples := printedFlow.FindAllStringSubmatch(parts[i], -1)
				sum := sums(d)
				if flows := outer(&b) + sum["samples: no IP packet"]; flows != len(samples) || strconv.Itoa(flows+sum["samples: interface counters"]) != m[3] {
					t.Errorf("frame %d: %d flow samples, %v; want %d of %s samples", i+1, flows, sum, len(samples), m[3])
				}
				for j := range b.Flows {
					f, found := &b.Flows[j], false
					for _, s := range samples {
						found = found || strconv.Itoa(int(f.Sampling)) == s[1] && (f.InIf == 0 || strconv.Itoa(int(f.InIf)) == s[2])
					}
					if !found || f.Packets != uint64(f.Sampling) {
						t.Errorf("frame %d: no sample is like %s", i+1, b.Line(f))
					}
				}
			}
		})
	}
}
