package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// The outcomes as stored. On disk: never change.
const (
	storedCommit = "commit"
	storedAbort  = "abort"
)

func storeOutcome(o troth.Outcome) (string, error) {
	switch o {
	case troth.Committed:
		return storedCommit, nil
	case troth.Aborted:
		return storedAbort, nil
	case troth.Undecided:
	}
	return "", fmt.Errorf("the outcome of a decision is committed or aborted, not %v", o)
}

func parseOutcome(gid troth.GID, stored string) (troth.Outcome, error) {
	switch stored {
	case storedCommit:
		return troth.Committed, nil
	case storedAbort:
		return troth.Aborted, nil
	}
	return troth.Undecided, fmt.Errorf("the record of %s says %q, neither %q nor %q: not written by troth",
		gid, stored, storedCommit, storedAbort)
}

// newInsertion checks a decision. All that reaches SQL as a literal is
// of a validated alphabet afterwards.
func (t *Table) newInsertion(n *names, d troth.Decision) (insertion, error) {
	if _, err := troth.ParseGID(string(d.GID)); err != nil {
		return insertion{}, err
	}
	outcome, err := storeOutcome(d.Outcome)
	if err != nil {
		return insertion{}, err
	}
	branches := troth.EncodeBranches(d.Branches)
	if _, err := troth.ParseBranches(branches); err != nil {
		return insertion{}, err
	}
	return insertion{table: n.decision, gid: d.GID, outcome: outcome, branches: branches}, nil
}

// InsertSQL is one complete INSERT without placeholders, for a resource manager
// to run as the last statement of the home participant's transaction, before
// its COMMIT: that commit is the decision then (R1). It fails with a duplicate
// key if there is a decision, which is an abort, and waits for a recoverer that
// is about to write one; the branch must be rolled back then.
//
// On PostgreSQL the statement itself sees to it that the COMMIT waits for the
// disk: it sets synchronous_commit to on, for this transaction only, if it was
// off. On MySQL and MariaDB durability is a setting of the server, to be checked
// when the resource opens. On SQLite the session that runs it must have
// PRAGMA synchronous = FULL (WAL mode) or EXTRA, set before BEGIN.
//
// It panics if the Table is not open or d is not valid.
func (t *Table) InsertSQL(d troth.Decision) string {
	n := t.names.Load()
	if n == nil {
		panic("decisiontable: InsertSQL before Open")
	}
	in, err := t.newInsertion(n, d)
	if err != nil {
		panic("decisiontable: InsertSQL: " + err.Error())
	}
	in.home = !mistake.On("home-over-abort")
	return t.dialect.insert(in)
}

// Decide implements troth.Register: one round trip unless a decision is there.
//
// It waits while another transaction holds the key: a home participant that is
// about to commit. The wait ends with ctx, and after Options.LockWait in any
// case; the error then means unknown, as every error does (R3).
func (t *Table) Decide(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	outcome, err := t.decide(ctx, d)
	if err != nil {
		return troth.Undecided, fmt.Errorf("decide %s about %s: %w", d.Outcome, d.GID, err)
	}
	return outcome, nil
}

func (t *Table) decide(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	n, err := t.opened(true)
	if err != nil {
		return troth.Undecided, err
	}
	in, err := t.newInsertion(n, d)
	if err != nil {
		return troth.Undecided, err
	}
	if t.opts.Floor && d.Outcome == troth.Committed {
		in.meta, in.floor = n.meta, floorName(n.domain, d.GID)
	}
	var outcome troth.Outcome
	err = t.do(ctx, func(ctx context.Context, c *sql.Conn) (err error) {
		outcome, err = t.decideOn(ctx, c, n, in, d.Outcome)
		return err
	})
	return outcome, err
}

// attemptsMax bounds how often an insertion is repeated after a deadlock or a
// serialization failure.
const attemptsMax = 10

var errVanished = errors.New("a decision was there a moment ago and has been forgotten since: its transaction is finished")

