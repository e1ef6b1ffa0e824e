// Package resourcetest is the conformance suite of [troth.Resource]: whoever
// writes a resource manager runs it against a real database.
//
//	func TestConformance(t *testing.T) {
//		resourcetest.Run(t, resourcetest.Factory{ ... })
//	}
//
// The suite works on resources and branches; where it needs a whole Manager it
// says so. It looks at the database from outside, through a pool that the
// resource does not know.
package resourcetest

import (
	"context"
	"database/sql"
	"testing"

	"github.com/troth-tx/troth"
)

// A Factory tells the suite how to handle one kind of resource.
type Factory struct {
	// Can is what the resource must be able to do on the databases of Open. The
	// suite checks it, so that tests are not left out by accident.
	Can troth.Capability

	// Open makes an empty database for one test.
	Open func(t *testing.T) *Database

	// OpenServer is like Open on a server that the test may kill: Database.Crash is
	// set. nil: crash tests are skipped.
	OpenServer func(t *testing.T) *Database

	// OpenCut is like Open, with every session of the resources (not Outside)
	// through a proxy: Database.Cut is set. nil: tests of lost replies are skipped.
	OpenCut func(t *testing.T) *Database

	// Statements gives the handle on which a program runs statements in a branch,
	// as the package's DB or Tx method does after it enlisted the branch.
	Statements func(t *testing.T, b troth.Branch) Session

	// SQL is how the database says what the suite wants.
	SQL SQL

	// OneWriter: the database admits one writing transaction at a time.
	OneWriter bool
}

// A Database is one database under test.
type Database struct {
	// Resource makes a Resource of the given name as a new process would: with a
	// pool of its own, of at most poolMax sessions if that is not 0. The Session
	// is that pool, for statements outside every branch. The suite opens and
	// closes the Resource; closing the pool is left to t.Cleanup.
	Resource func(t *testing.T, name string, poolMax int) (troth.Resource, Session)

	// Outside looks at the database, with the rights of an administrator.
	Outside *sql.DB

	// Crash kills the server with SIGKILL and starts it again.
	Crash func(t *testing.T)

	// Cut arms a cut of the next message, on any session of the resources, in which
	// the text occurs: before the server gets it, or when the server has answered
	// and the client has not heard. The channel is closed when that has happened.
	Cut func(before bool, text string) <-chan struct{}
}

// SQL holds the statements that differ between databases. A zero field says that
// the database has no such thing; its tests are skipped.
type SQL struct {
	// Slow is a query that takes ten seconds or more unless it is cancelled.
	Slow string

	// ForUpdate makes a select lock its rows: " for update".
	ForUpdate string

	// LockWait lets the session, or the branch, wait for a lock for a second at most.
	LockWait string

	// Returning: "insert ... returning" is understood.
	Returning bool

	// SessionID is a query for the number of the own session; Kill ends that
	// session, from outside.
	SessionID string
	Kill      func(id int64) string

	// Finish ends a prepared branch by hand, as an operator would, who reads its name
	// in the database's list.
	Finish func(xid troth.XID, outcome troth.Outcome) string

	// Foreign makes a prepared transaction of another program, on one session that
	// is then closed; end rolls it back. The name is unique and short.
	Foreign func(name string) (prepare []string, end string)

	// Messages are texts by which a proxy knows the messages that carry the vote,
	// the commit of a prepared branch, and each of the home's commit.
	Messages struct{ Prepare, Commit, Decide []string }

	// UnsureOfNoRows: the resource takes a statement that changed no row for one
	// that wrote, for its database cannot be asked about locks.
	UnsureOfNoRows bool
}

// A Session runs statements: in a branch, or on a pool.
type Session interface {
	Exec(ctx context.Context, query string) error

	// Int runs a query and reads one integer. It reads all rows.
	Int(ctx context.Context, query string) (int64, error)

	// Nested runs f in a nested transaction, that is behind a savepoint, and rolls
	// back to the savepoint if f returns an error, which Nested returns.
	Nested(ctx context.Context, f func(Session) error) error
}

// OnDB is the Session of an *sql.DB, be it a pool or a branch's handle.
func OnDB(db *sql.DB) Session { return onDB{db} }

type onDB struct{ db *sql.DB }

func (s onDB) Exec(ctx context.Context, query string) error { return exec(ctx, s.db, query) }

func (s onDB) Int(ctx context.Context, query string) (int64, error) {
	return queryInt(ctx, s.db, query)
}

func (s onDB) Nested(ctx context.Context, f func(Session) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(onTx{tx}); err != nil {
		if rollbackErr := tx.Rollback(); rollbackErr != nil {
			return rollbackErr
		}
		return err
	}
	return tx.Commit()
}

type onTx struct{ tx *sql.Tx }

func (s onTx) Exec(ctx context.Context, query string) error { return exec(ctx, s.tx, query) }

func (s onTx) Int(ctx context.Context, query string) (int64, error) {
	return queryInt(ctx, s.tx, query)
}

func (s onTx) Nested(ctx context.Context, f func(Session) error) error { return f(s) }

type sqlRunner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func exec(ctx context.Context, r sqlRunner, query string) error {
	_, err := r.ExecContext(ctx, query)
	return err
}

func queryInt(ctx context.Context, r sqlRunner, query string) (n int64, err error) {
	rows, err := r.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // what was not read is of no interest
	found := false
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return 0, err
		}
		found = true
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, sql.ErrNoRows
	}
	return n, nil
}

// Run tests a kind of resource against the contract.
func Run(t *testing.T, f Factory) {
	groups := []struct {
		name  string
		cases []testCase
	}{
		{"Work", workCases},
		{"Vote", voteCases},
		{"Recovery", recoveryCases},
		{"Decision", decisionCases},
		{"Pool", poolCases},
		{"Cut", cutCases},
		{"Crash", crashCases},
		{"Manager", managerCases},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				if f.Can&c.needs != c.needs {
					continue // Factory.Can is checked, so this is no accident
				}
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.run(setup(t, f, c))
				})
			}
		})
	}
}

// testCase is one property that resources keep.
type testCase struct {
	name  string
	needs troth.Capability // what the resource must be able to do
	skip  func(Factory) string
	run   func(*world)

	crash, cut bool // which kind of database
}
