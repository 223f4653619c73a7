package state_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// chainSum is the hash of a row of the chain, written from docs/state.md and not
// from the code under test.
func chainSum(seq, at int64, actor, action, object, body string, prev []byte) []byte {
	number := func(n int64) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	h := sha256.New()
	for _, field := range []string{"noroshi audit 1", number(seq), number(at), actor, action, object, body, string(prev)} {
		io.WriteString(h, number(int64(len(field)))+field)
	}
	return h.Sum(nil)
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func zip(t testing.TB, text string) []byte {
	t.Helper()
	b := new(bytes.Buffer)
	w := gzip.NewWriter(b)
	_, _ = io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unzip(t testing.TB, backup []byte) string {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// resum gives a changed backup the sum that it must have then.
func resum(text string) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	body := strings.Join(lines[:len(lines)-1], "")
	return body + fmt.Sprintf(`{"sha256":"%x"}`+"\n", sha256.Sum256([]byte(body)))
}
