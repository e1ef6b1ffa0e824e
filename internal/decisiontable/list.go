package decisiontable

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
)

// batchMax is how many rows one statement drops.
const batchMax = 500

// Committed implements troth.Register. It lists the records of the domain that
// the Table was opened for; other domains in the same table are not ours (R7).
func (t *Table) Committed(ctx context.Context, minAge time.Duration, after troth.GID, limit int) ([]troth.Decision, error) {
	list, err := t.committed(ctx, minAge, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list commit records: %w", err)
	}
	return list, nil
}

func (t *Table) committed(ctx context.Context, minAge time.Duration, after troth.GID, limit int) ([]troth.Decision, error) {
	n, err := t.opened(true)
	if err != nil || limit <= 0 {
		return nil, err
	}
	low, high := domainRange(n.domain)
	low = max(low, string(after))
	text := "SELECT gid, branches, " + t.dialect.at() + " FROM " + n.decision +
		" WHERE gid > ? AND gid < ? AND outcome = 'commit' AND " + t.dialect.older() + " ORDER BY gid LIMIT ?"
	args := []any{low, high, max(minAge, 0).Microseconds(), limit}
	var list []troth.Decision
	err = t.do(ctx, func(ctx context.Context, c *sql.Conn) error {
		list = nil // f may run twice
		return t.query(ctx, c, text, args, func(rows *sql.Rows) error {
			var gid, branches string
			var micros int64
			if err := rows.Scan(&gid, &branches, &micros); err != nil {
				return err
			}
			d := troth.Decision{Outcome: troth.Committed, At: time.UnixMicro(micros)}
			var err error
			if d.GID, err = troth.ParseGID(gid); err != nil {
				return err
			}
			if d.Branches, err = troth.ParseBranches(branches); err != nil {
				return fmt.Errorf("%s: %w", gid, err)
			}
			list = append(list, d)
			return nil
		})
	})
	if err != nil {
		return nil, err // a scan that failed says nothing (R6)
	}
	return list, nil
}

// Forget implements troth.Register. It drops commit records only, whatever the
// caller names.
func (t *Table) Forget(ctx context.Context, gids []troth.GID) error {
	n, err := t.opened(true)
	if err == nil {
		err = t.deleteGIDs(ctx, n.decision, gids, " AND outcome = 'commit'")
	}
	if err != nil {
		return fmt.Errorf("forget commit records: %w", err)
	}
	return nil
}

// deleteGIDs drops the rows of gids that meet a condition, a batch at a time.
func (t *Table) deleteGIDs(ctx context.Context, table string, gids []troth.GID, condition string) error {
	for len(gids) > 0 {
		batch := gids[:min(len(gids), batchMax)]
		gids = gids[len(batch):]
		args := make([]any, len(batch))
		for i, gid := range batch {
			args[i] = string(gid)
		}
		text := t.dialect.deleteFrom(table) + " WHERE gid IN (" + repeatMarks(len(batch)) + ")" + condition
		err := t.do(ctx, func(ctx context.Context, c *sql.Conn) error {
			_, err := t.exec(ctx, c, text, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Expire implements troth.Register, for the abort records of the Table's domain.
// With Options.Floor a record goes only after the floor above it has settled, so
// about FloorSettle later.
func (t *Table) Expire(ctx context.Context, age time.Duration) (int, error) {
	dropped := 0
	n, err := t.opened(true)
	if err == nil {
		err = t.do(ctx, func(ctx context.Context, c *sql.Conn) (err error) {
			dropped, err = t.expireOn(ctx, c, n, max(age, 0))
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("expire abort records: %w", err)
	}
	return dropped, nil
}

// clockSlack is how much faster than the database's a coordinator's clock may be
// before its abort records are kept longer. See expireOn.
const clockSlack = time.Minute

func (t *Table) expireOn(ctx context.Context, c *sql.Conn, n *names, age time.Duration) (int, error) {
	now, err := t.nowOn(ctx, c)
	if err != nil {
		return 0, err
	}
	before := now.Add(-age)
	if before.Before(time.UnixMilli(1)) {
		return 0, nil // older than time
	}
	// The age of a record is that of created_at. The bound on the GID only keeps
	// the scan off the young end of the key, where the work goes on: a record
	// that is old enough has an old GID, unless its maker's clock is fast.
	low, high := domainRange(n.domain)
	high = min(high, string(troth.NewGID(n.domain, before.Add(clockSlack))))
	if t.opts.Floor {
		settled, err := t.raiseFloor(ctx, c, n, now, before)
		if err != nil {
			return 0, fmt.Errorf("raise the floor: %w", err)
		}
		high = settled // F3
	}
	// Found first and dropped by key, because a DELETE that scans would lock, and
	// wait for, rows that it does not drop.
	condition := " AND outcome = 'abort' AND " + t.dialect.older()
	var gids []any
	err = t.query(ctx, c, "SELECT gid FROM "+n.decision+" WHERE gid > ? AND gid <= ?"+condition+" ORDER BY gid LIMIT ?",
		[]any{low, high, age.Microseconds(), batchMax}, func(rows *sql.Rows) error {
			var gid string
			gids = append(gids, &gid)
			return rows.Scan(&gid)
		})
	if err != nil || len(gids) == 0 {
		return 0, err
	}
	text := t.dialect.deleteFrom(n.decision) + " WHERE gid IN (" + repeatMarks(len(gids)) + ")" + condition
	dropped, err := t.exec(ctx, c, text, append(gids, age.Microseconds())...)
	return int(dropped), err
}

// nowOn reads the database's clock.
func (t *Table) nowOn(ctx context.Context, c *sql.Conn) (time.Time, error) {
	var micros int64
	err := c.QueryRowContext(ctx, "SELECT "+t.dialect.now()).Scan(&micros)
	return time.UnixMicro(micros), err
}
