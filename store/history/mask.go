package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"noroshi/event"
)

// Masker takes from what is kept longer than MaskAfter the addresses that name
// a resolver's client. It works more than an hour ahead, so that nothing is late
// because of a failure or two.
type Masker struct {
	client *Client
	layout Layout
	every  time.Duration
	now    func() time.Time

	mu    sync.Mutex
	stats MaskerStats
}

// MaskerStats say how masking stands.
type MaskerStats struct {
	// Until is the Seen before which all is masked; zero before the first time.
	Until event.Time
	// Failing is why the last attempt failed; nil if it didn't.
	Failing error
	Runs    uint64
}

// Overdue reports whether something unmasked may be older than MaskAfter and an
// hour. began is when the program began, which has an hour to catch up.
func (s *MaskerStats) Overdue(now, began time.Time) bool {
	const late = time.Hour
	if s.Until == 0 {
		return now.Sub(began) > late
	}
	return now.Sub(s.Until.Std()) > MaskAfter+late
}

// NewMasker returns a Masker for the tables of l.
func NewMasker(c *Client, l Layout) *Masker {
	return &Masker{client: c, layout: l, every: 30 * time.Minute, now: time.Now}
}

// Stats returns how masking stands.
func (m *Masker) Stats() MaskerStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// Run masks at once and twice an hour until ctx ends. Failures are tried again
// after a minute, and stand in Stats.
func (m *Masker) Run(ctx context.Context) error {
	for {
		err := m.Mask(ctx)
		wait := m.every
		if err != nil && ctx.Err() == nil {
			wait = min(wait, time.Minute)
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// Mask masks, waits until it is done, and looks whether it is.
func (m *Masker) Mask(ctx context.Context) error {
	// What becomes too old before the next time, and an hour more for a failure.
	cutoff := event.TimeOf(m.now()).Add(-MaskAfter + m.every + time.Hour)
	// What was masked before is masked. A block that came late, out of the spool,
	// is found by the look at everything, which is the first and then one a day.
	st := m.Stats()
	from := st.Until
	if st.Runs%uint64(24*time.Hour/m.every) == 0 || st.Failing != nil {
		from = 0
	}
	err := m.mask(ctx, from, cutoff)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Runs++
	if m.stats.Failing = err; err == nil {
		m.stats.Until = cutoff
	} else if ctx.Err() == nil {
		slog.Warn("clients of resolvers could not be masked", "error", err)
	}
	return err
}

// maskSeconds is how long one statement of masking may take: what the embedded
// engine allows at most.
const maskSeconds = 600

func (m *Masker) mask(ctx context.Context, from, cutoff event.Time) error {
	for _, k := range Kinds {
		t := &tables[k]
		if len(t.mask) == 0 {
			continue
		}
		var set, unmasked []string
		for _, column := range slices.Sorted(maps.Keys(t.mask)) {
			set = append(set, fmt.Sprintf("%s = %s", column, t.mask[column]))
			unmasked = append(unmasked, fmt.Sprintf("%s != %s", column, t.mask[column]))
		}
		// One that takes long goes on in the store when the statement's time is over;
		// another behind it would only do the same again.
		going, err := m.client.text(ctx, "SELECT count() FROM system.mutations WHERE database = {db:String} AND table = {table:String} AND NOT is_done",
			Params{"db": m.layout.Database, "table": m.layout.plain(t.name)})
		if err != nil {
			return err
		}
		if len(going) != 1 || going[0][0] != "0" {
			return fmt.Errorf("history: the masking of %s that was begun earlier still goes on", t.name)
		}
		// A mutation takes no parameters; these are numbers.
		old := fmt.Sprintf("seen >= fromUnixTimestamp64Micro(%d) AND seen < fromUnixTimestamp64Micro(%d) AND (%s)", int64(from)/1000, int64(cutoff)/1000, strings.Join(unmasked, " OR "))
		// Partitions that hold nothing unmasked are not touched.
		days, err := m.client.text(ctx, fmt.Sprintf("SELECT DISTINCT toString(toYYYYMMDD(seen)) FROM %s WHERE %s SETTINGS max_execution_time = %d", m.layout.all(t.name), old, maskSeconds), nil)
		if e := new(Error); errors.As(err, &e) && (e.Code == codeUnknownTable || e.Code == codeUnknownDatabase) {
			continue // nothing was ever written
		}
		if err != nil {
			return err
		}
		for _, day := range days {
			err := m.client.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s UPDATE %s IN PARTITION %s WHERE %s SETTINGS mutations_sync = 2, max_execution_time = %d",
				m.layout.local(t.name), m.layout.on(), strings.Join(set, ", "), day[0], old, maskSeconds), nil)
			if err != nil {
				return err
			}
		}
		left, err := m.client.text(ctx, fmt.Sprintf("SELECT count() FROM %s WHERE %s SETTINGS max_execution_time = %d", m.layout.all(t.name), old, maskSeconds), nil)
		if err != nil {
			return err
		}
		if len(left) != 1 || left[0][0] != "0" {
			return fmt.Errorf("history: after masking %s, %v rows are not masked", t.name, left)
		}
	}
	return nil
}
