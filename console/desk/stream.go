package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"noroshi/finding"
)

// Bounds of the stream.
const (
	maxFollowers = 64
	maxQueue     = 256 // incidents whose latest state waits for one follower, or is kept for those who come back
)

// ErrCrowded is the error for one follower too many.
var ErrCrowded = errors.New("too many followers of the stream")

// An Event is what a Follower gets: the latest state of an incident, or the news
// that some could not wait for it.
type Event struct {
	ID   string // to come back with
	JSON []byte // the incident; nil: changes were lost, read the list anew
}

// change is one state of an incident.
type change struct {
	seq  uint64
	id   finding.ID
	text []byte
}

// queue holds the latest state of each of some incidents in the order of their
// last change. At its bound the oldest go.
type queue struct {
	list []*change
	lost uint64 // seq of the latest that went so; 0 = none
}

func (q *queue) put(c *change) {
	for i, o := range q.list {
		if o.id == c.id {
			q.list = append(q.list[:i], q.list[i+1:]...)
			break
		}
	}
	if len(q.list) >= maxQueue {
		q.lost = q.list[0].seq
		q.list = append(q.list[:0], q.list[1:]...)
	}
	q.list = append(q.list, c)
}

// stream gives every follower what is published.
type stream struct {
	mu        sync.Mutex
	epoch     string // differs in every run of the program
	seq       uint64
	recent    queue
	followers map[*Follower]bool
	withheld  uint64
	closed    bool
}

func newStream() stream {
	return stream{epoch: strconv.FormatInt(time.Now().UnixNano(), 36), followers: map[*Follower]bool{}}
}

func (s *stream) publish(id finding.ID, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	c := &change{s.seq, id, text}
	s.recent.put(c)
	for f := range s.followers {
		before := f.queue.lost
		if f.queue.put(c); f.queue.lost != before {
			s.withheld++
		}
		wake(f.ready)
	}
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for f := range s.followers {
		wake(f.ready)
	}
}

func (s *stream) stats() (followers int, withheld uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.followers), s.withheld
}

// Follower gets the changes of incidents. A slow one gets the latest state of
// each, and is told when that was not possible.
type Follower struct {
	stream *stream
	queue  queue // guarded by stream.mu
	ready  chan struct{}
}

// Follow returns a Follower of what changes from now on, or since the Event
// whose ID is after. Close it.
func (d *Desk) Follow(after string) (*Follower, error) {
	s := &d.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.followers) >= maxFollowers {
		return nil, ErrCrowded
	}
	f := &Follower{stream: s, ready: make(chan struct{}, 1)}
	if after != "" {
		epoch, n, _ := strings.Cut(after, "-")
		seq, err := strconv.ParseUint(n, 10, 64)
		if epoch != s.epoch || err != nil || seq > s.seq || seq < s.recent.lost {
			f.queue.lost = max(s.seq, 1)
			seq = s.seq
		}
		for _, c := range s.recent.list {
			if c.seq > seq {
				f.queue.put(c)
			}
		}
		wake(f.ready)
	}
	s.followers[f] = true
	return f, nil
}

// Next waits for the next Event. The error is io.EOF when the stream ends, or
// that of ctx.
func (f *Follower) Next(ctx context.Context) (Event, error) {
	for {
		if e, err := f.take(); err != nil || e.ID != "" {
			return e, err
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-f.ready:
		}
	}
}

// take returns what waits; an Event without ID when nothing does.
func (f *Follower) take() (Event, error) {
	s := f.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case f.queue.lost > 0:
		e := Event{ID: fmt.Sprintf("%s-%d", s.epoch, f.queue.lost)}
		f.queue.lost = 0
		return e, nil
	case len(f.queue.list) > 0:
		c := f.queue.list[0]
		f.queue.list = append(f.queue.list[:0], f.queue.list[1:]...)
		return Event{ID: fmt.Sprintf("%s-%d", s.epoch, c.seq), JSON: c.text}, nil
	case s.closed:
		return Event{}, io.EOF
	}
	return Event{}, nil
}

// Close ends the following.
func (f *Follower) Close() {
	f.stream.mu.Lock()
	defer f.stream.mu.Unlock()
	delete(f.stream.followers, f)
}
