package state_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/incident"
	"noroshi/store/state"
	"noroshi/store/state/statetest"
)

// raw opens the database behind noroshi's back.
func raw(t testing.TB, name string) *sql.DB {
	t.Helper()
	driver := "sqlite"
	if state.IsPostgres(name) {
		driver = "pgx"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// some puts something of each kind into a state and returns its chain's head.
func some(t testing.TB, db *state.DB) state.Head {
	t.Helper()
	ctx, at := context.Background(), event.TimeOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := statetest.Incident(1)
	in.NewMembers = statetest.Members(0, 10)
	must(nil, db.Save(ctx, []*incident.Incident{in, statetest.Incident(2)}))
	must(db.Move(ctx, in.ID, incident.New, incident.Step{At: at, By: "sato", To: incident.Acknowledged}))
	must(db.AddNote(ctx, state.Note{Incident: in.ID, At: at, By: "sato", Text: "電話した\x00"}))
	must(db.AddException(ctx, incident.Exception{Rule: "scan", Owner: "sato", Note: "ours", Expires: at}))
	id, err := db.Propose(ctx, state.Proposal{Kind: "rtbh", Object: "x", Basis: "defence", Preview: []byte("{}"), By: "sato", At: at, Expires: at + 10})
	must(id, err)
	must(db.Decide(ctx, id, state.Decision{Verdict: state.Approved, By: "suzuki", At: at, Note: "yes"}))
	must(db.Record(ctx, state.Consent{Line: "1", Purpose: "dns.cc", At: at, Channel: "web", By: "sato"}))
	must(nil, db.Observed(ctx, at))
	return whole(t, db).Head
}

// Whatever somebody changes in the chain or in what it tells of, Verify says at
// which row. Each case is undone before the next.
func TestTampering(t *testing.T) {
	both(t, func(t *testing.T, name string) {
		db := open(t, name)
		head := some(t, db)
		behind := raw(t, name)
		ctx := context.Background()
		n := int(head.Seq)

		check := func(what string, want int64, change func(tx *sql.Tx) error, kept ...state.Head) {
			t.Helper()
			tx, err := behind.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(tx); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if r, err := db.Verify(ctx, kept...); err != nil {
				t.Errorf("%s: %v", what, err)
			} else if r.Broken == nil {
				t.Errorf("%s: not noticed", what)
			} else if r.Broken.Seq != want {
				t.Errorf("%s: named at row %d (%s), want %d", what, r.Broken.Seq, r.Broken.What, want)
			}
			if tx, err = behind.BeginTx(ctx, nil); err != nil {
				t.Fatal(err)
			}
			for _, table := range []string{"audit", "head", "records"} {
				if _, err := tx.Exec("DELETE FROM " + table); err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(fmt.Sprintf("INSERT INTO %s SELECT * FROM kept_%s", table, table)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := tx.Exec("UPDATE incidents SET state = (SELECT state FROM kept_incidents k WHERE k.id = incidents.id), body = (SELECT body FROM kept_incidents k WHERE k.id = incidents.id)"); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			whole(t, db)
		}
		for _, table := range []string{"audit", "head", "records", "incidents"} {
			if _, err := behind.Exec(fmt.Sprintf("CREATE TABLE kept_%s AS SELECT * FROM %s", table, table)); err != nil {
				t.Fatal(err)
			}
		}
		do := func(text string, args ...any) func(*sql.Tx) error {
			return func(tx *sql.Tx) error {
				res, err := tx.Exec(text, args...)
				if err == nil {
					if n, _ := res.RowsAffected(); n == 0 {
						err = fmt.Errorf("%s changed nothing", text)
					}
				}
				return err
			}
		}

		// Any octet of any column of any row.
		for seq := 1; seq <= n; seq++ {
			for _, column := range []string{"at", "actor", "action", "object", "body", "prev", "hash"} {
				check(fmt.Sprintf("%s of %d", column, seq), int64(seq), func(tx *sql.Tx) error {
					var v any
					if err := tx.QueryRow(fmt.Sprintf("SELECT %s FROM audit WHERE seq = %d", column, seq)).Scan(&v); err != nil {
						return err
					}
					switch x := v.(type) {
					case int64:
						v = x ^ 1<<rand.IntN(62)
					case string:
						b := []byte(x)
						b[rand.IntN(len(b))] = "0?"[rand.IntN(2)]
						if v = string(b); v == x || strings.ToValidUTF8(string(b), "") != string(b) {
							v = x + "x"
						}
					case []byte:
						b := bytes.Clone(x)
						b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
						v = b
					}
					return do(fmt.Sprintf("UPDATE audit SET %s = $1 WHERE seq = %d", column, seq), v)(tx)
				})
			}
			check(fmt.Sprintf("%d deleted", seq), int64(seq), do(fmt.Sprintf("DELETE FROM audit WHERE seq = %d", seq)))
			check(fmt.Sprintf("%d made 0", seq), 0, do(fmt.Sprintf("UPDATE audit SET seq = 0 WHERE seq = %d", seq)))
			check(fmt.Sprintf("cut off from %d", seq), int64(seq), do(fmt.Sprintf("DELETE FROM audit WHERE seq >= %d", seq)))
			if seq == n {
				continue
			}
			check(fmt.Sprintf("%d and the next swapped", seq), int64(seq), func(tx *sql.Tx) error {
				for _, text := range []string{"UPDATE audit SET seq = -1 WHERE seq = %[1]d", "UPDATE audit SET seq = %[1]d WHERE seq = %[1]d + 1", "UPDATE audit SET seq = %[1]d + 1 WHERE seq = -1"} {
					if err := do(fmt.Sprintf(text, seq))(tx); err != nil {
						return err
					}
				}
				return nil
			})
			check(fmt.Sprintf("%d written anew, its followers not", seq), int64(seq+1), func(tx *sql.Tx) error { return forge(tx, seq) })
			// Whoever can write everything can cut the end off and mend the head. Only
			// a head that is kept elsewhere shows it.
			check(fmt.Sprintf("cut off behind %d, the head mended", seq), int64(seq+1), func(tx *sql.Tx) error {
				for _, text := range []string{"DELETE FROM audit WHERE seq > %d", "DELETE FROM records WHERE seq > %d AND seq > 0"} {
					if _, err := tx.Exec(fmt.Sprintf(text, seq)); err != nil {
						return err
					}
				}
				return do(fmt.Sprintf("UPDATE head SET seq = %[1]d, hash = (SELECT hash FROM audit WHERE seq = %[1]d)", seq))(tx)
			}, head)
		}
		check("the last written anew", int64(n), func(tx *sql.Tx) error { return forge(tx, n) })
		check("the last and the head written anew", int64(n), func(tx *sql.Tx) error {
			if err := forge(tx, n); err != nil {
				return err
			}
			return do(fmt.Sprintf("UPDATE head SET hash = (SELECT hash FROM audit WHERE seq = %d)", n))(tx)
		}, head)
		check("one more, the head not", int64(n+1), func(tx *sql.Tx) error {
			if err := do("INSERT INTO audit SELECT seq + 1, at, actor, action, object, '{}', hash, hash FROM audit WHERE seq = $1", n)(tx); err != nil {
				return err
			}
			return forge(tx, n+1)
		})
		check("the head's number", int64(n), do("UPDATE head SET seq = seq - 1"))
		check("the head's number raised", int64(n+1), do("UPDATE head SET seq = seq + 1"))
		check("the head's hash", int64(n), do("UPDATE head SET hash = $1", make([]byte, 32)))
		check("no head", int64(n), do("DELETE FROM head"))

		// What the chain tells of.
		var seqs []int64
		rows, err := behind.Query("SELECT seq FROM records ORDER BY seq")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var seq int64
			if err := rows.Scan(&seq); err != nil {
				t.Fatal(err)
			}
			seqs = append(seqs, seq)
		}
		if len(seqs) != 5 {
			t.Fatalf("%d records, want 5", len(seqs))
		}
		for _, seq := range seqs {
			for _, column := range []string{"kind", "subject", "body"} {
				check(fmt.Sprintf("%s of record %d", column, seq), seq, do(fmt.Sprintf("UPDATE records SET %[1]s = %[1]s || 'x' WHERE seq = $1", column), seq))
			}
			check(fmt.Sprintf("record %d deleted", seq), seq, do("DELETE FROM records WHERE seq = $1", seq))
		}
		check("a record for a row that has none", 1, do("INSERT INTO records (seq, kind, subject, body) VALUES (1, 'note.added', 'x', '{}')"))
		check("a record without a row", 999, do("INSERT INTO records (seq, kind, subject, body) VALUES (999, 'note.added', 'x', '{}')"))
		moved := int64(0)
		if err := behind.QueryRow("SELECT seq FROM audit WHERE action = 'incident.moved'").Scan(&moved); err != nil {
			t.Fatal(err)
		}
		id := statetest.Incident(1).ID
		check("an incident's state", moved, do("UPDATE incidents SET state = 'closed' WHERE id = $1", id[:]))
		check("an incident's state in its body", moved, do(`UPDATE incidents SET body = replace(body, '"state":"acknowledged"', '"state":"closed"') WHERE id = $1`, id[:]))
	})
}

// forge changes a row and gives it the hash that it must have then.
func forge(tx *sql.Tx, seq int) error {
	var at int64
	var actor, action, object string
	var prev []byte
	if err := tx.QueryRow(fmt.Sprintf("SELECT at, actor, action, object, prev FROM audit WHERE seq = %d", seq)).Scan(&at, &actor, &action, &object, &prev); err != nil {
		return err
	}
	hash := chainSum(int64(seq), at, actor, action, object, `{"forged":true}`, prev)
	if _, err := tx.Exec(fmt.Sprintf("UPDATE audit SET body = '{\"forged\":true}', hash = $1 WHERE seq = %d", seq), hash); err != nil {
		return err
	}
	_, err := tx.Exec(fmt.Sprintf("DELETE FROM records WHERE seq = %d", seq))
	return err
}

// oldForm is the definition of the first form's tables, as that version wrote it.
const oldForm = `
CREATE TABLE incidents (id BLOB PRIMARY KEY, said INTEGER NOT NULL, last INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, active INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX incidents_said ON incidents (said DESC, id DESC);
CREATE INDEX incidents_active ON incidents (active, said DESC);
CREATE TABLE members (incident BLOB NOT NULL REFERENCES incidents (id) ON DELETE CASCADE, addr BLOB NOT NULL, port INTEGER NOT NULL, role TEXT NOT NULL, network TEXT NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL, ended INTEGER NOT NULL, PRIMARY KEY (incident, addr, port)) STRICT, WITHOUT ROWID;
CREATE INDEX members_addr ON members (addr);
CREATE TABLE infected (day INTEGER NOT NULL, family TEXT NOT NULL, network TEXT NOT NULL, addr BLOB NOT NULL, PRIMARY KEY (day, family, network, addr)) STRICT, WITHOUT ROWID;
CREATE TABLE observed (day INTEGER PRIMARY KEY) STRICT;
CREATE TABLE exceptions (id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, subject TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, note TEXT NOT NULL, expires INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
`

// A file that the first form's noroshi wrote is taken over with all it holds.
func TestFirstForm(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state.db")
	old := raw(t, name)
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := old.Exec(text, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(oldForm)
	const day = 20513 // 2026-03-01
	for i, st := range []string{"new", "acknowledged"} {
		in := statetest.Incident(i)
		body := strings.Replace(asJSON(t, in), `"state":"new"`, fmt.Sprintf(`"state":%q`, st), 1)
		exec("INSERT INTO incidents VALUES (?, ?, ?, ?, ?, 1, ?)", in.ID[:], int64(in.Said), int64(in.Last), in.Kind, st, body)
		for _, m := range statetest.Members(10*i, 10) {
			exec("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, 0)", in.ID[:], m.Addr[:], m.Port, m.Role, m.Network, int64(m.First), int64(m.Last))
			exec("INSERT INTO infected VALUES (?, 'mirai', 'homes', ?)", day, m.Addr[:])
		}
	}
	exec("INSERT INTO observed VALUES (?)", day)
	exec("INSERT INTO exceptions (id, rule, subject, key, owner, note, expires) VALUES (7, 'iotbot.scan', '2001:db8::/32', 'k', 'sato', 'テスト', 99)")
	exec("INSERT INTO exceptions (id, rule, subject, key, owner, note, expires) VALUES (9, 'scan', '', '', 'sato', 'x', 98)")
	_ = old.Close()

	if _, err := state.Beside(name); err == nil || !strings.Contains(err.Error(), "older noroshi") {
		t.Errorf("a reader: %v", err)
	}
	ctx := context.Background()
	for range 2 {
		db := open(t, name)
		r := whole(t, db)
		if r.Rows != 4 || r.Records != 2 || r.Incidents != 2 {
			t.Errorf("%+v", r)
		}
		list, err := db.Incidents(ctx, state.Filter{})
		if err != nil || len(list) != 2 || list[0].State != incident.Acknowledged {
			t.Errorf("%v, %v", list, err)
		}
		if m, err := db.Members(ctx, statetest.Incident(1).ID, incident.Member{}, 100); err != nil || len(m) != 10 || m[0] != statetest.Members(10, 1)[0] {
			t.Errorf("%v, %v", m, err)
		}
		at := event.Time(day * 24 * int64(time.Hour))
		if days, err := db.Infected(ctx, at, at); err != nil || len(days[0].Hosts) != 1 || days[0].Hosts[0].Count != 20 {
			t.Errorf("%v, %v", days, err)
		}
		e, err := db.Exceptions(ctx)
		if err != nil || len(e) != 2 || e[0].Subject.String() != "2001:db8::/32" || e[0].Note != "テスト" || e[0].Expires != 99 || e[1].Rule != "scan" || e[1].Subject.IsValid() {
			t.Errorf("%v, %v", e, err)
		}
		_ = db.Close()
	}
}

// lines returns the lines of a backup without those that a restore adds.
func lines(t *testing.T, backup []byte) (list []string) {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "[") && !strings.HasPrefix(line, `["head"`) && !strings.Contains(line, `"state.restored"`) {
			list = append(list, line)
		}
	}
	return list
}

// Everything survives a move from SQLite to PostgreSQL and back.
func TestBackup(t *testing.T) {
	ctx := context.Background()
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	head := some(t, db)
	take := func(db *state.DB) []byte {
		t.Helper()
		b := new(bytes.Buffer)
		s, err := db.Backup(ctx, b)
		if err != nil || s.Rows == 0 {
			t.Fatalf("%+v, %v", s, err)
		}
		return b.Bytes()
	}
	first := take(db)
	last := first
	for _, name := range []string{postgres(t), filepath.Join(t.TempDir(), "b.db")} {
		to := open(t, name)
		if s, err := to.Restore(ctx, bytes.NewReader(last), false); err != nil || s.Head.Seq < head.Seq {
			t.Fatalf("%+v, %v", s, err)
		}
		if r, err := to.Verify(ctx, head); err != nil || r.Broken != nil {
			t.Fatalf("%v, %v", r.Broken, err)
		}
		last = take(to)
		if a, b := lines(t, first), lines(t, last); strings.Join(a, "") != strings.Join(b, "") {
			t.Errorf("%s has\n%s\nwant\n%s", name, strings.Join(b, ""), strings.Join(a, ""))
		}
		// It is a working state.
		if err := to.Append(ctx, "sato", "x", "y", nil); err != nil {
			t.Error(err)
		}
		if _, err := to.Restore(ctx, bytes.NewReader(first), false); err == nil || !strings.Contains(err.Error(), "empty state") {
			t.Errorf("restored over what is there: %v", err)
		}
		if _, err := to.Restore(ctx, bytes.NewReader(first), true); err != nil {
			t.Errorf("by force: %v", err)
		}
		whole(t, to)
		last = take(to)
	}
}

// A backup that isn't whole is refused, and what was there stays.
func TestDamagedBackup(t *testing.T) {
	both(t, func(t *testing.T, name string) {
		ctx := context.Background()
		source := open(t, filepath.Join(t.TempDir(), "source.db"))
		some(t, source)
		b := new(bytes.Buffer)
		if _, err := source.Backup(ctx, b); err != nil {
			t.Fatal(err)
		}
		whole := b.Bytes()
		db := open(t, name)
		refuse := func(what string, backup []byte) {
			t.Helper()
			_, err := db.Restore(ctx, bytes.NewReader(backup), false)
			if err == nil {
				t.Fatalf("%s: restored", what)
			}
			if text := err.Error(); !strings.Contains(text, "no whole backup") && !strings.Contains(text, "audit row") && !strings.Contains(text, "form") && !strings.Contains(text, "line") {
				t.Errorf("%s: unclear: %v", what, err)
			}
			if list, err := db.Incidents(ctx, state.Filter{}); err != nil || len(list) != 0 {
				t.Errorf("%s: %d incidents are there, %v", what, len(list), err)
			}
		}
		for _, n := range []int{0, 1, 10, len(whole) / 2, len(whole) - 9, len(whole) - 1} {
			refuse(fmt.Sprint("cut to ", n), whole[:n])
		}
		for range 50 {
			bad := bytes.Clone(whole)
			bad[10+rand.IntN(len(bad)-10)] ^= 1 << rand.IntN(8)
			refuse("a bit flipped", bad)
		}
		text := unzip(t, whole)
		for what, change := range map[string]func(string) string{
			"a letter changed": func(s string) string { return strings.Replace(s, "sato", "SATO", 1) },
			"a line missing": func(s string) string {
				i := strings.Index(s, "\n[") + 1
				return s[:i] + s[i+strings.Index(s[i:], "\n")+1:]
			},
			"more behind it":   func(s string) string { return s + s },
			"another form":     func(s string) string { return strings.Replace(s, `"form":2`, `"form":3`, 1) },
			"another table":    func(s string) string { return strings.Replace(s, `["observed"`, `["pg_user"`, 1) },
			"not a backup":     func(string) string { return "hello\n" },
			"without a sum":    func(s string) string { return s[:strings.LastIndex(strings.TrimSpace(s), "\n")+1] },
			"a value too many": func(s string) string { return strings.Replace(s, `["observed",`, `["observed",1,`, 1) },
		} {
			refuse(what, zip(t, change(text)))
		}
		// With a sum that is right for what was changed, the chain tells.
		i := strings.Index(text, `["records"`)
		forged := text[:i] + strings.Replace(text[i:], `\"by\":\"sato\"`, `\"by\":\"kato\"`, 1)
		if forged == text {
			t.Fatal("nothing to forge")
		}
		refuse("forged, with its sum", zip(t, resum(forged)))
		i = strings.Index(text, `["observed"`)
		refuse("a row missing, with its sum", zip(t, resum(text[:i]+text[i+strings.Index(text[i:], "\n")+1:])))
		if _, err := db.Restore(ctx, bytes.NewReader(whole), false); err != nil {
			t.Errorf("the whole one: %v", err)
		}
	})
}

// FuzzBackup reads what isn't a backup.
func FuzzBackup(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"noroshi":"state backup 1","form":2,"at":"2026-03-01T12:00:00Z","head":{"seq":0,"hash":"` + hex.EncodeToString(make([]byte, 32)) + `"},"rows":1}` + "\n" + `["observed",1]` + "\n"))
	db := open(f, filepath.Join(f.TempDir(), "state.db"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<14 {
			return
		}
		if _, err := db.Restore(context.Background(), bytes.NewReader(zip(t, resum(string(text)))), false); err == nil {
			t.Fatal("restored")
		}
		whole(t, db)
	})
}

func TestBroken(t *testing.T) {
	both(t, func(t *testing.T, name string) {
		db := open(t, name)
		some(t, db)
		if _, err := raw(t, name).Exec("UPDATE audit SET actor = 'x' WHERE seq = 3"); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Backup(context.Background(), io.Discard); err == nil || !strings.Contains(err.Error(), "audit row 3") {
			t.Errorf("a backup of a broken chain: %v", err)
		}
		if _, err := raw(t, name).Exec("DELETE FROM head"); err != nil {
			t.Fatal(err)
		}
		if err := db.Append(context.Background(), "a", "b", "c", nil); err == nil || !strings.Contains(err.Error(), "head of the audit chain is missing") {
			t.Errorf("without a head: %v", err)
		}
	})
}

// Others may read, make backups and append while noroshi has it open.
func TestBeside(t *testing.T) {
	both(t, func(t *testing.T, name string) {
		ctx := context.Background()
		db := open(t, name)
		head := some(t, db)
		if second, err := state.Open(name); err == nil || !strings.Contains(err.Error(), "another noroshi has it open") {
			t.Fatalf("%v, %v", second, err)
		}
		beside, err := state.Beside(name)
		if err != nil {
			t.Fatal(err)
		}
		defer beside.Close()
		done := make(chan error)
		go func() {
			var err error
			for n := 0; n < 30 && err == nil; n++ {
				err = beside.Append(ctx, "sato", "identity.read", "x", n)
			}
			done <- err
		}()
		for n := range 30 {
			if err := db.Save(ctx, []*incident.Incident{statetest.Incident(10 + n)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r := whole(t, db); r.Head.Seq != head.Seq+60 {
			t.Errorf("%d rows, want %d", r.Head.Seq, head.Seq+60)
		}
		if _, err := os.Stat(name); !state.IsPostgres(name) && err != nil {
			t.Error(err)
		}
	})
}
