package netflow

// sequence follows the sequence numbers of one domain. They count flows in v5,
// datagrams in v9 (RFC 3954, 5.1), and data records, those of options included,
// in IPFIX (RFC 7011, 3.1). The zero sequence has seen nothing.
type sequence struct {
	next   uint32 // the number that should come
	known  bool   // next means something
	uptime uint32 // ms, of the latest datagram in order; v5 and v9

	behind bool   // the last datagram was behind next
	resume uint32 // and after it this number should come, if the count began anew

	perDatagram float64 // recent flows per datagram
}

// maxGap is the largest step that is a loss or a delay, in whatever the numbers
// count; a larger one is a restart.
const maxGap = 1 << 22

// maxFall is how far uptime may fall, in ms, before it means that the exporter
// started anew and not that a datagram came late.
const maxFall = 10_000

// step is what a sequence number told.
type step struct {
	lost      uint32 // numbers skipped
	reordered bool   // this datagram should have come earlier; it was counted as lost then
	restarted bool   // the count began anew
}

// observe takes the number of a datagram and how much it adds to the count.
func (s *sequence) observe(seq, n, uptime uint32) (t step) {
	gap := int32(seq - s.next)
	switch {
	case !s.known:
	case int32(uptime-s.uptime) < -maxFall, gap > maxGap, gap < -maxGap, gap < 0 && s.behind && seq == s.resume:
		t.restarted = true
	case gap < 0:
		s.behind, s.resume = true, seq+n
		t.reordered = true
		return t
	default:
		t.lost = uint32(gap)
	}
	s.next, s.known, s.behind, s.uptime = seq+n, true, false, uptime
	return t
}

// unknown says that it is not known how much the last datagram added: data
// without template, or cut short. The next number is taken as it comes.
func (s *sequence) unknown() { s.known = false }

// average takes in the number of flows in a datagram.
func (s *sequence) average(n int) {
	if s.perDatagram == 0 {
		s.perDatagram = float64(n)
		return
	}
	s.perDatagram += (float64(n) - s.perDatagram) / 16
}

// count takes what a datagram's number told; each unit of the count stands for
// flows flows.
func (dom *domain) count(t step, flows float64) {
	switch {
	case t.restarted:
		dom.counts.add(restarts, 1)
	case t.reordered:
		dom.counts.add(reordered, 1)
	case t.lost > 0:
		dom.counts.add(lostGap, uint64(float64(t.lost)*flows+0.5))
	}
}
