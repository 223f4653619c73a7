package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"noroshi/event"
	"noroshi/store/history/spool"
)

// Writer takes batches and sees to it that they are stored. Nothing waits for
// it: what it can't take is counted.
//
//	Keep ─► queue ─► encode ─► put (fsync) ─► spool ─► one sender a table ─► store
//
// A block is promised when it is in the spool, and is there until the store has
// acknowledged it; each is sent with its ID, so that one which is sent again is
// stored once. Of one table at most one block is on its way, and they go in their
// order; the store remembers the IDs of the last [Window] blocks, of which a
// block sent again is always the latest.
type Writer struct {
	cfg    WriterConfig
	client *Client
	layout Layout
	spool  *spool.Spool

	queue  chan *event.Batch
	pool   event.Pool
	sealed chan *Block
	free   chan []byte // memory for blocks
	losses losses

	preparing sync.Mutex
	prepared  bool                        // guarded by preparing
	tables    func(context.Context) error // sees to the tables: Client.Prepare

	mu    sync.Mutex
	away  map[string]outage // tables whose blocks the store doesn't take now; "" until it was first reached
	kept  map[string]uint64 // rows acknowledged since the start, by table
	codes map[int]uint64    // errors of the store, by its code; 0: none reached it
}

// outage is why the store takes no blocks of a table, and since when.
type outage struct {
	why   error
	since time.Time
	said  bool // in the log
}

// WriterConfig says how a Writer works. Zero fields have the defaults named.
type WriterConfig struct {
	Folder string       // of the spool
	Spool  spool.Limits // of the spool
	// Watched are the kinds that have a source: a minute in which none of one came
	// is a zero and not a gap.
	Watched []Kind
	// A block is sealed when it has Rows (500,000), Octets (96 MiB), or its first
	// row has waited for Delay (1 s). Large blocks cost the store a third less
	// than blocks of 100,000: docs/performance.md.
	Rows, Octets int
	Delay        time.Duration
	// Queue is how many batches may wait to be encoded (512).
	Queue int
	// Retry is the first pause after an error, doubled up to 5 s (100 ms).
	Retry time.Duration
	// Finish is how long the end waits for the store (5 s). What isn't sent then
	// is sent at the next start.
	Finish time.Duration
	// Recording: the events come from a file, which can wait. Keep waits then, and
	// so does a full spool while the store takes blocks; and every minute from the
	// first event to the last counts as watched.
	Recording bool
}

// NewWriter opens the spool. The caller calls Run, or Close.
func NewWriter(cfg WriterConfig, c *Client, l Layout) (*Writer, error) {
	cfg.Rows = cmp.Or(cfg.Rows, 500_000)
	cfg.Octets = cmp.Or(cfg.Octets, 96<<20)
	cfg.Delay = cmp.Or(cfg.Delay, time.Second)
	cfg.Queue = cmp.Or(cfg.Queue, 512)
	cfg.Retry = cmp.Or(cfg.Retry, 100*time.Millisecond)
	cfg.Finish = cmp.Or(cfg.Finish, 5*time.Second)
	s, err := spool.Open(cfg.Folder, cfg.Spool)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &Writer{
		tables: func(ctx context.Context) error { return c.Prepare(ctx, l) },
		cfg:    cfg, client: c, layout: l, spool: s,
		queue: make(chan *event.Batch, cfg.Queue), sealed: make(chan *Block, 1), free: make(chan []byte, 2),
		kept: map[string]uint64{}, codes: map[int]uint64{},
		away: map[string]outage{"": {why: errors.New("history: not reached yet"), since: time.Now()}},
	}, nil
}

// Close gives the spool back; only for a Writer that was not Run.
func (w *Writer) Close() error { return w.spool.Close() }

// Keep takes a copy of b's events. It never waits, unless for a recording. It
// may be called by several goroutines, not after Run's context has ended.
func (w *Writer) Keep(b *event.Batch) {
	if w.cfg.Recording {
		c := w.pool.Get()
		c.Append(b)
		w.queue <- c
		return
	}
	if len(w.queue) < cap(w.queue) {
		c := w.pool.Get()
		c.Append(b)
		select {
		case w.queue <- c:
			return
		default:
			c.Release()
		}
	}
	for _, k := range Kinds {
		if n := Count(b, k); n > 0 {
			w.lose(b, k, n)
		}
	}
}

// lose counts the n events of a kind in b as lost.
func (w *Writer) lose(b *event.Batch, k Kind, n int) {
	minutes := map[uint32]uint64{}
	for i := range n {
		minutes[minuteOf(seenOf(b, k, i))]++
	}
	for m, n := range minutes {
		w.losses.add(k.String(), LostBusy, m, n)
	}
}

