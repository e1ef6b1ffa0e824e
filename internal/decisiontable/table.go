// Package decisiontable keeps decisions in the tables of a database:
// PostgreSQL, MySQL or MariaDB, and SQLite.
package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/troth-tx/troth"
)

// A Dialect is a family of SQL databases.
type Dialect uint8

// The dialects. Zero is none.
const (
	Postgres Dialect = iota + 1
	MySQL            // and MariaDB
	SQLite
)

// A Runner gives sessions to a Table for its own statements.
type Runner interface {
	// Do calls f with a session that nobody else uses meanwhile. f may be called
	// again on another session when the first one broke: it is idempotent. f
	// changes settings of the session (lock timeouts, autocommit, isolation), so a
	// Runner hands the session to no one else afterwards, not even to the pool:
	// see package reserve.
	Do(ctx context.Context, f func(ctx context.Context, c *sql.Conn) error) error
}

// Options configure a Table. The zero value is a decision table of a home
// participant.
type Options struct {
	// Schema is where the tables are: a schema of PostgreSQL, a database of
	// MySQL, an attached database of SQLite. Empty: the session's current one at
	// Open.
	Schema string

	// LockWait bounds the wait for another transaction that holds the key, in the
	// server. Rounded up to seconds on MySQL. Defaults to 5 seconds.
	LockWait time.Duration

	// Floor makes Decide(commit) safe against coordinators that wake up after
	// their abort record expired: for registers that outlive the sessions of
	// coordinators. See floor.go.
	Floor bool

	// FloorSettle is how long a floor stands before abort records below it are
	// dropped. Defaults to 1 hour.
	FloorSettle time.Duration

	// NoWitness leaves troth_witness out on MySQL. The other dialects never have it.
	NoWitness bool

	// WitnessOnly leaves troth_decision out on MySQL: the witness methods work,
	// those of a Register fail.
	WitnessOnly bool
}

// A Table is a register in a database.
type Table struct{}

var _ troth.Register = (*Table)(nil)

var errTodo = errors.New("decisiontable: not written yet")

// New returns a Table. It does nothing before Open.
func New(dialect Dialect, run Runner, opts Options) *Table { return &Table{} }

// Name is the qualified, quoted name of troth_decision, valid after Open.
func (t *Table) Name() string { return "" }

// WitnessName is the qualified, quoted name of troth_witness, valid after Open
// on MySQL.
func (t *Table) WitnessName() string { return "" }

// DDL is what to run when the right to create tables is missing.
func (t *Table) DDL() string { return "" }

// InsertSQL is one complete INSERT without placeholders that records d in the
// transaction that runs it. It fails with a duplicate key if a decision is there.
func (t *Table) InsertSQL(d troth.Decision) string { return "" }

// WitnessSQL is one complete INSERT without placeholders of a witness row, for a
// branch to run in its own transaction.
func (t *Table) WitnessSQL(gid troth.GID, branch int, home troth.Place) string { return "" }

// Open implements troth.Register.
func (t *Table) Open(ctx context.Context, cfg troth.RegisterConfig) error { return errTodo }

// Identity implements troth.Register.
func (t *Table) Identity() string { return "" }

// Decide implements troth.Register.
func (t *Table) Decide(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	return troth.Undecided, errTodo
}

// Lookup implements troth.Register.
func (t *Table) Lookup(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	return troth.Undecided, errTodo
}

// Committed implements troth.Register.
func (t *Table) Committed(ctx context.Context, minAge time.Duration, after troth.GID, limit int) ([]troth.Decision, error) {
	return nil, errTodo
}

// Forget implements troth.Register.
func (t *Table) Forget(ctx context.Context, gids []troth.GID) error { return errTodo }

// Expire implements troth.Register.
func (t *Table) Expire(ctx context.Context, age time.Duration) (int, error) { return 0, errTodo }

// Close implements troth.Register. It does not close the Runner.
func (t *Table) Close(ctx context.Context) error { return nil }

// A Witness is a row that a branch wrote in its own transaction: it is there if
// and only if the branch committed (R8).
type Witness struct {
	GID    troth.GID
	Branch int
	Home   troth.Place // where the decision is
	At     time.Time   // by the database's clock
}

// WitnessExists reports whether a branch left its witness.
func (t *Table) WitnessExists(ctx context.Context, gid troth.GID, branch int) (bool, error) {
	return false, errTodo
}

// Witnesses lists up to limit witnesses of the domain that are at least minAge
// old and come after the given one, by GID and branch. The zero Witness begins.
func (t *Table) Witnesses(ctx context.Context, minAge time.Duration, after Witness, limit int) ([]Witness, error) {
	return nil, errTodo
}

// ForgetWitnesses drops all witnesses of transactions.
func (t *Table) ForgetWitnesses(ctx context.Context, gids []troth.GID) error { return errTodo }
