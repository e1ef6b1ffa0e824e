package pgrm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/internal/pinned"
)

// A Session is the database session of one branch, with the program's use of it.
// It is begun by the program's first statement, with [Core.BeginSQL].
type Session interface {
	// Raw runs f with the line to the session. An error of f is returned as it is.
	Raw(ctx context.Context, f func(Line) error) error

	Started() bool        // a transaction was begun, or an attempt was made
	Seal(reason error)    // the program may not use the session any more
	Failed() error        // R9: the first error not undone by a savepoint; final once sealed
	Wrote() pinned.Change // what the client saw
	Broken() bool         // the session is known to be lost
	Release(discard bool) error
}

// A Queuer is a Session that holds statements which the program handed over to
// be sent together with the vote or the commit.
type Queuer interface {
	// Queued reports whether there are any.
	Queued() bool

	// RoundQueued is Line.Round with begin (if the session has not started) and the
	// queued statements in front, all in one round trip. If a statement changed
	// another number of rows than the program said, the error is a *[CountError];
	// the statements behind were carried out all the same, unless held is set:
	// then the counts are looked at before they are sent, in the server or with
	// a round trip more.
	RoundQueued(ctx context.Context, held bool, statements ...string) (Answer, error)
}

// A CountError says that a queued statement did not change as many rows as the
// program said it would.
type CountError struct {
	SQL       string
	Want, Got int64 // Got is -1 if the server did not tell
}

func (e *CountError) Error() string {
	if e.Got < 0 {
		return fmt.Sprintf("queued statement did not change %d rows: %s", e.Want, clip(e.SQL))
	}
	return fmt.Sprintf("queued statement changed %d rows instead of %d: %s", e.Got, e.Want, clip(e.SQL))
}

var (
	errSealed  = errors.New("troth: the transaction is being committed or rolled back")
	errNoTrans = errors.New("the session is not in a transaction any more: something other than troth ended it, and its work may be committed or lost")
	// ErrNotSent says that [Queuer.RoundQueued] failed before it sent any of its statements.
	ErrNotSent = errors.New("nothing was sent")

	errNoTag = errors.New("the server did not confirm")
)

// phase is how far a branch has come.
type phase uint8

const (
	phaseWork     phase = iota + 1
	phaseUnsure         // PREPARE or COMMIT was sent, and the answer is lost
	phasePrepared       // the server said so
	phaseEnded
)

// Branch drives the protocol of one branch over its session. It implements
// [troth.Branch] and [troth.Settler] for every PostgreSQL resource.
type Branch struct {
	core  *Core
	s     Session
	begin string
	phase phase

	xid   troth.XID // given by Prepare
	named bool      // xid is set
	xact  string    // the transaction's xid8, "" if none is known
	asked bool      // xact was asked for after the last statement
	blind bool      // the line shows no tags: an error may come from what follows PREPARE
	back  backend
}

// NewBranch makes the branch of a session. begin is what [Core.BeginSQL] gave.
func (c *Core) NewBranch(s Session, begin string) *Branch {
	return &Branch{core: c, s: s, begin: begin, phase: phaseWork, back: backend{since: time.Now()}}
}

// Session is the branch's session.
func (b *Branch) Session() Session { return b.s }

func (b *Branch) name() string {
	if b.named {
		return b.xid.String()
	}
	return ""
}

func (b *Branch) fail(op string, err error) error { return branchError(b.core.name, op, b.name(), err) }

// round sends statements on the branch's session.
func (b *Branch) round(ctx context.Context, statements ...string) (Answer, error) {
	var a Answer
	err := b.s.Raw(ctx, func(l Line) error {
		var err error
		a, err = l.Round(ctx, statements...)
		return err
	})
	return a, err
}

// Failed implements [troth.Failer].
func (b *Branch) Failed() error {
	if err := b.s.Failed(); err != nil {
		return b.fail("work", err)
	}
	return nil
}

