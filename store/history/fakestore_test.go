package history

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeStore is the other side of the protocol: it takes INSERTs, knows each
// block by its ID, decodes what it is given, and fails as it is told, at moments
// at which a real store can't be made to.
type fakeStore struct {
	*httptest.Server
	// fail, if set, says what becomes of an INSERT that is sent for the try-th
	// time: "" it is stored; "before", "after" the connection breaks, before or
	// after it is stored; "hang" no answer; "117" ClickHouse's code and nothing is
	// stored; "after 117" it is stored, and answered with the code all the same.
	fail func(table, id string, try int) string

	t        *testing.T
	mu       sync.Mutex
	tries    map[string]int      // by ID
	order    map[string][]string // IDs by table, as they were stored
	rows     map[string][]entry  // by table, as they were stored
	lost     map[loss]uint64
	watched  map[loss]uint64
	blocks   map[string]string // data by ID
	prepared int               // how often the tables were seen to
}

// entry is a row: when it was seen, in microseconds, and its number.
type entry struct {
	seen   int64
	number uint64
}

var insertOf = regexp.MustCompile("^INSERT INTO `noroshi`.`([a-z_]+)` SETTINGS insert_deduplication_token = '([0-9a-z-]+)',.* FORMAT Native$")

func newFakeStore(t *testing.T) *fakeStore {
	s := &fakeStore{t: t, tries: map[string]int{}, order: map[string][]string{}, rows: map[string][]entry{},
		lost: map[loss]uint64{}, watched: map[loss]uint64{}, blocks: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *fakeStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := insertOf.FindStringSubmatch(r.URL.Query().Get("query"))
	data, err := io.ReadAll(r.Body)
	if m == nil {
		s.t.Errorf("not an INSERT: %s", r.URL.Query().Get("query"))
		return
	}
	if err != nil {
		return // the sender was killed
	}
	how := s.take(m[1], m[2], data)
	switch code := strings.TrimPrefix(how, "after "); code {
	case "":
	case "before", "after":
		panic(http.ErrAbortHandler)
	case "hang":
		<-r.Context().Done()
	default:
		w.Header().Set("X-ClickHouse-Exception-Code", code)
		http.Error(w, "Code: "+code+". told to fail", http.StatusInternalServerError)
	}
}

func (s *fakeStore) take(table, id string, data []byte) (how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries[id]++
	if s.fail != nil {
		how = s.fail(table, id, s.tries[id])
	}
	old, known := s.blocks[id]
	switch {
	case known && old != string(data):
		s.t.Errorf("block %s was sent with other data", id)
	case !known && (how == "" || strings.HasPrefix(how, "after")):
		s.blocks[id] = string(data)
		s.order[table] = append(s.order[table], id)
		s.decode(table, data)
	}
	return how
}

// decode reads a block in the Native format.
func (s *fakeStore) decode(table string, b []byte) {
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
				s.t.Errorf("%s.%s has type %q", table, name, typ)
				return
			}
			var v [8]byte
			copy(v[:], b[:w])
			numbers[name] = append(numbers[name], binary.LittleEndian.Uint64(v[:]))
			b = b[w:]
		}
	}
	if len(b) != 0 {
		s.t.Errorf("%d octets behind a block of %s", len(b), table)
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

// count returns how many rows of a table are stored.
func (s *fakeStore) count(table string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.rows[table]))
}

// mend makes the store work from now on.
func (s *fakeStore) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = nil
}

// writer returns a Writer to the store, which has all tables of itself.
func (s *fakeStore) writer(cfg WriterConfig) *Writer {
	s.t.Helper()
	if cfg.Folder == "" {
		cfg.Folder = s.t.TempDir()
	}
	cfg.Spool.Reserve = 1
	if cfg.Retry == 0 {
		cfg.Retry = time.Millisecond
	}
	w, err := NewWriter(cfg, &Client{HTTP: s.Client(), URL: s.URL}, Layout{Database: "noroshi"})
	if err != nil {
		s.t.Fatal(err)
	}
	w.tables = func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.prepared++
		return nil
	}
	return w
}
