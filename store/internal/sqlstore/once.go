package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/store"
)

// freshFor is how long a connection is trusted after its last answer. One that died
// while it was idle would leave a change that commits itself without an answer; the
// usual way notices it at its first statement, and begins anew on another.
const freshFor = time.Second

// once writes a batch as one statement that commits itself, where the dialect has one:
// a single round trip. b is nil if the batch is to go the usual way, and nothing was
// done. The error is always a *commitError.
func (w *writer) once(ops []*op) (b *batch, err error) {
	fresh := w.session != nil && !w.session.plain && time.Since(w.last.ended) <= freshFor
	if !fresh || len(ops) > w.store.dialect.onceMax() || !simple(ops) {
		return nil, nil
	}
	ctx, cancel := w.store.writeContext()
	defer cancel()

	sorted := slices.Clone(ops) // every store takes its locks in the same order
	slices.SortFunc(sorted, func(a, b *op) int { return cmp.Compare(a.gid, b.gid) })
	rows := make([]*row, len(sorted))
	for i, o := range sorted {
		rows[i] = w.rowOnce(o)
	}
	var written []string
	err = w.committing(func() (err error) {
		written, err = w.store.dialect.once(ctx, w.session, rows)
		return err
	})
	switch {
	case err == nil:
		return w.outcomes(ctx, ops, written), nil
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone): // by contract, nothing was sent
		w.drop()
		return nil, nil
	case w.store.dialect.refused(err): // what to do about it, the usual way knows
		return nil, nil
	}
	w.drop()
	w.store.doubt(err)
	return nil, &commitError{err}
}

// simple reports whether one statement can write the batch: no two changes of it are of
// the same transaction, and it is not large.
func simple(ops []*op) bool {
	size := 0
	for i, o := range ops {
		if size += o.size(); size > firstMax || o.create && len(o.more) > 0 {
			return false
		}
		for _, before := range ops[:i] {
			if before.gid == o.gid {
				return false
			}
		}
	}
	return true
}

// rowOnce is a change as a row. That of a save has no place: it is found by its gid.
func (w *writer) rowOnce(o *op) *row {
	r := &row{columns: o.columns, insert: o.create}
	if o.create {
		r.seq, r.version = w.seq.at, 1
		w.seq.at++
		return r
	}
	r.before.version, r.version = o.version, o.version+1
	r.addParts(r.version, o.more)
	return r
}

// outcomes says what came of each change. One that was not written has lost: only of a
// save it has to be asked whether it came too late, or its transaction is not there.
func (w *writer) outcomes(ctx context.Context, ops []*op, written []string) *batch {
	b := &batch{errs: make([]error, len(ops)), after: make([]int64, len(ops))}
	var lost []string
	for i, o := range ops {
		switch {
		case slices.Contains(written, o.gid) && o.create:
			b.after[i] = 1
		case slices.Contains(written, o.gid):
			b.after[i] = o.version + 1
		case o.create:
			b.errs[i] = store.ErrExists
		default:
			b.errs[i] = store.ErrNotFound
			lost = append(lost, o.gid)
		}
	}
	if len(lost) == 0 {
		return b
	}
	there, err := w.store.dialect.present(ctx, w.session, lost)
	if err != nil {
		w.drop()
	}
	for i, o := range ops {
		switch {
		case !slices.Contains(lost, o.gid):
		case err != nil:
			b.errs[i] = fmt.Errorf("store: not written, and it is not known why: %w", err)
		case slices.Contains(there, o.gid):
			b.errs[i] = store.ErrConflict
		}
	}
	return b
}

// committing runs what commits, between the points at which a process may be killed.
func (w *writer) committing(f func() error) error {
	faultpoint.Hit("store.commit.before")
	if err := f(); err != nil {
		return err
	}
	faultpoint.Hit("store.commit.answered")
	return nil
}
