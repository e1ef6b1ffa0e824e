package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/troth-tx/troth/store"
)

// Claim implements store.Store.
func (s *Store) Claim(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]*store.Transaction, error) {
	if limit <= 0 {
		return nil, ctx.Err()
	}
	var claimed []*store.Transaction
	err := s.caller.call(ctx, func(ctx context.Context, c *session) (err error) {
		claimed, err = s.claim(ctx, c, micros(now), micros(now.Add(lease)), limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func (s *Store) claim(ctx context.Context, c *session, now, until int64, limit int) ([]*store.Transaction, error) {
	seqs, err := queryAll(ctx, c, scanNumber, s.sql.due, now, int64(limit))
	if err != nil || len(seqs) == 0 {
		return nil, err
	}
	condition, args := s.dialect.in("seq", seqs)
	if _, err := c.execOnce(ctx, s.dialect.bind(s.sql.lease+condition), append([]any{until}, args...)...); err != nil {
		return nil, err
	}
	condition, args = s.dialect.in("t.seq", seqs)
	rows, err := c.queryOnce(ctx, s.dialect.bind(selectTransaction+" WHERE "+condition), args...)
	all, err := scanAll(rows, err, func(rows *sql.Rows) (found, error) {
		f, err := scan(rows)
		return f, s.passOver(ctx, &f, err)
	})
	if err != nil {
		return nil, err
	}
	order := make(map[int64]int, len(seqs))
	for i, seq := range seqs {
		order[seq] = i
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(order[a.seq], order[b.seq]) })
	claimed := make([]*store.Transaction, 0, len(all))
	for _, f := range all {
		if f.t == nil {
			continue
		}
		if err := s.passOver(ctx, &f, s.complete(ctx, c.conn, f)); err != nil {
			return nil, err
		}
		if f.t != nil {
			claimed = append(claimed, f.t)
		}
	}
	for _, f := range all { // not before: what is rolled back must not be remembered
		if f.t != nil {
			s.caller.known.put(f.t.GID, place{seq: f.seq, version: f.t.Version, created: micros(f.t.Created)})
		}
	}
	return claimed, nil
}

// passOver takes a transaction out of what is claimed if it is the only thing that cannot
// be read: it keeps its lease, and is met again after it. One bad row must not keep all
// others from being driven.
func (s *Store) passOver(ctx context.Context, f *found, err error) error {
	var bad *unreadableError
	if !errors.As(err, &bad) {
		return err
	}
	s.cfg.Logger.ErrorContext(ctx, "a transaction that is due cannot be read: nobody drives it", "gid", f.t.GID, "err", err)
	f.t = nil
	return nil
}

// EndLeases makes every leased transaction due at now: for a store that nobody else
// can have.
func (s *Store) EndLeases(ctx context.Context, now time.Time) error {
	return s.caller.call(ctx, func(ctx context.Context, c *session) error {
		s.caller.known.clear()
		_, err := c.execOnce(ctx, s.dialect.bind("UPDATE troth_transaction SET due = ?, leased = 0, version = version + 1"+
			" WHERE due IS NOT NULL AND leased = 1"), micros(now))
		return err
	})
}

// purgeMax is how many transactions are removed at a time, while others wait.
const purgeMax = 256

// Purge implements store.Store.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (removed int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	for removed < limit {
		want, n := min(purgeMax, limit-removed), 0
		err := s.caller.call(ctx, func(ctx context.Context, c *session) (err error) {
			n, err = s.purge(ctx, c, ceilMicros(before), want)
			return err
		})
		if err != nil {
			return removed, err
		}
		removed += n
		if n < want {
			break
		}
	}
	return removed, nil
}

func (s *Store) purge(ctx context.Context, c *session, before int64, limit int) (int, error) {
	seqs, err := queryAll(ctx, c, func(rows *sql.Rows) (seq int64, err error) {
		var gid string
		err = rows.Scan(&seq, &gid)
		s.caller.known.remove(gid)
		return seq, err
	}, s.sql.expired, before, int64(limit))
	if err != nil || len(seqs) == 0 {
		return 0, err
	}
	condition, args := s.dialect.in("seq", seqs)
	for _, table := range [...]string{"troth_addition", "troth_definition", "troth_transaction"} {
		if _, err := c.execOnce(ctx, s.dialect.bind("DELETE FROM "+table+" WHERE "+condition), args...); err != nil {
			return 0, err
		}
	}
	return len(seqs), nil
}
