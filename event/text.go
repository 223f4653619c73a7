package event

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// AppendLine parses one line of the text notation and appends its events to b.
// The notation is used in detectors' cases, in golden files, as evidence in
// findings and in the manual:
//
//	flow +1.5s 10.0.0.5:40000 > 192.0.2.[1-120]:23 tcp S 3p 180B 2s ttl=64 win=1400 seqdst x2 /10ms
//
// The time is an offset from start and is First. [m-n] in the last number of an
// IPv4 address stands for that many events; in the port, [m-n] cycles through
// the ports. "xN" repeats the whole, "/10ms" is the step from each event to the
// next (default 1ms). One line is at most [MaxLineEvents] events. Words after the
// destination, in any order:
//
//	tcp udp icmp icmp6 gre esp proto=N   protocol
//	S SA A R RA PA FA FPA SFPA SEW none  TCP flags: letters of FSRPAUEW
//	3p 180B                              packets and bytes (1p and 60B unless told)
//	2s                                   duration: Last = First + 2s (0 unless told)
//	late=30s                             Seen = Last + 30s (0 unless told)
//	1:1000                               sampling (1:1 unless told; 1:0 unknown); p and B are estimates, already multiplied
//	type=8/0                             ICMP type and code
//	ttl=N win=N                          of a packet; win implies packet
//	packet seqdst quoteseqdst badoffset noopt frag firstfrag tunnelled egress reverse
//	via=192.0.2.9                        exporter
//	payload=0011aabb                     transport payload, in hexadecimal
func (b *Batch) AppendLine(line string, start Time) error {
	if err := b.appendLine(line, start); err != nil {
		return fmt.Errorf("event: %q: %w", line, err)
	}
	return nil
}

// MaxLineEvents bounds the events of one line: a slip of the finger must not
// fill the memory.
const MaxLineEvents = 1 << 20

func (b *Batch) appendLine(line string, start Time) error {
	w := strings.Fields(line)
	if len(w) < 6 || w[0] != "flow" || w[3] != ">" {
		return errors.New("want a flow as in: flow +time src > dst proto")
	}
	at, err := parseSpan(strings.TrimPrefix(w[1], "+"), -maxSpan)
	if err != nil {
		return err
	}
	src, err := parseEndpoint(w[2])
	if err != nil {
		return err
	}
	dst, err := parseEndpoint(w[4])
	if err != nil {
		return err
	}
	o := lineOptions{repeat: 1, step: time.Millisecond}
	o.f = Flow{Sampling: 1, Packets: 1, Bytes: 60}
	for _, w := range w[5:] {
		if err := o.word(w); err != nil {
			return fmt.Errorf("%q: %w", w, err)
		}
	}
	if len(o.payload) > MaxPayload {
		return fmt.Errorf("payload of %d octets; at most %d are kept", len(o.payload), MaxPayload)
	}
	events := o.repeat * max(src.addrs, dst.addrs)
	if events > MaxLineEvents {
		return fmt.Errorf("%d events; at most %d in one line", events, MaxLineEvents)
	}
	if events > 1 && o.step > maxSpan/time.Duration(events) {
		return fmt.Errorf("%d steps of %v are longer than %v", events, o.step, maxSpan)
	}
	o.f.Payload = b.AddText(o.payload)
	n := 0
	for range o.repeat {
		for i := range max(src.addrs, dst.addrs) {
			f := o.f
			f.Src, f.SrcPort = src.at(i, n)
			f.Dst, f.DstPort = dst.at(i, n)
			if o.icmp != 0 || f.Proto == ICMP || f.Proto == ICMPv6 {
				f.SrcPort, f.DstPort = 0, o.icmp
			}
			f.First = start.Add(at + time.Duration(n)*o.step)
			f.Last = f.First.Add(o.duration)
			f.Seen = f.Last.Add(o.late)
			b.Flows = append(b.Flows, f)
			n++
		}
	}
	return nil
}

type lineOptions struct {
	f              Flow
	repeat         int
	step           time.Duration
	duration, late time.Duration
	icmp           uint16
	payload        []byte
}