// Wrote is as [troth.Branch] says. It costs a round trip only if the client saw
// no changed row: the server knows (functions write, triggers write, row locks
// must last).
func (b *Branch) Wrote(ctx context.Context) (bool, error) {
	b.s.Seal(errSealed)
	if err := b.s.Failed(); err != nil { // R9
		return false, b.fail("work", err)
	}
	if b.queued() {
		return true, nil
	}
	if !b.s.Started() {
		return false, nil
	}
	var wrote bool
	err := b.s.Raw(ctx, func(l Line) error {
		b.back.pid = l.PID()
		if err := inTransaction(l); err != nil {
			return err
		}
		if b.s.Wrote() == pinned.ChangeYes {
			wrote = true
			return nil
		}
		if mistake.On("hidden-writer-is-reader") {
			return nil
		}
		a, err := l.Round(ctx, xidSQL)
		b.xact, b.asked = a.first(), err == nil
		wrote = b.xact != ""
		return err
	})
	if err != nil {
		return false, b.fail("work", err)
	}
	return wrote, nil
}

func (b *Branch) queued() bool {
	q, ok := b.s.(Queuer)
	return ok && q.Queued()
}

// inTransaction looks at the state of the session, which is free where the
// driver shows it: PREPARE and COMMIT outside a transaction, or in a failed one,
// are no errors for the server.
func inTransaction(l Line) error {
	status := l.Status()
	if mistake.On("prepare-tag-ignored") {
		status = 'T'
	}
	switch status {
	case 'I':
		return errNoTrans
	case 'E':
		return errors.New("a statement of the transaction failed")
	}
	return nil
}

// guard stands before statements on lines that do not show the session's state.
func guard(l Line, statements []string) []string {
	if l.Status() == 0 {
		return append(statements, guardSQL, unguardSQL)
	}
	return statements
}

// Prepare is as [troth.Branch] says: one round trip.
func (b *Branch) Prepare(ctx context.Context, xid troth.XID) (troth.Vote, error) {
	b.xid, b.named = xid, true
	b.s.Seal(errSealed)
	if err := b.s.Failed(); err != nil { // R9
		return b.refuse(ctx, err)
	}
	a, proof, err := b.sendPrepare(ctx)
	var count *CountError
	switch {
	case errors.As(err, &count):
		return b.refuse(ctx, err)
	case err != nil && b.phase == phaseWork: // nothing was sent
		return b.refuse(ctx, err)
	case err != nil && refused(err):
		return b.refuse(ctx, err)
	case err != nil: // R10: the server may be preparing it this very moment
		return troth.VoteUnknown, b.fail("prepare", err)
	case a.Tag == "ROLLBACK": // of a failed transaction; the server calls it success
		b.phase = phaseWork
		return b.refuse(ctx, errors.New("the server rolled the transaction back instead of preparing it: a statement of it had failed"))
	case !proof:
		return troth.VoteUnknown, b.fail("prepare", fmt.Errorf("PREPARE TRANSACTION: %w (tag %q)", errNoTag, a.Tag))
	}
	b.phase = phasePrepared
	return troth.VoteCommit, nil
}

// sendPrepare sends PREPARE TRANSACTION and reports whether there is proof that
// it was done: its tag, or the name in the server's list (R9). b.phase tells
// whether it may have been sent.
func (b *Branch) sendPrepare(ctx context.Context) (a Answer, proof bool, err error) {
	err = b.s.Raw(ctx, func(l Line) error {
		b.back.pid = l.PID()
		q, queued := b.s.(Queuer)
		queued = queued && q.Queued()
		statements := make([]string, 0, 6)
		switch {
		case queued:
		case !b.s.Started():
			statements = append(statements, Parts(b.begin)...)
		default:
			if err := inTransaction(l); err != nil {
				return err
			}
			statements = guard(l, statements)
		}
		if b.xact == "" && !mistake.On("prepare-tag-ignored") { // it fails in a failed transaction
			statements = append(statements, xidSQL)
		}
		statements = append(statements, prepareSQL(b.xid))
		if !l.Tags() {
			statements = append(statements, listedSQL(b.xid))
		}
		b.phase, b.blind = phaseUnsure, !l.Tags()
		var err error
		if queued {
			a, err = q.RoundQueued(ctx, false, statements...)
		} else {
			a, err = l.Round(ctx, statements...)
		}
		if errors.Is(err, ErrNotSent) {
			b.phase = phaseWork
			return err
		}
		if b.xact == "" {
			b.xact = a.first()
		}
		if mistake.On("prepare-tag-ignored") && err == nil {
			a.Tag = "PREPARE TRANSACTION"
		}
		proof = a.Tag == "PREPARE TRANSACTION"
		if !l.Tags() && err == nil {
			proof = len(a.Values) > 0 && a.Values[len(a.Values)-1] == b.xid.String()
		}
		if proof { // also if a count was wrong
			b.phase = phasePrepared
		}
		return err
	})
	return a, proof, err
}

