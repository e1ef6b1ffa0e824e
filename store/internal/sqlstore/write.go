package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/troth-tx/troth/store"
)

// triesMax is how often a transaction of the database is tried that ended in a
// deadlock, or on a connection that had gone before.
const triesMax = 10

var (
	errPlace      = errors.New("not exactly one")
	errNoSequence = errors.New("store: the table troth_sequence has lost its row")
)

// commitError is the error of a COMMIT: what became of it is not known.
type commitError struct{ err error }

func (e *commitError) Error() string {
	return "store: the answer to COMMIT is missing, and the outcome is not known: " + e.err.Error()
}
func (e *commitError) Unwrap() error { return e.err }

// write writes a batch and answers its callers.
func (w *writer) write(ops []*op) {
	began := time.Now()
	b, err := w.commit(ops)
	if err == nil {
		w.remember(b)
		if slices.Contains(b.errs, nil) {
			w.store.sure.Store(true)
		}
		w.last = flushed{took: time.Since(began), ended: time.Now(), callers: len(ops) + w.waiting()}
		for i, o := range ops {
			if o.err = b.errs[i]; o.err == nil {
				o.version = b.after[i]
			}
			close(o.done)
		}
		return
	}
	w.last = flushed{}
	if len(ops) > 1 && w.oneOfThem(err) {
		for i := range ops {
			w.write(ops[i : i+1])
		}
		return
	}
	for _, o := range ops {
		o.err = err
		close(o.done)
	}
}

// oneOfThem reports whether a batch may have failed because of one of its changes, and
// none of them was made: the database lives. Some end the connection to refuse a value.
func (w *writer) oneOfThem(err error) bool {
	var unknown *commitError
	switch {
	case errors.As(err, &unknown), w.failed != nil, errors.Is(err, context.DeadlineExceeded), w.store.life.Err() != nil:
		return false
	case w.session != nil:
		return true
	}
	ctx, cancel := w.store.writeContext()
	defer cancel()
	return w.connect(ctx) == nil
}

// commit writes a batch as one transaction, or as one statement. If it was refused before
// the COMMIT, with the connection still good, w.session stays.
func (w *writer) commit(ops []*op) (b *batch, err error) {
	creates := 0
	for _, o := range ops {
		if o.create {
			creates++
		}
	}
	if err := w.reserve(creates); err != nil {
		return nil, err
	}
	if b, err := w.once(ops); b != nil || err != nil {
		return b, err
	}
	var seq int64
	tries := 0
	err = w.transact(func(ctx context.Context, s *session) (bool, error) {
		tries++
		places, err := w.lookup(ctx, s, ops, tries == 1)
		if err != nil {
			return false, err
		}
		seq = w.seq.at
		b = decide(ops, places, func() int64 { seq++; return seq - 1 })
		if len(b.rows) == 0 {
			return false, nil
		}
		return true, w.apply(ctx, s, b)
	})
	w.seq.at = max(w.seq.at, seq) // also if nobody knows whether they are taken
	return b, err
}

// lookup finds out where the transactions of a batch are. It does not ask for new ones if
// hope is set and nobody else can have made them: then the insertion fails if they are
// there, which is rare, and costs another try.
func (w *writer) lookup(ctx context.Context, s *session, ops []*op, hope bool) (map[string]place, error) {
	places := make(map[string]place, len(ops))
	w.gids = w.gids[:0]
	for _, o := range ops {
		if at, ok := w.known.get(o.gid); ok {
			places[o.gid] = at
		} else if !o.create || !hope || !w.store.cfg.Sole {
			w.gids = append(w.gids, o.gid)
		}
	}
	slices.Sort(w.gids)
	w.gids = slices.Compact(w.gids)
	if len(w.gids) == 0 {
		return places, nil
	}
	return places, w.store.dialect.lookup(ctx, s, w.gids, func(gid string, at place) { places[gid] = at })
}

// apply writes what was decided.
func (w *writer) apply(ctx context.Context, s *session, b *batch) error {
	var inserts, updates []*row
	var parts []part
	for _, r := range b.rows {
		if r.insert {
			inserts = append(inserts, r)
		} else {
			updates = append(updates, r)
		}
		parts = append(parts, r.parts...)
	}
	d := w.store.dialect
	if len(inserts) > 0 {
		if err := d.insert(ctx, s, inserts); err != nil {
			return err
		}
	}
	if len(updates) > 0 {
		if err := d.update(ctx, s, updates); err != nil {
			return err
		}
	}
	if len(parts) > 0 {
		return d.add(ctx, s, parts)
	}
	return nil
}