var protoWords = map[string]uint8{"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmp6": ICMPv6, "gre": GRE, "esp": ESP}

var markWords = []struct {
	word string
	mark Marks
}{
	{"packet", OnePacket}, {"seqdst", SeqIsDst}, {"quoteseqdst", QuoteSeqIsDst}, {"badoffset", BadOffset},
	{"noopt", NoOptions}, {"frag", Fragment}, {"firstfrag", FirstFragment}, {"tunnelled", Tunnelled},
	{"egress", Egress}, {"reverse", Reverse}, {"clamped", Clamped},
}

const flagLetters = "FSRPAUEW" // from the lowest bit up

func (o *lineOptions) word(w string) (err error) {
	if p, ok := protoWords[w]; ok {
		o.f.Proto = p
		return nil
	}
	for _, m := range markWords {
		if m.word == w {
			o.f.Marks |= m.mark
			return nil
		}
	}
	if flags, ok := parseFlags(w); ok {
		o.f.TCPFlags = flags
		return nil
	}
	number := func(s string, bits int) (n uint64) {
		if err == nil {
			n, err = strconv.ParseUint(s, 10, bits)
		}
		return n
	}
	key, value, hasValue := strings.Cut(w, "=")
	switch {
	case hasValue && key == "proto":
		o.f.Proto = uint8(number(value, 8))
	case hasValue && key == "ttl":
		o.f.TTL = uint8(number(value, 8))
	case hasValue && key == "win":
		o.f.Window = uint16(number(value, 16))
		o.f.Marks |= OnePacket
	case hasValue && key == "type":
		t, c, _ := strings.Cut(value, "/")
		o.icmp = uint16(number(t, 8)) << 8
		if c != "" {
			o.icmp |= uint16(number(c, 8))
		}
	case hasValue && key == "late":
		o.late, err = parseSpan(value, 0)
	case hasValue && key == "payload":
		o.payload, err = hex.DecodeString(value)
		o.f.Marks |= OnePacket
	case hasValue && key == "via":
		var a netip.Addr
		a, err = netip.ParseAddr(value)
		o.f.Exporter = AddrOf(a)
	case strings.HasPrefix(w, "1:"):
		o.f.Sampling = uint32(number(w[2:], 32))
	case strings.HasPrefix(w, "/"):
		o.step, err = parseSpan(w[1:], 0)
	case strings.HasPrefix(w, "x"):
		o.repeat = int(number(w[1:], 31))
	case strings.HasSuffix(w, "p"):
		o.f.Packets = number(w[:len(w)-1], 64)
	case strings.HasSuffix(w, "B"):
		o.f.Bytes = number(w[:len(w)-1], 64)
	default:
		o.duration, err = parseSpan(w, 0)
	}
	return err
}

// maxSpan is the longest duration that a line may name: ten years.
const maxSpan = 87600 * time.Hour

// parseSpan parses a duration from lo to maxSpan.
func parseSpan(s string, lo time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && (d < lo || d > maxSpan) {
		err = fmt.Errorf("not from %v to %v", lo, maxSpan)
	}
	return d, err
}

func parseFlags(w string) (flags uint8, ok bool) {
	if w == "none" {
		return 0, true
	}
	for _, c := range w {
		i := strings.IndexRune(flagLetters, c)
		if i < 0 {
			return 0, false
		}
		flags |= 1 << i
	}
	return flags, w != ""
}

// endpoint is an address with an optional range in its last byte, and a port
// with an optional range.
type endpoint struct {
	addr         Addr
	addrs, ports int
	port         uint16
}

// at returns the i-th address, or the only one, and the port of event n.
func (e endpoint) at(i, n int) (Addr, uint16) {
	a := e.addr
	if e.addrs > 1 {
		a[15] += byte(i % e.addrs)
	}
	return a, e.port + uint16(n%e.ports)
}

