package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/store/history/spool"
)

// ledger is the other side of the protocol: it takes INSERTs, knows each block by
// its token, and decodes what it is given.
type ledger struct {
	*httptest.Server
	// fail, if set, says what becomes of a request: before or after it is stored.
	fail func(table, token string) (before, after int)

	mu      sync.Mutex
	blocks  map[string]string  // token -> data
	rows    map[string][]entry // table -> rows in the order in which they were stored
	lost    map[loss]uint64
	watched map[loss]uint64
	sent    int
}

type entry struct {
	seen   int64 // microseconds
	number uint64
}

// hangUp instead of a code ends the connection without an answer.
const hangUp = -1

var insert = regexp.MustCompile("^INSERT INTO `n`.`([a-z_]+)` SETTINGS insert_deduplication_token = '([0-9a-z-]+)',.* FORMAT Native$")

func newLedger(t *testing.T) *ledger {
	s := &ledger{blocks: map[string]string{}, rows: map[string][]entry{}, lost: map[loss]uint64{}, watched: map[loss]uint64{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := insert.FindStringSubmatch(r.URL.Query().Get("query"))
		data, err := io.ReadAll(r.Body)
		if m == nil {
			t.Errorf("not an INSERT: %s", r.URL.Query().Get("query"))
			return
		}
		if err != nil {
			return // the sender was killed
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sent++
		before, after := 0, 0
		if s.fail != nil {
			before, after = s.fail(m[1], m[2])
		}
		if before == 0 {
			if old, known := s.blocks[m[2]]; !known {
				s.blocks[m[2]] = string(data)
				s.take(t, m[1], data)
			} else if old != string(data) {
				t.Errorf("block %s was sent with other data", m[2])
			}
		}
		switch code := before + after; {
		case code == hangUp:
			panic(http.ErrAbortHandler)
		case code != 0:
			w.Header().Set("X-ClickHouse-Exception-Code", fmt.Sprint(code))
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// take decodes a block in the Native format.
func (s *ledger) take(t *testing.T, table string, b []byte) {
	uvarint := func() int {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return int(v)
	}
	text := func() string {
		n := uvarint()
		v := string(b[:n])
		b = b[n:]
		return v
	}
	columns, n := uvarint(), uvarint()
	numbers, texts := map[string][]uint64{}, map[string][]string{}
	width := map[string]int{"UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8, "DateTime('UTC')": 4, "DateTime64(6, 'UTC')": 8, "IPv6": 16}
	for range columns {
		name, typ := text(), text()
		for range n {
			if typ == "String" {
				texts[name] = append(texts[name], text())
				continue
			}
			w := width[typ]
			if w == 0 {
				t.Fatalf("%s.%s has type %q", table, name, typ)
			}
			var v [8]byte
			copy(v[:], b[:w])
			numbers[name] = append(numbers[name], binary.LittleEndian.Uint64(v[:]))
			b = b[w:]
		}
	}
	if len(b) != 0 {
		t.Errorf("%d octets behind a block of %s", len(b), table)
	}
	// The field that carries our number, for each kind.
	number := map[string]string{"flows": "bytes", "dns": "latency", "sessions": "bytes_in", "logs": "record"}[table]
	for i := range n {
		if table == coverageTable {
			key := loss{texts["kind"][i], texts["reason"][i], uint32(numbers["minute"][i])}
			s.lost[key] += numbers["lost"][i]
			s.watched[key] += numbers["watched"][i]
			continue
		}
		s.rows[table] = append(s.rows[table], entry{int64(numbers["seen"][i]), numbers[number][i]})
	}
}

func (s *ledger) writer(t *testing.T, cfg WriterConfig) *Writer {
	t.Helper()
	cfg.Spool.Reserve = 1
	w, err := NewWriter(cfg, &Client{HTTP: s.Client(), URL: s.URL}, Layout{Database: "n"})
	if err != nil {
		t.Fatal(err)
	}
	w.tables = func(context.Context) error { return nil }
	return w
}

// events appends n events of each kind, numbered from from on; ten a minute.
func events(b *event.Batch, from, n int) {
	for i := from; i < from+n; i++ {
		at := event.Time(1_700_000_040e9) + event.Time(i)*6e9
		b.Flows = append(b.Flows, event.Flow{Seen: at, Bytes: uint64(i), Payload: b.AddText([]byte("payload"))})
		b.DNS = append(b.DNS, event.DNS{Seen: at, Latency: uint32(i), Name: b.AddText(fmt.Appendf(nil, "%d.example.org", i))})
		b.Sessions = append(b.Sessions, event.Session{Seen: at, BytesIn: uint64(i), User: b.AddText([]byte("root"))})
		b.Logs = append(b.Logs, event.Log{Seen: at, Record: uint64(i), Message: b.AddText([]byte("message"))})
	}
}

func minuteOfEvent(i int) uint32 { return 1_700_000_040 + uint32(i)/10*60 }

// Whatever the store does, and however little room there is, each event is kept
// once, in order, or lost in the minute in which it was seen: kept and lost are
// all there was.
func TestEveryEventIsAccountedFor(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s := newLedger(t)
			moods := rand.New(rand.NewPCG(seed, 2)) // guarded by s.mu
			s.fail = func(table, token string) (before, after int) {
				// One block in ten can't be read, now or later. (The last octet of its
				// number decides: the instance is another in each run.)
				if seed%2 == 0 && table != coverageTable && strings.HasSuffix(token, "7") {
					return 117, 0
				}
				code := []int{hangUp, 241, 243, 252}[moods.IntN(4)]
				switch moods.IntN(4) {
				case 0:
					return code, 0
				case 1:
					return 0, code
				}
				return 0, 0
			}
			folder := t.TempDir()
			total := 0
			for range 3 { // runs
				w := s.writer(t, WriterConfig{Folder: folder, Rows: 1 + r.IntN(50), Delay: 8 * time.Millisecond, Queue: 2 + r.IntN(8),
					Retry: time.Millisecond, Finish: time.Millisecond * time.Duration(r.IntN(50)), Spool: spool.Limits{Size: int64(r.IntN(40)) * 4096}})
				stop := run(w)
				for range 30 {
					var b event.Batch
					n := 1 + r.IntN(60)
					events(&b, total, n)
					w.Keep(&b)
					total += n
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
				}
				_ = stop() // what waits is for the next run
			}
			s.mu.Lock()
			s.fail = nil
			s.mu.Unlock()
			if err := run(s.writer(t, WriterConfig{Folder: folder}))(); err != nil {
				t.Fatal(err)
			}
			for _, k := range Kinds {
				minutes, sum, last := map[uint32]uint64{}, 0, -1
				for _, r := range s.rows[k.String()] {
					if int(r.number) <= last {
						t.Fatalf("%s: event %d came after %d", k, r.number, last)
					}
					last = int(r.number)
					minutes[minuteOfEvent(last)]++
				}
				for key, n := range s.lost {
					if key.kind == k.String() {
						minutes[key.minute] += n
					}
				}
				for _, n := range minutes {
					sum += int(n)
				}
				for i := range total {
					if m := minuteOfEvent(i); minutes[m] != min(10, uint64(total-i/10*10)) {
						t.Fatalf("%s: of minute %d there are %d events, kept or lost", k, m, minutes[m])
					}
				}
				if sum != total {
					t.Errorf("%s: %d events are kept or lost, %d came", k, sum, total)
				}
			}
		})
	}
}

// A block that the store calls wrong is set aside with its rows counted as lost,
// once even if the program died before the file had its new name; and it holds
// up nothing.
func TestRefusedOnce(t *testing.T) {
	s := newLedger(t)
	s.fail = func(table, _ string) (int, int) {
		if table == "dns" {
			return 117, 0
		}
		return 0, 0
	}
	folder := t.TempDir()
	cfg := WriterConfig{Folder: folder, Retry: time.Millisecond, Finish: time.Minute}
	w := s.writer(t, cfg)
	var b event.Batch
	events(&b, 0, 15)
	w.Keep(&b)
	_ = run(w)() // the note may come too late for this run
	st := w.Stats()
	if st.Lost["dns"][LostRefused] != 15 || st.Codes[117] != triesRefused || st.Kept["flows"] != 15 || st.Spool.Bad != 1 || st.Away != nil {
		t.Errorf("%+v", st)
	}
	for range 2 { // the note was written, the file wasn't renamed
		bad, _ := filepath.Glob(filepath.Join(folder, "*.bad"))
		if len(bad) != 1 {
			t.Fatal(bad)
		}
		if err := os.Rename(bad[0], strings.TrimSuffix(bad[0], ".bad")+".block"); err != nil {
			t.Fatal(err)
		}
		_ = run(s.writer(t, cfg))()
		if err := run(s.writer(t, cfg))(); err != nil {
			t.Fatal(err)
		}
	}
	want := map[loss]uint64{{"dns", LostRefused, minuteOfEvent(0)}: 10, {"dns", LostRefused, minuteOfEvent(10)}: 5}
	if !maps.Equal(s.lost, want) {
		t.Errorf("lost %v, want %v", s.lost, want)
	}
}

// A block of a table that no version here makes is set aside at last.
func TestUnknownTable(t *testing.T) {
	s := newLedger(t)
	s.fail = func(_, _ string) (int, int) { return codeUnknownTable, 0 }
	folder := t.TempDir()
	sp, err := spool.Open(folder, spool.Limits{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.Put(&Block{Table: "older", Rows: 1, Data: []byte{0, 0}}); err != nil {
		t.Fatal(err)
	}
	_ = sp.Close()
	w := s.writer(t, WriterConfig{Folder: folder, Retry: time.Millisecond, Finish: time.Minute})
	if err := run(w)(); err != nil || w.Stats().Spool.Bad != 1 {
		t.Errorf("%v, %+v", err, w.Stats())
	}
}

// A table whose blocks aren't taken is away until one of them is, whatever
// becomes of other tables' blocks.
func TestOneTableAway(t *testing.T) {
	w := newLedger(t).writer(t, WriterConfig{Folder: t.TempDir()})
	defer w.Close()
	dns, flows := &Block{Table: "dns"}, &Block{Table: "flows"}
	if w.Stats().Away == nil {
		t.Error("well before it was reached")
	}
	w.reached(flows, nil)
	if st := w.Stats(); st.Away != nil {
		t.Errorf("away after it was reached: %v", st.Away)
	}
	w.reached(dns, &Error{Code: codeMemory})
	since := w.Stats().Since
	w.reached(flows, nil)
	w.reached(dns, &Error{Code: codeMemory})
	if st := w.Stats(); st.Away == nil || st.Since != since {
		t.Errorf("away %v since %v, want since %v", st.Away, st.Since, since)
	}
	w.reached(dns, nil)
	if st := w.Stats(); st.Away != nil {
		t.Errorf("away after all went: %v", st.Away)
	}
}