// Run writes until ctx ends, and then what was kept before. It returns when all
// of that is stored, or waits in the spool because the store could not take it
// in time: the error says how many blocks.
func (w *Writer) Run(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var senders sync.WaitGroup
	for _, table := range w.targets() {
		senders.Go(func() { w.send(sending, table) })
	}
	put := make(chan struct{})
	go func() {
		defer close(put)
		for b := range w.sealed {
			w.put(b)
		}
	}()
	w.encode(ctx)
	close(w.sealed)
	<-put
	w.note(0)
	w.spool.Finish()
	// A moment that begins now, however long the disk took.
	giveUp := time.AfterFunc(w.cfg.Finish, stop)
	senders.Wait()
	giveUp.Stop()
	if !w.note(0) { // what senders lost meanwhile
		slog.Error("losses of history can't be written; only this line tells of them", "lost", w.losses.totals())
	}
	left := w.spool.Stats().Blocks
	if err := w.spool.Close(); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if left > 0 {
		why := w.Stats().Away
		if why == nil {
			why = errors.New("there was no time to send them")
		}
		return fmt.Errorf("history: %d blocks wait in %s for the next start: %w", left, w.cfg.Folder, why)
	}
	return nil
}

// targets returns the tables that are sent to: ours, and whatever an older
// program left blocks for.
func (w *Writer) targets() []string {
	list := map[string]bool{coverageTable: true}
	for _, k := range Kinds {
		list[k.String()] = true
	}
	for _, t := range w.spool.Tables() {
		list[t] = true
	}
	var names []string
	for t := range list {
		names = append(names, t)
	}
	return names
}

// encode fills blocks until ctx ends and the queue is empty.
func (w *Writer) encode(ctx context.Context) {
	builders := make([]*Builder, len(Kinds))
	began := make([]time.Time, len(Kinds)) // when a builder got its first row
	for i, k := range Kinds {
		builders[i] = NewBuilder(k)
	}
	seal := func(i int) {
		if builders[i].Rows() == 0 {
			return
		}
		var buf []byte
		select {
		case buf = <-w.free:
		default:
		}
		b := builders[i].Seal("", buf[:0])
		w.sealed <- &b // waits while the disk is slow, and the queue fills
	}
	first, last := make([]event.Time, len(Kinds)), make([]event.Time, len(Kinds)) // of a recording
	add := func(b *event.Batch) {
		for i, k := range Kinds {
			n := Count(b, k)
			if w.cfg.Recording && n > 0 {
				last[i] = max(last[i], seenOf(b, k, n-1))
				if first[i] == 0 {
					first[i] = seenOf(b, k, 0)
				}
			}
			for from := 0; from < n; {
				to := min(n, from+w.cfg.Rows-builders[i].Rows())
				if builders[i].Rows() == 0 {
					began[i] = time.Now()
				}
				builders[i].Add(b, from, to)
				from = to
				if builders[i].Rows() >= w.cfg.Rows || builders[i].Size() >= w.cfg.Octets {
					seal(i)
				}
			}
		}
		b.Release()
	}
	tick := time.NewTicker(w.cfg.Delay / 8)
	defer tick.Stop()
	var marked uint32
	mark := func(now time.Time) {
		minute := minuteOf(event.TimeOf(now))
		if minute == marked {
			minute = 0
		}
		if w.note(minute) && minute != 0 {
			marked = minute
		}
	}
	mark(time.Now())
	noted := time.Now()
	for {
		select {
		case b := <-w.queue:
			add(b)
		case now := <-tick.C:
			for i := range builders {
				if now.Sub(began[i]) >= w.cfg.Delay {
					seal(i)
				}
			}
			if now.Sub(noted) >= w.cfg.Delay {
				mark(now)
				noted = now
			}
		case <-ctx.Done():
			for len(w.queue) > 0 {
				add(<-w.queue)
			}
			for i := range builders {
				seal(i)
			}
			if w.cfg.Recording {
				w.noteRecording(first, last)
			}
			return
		}
	}
}

// put makes a promise of a block.
func (w *Writer) put(b *Block) {
	err := w.spool.Put(b)
	for w.cfg.Recording && errors.Is(err, spool.ErrFull) && w.takes() {
		time.Sleep(50 * time.Millisecond)
		err = w.spool.Put(b)
	}
	if err != nil {
		reason := LostDisk
		switch {
		case errors.Is(err, spool.ErrFull):
			reason = LostSpoolFull
		case errors.Is(err, spool.ErrDisk):
			reason = LostDiskFull
		default:
			slog.Error("history can't be written", "error", err)
		}
		w.losses.block(b, reason)
	}
	select {
	case w.free <- b.Data:
	default:
	}
}

