package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/internal/pinned"
)

// branch is an XA transaction on a session of its own.
//
//	stageWork ──> stageVoting ──> stagePrepared ──> stageEnded
//	    └───────> stageDeciding ───────────────────────┘
//
// Voting and deciding last while the answer to XA PREPARE, or to XA COMMIT … ONE
// PHASE, is out: if it is lost the branch stays there, and only the server knows.
type branch struct {
	r       *Resource
	o       *opened
	cfg     troth.BranchConfig
	session *pinned.Session
	thread  thread
	xid     troth.XID // zero until the branch was given its name
	stage   stage
}

type stage uint8

const (
	stageWork stage = iota + 1
	stageVoting
	stagePrepared
	stageDeciding
	stageEnded
)

var (
	_ troth.Branch  = (*branch)(nil)
	_ troth.Settler = (*branch)(nil)
)

var errSealed = errors.New("troth: the transaction is being ended: no more statements")

// name fixes the branch's name, and with it where the decision will be recorded.
func (b *branch) name() error {
	if b.xid != (troth.XID{}) {
		return nil
	}
	xid, err := b.cfg.XID()
	if err != nil {
		return err
	}
	b.xid = xid
	b.xid.Session = b.thread.session()
	b.r.memory.takeOff(xid, b.thread)
	return nil
}

// opening is what begins the branch: the isolation level, if one is asked for,
// applies to the transaction that XA START begins.
func (b *branch) opening() ([]string, error) {
	if err := b.name(); err != nil {
		return nil, err
	}
	level, err := isolationLevel(b.cfg.Isolation)
	if err != nil {
		return nil, err
	}
	if level == "" {
		return []string{xaStart(b.xid)}, nil
	}
	return []string{level, xaStart(b.xid)}, nil
}

func (b *branch) start(ctx context.Context, dc driver.Conn) error {
	statements, err := b.opening()
	if err == nil {
		err = b.o.engine.exec(ctx, dc, statements...)
	}
	return b.r.branchError("begin", b.xid, err)
}

// joined is the opening together with the first statement of the program.
func (b *branch) joined(query string) (string, error) {
	statements, err := b.opening()
	if err != nil {
		return "", b.r.branchError("begin", b.xid, err)
	}
	return strings.Join(append(statements, query), "; "), nil
}

// startExec begins the branch with its first statement in one round trip. The
// driver answers ErrSkip, and has sent nothing, if it would have to prepare the
// statement for its arguments: then the branch is begun alone. The last
// statement's result is the one that the driver returns.
func (b *branch) startExec(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Result, error) {
	execer, ok := dc.(driver.ExecerContext)
	if !ok || !b.o.engine.multi {
		return nil, pinned.ErrNotJoined
	}
	text, err := b.joined(query)
	if err != nil {
		return nil, err
	}
	return execer.ExecContext(ctx, text, args)
}

// startQuery is startExec for a query. The driver goes past results without
// columns by itself, so the first rows are the query's.
func (b *branch) startQuery(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Rows, error) {
	queryer, ok := dc.(driver.QueryerContext)
	if !ok || !b.o.engine.multi {
		return nil, pinned.ErrNotJoined
	}
	text, err := b.joined(query)
	if err != nil {
		return nil, err
	}
	return queryer.QueryContext(ctx, text, args)
}

// witness is the branch's last change before it votes.
func (b *branch) witness() string {
	return b.o.table.WitnessSQL(b.xid)
}

// run runs the branch's own statements on its session.
func (b *branch) run(ctx context.Context, statements ...string) error {
	return b.session.Raw(ctx, func(dc driver.Conn) error { return b.o.engine.exec(ctx, dc, statements...) })
}

// DB is the handle that [Resource.DB] gives out, for those that drive branches without
// a [troth.Manager].
func (b *branch) DB() *sql.DB { return b.session.DB() }

// Failed implements [troth.Failer].
func (b *branch) Failed() error {
	if err := b.session.Failed(); err != nil {
		return b.r.branchError("work", b.xid, err)
	}
	return nil
}