// refuse votes rollback, and sees to it that it is true.
func (b *Branch) refuse(ctx context.Context, why error) (troth.Vote, error) {
	op := "prepare"
	if b.phase == phaseUnsure && (!b.blind || SQLState(why) == codeDuplicateGID) {
		// Refused: nothing is prepared. A branch that has our name is another's.
		b.phase = phaseWork
	}
	if err := b.Rollback(context.WithoutCancel(ctx)); err != nil {
		return troth.VoteUnknown, errors.Join(b.fail(op, why), err)
	}
	return troth.VoteRollback, b.fail(op, why)
}

// Evidence is as [troth.Branch] says.
func (b *Branch) Evidence() string { return evidence(b.xact, b.core.system) }

// Commit is as [troth.Branch] says.
func (b *Branch) Commit(ctx context.Context) error {
	if b.phase == phaseEnded {
		return nil
	}
	return b.finish(ctx, "commit", "COMMIT PREPARED", commitPreparedSQL(b.xid))
}

// finish ends a prepared branch on its own session: phase two needs no other.
func (b *Branch) finish(ctx context.Context, op, tag, statement string) error {
	a, err := b.round(ctx, statement)
	if err == nil && a.Tag != tag && !b.blind {
		err = fmt.Errorf("%s: %w (tag %q)", tag, errNoTag, a.Tag)
	}
	if err != nil {
		return b.fail(op, err) // [Core.Finish] looks into it
	}
	b.end(false)
	return nil
}

func (b *Branch) end(discard bool) {
	b.phase = phaseEnded
	_ = b.s.Release(discard) // the branch has ended whatever becomes of the session
}

// Rollback is as [troth.Branch] says.
func (b *Branch) Rollback(ctx context.Context) error {
	b.s.Seal(errSealed)
	switch b.phase {
	case phaseEnded:
		return nil
	case phasePrepared:
		return b.finish(ctx, "rollback", "ROLLBACK PREPARED", rollbackPreparedSQL(b.xid))
	case phaseUnsure:
		return b.rollbackUnsure(ctx)
	case phaseWork:
	}
	if !b.s.Started() && !b.s.Broken() {
		b.end(false)
		return nil
	}
	_, err := b.round(ctx, "ROLLBACK")
	b.end(err != nil) // a session that ends rolls back what is not prepared
	return nil
}

// rollbackUnsure rolls back a branch whose PREPARE was sent and not answered. The
// server may still be at it, so that the branch would appear after we looked: end
// the server's process first.
func (b *Branch) rollbackUnsure(ctx context.Context) error {
	if !b.named { // a lost COMMIT is not for rolling back
		return b.fail("rollback", errors.New("the answer to COMMIT is lost: the branch may have committed"))
	}
	if !b.s.Broken() {
		// The session answers, so it is not at it any more: a ROLLBACK ends what is
		// not prepared, and only warns if it is.
		if _, err := b.round(ctx, "ROLLBACK"); err == nil {
			_, err = b.round(ctx, rollbackPreparedSQL(b.xid))
			if err == nil || SQLState(err) == codeUndefinedObject {
				b.end(false)
				return nil
			}
		}
	}
	_ = b.s.Release(true) // it is of no more use
	if err := b.core.rollbackLate(ctx, b.xid, b.xact, b.back); err != nil {
		return b.fail("rollback", err)
	}
	b.phase = phaseEnded
	return nil
}

