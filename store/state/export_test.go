package state

import (
	"context"
	"testing"
)

// WriterSetting returns a setting of the connection of PostgreSQL that writes.
func WriterSetting(t testing.TB, d *DB, name string) (value string) {
	t.Helper()
	err := d.change(context.Background(), func(tx *txn) error {
		return tx.QueryRow("SELECT current_setting($1)", name).Scan(&value)
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}
