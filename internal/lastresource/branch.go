package lastresource

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/internal/pinned"
)

var errOver = errors.New("troth: the transaction is being committed or rolled back")

// A Branch is a local transaction that commits together with the decision. It
// implements [troth.Branch].
type Branch struct {
	r       *Resource
	cfg     troth.BranchConfig
	born    time.Time // by the wall clock, which goes on while the machine sleeps
	session *pinned.Session
	open    bool // a transaction was begun, or an attempt made
	begun   Begun
	ended   bool
}

var _ troth.Branch = (*Branch)(nil)

// DB is the handle for the program's statements.
func (b *Branch) DB() *sql.DB { return b.session.DB() }

// begin begins the transaction, before the first statement.
func (b *Branch) begin(ctx context.Context, dc driver.Conn) error {
	how := How{GID: b.cfg.GID, Isolation: b.cfg.Isolation}
	if b.cfg.Context != nil {
		how.Deadline, _ = b.cfg.Context.Deadline()
	}
	b.open = true
	var err error
	b.begun, err = b.r.engine.Begin(ctx, Line{dc}, how)
	return err
}

// fail wraps an error for the transaction's.
func (b *Branch) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &troth.BranchError{Resource: b.r.name, Op: op, Err: err, Transient: b.r.engine.Transient(err)}
}

func (b *Branch) raw(ctx context.Context, f func(Line) error) error {
	return b.session.Raw(ctx, func(dc driver.Conn) error { return f(Line{dc}) })
}

// Failed implements [troth.Failer].
func (b *Branch) Failed() error {
	if err := b.session.Failed(); err != nil {
		return b.fail("work", err)
	}
	return nil
}

// Wrote implements [troth.Branch].
func (b *Branch) Wrote(ctx context.Context) (bool, error) {
	b.session.Seal(errOver)
	if err := b.session.Failed(); err != nil { // R9
		return false, b.fail("work", err)
	}
	if !b.open {
		return false, nil
	}
	var changed bool
	err := b.raw(ctx, func(l Line) (err error) {
		changed, err = b.r.engine.Changed(ctx, l, b.begun, b.session.Wrote())
		return err
	})
	return changed, b.fail("work", err)
}

// Prepare implements [troth.Branch]: the vote is rollback.
func (b *Branch) Prepare(ctx context.Context, _ troth.XID) (troth.Vote, error) {
	err := b.Rollback(context.WithoutCancel(ctx))
	return troth.VoteRollback, b.fail("prepare", errors.Join(b.r.errCannotPrepare(), err))
}

// Evidence implements [troth.Branch].
func (b *Branch) Evidence() string { return "" }

// Commit implements [troth.Branch]: there is no prepared branch to commit.
func (b *Branch) Commit(context.Context) error { return b.fail("commit", b.r.errCannotPrepare()) }

// CommitDeciding implements [troth.Branch]. The decision is the last statement of
// the transaction, so it is recorded exactly if the work is committed.
func (b *Branch) CommitDeciding(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	b.session.Seal(errOver)
	if b.ended {
		return troth.Undecided, b.fail("decide", pinned.ErrReleased)
	}
	if err := b.session.Failed(); err != nil { // R9
		return b.abort(ctx, err)
	}
	sent, never := false, false
	err := b.raw(ctx, func(l Line) (err error) {
		faultpoint.Hit("la.before-record")
		if mistake.On("last-resource-leaves-no-record") {
			// Nothing is recorded.
		} else if err := b.record(ctx, l, d); err != nil {
			return err
		}
		sent = true
		faultpoint.Hit("la.before-commit")
		never, err = b.r.engine.Commit(ctx, l)
		faultpoint.Hit("la.answered")
		return err
	})
	switch {
	case err == nil:
		b.restore(ctx)
		return troth.Committed, nil
	case !sent, never:
		// Without COMMIT there is no record and never will be one: R2 allows to
		// roll back.
		return b.abort(ctx, err)
	}
	// R3. The session goes at once: as long as it lives, it may hold the record's
	// key, and whoever asks the table would wait for it.
	b.end(true)
	return troth.Undecided, b.fail("decide", fmt.Errorf("the answer to COMMIT is not known: %w", err))
}

// record puts the decision into the open transaction.
func (b *Branch) record(ctx context.Context, l Line, d troth.Decision) error {
	if !b.open {
		if err := b.begin(ctx, l.conn); err != nil {
			return err
		}
	}
	if err := b.r.engine.Record(ctx, l, b.begun, b.r.decisions().InsertSQL(d)); err != nil {
		return fmt.Errorf("record the decision (if its key is there already, recovery decided abort before): %w", err)
	}
	// R5, asked now that the record's key is ours: an abort record of another
	// process is there and kept us out, or comes after us and waits. Only if this
	// process slept for longer than abort records are kept could one have been
	// there and be gone.
	if age := time.Now().Round(0).Sub(b.born); age < 0 || age > b.r.cfg.LifeMax {
		return fmt.Errorf("the branch is %v old by the clock, more than Config.LifeMax, %v", age.Round(time.Second), b.r.cfg.LifeMax)
	}
	return ctx.Err()
}

// abort answers Aborted, once that is so.
func (b *Branch) abort(ctx context.Context, why error) (troth.Outcome, error) {
	err := b.Rollback(context.WithoutCancel(ctx))
	return troth.Aborted, b.fail("decide", errors.Join(why, err))
}

// Rollback implements [troth.Branch]. It does not fail: the end of the session
// rolls back what ROLLBACK could not.
func (b *Branch) Rollback(ctx context.Context) error {
	b.session.Seal(errOver)
	if b.ended {
		return nil
	}
	if !b.open || b.session.Broken() {
		b.end(b.session.Broken())
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	err := b.raw(ctx, func(l Line) error { return l.Exec(ctx, "ROLLBACK") })
	if err != nil && !b.r.engine.Idle(err) {
		b.end(true)
		return nil
	}
	b.restore(ctx)
	return nil
}

// rollbackTimeout is how long a session may take to roll back before it is thrown
// away, which has the same effect.
const rollbackTimeout = 10 * time.Second

// Release implements [troth.Branch]. What the client did not see written, a
// function's work for example, is kept.
func (b *Branch) Release(ctx context.Context) error {
	b.session.Seal(errOver)
	if b.ended {
		return nil
	}
	if b.open {
		err := b.raw(ctx, func(l Line) error {
			_, err := b.r.engine.Commit(ctx, l)
			return err
		})
		if err != nil {
			b.end(true)
			return b.fail("commit", err)
		}
	}
	b.restore(ctx)
	return nil
}

// Close implements [troth.Branch]. The end of the session rolls back.
func (b *Branch) Close() {
	if !b.ended {
		b.end(b.open || b.session.Started())
	}
}

// restore puts the session's settings back and gives it to its pool.
func (b *Branch) restore(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	err := b.raw(ctx, func(l Line) error {
		for _, statement := range b.begun.Undo {
			if err := l.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	b.end(err != nil)
}

// end gives the session up. A failure to close it is of no interest any more.
func (b *Branch) end(discard bool) {
	b.ended = true
	_ = b.session.Release(discard)
}
