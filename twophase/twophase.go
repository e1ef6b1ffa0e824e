// Package twophase has the interface of github.com/gosom/gosql2pc over package
// troth: change the import path, and what a crash leaves half done is recovered.
//
//	p1 := twophase.NewParticipant(db1, func(ctx context.Context, tx *sql.Tx) error {
//		_, err := tx.ExecContext(ctx, "INSERT INTO users (id, name) VALUES ($1, $2)", userID, name)
//		return err
//	})
//	p2 := twophase.NewParticipant(db2, func(ctx context.Context, tx *sql.Tx) error {
//		_, err := tx.ExecContext(ctx, "INSERT INTO orders (id, user_id) VALUES ($1, $2)", orderID, userID)
//		return err
//	})
//	err := twophase.Do(ctx, twophase.Params{Participants: []twophase.Participant{p1, p2}})
//
// A program that imports gosql2pc without a name of its own imports
// github.com/troth-tx/troth/twophase/gosql2pc instead.
//
// # What is different
//
//   - The decision is recorded in one of the databases, within its own commit. After
//     a crash at any instant the next process that uses the same databases finishes
//     what was left, as decided. See [Recover].
//   - A database can be PostgreSQL, MariaDB, MySQL, or (one of them) SQLite: the
//     server is asked what it is.
//   - Each database gets a table troth_decision. A role that may not create it is
//     told the statements to run.
//   - The same Params can be used by several goroutines at once.
//   - The functions all run before any database prepares, in the order of
//     Params.Participants. Participants on one database share one local transaction:
//     the later functions see what the earlier ones wrote.
//   - The *sql.Tx is a savepoint of that local transaction. Texts that would end it,
//     and on MariaDB and MySQL those that commit implicitly (DDL), are refused. If a
//     statement fails the whole transaction is rolled back, also if the function
//     swallowed the error.
//   - A transaction is rolled back after an hour. Give ctx an earlier deadline:
//     transactions that wait for each other's locks in different databases are
//     found by no database.
//   - What operators should know goes to [log/slog.Default].
//
// # Managers
//
// Databases that were once used together share a [troth.Manager], which is opened
// at their first use and looks for crashed transactions every few seconds. It ends
// soon after one of its databases was closed, or with [Shutdown]. Programs that want
// to configure it use package troth itself.
package twophase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
)

// ErrCommitFailed says that not every participant is known to have committed. It comes
// together with one of these; any other error of Do means that nothing was changed.
//
//   - [troth.ErrPending]: the transaction is committed and some database has not
//     said so yet. It will be finished; do not run it again.
//   - [troth.ErrUndecided]: the database that holds the decision did not answer.
//     Ask [Outcome] with the id from [troth.TxError]; assume neither.
//   - [troth.HeuristicError]: a participant was ended by somebody else, against the
//     decision. A person must look.
var ErrCommitFailed = errors.New("twophase: commit not confirmed by every participant")

// timeoutMax is how long a transaction may take if ctx has no deadline:
// gosql2pc knows no limit, and troth's databases enforce this one.
const timeoutMax = time.Hour

// A Participant is a function and the database it works on. It is immutable and
// can be used in any number of transactions, also at the same time.
type Participant struct {
	db *sql.DB
	do func(ctx context.Context, tx *sql.Tx) error
}

// NewParticipant makes a participant. do works on tx alone and neither commits nor
// rolls it back: a nil error is its vote to commit, an error or a panic rolls
// everything back. It is called once for each Do.
func NewParticipant(db *sql.DB, do func(ctx context.Context, tx *sql.Tx) error) Participant {
	return Participant{db: db, do: do}
}

// Params is what Do is to do.
type Params struct {
	// LogFn is told what went wrong in a commit, like fmt.Printf. nil: nobody.
	LogFn func(msg string, args ...any)

	// Participants run in this order.
	Participants []Participant
}