// Wrote implements [troth.Branch]. What the text of the statements does not rule
// out counts as a change: the server cannot be asked.
func (b *branch) Wrote(context.Context) (bool, error) {
	b.session.Seal(errSealed)
	if err := b.session.Failed(); err != nil {
		return true, b.r.branchError("work", b.xid, err)
	}
	if mistake.On("lock-is-no-work") {
		return b.session.Wrote() == pinned.ChangeYes, nil
	}
	return b.session.Started() && b.session.Wrote() != pinned.ChangeNo, nil
}

// Prepare implements [troth.Branch]. The witness row is the branch's last
// change: it makes a branch that only holds locks durable, and proves later that
// the branch committed (R8).
func (b *branch) Prepare(ctx context.Context, xid troth.XID) (troth.Vote, error) {
	if err := b.ready(ctx, xid); err != nil {
		return b.refuse(ctx, "prepare", err)
	}
	b.stage = stageVoting
	statements := []string{b.witness(), xaEnd(b.xid), xaPrepare(b.xid)}
	if mistake.On("no-witness") {
		statements = statements[1:]
	}
	err := b.run(ctx, statements...)
	if err == nil {
		b.stage = stagePrepared
		return troth.VoteCommit, nil
	}
	return b.refuse(ctx, "prepare", err)
}

// ready sees to it that the branch has begun, under the name xid if that is set,
// and that no statement has failed in it (R9).
func (b *branch) ready(ctx context.Context, xid troth.XID) error {
	b.session.Seal(errSealed)
	if err := b.session.Failed(); err != nil {
		return err
	}
	if !b.session.Started() {
		if err := b.session.Raw(ctx, func(dc driver.Conn) error { return b.start(ctx, dc) }); err != nil {
			return err
		}
	}
	if xid != (troth.XID{}) && bare(xid) != bare(b.xid) {
		return fmt.Errorf("mysql: the branch was begun as %s and is asked to vote as %s", b.xid, xid)
	}
	return nil
}

// refuse ends a branch whose vote, or one-phase commit, met an error. The vote is
// rollback only if the server then acknowledged a rollback on the branch's own
// session, or the branch never came to its vote; every other error hides whether
// the branch is prepared (R10).
func (b *branch) refuse(ctx context.Context, op string, cause error) (troth.Vote, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	cause = b.r.branchError(op, b.xid, cause)
	if b.stage == stageWork {
		if err := b.Rollback(ctx); err != nil {
			b.o.cfg.Logger.WarnContext(ctx, "rollback of a branch that did not vote was not acknowledged",
				"gid", b.cfg.GID, "rm", b.r.name, "branch", b.cfg.Branch, "err", err)
			b.Close() // it is not prepared, so the end of its session ends it
		}
		return troth.VoteRollback, cause
	}
	if err := b.undo(ctx); err != nil {
		return troth.VoteUnknown, cause
	}
	return troth.VoteRollback, cause
}

// undo rolls the branch back on its own session and gives the session back. nil
// means that the server said so, or that nothing was prepared.
func (b *branch) undo(ctx context.Context) error {
	err := b.session.Raw(ctx, func(dc driver.Conn) error {
		if b.stage == stageWork && b.session.Failed() == nil {
			if err := b.o.engine.exec(ctx, dc, xaEnd(b.xid), xaRollback(b.xid)); serverCode(err) == 0 {
				return err
			}
		}
		// The branch may be active, idle, prepared or rollback-only: XA END is wrong
		// in all states but the first, and needed there.
		if err := b.o.engine.exec(ctx, dc, xaEnd(b.xid)); err != nil && serverCode(err) == 0 {
			return err
		}
		return b.o.engine.exec(ctx, dc, xaRollback(b.xid))
	})
	switch {
	case err == nil:
		b.end(false)
		return nil
	case isCode(err, codeXARolledBack, codeXADeadlock, codeXATimeout):
		b.end(true)
		return nil
	case isCode(err, codeUnknownXID) && b.stage != stageDeciding:
		// Said on the branch's own session: it is not prepared here. After XA COMMIT …
		// ONE PHASE the same answer would leave open how it ended.
		b.end(true)
		return nil
	case serverCode(err) != 0 && b.stage == stageWork:
		b.end(true) // not prepared: the end of its session ends it
		return nil
	}
	return err
}

// end gives the session back to its pool, or throws it away.
func (b *branch) end(discard bool) {
	b.stage = stageEnded
	b.r.memory.land(b.xid)
	b.release(discard)
}