// noteRecording marks the minutes of a recording as watched.
func (w *Writer) noteRecording(first, last []event.Time) {
	for i, k := range Kinds {
		if from, to := minuteOf(first[i]), minuteOf(last[i]); from != 0 && to-from < 60*maxLosses {
			b := coverageBlock(nil, []Kind{k}, from, to)
			if err := w.spool.Note(&b); err != nil {
				slog.Error("what was watched can't be written", "error", err)
			}
		}
	}
}

// takes reports whether the store takes blocks, or did a minute ago.
func (w *Writer) takes() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.away {
		if time.Since(o.since) >= time.Minute {
			return false
		}
	}
	return true
}

// note writes what was lost, and that somebody watches in this minute (0 = not
// now). What can't be written is tried again.
func (w *Writer) note(minute uint32) bool {
	lost := w.losses.take()
	if len(lost) == 0 && (minute == 0 || len(w.cfg.Watched) == 0) {
		return true
	}
	b := coverageBlock(lost, w.cfg.Watched, minute, minute)
	if err := w.spool.Note(&b); err != nil {
		w.losses.back(lost)
		return false
	}
	return true
}

// send delivers the blocks of one table until none will come, or ctx ends.
func (w *Writer) send(ctx context.Context, table string) {
	var buf []byte
	for {
		e, err := w.spool.Next(ctx, table)
		if err != nil {
			return
		}
		b, err := w.spool.Read(e, buf)
		switch {
		case errors.Is(err, spool.ErrDamaged):
			slog.Error("a block of history is damaged; it was set aside", "table", table, "rows", b.Rows, "error", err)
			if b.ID == "" && w.made(table) && table != coverageTable {
				// How many rows it had is not known. That there were some must not be
				// lost too: it counts as one, seen when the file was written.
				w.losses.add(table, LostDamaged, minuteOf(event.TimeOf(e.Made())), 1)
			}
			w.aside(ctx, e, &b, LostDamaged)
			continue
		case err != nil:
			slog.Error("a block of history can't be read", "table", table, "error", err)
			pause(ctx, 5*time.Second)
			continue
		}
		buf = b.Data
		if err := w.deliver(ctx, &b); err != nil {
			if ctx.Err() != nil {
				return
			}
			slog.Error("the store refuses a block of history; it was set aside", "table", table, "rows", b.Rows, "error", err)
			w.aside(ctx, e, &b, LostRefused)
			continue
		}
		// A block whose file can't be removed is sent again at the next start, and
		// known by its ID.
		for {
			if err = w.spool.Remove(e); err == nil || !pause(ctx, 5*time.Second) {
				break
			}
			slog.Error("a block that is stored can't be removed from the spool", "error", err)
		}
	}
}