// Do runs the participants' functions and commits their work in all databases, or
// in none. A nil error means that every database has committed. An error that is
// [ErrCommitFailed] means that this is not known of all of them; any other, that
// nothing was changed: errors.Is and errors.As then reach what the function
// returned and [troth.ErrRolledBack], and [troth.SafeToRetry] says whether to run
// it again.
//
// ctx can stop it up to the decision, never afterwards.
func Do(ctx context.Context, params Params) error {
	if len(params.Participants) == 0 {
		return nil
	}
	dbs := make([]*sql.DB, len(params.Participants))
	for i, p := range params.Participants {
		if p.db == nil || p.do == nil {
			return fmt.Errorf("twophase: Params.Participants[%d] lacks its database or its function: make it with NewParticipant", i)
		}
		dbs[i] = p.db
	}
	g, err := managers.lease(ctx, dbs)
	if err != nil {
		return err
	}
	defer managers.release(g)
	timeout, err := timeoutOf(ctx)
	if err != nil {
		return err
	}
	err = g.mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		handles, err := g.enlist(ctx, tx, dbs)
		if err != nil {
			return err
		}
		for i, p := range params.Participants {
			if err := p.run(ctx, handles[p.db]); err != nil {
				return fmt.Errorf("participant %d: %w", i+1, err)
			}
		}
		return nil
	}, troth.Timeout(timeout))
	return confirm(err, params.LogFn)
}

// run runs the participant's function in a savepoint of its database's branch.
func (p Participant) run(ctx context.Context, branch *sql.DB) error {
	nested, err := branch.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = nested.Rollback() }() // ErrTxDone once it is committed
	if err := p.do(ctx, nested); err != nil {
		return err
	}
	err = nested.Commit()
	switch {
	case !errors.Is(err, sql.ErrTxDone):
		return err
	case ctx.Err() != nil: // then database/sql rolls back
		return context.Cause(ctx)
	}
	return fmt.Errorf("its function ended the *sql.Tx by itself; return nil to commit, an error to roll back: %w", err)
}

func timeoutOf(ctx context.Context) (time.Duration, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return timeoutMax, ctx.Err()
	}
	left := time.Until(deadline)
	if left <= 0 {
		return 0, context.DeadlineExceeded
	}
	return min(left, timeoutMax), ctx.Err()
}

// confirm marks the errors that do not mean that nothing was changed.
func confirm(err error, logFn func(string, ...any)) error {
	var h *troth.HeuristicError
	if !errors.Is(err, troth.ErrPending) && !errors.Is(err, troth.ErrUndecided) && !errors.As(err, &h) {
		return err
	}
	if logFn != nil {
		logFn("commit not confirmed: %s", err)
	}
	return fmt.Errorf("%w: %w", ErrCommitFailed, err)
}

// Recover finishes now what crashed transactions of this package left in the
// databases, and returns how many branches it ended: call it with all databases
// that were used together. It need not be called: every process that calls Do
// recovers from time to time. Branches whose process may still be about to decide
// are left alone for five seconds after they prepared.
func Recover(ctx context.Context, dbs ...*sql.DB) (int, error) {
	if len(dbs) == 0 {
		return 0, nil
	}
	g, err := managers.lease(ctx, dbs)
	if err != nil {
		return 0, err
	}
	defer managers.release(g)
	return g.mgr.Recover(ctx)
}

// Outcome says how the transaction ended, for an error of Do with
// [troth.ErrUndecided]: dbs are its databases, in any process. See
// [troth.Manager.Outcome].
func Outcome(ctx context.Context, id troth.GID, dbs ...*sql.DB) (troth.Outcome, error) {
	if len(dbs) == 0 {
		return troth.Undecided, errors.New("twophase: Outcome without databases: name those of the transaction")
	}
	g, err := managers.lease(ctx, dbs)
	if err != nil {
		return troth.Undecided, err
	}
	defer managers.release(g)
	return g.mgr.Outcome(ctx, id)
}

// Shutdown ends the background work for the given databases, and for those that
// were used together with them; without arguments, for all. Call it before
// closing the databases to leave no session behind. Transactions whose functions
// still run are rolled back; those that vote or are decided are waited for, until
// ctx ends: what is then left is recovered by any process. The databases stay open
// and can be used again.
func Shutdown(ctx context.Context, dbs ...*sql.DB) error { return managers.shutdown(ctx, dbs) }