// CommitDeciding is as [troth.Branch] says: one round trip with a decision table,
// two without if the transaction's number is not known yet.
func (b *Branch) CommitDeciding(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	b.s.Seal(errSealed)
	if err := b.s.Failed(); err != nil { // R9
		return b.abort(ctx, err)
	}
	a, err := b.sendCommit(ctx, d)
	var count *CountError
	switch {
	case err == nil && (a.Tag == "COMMIT" || b.blind): // guarded where there is no tag
		b.end(false)
		return troth.Committed, nil
	case err == nil && a.Tag == "ROLLBACK":
		return b.abort(ctx, errors.New("the server rolled the transaction back instead of committing it: a statement of it had failed"))
	case err == nil:
		return troth.Undecided, b.fail("decide", fmt.Errorf("COMMIT: %w (tag %q)", errNoTag, a.Tag))
	case b.phase == phaseWork, errors.As(err, &count), refused(err):
		return b.abort(ctx, err)
	}
	if mistake.On("lost-commit-is-committed") {
		return troth.Committed, nil
	}
	if mistake.On("lost-commit-is-aborted") {
		return troth.Aborted, b.fail("decide", err)
	}
	return troth.Undecided, b.fail("decide", err) // R3
}

// sendCommit sends the decision and COMMIT. b.phase tells whether COMMIT may
// have been sent.
func (b *Branch) sendCommit(ctx context.Context, d troth.Decision) (a Answer, err error) {
	q, queued := b.s.(Queuer)
	queued = queued && q.Queued()
	err = b.s.Raw(ctx, func(l Line) error {
		b.back.pid = l.PID()
		statements := make([]string, 0, 6)
		switch {
		case queued:
		case !b.s.Started():
			statements = append(statements, Parts(b.begin)...)
		default:
			if err := inTransaction(l); err != nil {
				return err
			}
			statements = guard(l, statements)
		}
		if table := b.core.table; table != nil {
			statements = append(statements, table.InsertSQL(d)) // it has COMMIT wait for its flush
		} else {
			ask := append(statements, xidSQL, durableSQL)
			statements = statements[:0]
			if b.xact == "" || queued {
				// The number must be known before COMMIT is sent, see Settle.
				if queued {
					a, err = q.RoundQueued(ctx, true, ask...)
				} else {
					a, err = l.Round(ctx, ask...)
				}
				if err != nil {
					return err
				}
				b.xact, b.asked = a.first(), true
			} else {
				statements = append(statements, ask...)
			}
			queued = false
		}
		statements = append(statements, "COMMIT")
		b.phase, b.blind = phaseUnsure, !l.Tags()
		if queued {
			a, err = q.RoundQueued(ctx, true, statements...)
		} else {
			a, err = l.Round(ctx, statements...)
		}
		if errors.Is(err, ErrNotSent) {
			b.phase = phaseWork
		}
		return err
	})
	return a, err
}

// abort answers Aborted and rolls back what there is.
func (b *Branch) abort(ctx context.Context, why error) (troth.Outcome, error) {
	b.phase = phaseWork
	err := b.Rollback(context.WithoutCancel(ctx))
	return troth.Aborted, errors.Join(b.fail("decide", why), err)
}

// Settle is as [troth.Settler] says. The server keeps the status of every
// transaction for as long as its number is not frozen.
func (b *Branch) Settle(ctx context.Context) (troth.Outcome, error) {
	if b.xact == "" {
		if b.asked { // it changed nothing: nothing tells its commit from its rollback
			b.Close()
			return troth.Committed, nil
		}
		return troth.Undecided, b.fail("decide", errors.New("the transaction's number is not known: ask the decision table"))
	}
	outcome, err := b.core.settle(ctx, b.xact, b.back)
	if err != nil {
		return troth.Undecided, b.fail("decide", err)
	}
	b.Close()
	return outcome, nil
}

// Release is as [troth.Branch] says. It forces no write.
func (b *Branch) Release(ctx context.Context) error {
	b.s.Seal(errSealed)
	if b.phase == phaseEnded {
		return nil
	}
	if !b.s.Started() {
		b.end(false)
		return nil
	}
	_, err := b.round(ctx, "COMMIT")
	b.end(err != nil)
	if err != nil { // perhaps a SERIALIZABLE reader, who must not trust what it read
		return b.fail("commit", err)
	}
	return nil
}

// Close is as [troth.Branch] says.
func (b *Branch) Close() {
	if b.phase == phaseEnded {
		return
	}
	_ = b.s.Release(b.phase != phasePrepared && b.s.Started()) // the session goes, the branch stays as it is
	b.phase = phaseEnded
}

func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

var (
	_ troth.Branch  = (*Branch)(nil)
	_ troth.Settler = (*Branch)(nil)
)