func (b *branch) release(discard bool) {
	if err := b.session.Release(discard); err != nil {
		b.o.cfg.Logger.Debug("session was not given back cleanly", "rm", b.r.name, "err", err)
	}
}

// Evidence implements [troth.Branch]: the session that holds the prepared branch.
func (b *branch) Evidence() string { return evidence{b.thread, schemaHash(b.o.schema)}.String() }

// Commit implements [troth.Branch]. It is sent on the session that prepared: the
// same statement from elsewhere may be acknowledged and not happen.
func (b *branch) Commit(ctx context.Context) error {
	if b.stage == stageEnded {
		return nil
	}
	if err := b.run(ctx, xaCommit(b.xid)); err != nil {
		return b.r.branchError("commit", b.xid, err)
	}
	b.end(false)
	return nil
}

// Rollback implements [troth.Branch]. If the session is lost its thread in the
// server is ended, for it may be at work still, and hold locks.
func (b *branch) Rollback(ctx context.Context) error {
	if b.stage == stageEnded {
		return nil
	}
	b.session.Seal(errSealed)
	if !b.session.Started() || b.xid == (troth.XID{}) {
		b.end(false)
		return nil
	}
	var err error
	if !b.session.Broken() {
		if err = b.undo(ctx); err == nil {
			return nil
		}
	}
	if !b.session.Broken() {
		return b.r.branchError("rollback", b.xid, err)
	}
	b.release(true)
	if err := b.r.Finish(ctx, b.xid, troth.Aborted, ""); err != nil {
		return b.r.branchError("rollback", b.xid, err)
	}
	b.end(true)
	return nil
}

// CommitDeciding implements [troth.Branch]. The decision, or without a decision
// table the witness row, is inserted in the branch and committed with it. If the
// insert fails the server would still commit the rest: it is rolled back.
func (b *branch) CommitDeciding(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	err := b.ready(ctx, troth.XID{})
	if err == nil {
		b.stage = stageDeciding
		record := b.witness()
		if b.o.cfg.NeedDecisions {
			record = b.o.table.InsertSQL(d)
		}
		statements := []string{record, xaEnd(b.xid), xaOnePhase(b.xid)}
		if mistake.On("record-error-ignored") {
			_ = b.run(ctx, record)
			statements = statements[1:]
		}
		err = b.run(ctx, statements...)
		if err == nil {
			b.end(false)
			return troth.Committed, nil
		}
	}
	vote, err := b.refuse(ctx, "decide", err)
	if vote == troth.VoteRollback {
		return troth.Aborted, err
	}
	b.endThread(ctx)
	return troth.Undecided, err
}

// endThread ends the session in the server, if it can: whoever asks for the
// decision waits until it lets go of the record.
func (b *branch) endThread(ctx context.Context) {
	b.release(true)
	ctx, cancel := detached(ctx)
	defer cancel()
	err := b.o.reserve.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		return endSession(ctx, c, b.o.engine, b.thread)
	})
	if err != nil {
		b.o.cfg.Logger.DebugContext(ctx, "session of a lost decision not ended", "gid", b.cfg.GID, "rm", b.r.name, "err", err)
	}
}

// Settle implements [troth.Settler]. When the session has left the server, the
// witness that the branch would have committed is there or not.
func (b *branch) Settle(ctx context.Context) (troth.Outcome, error) {
	b.release(true)
	outcome, err := b.r.settle(ctx, b.o, b.xid, b.thread)
	if err != nil {
		return troth.Undecided, b.r.branchError("decide", b.xid, err)
	}
	b.end(true)
	return outcome, nil
}

// Release implements [troth.Branch]. A branch that wrote nothing is committed, not
// rolled back, so that a change that its text did not betray is kept. Whether that
// is acknowledged makes no difference.
func (b *branch) Release(ctx context.Context) error {
	if b.stage == stageEnded {
		return nil
	}
	b.session.Seal(errSealed)
	if !b.session.Started() {
		b.end(false)
		return nil
	}
	err := b.run(ctx, xaEnd(b.xid), xaOnePhase(b.xid))
	b.end(err != nil)
	return nil
}

// Close implements [troth.Branch].
func (b *branch) Close() {
	if b.stage != stageEnded {
		b.release(true)
	}
}
