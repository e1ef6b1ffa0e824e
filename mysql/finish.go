package mysql

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
)

// Times of ending somebody else's branch.
const (
	patience = time.Second     // for a live session of another process to end its branch itself
	goneMax  = 3 * time.Second // for a session that was told to end
)

// Finish implements [troth.Resource]. It may be asked about a branch of another
// schema of the same server, because XA RECOVER does not tell schemas apart: it
// ends that one too, and looks for the witness in every schema that the database
// user can read.
//
// A live session that holds the branch is ended first. MariaDB lets nobody else
// end the branch while it lives, and acknowledges, one time in a thousand, a
// commit that comes within milliseconds of its end and does not do it.
func (r *Resource) Finish(ctx context.Context, xid troth.XID, outcome troth.Outcome, evidence string) error {
	o, err := r.opened()
	if err != nil {
		return err
	}
	f := finisher{r: r, o: o, xid: xid}
	f.holder, f.held = parseSession(xid.Session)
	if e, ok := parseEvidence(evidence); ok {
		f.holder, f.held = e.thread, true
		f.mine = e.schema == schemaHash(o.schema)
	}
	if t, ok := r.memory.flight(xid); ok {
		f.holder, f.held, f.lost = t, true, true
	}
	if xid.Session == "" && f.held { // the branch is named by a record, not by the server
		f.xid.Session = f.holder.session()
	}
	err = o.reserve.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		f.conn = c
		if _, err := c.ExecContext(ctx, "SET SESSION autocommit = 1"); err != nil {
			return err
		}
		if err := f.findName(ctx); err != nil {
			return err
		}
		switch outcome {
		case troth.Committed:
			return f.commit(ctx)
		case troth.Aborted:
			return f.rollback(ctx)
		case troth.Undecided:
		}
		return fmt.Errorf("mysql: Finish of %s with outcome %v: only a decided branch can be ended", xid, outcome)
	})
	if err != nil {
		return r.branchError("recover", xid, err)
	}
	r.memory.land(xid)
	return nil
}

// A finisher ends one branch from the recovery session.
type finisher struct {
	r    *Resource
	o    *opened
	conn *sql.Conn
	xid  troth.XID

	holder thread // the session that prepared, if held
	held   bool
	lost   bool // it is this process's own, which has lost it: no need for patience

	table string // where the branch's witness is looked for
	mine  bool   // and nowhere else: what is not there is nowhere
}

// findName completes the name of a branch that a record without evidence gave:
// the server's list has it, if the branch is still prepared.
func (f *finisher) findName(ctx context.Context) error {
	if f.xid.Session != "" {
		return nil
	}
	list, err := prepared(ctx, f.conn)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Ours && bare(p.XID) == f.xid {
			f.xid = p.XID
			f.holder, f.held = parseSession(p.XID.Session)
		}
	}
	return nil
}

// commit ends a branch whose transaction is committed. Only the witness row is a
// proof; neither an acknowledgement nor "unknown XID" is one (R8).
func (f *finisher) commit(ctx context.Context) error {
	if mistake.On("unknown-xid-is-done") {
		if _, err := f.conn.ExecContext(ctx, xaCommit(f.xid)); err == nil || isCode(err, codeUnknownXID) {
			return nil
		}
	}
	if f.lost {
		if err := f.awaitHolder(ctx); err != nil {
			return err
		}
	}
	switch w, err := f.witness(ctx); {
	case err != nil:
		return err
	case w == witnessThere:
		return nil
	case w == witnessAbsent && f.mine:
		return f.heuristic(troth.Committed, "its witness row is not there and no transaction holds it")
	}
	if !f.lost {
		if err := f.awaitHolder(ctx); err != nil {
			return err
		}
	}
	_, answer := f.conn.ExecContext(ctx, xaCommit(f.xid))
	faultpoint.Hit("recover.before-witness")
	if answer != nil && !isCode(answer, codeUnknownXID, codeXARolledBack, codeXADeadlock, codeXATimeout) {
		return answer
	}
	w, err := f.witness(ctx)
	if err != nil {
		return err
	}
	faultpoint.Hit("recover.witness-read")
	switch w {
	case witnessThere:
		return nil
	case witnessHeld:
		return f.stuck(ctx, answer)
	case witnessAbsent:
	}
	if f.mine {
		return f.heuristic(troth.Committed, "its witness row is not there after XA COMMIT")
	}
	if answer == nil {
		return fmt.Errorf("%w: XA COMMIT %s was acknowledged, its witness row is in no schema that this user can read", troth.ErrNoEvidence, f.xid)
	}
	return fmt.Errorf("%w: %s: %w", troth.ErrNoEvidence, f.xid, answer)
}