// remember keeps the places of a batch that is committed, where nobody else can
// change them.
func (w *writer) remember(b *batch) {
	for gid, at := range b.places {
		w.known.put(gid, at)
	}
}

func (w *writer) runCall(f func(ctx context.Context, s *session) error) error {
	return w.transact(func(ctx context.Context, s *session) (bool, error) {
		err := f(ctx, s)
		return err == nil, err
	})
}

// transact runs f in a transaction and commits it if f says so, else rolls back. It
// tries again after a deadlock, and after a connection had gone before the COMMIT.
// The error is a *commitError if the outcome is not known; otherwise nothing was done.
func (w *writer) transact(f func(ctx context.Context, s *session) (commit bool, err error)) (err error) {
	defer func() { w.store.doubt(err) }()
	for try := 1; ; try++ {
		if w.failed != nil {
			return w.failed
		}
		ctx, cancel := w.store.writeContext()
		again, err := w.tryOnce(ctx, f)
		cancel()
		if err == nil {
			return nil
		}
		if w.store.dialect.broken(err) {
			w.drop()
			w.failed = fmt.Errorf("%w: %w", store.ErrBroken, err)
			w.store.broken.Store(&w.failed)
			w.store.cfg.Logger.Error("the store failed: nothing is written or read until it is opened again", "err", err)
			return w.failed
		}
		if !again || try == triesMax {
			return err
		}
		if w.session != nil { // a deadlock: give the others time
			time.Sleep(rand.N(time.Duration(try) * 2 * time.Millisecond))
		}
	}
}

func (w *writer) tryOnce(ctx context.Context, f func(ctx context.Context, s *session) (bool, error)) (again bool, err error) {
	fresh := w.session == nil
	if fresh {
		if err := w.connect(ctx); err != nil {
			return false, err
		}
	}
	s := w.session
	if text := w.store.dialect.begin(); text != "" {
		if _, err := s.execOnce(ctx, text); err != nil {
			w.drop()
			return !fresh, fmt.Errorf("store: begin: %w", err)
		}
	}
	commit, err := f(ctx, s)
	if err == nil && commit {
		err := w.committing(func() error {
			_, err := s.execOnce(ctx, "COMMIT")
			return err
		})
		if err != nil {
			w.drop()
			return false, &commitError{err}
		}
		return false, nil
	}
	if _, rollbackErr := s.execOnce(ctx, "ROLLBACK"); rollbackErr != nil {
		w.drop()
		return err != nil && !fresh, cmp.Or(err, rollbackErr)
	}
	if w.store.dialect.readOnly(err) { // another connection may lead to a server that has taken over
		w.drop()
	}
	return err != nil && w.store.dialect.again(err), err
}

func (w *writer) connect(ctx context.Context) error {
	s, err := openSession(ctx, w.store.cfg.Write, w.store.dialect)
	if err != nil {
		return fmt.Errorf("store: connect: %w", err)
	}
	w.session = s
	return nil
}

// drop ends the connection, and with it what it has not committed.
func (w *writer) drop() {
	w.known.clear()
	if w.session == nil {
		return
	}
	if err := w.session.close(); err != nil {
		w.store.cfg.Logger.Warn("a connection did not end well", "err", err)
	}
	w.session = nil
}

// sequenceBlock is how many places for new transactions a writer takes at a time. A
// block that is not used up when the process ends is lost, which is no harm: places
// only keep rows together that are written together.
const sequenceBlock = 4096

// reserve sees to it that there are places for n new transactions.
func (w *writer) reserve(n int) error {
	if w.seq.end-w.seq.at >= int64(n) {
		return nil
	}
	var next int64
	err := w.transact(func(ctx context.Context, s *session) (bool, error) {
		if _, err := s.exec(ctx, w.store.sql.takeSequence, int64(sequenceBlock)); err != nil {
			return false, err
		}
		found, err := queryAll(ctx, s, scanNumber, "SELECT next FROM troth_sequence WHERE id = 1")
		if err == nil && len(found) != 1 {
			err = errNoSequence
		}
		if err != nil {
			return false, err
		}
		next = found[0]
		return true, nil
	})
	if err == nil {
		w.seq = block{next - sequenceBlock, next}
	}
	return err
}

// A block of places that nobody else gives away: at is the next, end the first that is
// not in it.
type block struct{ at, end int64 }
