package state

import (
	"context"
	"fmt"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// pruneAtOnce is how many incidents one transaction prunes: nobody waits long.
const pruneAtOnce = 20

// Prune implements Store.
func (d *DB) Prune(ctx context.Context, before event.Time) (total int, err error) {
	for {
		n := 0
		err := d.change(ctx, func(tx *txn) (err error) {
			n, err = prune(ctx, tx, before)
			return err
		})
		total += n
		if err != nil || n < pruneAtOnce {
			return total, err
		}
	}
}

func prune(ctx context.Context, tx *txn, before event.Time) (n int, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT body FROM incidents WHERE pruned = 0 AND state = $1 AND last < $2 AND active = 0 ORDER BY last, id LIMIT $3",
		string(incident.Closed), int64(before), pruneAtOnce)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var list []*incident.Incident
	for rows.Next() {
		in, err := scan(rows)
		if err != nil {
			return 0, err
		}
		list = append(list, in)
	}
	if err := rows.Err(); err != nil || len(list) == 0 {
		return 0, err
	}
	members, ids := int64(0), []finding.ID{}
	for _, in := range list {
		res, err := tx.ExecContext(ctx, "DELETE FROM members WHERE incident = $1", in.ID[:])
		if err != nil {
			return 0, err
		}
		gone, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		members, ids = members+gone, append(ids, in.ID)
		in.Evidence = nil
		if err := put(ctx, tx, in, in); err != nil {
			return 0, err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE incidents SET pruned = 1 WHERE id = $1", in.ID[:]); err != nil {
			return 0, err
		}
	}
	return len(list), tx.append(ctx, Program, "state.pruned", "state", map[string]any{"before": fmt.Sprint(before), "incidents": ids, "members": members})
}