// rollback ends a branch whose transaction is aborted.
func (f *finisher) rollback(ctx context.Context) error {
	if f.lost { // it may be at work still, and prepare later
		if err := f.awaitHolder(ctx); err != nil {
			return err
		}
	}
	_, answer := f.conn.ExecContext(ctx, xaRollback(f.xid))
	if answer != nil && !isCode(answer, codeUnknownXID, codeXARolledBack, codeXADeadlock, codeXATimeout) {
		return answer
	}
	if isCode(answer, codeUnknownXID) {
		free, err := f.free(ctx)
		if err != nil {
			return err
		}
		if !free && f.held {
			if err := f.awaitHolder(ctx); err != nil {
				return err
			}
			return errors.New("the session that held the branch has ended: try again")
		}
		if !free {
			return errHeldElsewhere
		}
	}
	w, err := f.witness(ctx)
	if err != nil {
		return err
	}
	switch w {
	case witnessThere:
		return f.heuristic(troth.Aborted, "its witness row is there")
	case witnessHeld:
		return f.stuck(ctx, answer)
	case witnessAbsent:
	}
	return nil
}

var errHeldElsewhere = &hintError{
	errors.New("another session holds the branch"),
	"it goes on when that session ends; SHOW PROCESSLIST lists the sessions, KILL ends one",
}

// stuck explains a branch that XA statements do not reach although a transaction
// holds its witness row.
func (f *finisher) stuck(ctx context.Context, answer error) error {
	free, err := f.free(ctx)
	if err != nil {
		return err
	}
	if !free {
		return errHeldElsewhere
	}
	// The name is free for good, so what still holds the row is not on its way out.
	if w, err := f.witness(ctx); err != nil || w != witnessHeld {
		return errors.Join(err, errors.New("the branch is being ended: try again"))
	}
	said := "acknowledged the end of the branch"
	if answer != nil {
		said = "does not know the branch: " + answer.Error()
	}
	return &hintError{
		fmt.Errorf("the server %s, and still holds it inside InnoDB, with its locks, in no list (information_schema.innodb_trx shows it with thread id 0)", said),
		"restart that server: it then lists the branch again, and recovery ends it",
	}
}

func (f *finisher) heuristic(decision troth.Outcome, words string) error {
	ended := troth.Aborted
	if decision == troth.Aborted {
		ended = troth.Committed
	}
	return &troth.HeuristicError{GID: f.xid.GID, Decision: decision, Branches: []troth.HeuristicBranch{{
		Resource: f.r.name, XID: f.xid.String(), Ended: ended, Evidence: words,
	}}}
}

// awaitHolder returns when the session that prepared has left the server. Our own
// lost one is told to end at once; another process may be just ending the branch,
// so it is given a moment.
func (f *finisher) awaitHolder(ctx context.Context) error {
	if !f.held || mistake.On("held-session-left") {
		return nil
	}
	if !f.lost {
		calm, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it had its time"))
		defer cancel()
		for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
			if w, err := f.witness(ctx); err != nil || w != witnessHeld {
				return err
			}
			gone, err := sessionGone(ctx, f.conn, f.o.engine, f.holder)
			if err != nil || gone {
				return err
			}
			if !sleep(calm, pause) {
				break
			}
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, goneMax, fmt.Errorf("no end within %v", goneMax))
	defer cancel()
	err := endSession(ctx, f.conn, f.o.engine, f.holder)
	faultpoint.Hit("recover.session-gone")
	return err
}

// free reports whether no session and no prepared branch has the name: XA START
// succeeds. It ends its own empty branch at once.
func (f *finisher) free(ctx context.Context) (bool, error) {
	_, err := f.conn.ExecContext(ctx, xaStart(f.xid))
	if isCode(err, codeXADuplicate) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, s := range []string{xaEnd(f.xid), xaRollback(f.xid)} {
		if _, err := f.conn.ExecContext(ctx, s); err != nil {
			// The session must not go on with the branch that it just began.
			_ = f.conn.Raw(func(any) error { return driver.ErrBadConn })
			return false, err
		}
	}
	return true, nil
}

// settle finds out how a one-phase commit ended whose answer was lost, where there is
// no decision table: when its session has left the server, the witness that it would
// have committed is there or not.
func (r *Resource) settle(ctx context.Context, o *opened, xid troth.XID, t thread) (troth.Outcome, error) {
	outcome := troth.Undecided
	err := o.reserve.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		f := finisher{r: r, o: o, conn: c, xid: xid, holder: t, held: true, lost: true, mine: true}
		if err := f.awaitHolder(ctx); err != nil {
			return err
		}
		w, err := f.witness(ctx)
		if err != nil {
			return err
		}
		switch w {
		case witnessThere:
			outcome = troth.Committed
		case witnessAbsent:
			outcome = troth.Aborted
		case witnessHeld:
			return errors.New("a transaction still holds the witness row: try again")
		}
		return nil
	})
	return outcome, err
}
