// Package netflow decodes what routers say about traffic: NetFlow v5, NetFlow
// v9 (RFC 3954) and IPFIX (RFC 7011, 7012) with biflows (RFC 5103) and packet
// sampling (RFC 5476, 5477).
//
// It exists because the usual decoders build a list of fields for each record
// and cost more than all that comes after them. Here a template is compiled
// once, when it arrives, into a plan that says which octets go to which field
// of an [event.Flow]; a record is then a short loop without allocation.
//
// What a template does not carry stays zero in the flow: Packets too, for the
// few exporters that count only octets. A record of a bidirectional flow gives
// two flows, the second marked [event.Reverse]. Records that have no IP address,
// options records, and firewall or NAT events without volume are counted and
// become no flow.
//
// Sampling of whole flows (RFC 7014: elements 390, 396, 397) is not
// multiplied: a flow that was kept is complete.
package netflow

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"noroshi/event"
)

// Config bounds and directs a Decoder. Zero values mean the defaults.
type Config struct {
	// MaxExporters bounds how many exporter addresses are served; default
	// 4,096. Twice as many observation domains are, and one exporter has at
	// most 256. At the bound those silent for ten minutes make room, and if
	// none is, datagrams of newcomers are refused and counted: forged senders
	// can't push out the living.
	MaxExporters int
	// MaxTemplates bounds templates over all exporters; default 16,384. One
	// exporter has at most a quarter of them; at its bound the template it
	// announced least recently is dropped.
	MaxTemplates int
	// PendingBytes bounds the memory of data sets that wait for their template,
	// over all exporters; default 16 MiB. At the bound the oldest are dropped.
	// Negative: none wait.
	PendingBytes int
	// PendingAge is how long a data set waits; default ten minutes.
	PendingAge time.Duration
	// Sampling is the operator's word on the sampling rate of an exporter's
	// domain, trusted above all the exporter says: one packet in so many. It is
	// called for each set of records. Nil or 0: the exporter's word counts.
	Sampling func(exporter event.Addr, domain uint32) uint32
}

func (c Config) withDefaults() Config {
	if c.MaxExporters == 0 {
		c.MaxExporters = 4096
	}
	if c.MaxTemplates == 0 {
		c.MaxTemplates = 16384
	}
	if c.PendingBytes == 0 {
		c.PendingBytes = 16 << 20
	}
	if c.PendingAge == 0 {
		c.PendingAge = 10 * time.Minute
	}
	return c
}

// The errors of Decode. What was whole in the datagram was decoded all the same.
var (
	ErrShort    = errors.New("netflow: datagram cut short")
	ErrVersion  = errors.New("netflow: not version 5, 9 or 10")
	ErrSet      = errors.New("netflow: set of impossible length")
	ErrTemplate = errors.New("netflow: malformed or oversized template")
	ErrRefused  = errors.New("netflow: too many exporters or domains")
)

// Decoder holds the templates, sampling rates and sequence numbers of the
// exporters that one goroutine serves. Only Counts and Waiting may be called
// while another method runs. Make one with NewDecoder.
type Decoder struct {
	cfg    Config
	counts counters // of datagrams that belong to no domain, and of domains forgotten

	mu        sync.Mutex // held by the owner to change, by others to read: exporters, their domains, held
	exporters map[event.Addr]*exporter
	domains   int
	templates int
	samplers  int
	held      heldSets

	last   *exporter  // of the last datagram
	swept  event.Time // when the silent were last looked for
	fields []field    // of the template being read

	// The record of variable length being read: where its fields end, how many
	// octets they have, and the plan for it.
	ends, widths [maxFields]uint16
	walked       []op
}

// NewDecoder returns a Decoder that knows no exporter yet.
func NewDecoder(c Config) *Decoder {
	return &Decoder{cfg: c.withDefaults(), exporters: map[event.Addr]*exporter{}}
}

// be is the order of octets on the wire.
var be = binary.BigEndian

// The version numbers, in the first two octets of a datagram.
const (
	v5    = 5
	v9    = 9
	ipfix = 10
)

// Decode appends to b the flows of datagram p, which exporter sent and which
// arrived at seen (never 0), and returns how many it appended, also when it returns an
// error. Datagrams of one exporter must come in order of arrival. It keeps
// nothing of p.
//
// If p brings a template for which earlier data waited, their flows are among
// those appended. Their Seen is the moment they became readable, which is seen;
// First and Last are by the header they came with.
func (d *Decoder) Decode(p []byte, exporter event.Addr, seen event.Time, b *event.Batch) (n int, err error) {
	if len(p) < 2 {
		d.counts.add(refusedShort, 1)
		return 0, ErrShort
	}
	d.expire(seen)
	before := len(b.Flows)
	switch be.Uint16(p) {
	case v5:
		err = d.decodeV5(p, exporter, seen, b)
	case v9:
		err = d.decodeV9(p, exporter, seen, b)
	case ipfix:
		err = d.decodeIPFIX(p, exporter, seen, b)
	default:
		d.counts.add(refusedVersion, 1)
		err = ErrVersion
	}
	return len(b.Flows) - before, err
}

// IsDatagram reports whether p looks like a whole v5, v9 or IPFIX datagram:
// its version, its count or length, and a chain of sets that ends where the
// datagram does. Few other datagrams pass, so recorded exports can be found on
// any port. Headers without a record, and exporters that get their own lengths
// wrong, don't pass; Decode is more patient.
func IsDatagram(p []byte) bool {
	if len(p) < 24 {
		return false
	}
	switch be.Uint16(p) {
	case v5:
		n := int(be.Uint16(p[2:]))
		const year2000 = 946684800
		return 1 <= n && n <= v5Most && v5Header+n*v5Record <= len(p) && (len(p)-v5Header)%v5Record == 0 &&
			be.Uint32(p[8:]) >= year2000 && be.Uint32(p[12:]) < 1e9
	case v9:
		return be.Uint16(p[2:]) > 0 && isChain(p[v9Header:], 0)
	case ipfix:
		return int(be.Uint16(p[2:])) == len(p) && isChain(p[ipfixHeader:], 2)
	}
	return false
}

// isChain reports whether p is one or more sets, whose templates have the ids
// template and template+1, and then nothing but zeros.
func isChain(p []byte, template uint16) bool {
	sets := 0
	for ; len(p) >= setHeader; sets++ {
		id, size := be.Uint16(p), int(be.Uint16(p[2:]))
		if size == 0 {
			break
		}
		if size < setHeader || size > len(p) || id < firstData && id != template && id != template+1 {
			return false
		}
		p = p[size:]
	}
	return sets > 0 && allZero(p)
}

func allZero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}