// aside sets a block aside whose rows are lost. That they are is in the spool
// first, with an ID made from the block's: if the program dies between the two,
// both come again, and the loss counts once. Only where there is no room for it
// it is kept in memory.
func (w *Writer) aside(ctx context.Context, e *spool.Entry, b *Block, reason string) {
	lost := map[loss]uint64{}
	for _, m := range b.Minutes {
		lost[loss{b.Table, reason, m.Start}] += m.Rows
	}
	if len(lost) > 0 {
		n := coverageBlock(lost, nil, 0, 0)
		n.ID = b.ID + "-lost"
		if w.spool.Note(&n) == nil {
			w.losses.count(b, reason)
		} else {
			w.losses.block(b, reason)
		}
	}
	for w.spool.SetAside(e) != nil && pause(ctx, 5*time.Second) {
	}
	if reason == LostRefused { // the store answered, and the next block may do
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.away, b.Table)
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// How often a block is sent that the store answers with an error of the block,
// and not of the moment, before it is set aside.
const (
	triesRefused = 5
	triesMemory  = 50 // it may be the moment, too
)

// ofTheBlock are ClickHouse's errors that speak of the block: it can't be parsed,
// or doesn't fit the table. Their names are ClickHouse's.
var ofTheBlock = map[int]string{
	6: "CANNOT_PARSE_TEXT", 8: "THERE_IS_NO_COLUMN", 10: "NOT_FOUND_COLUMN_IN_BLOCK", 16: "NO_SUCH_COLUMN_IN_TABLE",
	27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED", 33: "CANNOT_READ_ALL_DATA", 36: "BAD_ARGUMENTS", 43: "ILLEGAL_TYPE_OF_ARGUMENT",
	53: "TYPE_MISMATCH", 62: "SYNTAX_ERROR", 70: "CANNOT_CONVERT_TYPE", 72: "CANNOT_PARSE_NUMBER", 117: "INCORRECT_DATA", 131: "TOO_LARGE_STRING_SIZE",
}

// deliver sends a block until the store has it. The error is ctx's, or says why
// it never will.
func (w *Writer) deliver(ctx context.Context, b *Block) error {
	wait := w.cfg.Retry
	refused := 0
	for {
		err := w.prepare(ctx)
		prepared := err == nil
		if prepared {
			within, cancel := context.WithTimeout(ctx, 5*time.Minute)
			err = w.client.Insert(within, w.layout, b)
			cancel()
		}
		w.reached(b, err)
		if err == nil {
			return nil
		}
		// Only what the store says of the block itself speaks against it.
		var e *Error
		if prepared && errors.As(err, &e) {
			switch e.Code {
			case codeUnknownTable, codeUnknownDatabase:
				w.unprepared()
				if !w.made(b.Table) { // by this version: nothing will make it
					if refused++; refused >= triesRefused {
						return err
					}
				}
			case codeManyParts: // merges are behind and will catch up, unless it is the block's days
				if days(b) > maxDays {
					return err
				}
			case codeMemory:
				if refused++; refused >= triesMemory {
					return err
				}
			default:
				if ofTheBlock[e.Code] == "" {
					break
				}
				w.unprepared() // a column may be missing
				if refused++; refused >= triesRefused {
					return err
				}
			}
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// days is how many days, which are partitions, a block's rows are of.
func days(b *Block) (n int) {
	last := uint32(0)
	for _, m := range b.Minutes {
		if day := m.Start/86400 + 1; day != last {
			n, last = n+1, day
		}
	}
	return n
}

// made reports whether Prepare makes the table.
func (w *Writer) made(table string) bool {
	_, err := ParseKind(table)
	return err == nil || table == coverageTable
}

// prepare sees to the tables, once, and again after unprepared.
func (w *Writer) prepare(ctx context.Context) error {
	w.preparing.Lock()
	defer w.preparing.Unlock()
	if w.prepared {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := w.tables(within); err != nil {
		return err
	}
	w.prepared = true
	return nil
}

func (w *Writer) unprepared() {
	w.preparing.Lock()
	defer w.preparing.Unlock()
	w.prepared = false
}

// reached notes how the store answered.
func (w *Writer) reached(b *Block, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	began, never := w.away[""]
	o, was := w.away[b.Table]
	if err == nil {
		if never || o.said {
			away := time.Since(began.since)
			if o.said {
				away = time.Since(o.since)
			}
			slog.Info("history is being stored", "table", b.Table, "away_seconds", int(away.Seconds()))
		}
		delete(w.away, "")
		delete(w.away, b.Table)
		w.kept[b.Table] += uint64(b.Rows)
		return
	}
	var e *Error
	if errors.As(err, &e) {
		w.codes[e.Code]++
	} else {
		w.codes[0]++
	}
	if !was {
		o.since = time.Now()
	}
	// An engine that begins with this program takes a moment.
	if !o.said && (!never || time.Since(began.since) > starting) {
		slog.Warn("history can't be stored; blocks wait in the spool", "table", b.Table, "error", err)
		o.said = true
	}
	o.why = err
	w.away[b.Table] = o
}

// starting is how long the store may take to answer at first before that is
// worth a line in the log.
const starting = 5 * time.Second

// WriterStats are a Writer's counters since the start, and how things stand.
type WriterStats struct {
	Kept  map[string]uint64            // rows stored, by table
	Lost  map[string]map[string]uint64 // rows lost, by kind and reason
	Codes map[int]uint64               // errors of the store, by ClickHouse's code; 0: it wasn't reached
	// Away is why the store doesn't take the blocks of some table, since Since: of
	// the table that waits longest. nil while it takes all.
	Away  error
	Since time.Time
	Queue int // batches that wait to be encoded
	Spool spool.Stats
}

// Stats returns the counters.
func (w *Writer) Stats() WriterStats {
	w.mu.Lock()
	s := WriterStats{Kept: maps.Clone(w.kept), Codes: maps.Clone(w.codes)}
	for _, o := range w.away {
		if s.Away == nil || o.since.Before(s.Since) {
			s.Away, s.Since = o.why, o.since
		}
	}
	w.mu.Unlock()
	s.Lost, s.Spool = w.losses.totals(), w.spool.Stats()
	s.Queue = len(w.queue)
	return s
}