func (t *Table) decideOn(ctx context.Context, c *sql.Conn, n *names, in insertion, want troth.Outcome) (troth.Outcome, error) {
	first := t.asking(in)
	in.lockWaitMS = lockWait(ctx, t.opts.LockWait).Milliseconds()
	text := t.dialect.insert(in)
	for range attemptsMax {
		faultpoint.Hit("register.before-insert")
		inserted, err := t.tryInsert(ctx, c, text)
		faultpoint.Hit("register.inserted")
		if err != nil && !t.dialect.again(err) {
			if first && t.dialect.busy(err) {
				t.answered(in) // it did not go in: the next attempt is the first
			}
			return troth.Undecided, err
		}
		if inserted || mistake.On("second-writer-wins") {
			t.answered(in)
			return want, nil
		}
		faultpoint.Hit("register.not-first")
		// A statement of its own, so it sees what is committed now.
		outcome, lookupErr := t.lookupOn(ctx, c, n, in.gid)
		if lookupErr != nil {
			return troth.Undecided, lookupErr
		}
		if outcome != troth.Undecided {
			t.answered(in)
			return outcome, nil
		}
		if err != nil {
			continue // the other one was undone, too
		}
		return t.refused(ctx, c, n, in, first)
	}
	return troth.Undecided, fmt.Errorf("gave up after %d deadlocks or serialization failures", attemptsMax)
}

// tryInsert reports whether the row went in. Neither true nor an error: a
// decision is there, or the floor is above it.
func (t *Table) tryInsert(ctx context.Context, c *sql.Conn, text string) (bool, error) {
	res, err := c.ExecContext(ctx, text)
	if t.dialect.exists(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	rows, err := res.RowsAffected()
	return rows == 1, err
}

// lockWait is the bound for the server: no longer than the caller waits, and at
// least a moment, since 0 means for ever.
func lockWait(ctx context.Context, most time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline))
	}
	return max(most, time.Millisecond)
}

// Lookup implements troth.Register. It does not wait for a transaction that is
// about to write a decision.
func (t *Table) Lookup(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	var outcome troth.Outcome
	n, err := t.opened(true)
	if err == nil {
		err = t.do(ctx, func(ctx context.Context, c *sql.Conn) (err error) {
			outcome, err = t.lookupOn(ctx, c, n, gid)
			return err
		})
	}
	if err != nil {
		return troth.Undecided, fmt.Errorf("look up the decision about %s: %w", gid, err)
	}
	return outcome, nil
}

var errStandby = errors.New("no decision on this server, but it is a standby and may lag behind: connect to the primary")

// Uncommitted is Lookup that also sees the record of a transaction that has not
// ended: of one that is prepared, for example. MySQL and MariaDB only.
func (t *Table) Uncommitted(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	var outcome troth.Outcome
	n, err := t.opened(true)
	if err == nil {
		err = t.do(ctx, func(ctx context.Context, c *sql.Conn) error {
			// For the next statement alone.
			_, err := c.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
			if err == nil {
				outcome, err = t.lookupOn(ctx, c, n, gid)
			}
			return err
		})
	}
	if err != nil {
		return troth.Undecided, fmt.Errorf("look for an uncommitted decision about %s: %w", gid, err)
	}
	return outcome, nil
}

func (t *Table) lookupOn(ctx context.Context, c *sql.Conn, n *names, gid troth.GID) (troth.Outcome, error) {
	var stored sql.NullString
	var lagging bool
	rows := 0
	err := t.query(ctx, c, t.dialect.lookup(n.decision), []any{string(gid)}, func(r *sql.Rows) error {
		rows++
		return r.Scan(&stored, &lagging)
	})
	switch {
	case err != nil:
		return troth.Undecided, err
	case rows != 1:
		return troth.Undecided, fmt.Errorf("the database answered with %d rows", rows)
	case stored.Valid:
		return parseOutcome(gid, stored.String)
	case lagging:
		return troth.Undecided, errStandby
	}
	return troth.Undecided, nil
}
