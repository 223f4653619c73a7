package event

import (
	"strings"
	"sync"
	"unsafe"
)

// BatchSize is how many events a source puts in one batch before it emits it.
// Batches of one to two thousand stay in a core's cache.
const BatchSize = 1024

// Batch is the unit of work: about a thousand events that arrived together.
//
// One goroutine owns a batch at a time. Whoever receives it may read and change
// it, and then either hands it on or calls Release. Nothing may keep a pointer
// into a batch after that. The zero Batch is ready, and belongs to no pool.
type Batch struct {
	Flows    []Flow
	DNS      []DNS
	Sessions []Session
	Logs     []Log

	text []byte
	pool *Pool
}

// Len returns the number of events of all kinds.
func (b *Batch) Len() int { return len(b.Flows) + len(b.DNS) + len(b.Sessions) + len(b.Logs) }

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	b.Flows, b.DNS, b.Sessions, b.Logs, b.text = b.Flows[:0], b.DNS[:0], b.Sessions[:0], b.Logs[:0], b.text[:0]
}

// Truncate drops all flows from the n-th on; their text stays until Reset.
func (b *Batch) Truncate(n int) { b.Flows = b.Flows[:n] }

// NewFlow appends a zero Flow and returns it. The pointer is valid until the
// next append.
func (b *Batch) NewFlow() *Flow {
	b.Flows = append(b.Flows, Flow{})
	return &b.Flows[len(b.Flows)-1]
}

// AddText copies p into the batch.
func (b *Batch) AddText(p []byte) Text {
	if len(p) == 0 {
		return Text{}
	}
	t := Text{uint32(len(b.text)), uint32(len(p))}
	b.text = append(b.text, p...)
	return t
}

// Text returns what t refers to. The string shares the batch's memory: it is
// valid until Release or Reset, and a caller that keeps it clones it.
func (b *Batch) Text(t Text) string {
	if t.Len == 0 {
		return ""
	}
	p := b.text[t.Off : t.Off+t.Len] // panics if t is of another batch and out of range
	return unsafe.String(&p[0], len(p))
}

// CloneText is Text for a caller that keeps the result.
func (b *Batch) CloneText(t Text) string { return strings.Clone(b.Text(t)) }

// TextLen returns the number of bytes of text held: what bounds a batch's size
// beside its number of events.
func (b *Batch) TextLen() int { return len(b.text) }

// Append copies the events of o, text included, to the end of b.
func (b *Batch) Append(o *Batch) {
	off := uint32(len(b.text))
	flows, dns, sessions, logs := len(b.Flows), len(b.DNS), len(b.Sessions), len(b.Logs)
	b.Flows = append(b.Flows, o.Flows...)
	b.DNS = append(b.DNS, o.DNS...)
	b.Sessions = append(b.Sessions, o.Sessions...)
	b.Logs = append(b.Logs, o.Logs...)
	b.text = append(b.text, o.text...)
	if off == 0 || len(o.text) == 0 {
		return
	}
	for i := flows; i < len(b.Flows); i++ {
		move(off, &b.Flows[i].Payload)
	}
	for i := dns; i < len(b.DNS); i++ {
		d := &b.DNS[i]
		move(off, &d.Name, &d.Zone, &d.Reporter, &d.Answer)
	}
	for i := sessions; i < len(b.Sessions); i++ {
		s := &b.Sessions[i]
		move(off, &s.ID, &s.Reporter, &s.Service, &s.Subscriber, &s.User, &s.Host, &s.Detail, &s.Fingerprint)
	}
	for i := logs; i < len(b.Logs); i++ {
		l := &b.Logs[i]
		move(off, &l.Host, &l.Channel, &l.Provider, &l.User, &l.Image, &l.Message, &l.Data)
	}
}

// move makes texts refer to bytes that now lie off further on.
func move(off uint32, texts ...*Text) {
	for _, t := range texts {
		if t.Len > 0 {
			t.Off += off
		}
	}
}

// Release gives b back to the pool it came from. A batch made without a pool is
// left to the garbage collector.
func (b *Batch) Release() {
	if b.pool != nil {
		b.Reset()
		b.pool.p.Put(b)
	}
}

// Pool keeps empty batches for reuse. The zero Pool is ready; it is safe for
// concurrent use.
type Pool struct{ p sync.Pool }

// Get returns an empty batch.
func (p *Pool) Get() *Batch {
	if b, ok := p.p.Get().(*Batch); ok {
		return b
	}
	return &Batch{Flows: make([]Flow, 0, BatchSize), pool: p}
}

// Deal copies each event of b into the shard of its source, the shard of its
// destination and, if that is in an own network (DstNet), the shard of that
// network, and leaves b's records as they were, except for their marks. A copy
// carries [ForSrc], [ForDst], [ForNet] or several: a detector that keeps state
// about sources acts on records that have ForSrc, one about destinations on
// those with ForDst, one about whole networks on those with ForNet, and so each
// is counted once whatever the number of shards. len(shards) must be a power of
// two; a nil or single shard marks b itself.
//
// Addresses are dealt by their /16 (IPv4) or /32 (IPv6), so that a prefix under
// attack stays together. A network's prefixes may lie far apart, hence its shard.
func (b *Batch) Deal(shards []*Batch) {
	if len(shards) < 2 {
		for i := range b.Flows {
			f := &b.Flows[i]
			f.Marks &^= ForNet
			f.Marks |= ForSrc | ForDst
			if f.DstNet != 0 {
				f.Marks |= ForNet
			}
		}
		return
	}
	mask := uint64(len(shards) - 1)
	for i := range b.Flows {
		f := &b.Flows[i]
		f.Marks &^= ForSrc | ForDst | ForNet
		src, dst := neighbourhood(&f.Src)&mask, neighbourhood(&f.Dst)&mask
		forSrc, forDst := ForSrc, ForDst
		if f.DstNet != 0 {
			switch net := Mix(uint64(f.DstNet)) & mask; net {
			case dst:
				forDst |= ForNet
			case src:
				forSrc |= ForNet
			default:
				shards[net].AppendFlow(b, f).Marks |= ForNet
			}
		}
		if src == dst {
			shards[src].AppendFlow(b, f).Marks |= forSrc | forDst
		} else {
			shards[src].AppendFlow(b, f).Marks |= forSrc
			shards[dst].AppendFlow(b, f).Marks |= forDst
		}
	}
}

// AppendFlow appends a copy of f, a flow of from, with its text, and returns it
// as NewFlow does.
func (b *Batch) AppendFlow(from *Batch, f *Flow) *Flow {
	b.Flows = append(b.Flows, *f)
	c := &b.Flows[len(b.Flows)-1]
	if f.Payload.Len > 0 {
		c.Payload = b.AddText(from.text[f.Payload.Off : f.Payload.Off+f.Payload.Len])
	}
	return c
}

// neighbourhood hashes the part of an address that decides its shard.
func neighbourhood(a *Addr) uint64 {
	if a.Is4() {
		return Mix(uint64(a[12])<<8 | uint64(a[13]))
	}
	return Mix(uint64(a[0])<<24 | uint64(a[1])<<16 | uint64(a[2])<<8 | uint64(a[3]) | 1<<40)
}