func parseEndpoint(s string) (e endpoint, err error) {
	e.addrs, e.ports = 1, 1
	whole := s
	if i := strings.LastIndex(s, ":["); i > 0 && strings.HasSuffix(s, "]") { // port range
		lo, n, err := parseRange(s[i+1:], 65535)
		if err != nil {
			return e, fmt.Errorf("%q: %w", whole, err)
		}
		s, e.ports = s[:i+1]+strconv.Itoa(lo), n
	}
	if i := strings.Index(s, ".[") + 1; i > 0 { // not the [ of [2001:db8::1]:53
		j := strings.IndexByte(s, ']')
		if j < i {
			return e, fmt.Errorf("%q: unclosed [", whole)
		}
		lo, n, err := parseRange(s[i:j+1], 255)
		if err != nil {
			return e, fmt.Errorf("%q: %w", whole, err)
		}
		s, e.addrs = s[:i]+strconv.Itoa(lo)+s[j+1:], n
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		e.addr, e.port = AddrOf(ap.Addr()), ap.Port()
		return e, nil
	}
	ip, err := netip.ParseAddr(s)
	e.addr = AddrOf(ip)
	return e, err
}

// parseRange parses [lo-hi] with 0 <= lo <= hi <= top and returns lo and how
// many numbers there are.
func parseRange(s string, top int) (lo, n int, err error) {
	var hi int
	if _, err := fmt.Sscanf(s, "[%d-%d]", &lo, &hi); err != nil || lo < 0 || lo > hi || hi > top {
		return 0, 0, fmt.Errorf("bad range %s", s)
	}
	return lo, hi - lo + 1, nil
}

// Line returns f in the text notation, with its absolute First in place of the
// offset: a line for people, used as evidence. It holds no byte of payload
// beyond the first 16, in hexadecimal, so it is safe on any terminal.
func (b *Batch) Line(f *Flow) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%v ", f.First)
	endpointText(&s, f.Src, f.SrcPort)
	s.WriteString(" > ")
	port := f.DstPort
	if f.Proto == ICMP || f.Proto == ICMPv6 {
		port = 0
	}
	endpointText(&s, f.Dst, port)
	s.WriteByte(' ')
	s.WriteString(ProtoName(f.Proto))
	switch f.Proto {
	case TCP:
		s.WriteByte(' ')
		s.WriteString(FlagsText(f.TCPFlags))
	case ICMP, ICMPv6:
		fmt.Fprintf(&s, " type=%d/%d", f.DstPort>>8, f.DstPort&0xff)
	}
	fmt.Fprintf(&s, " %dp %dB", f.Packets, f.Bytes)
	if d := f.Last.Sub(f.First); d > 0 {
		fmt.Fprintf(&s, " %v", d.Round(time.Millisecond))
	}
	if f.Sampling != 1 {
		fmt.Fprintf(&s, " 1:%d", f.Sampling)
	}
	if f.TTL != 0 {
		fmt.Fprintf(&s, " ttl=%d", f.TTL)
	}
	if f.Has(OnePacket) && f.Proto == TCP {
		fmt.Fprintf(&s, " win=%d", f.Window)
	}
	for _, m := range markWords {
		if m.mark != OnePacket && f.Has(m.mark) {
			s.WriteByte(' ')
			s.WriteString(m.word)
		}
	}
	if f.Exporter != (Addr{}) {
		fmt.Fprintf(&s, " via=%v", f.Exporter)
	}
	if p := b.Text(f.Payload); p != "" {
		fmt.Fprintf(&s, " payload=%x", p[:min(len(p), 16)])
	}
	return s.String()
}

func endpointText(s *strings.Builder, a Addr, port uint16) {
	switch {
	case port == 0:
		s.WriteString(a.String())
	case a == Addr{}:
		fmt.Fprintf(s, "-:%d", port)
	default:
		s.WriteString(netip.AddrPortFrom(a.Std(), port).String())
	}
}

// ProtoName returns the protocol's word in the text notation.
func ProtoName(p uint8) string {
	for w, n := range protoWords {
		if n == p {
			return w
		}
	}
	return "proto=" + strconv.Itoa(int(p))
}

// FlagsText returns TCP flags as letters of FSRPAUEW, or "none".
func FlagsText(flags uint8) string {
	if flags == 0 {
		return "none"
	}
	var s []byte
	for i := range 8 {
		if flags&(1<<i) != 0 {
			s = append(s, flagLetters[i])
		}
	}
	return string(s)
}
