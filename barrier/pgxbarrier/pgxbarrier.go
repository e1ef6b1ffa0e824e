// Package pgxbarrier is package barrier for transactions of pgx, without database/sql.
// The table is the same, and so is what everything means; see there.
package pgxbarrier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/troth-tx/troth/barrier"
)

// Config configures a [Table].
type Config struct {
	// Name is the table's, as in [barrier.Config].
	Name string

	// TxOptions are those of the transactions that Run begins.
	TxOptions pgx.TxOptions
}

// A Table is a barrier in a PostgreSQL database. It is safe for concurrent use.
type Table struct {
	table   *barrier.Table
	options pgx.TxOptions
}

// New returns the barrier; cfg may be nil. It sends nothing. All errors are
// [barrier.ErrInvalid].
func New(cfg *Config) (*Table, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	t, err := barrier.NewTable(barrier.PostgreSQL, &barrier.Config{Name: cfg.Name})
	if err != nil {
		return nil, err
	}
	return &Table{t, cfg.TxOptions}, nil
}

// A Querier runs statements: a pgx.Tx, a *pgx.Conn, a *pgxpool.Pool.
type Querier interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

// A Beginner begins transactions: a *pgx.Conn, a *pgxpool.Pool.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Enter is [barrier.Table.Enter]: it writes the step's row in tx, which it does not end,
// and says what is to be done.
func (t *Table) Enter(ctx context.Context, tx pgx.Tx, s barrier.Step) (barrier.Verdict, error) {
	return t.on(tx).Enter(ctx, s)
}

// Run is [barrier.Table.Run]: it begins, enters, calls f if it is the first time, and
// commits; up to eight times, if the database undoes it because of a deadlock or a
// serialization failure.
func (t *Table) Run(ctx context.Context, db Beginner, s barrier.Step, f func(ctx context.Context, tx pgx.Tx) error) error {
	if t == nil || db == nil || f == nil {
		return fmt.Errorf("%w: table, db or function is nil", barrier.ErrInvalid)
	}
	return barrier.Attempts(ctx, func() error { return t.runOnce(ctx, db, s, f) })
}

func (t *Table) runOnce(ctx context.Context, db Beginner, s barrier.Step, f func(ctx context.Context, tx pgx.Tx) error) error {
	tx, err := db.BeginTx(ctx, t.options)
	if err != nil {
		return fmt.Errorf("pgxbarrier: begin: %w", err)
	}
	// Without ctx's end, which closes the connection; does nothing after Commit.
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	v, err := t.Enter(ctx, tx, s)
	if err != nil {
		return err
	}
	switch v {
	case barrier.Repeat, barrier.Late:
		return nil
	case barrier.Proceed:
		if err := f(ctx, tx); err != nil {
			return err
		}
	case barrier.Empty:
	}
	err = tx.Commit(ctx)
	switch {
	case errors.Is(err, pgx.ErrTxCommitRollback): // f swallowed a statement's error
		return fmt.Errorf("%w: %v: %w", barrier.ErrLost, s, err)
	case err != nil:
		return fmt.Errorf("pgxbarrier: commit %v: %w", s, err)
	}
	return nil
}

// QueryPrepared is [barrier.Table.QueryPrepared]. db must not be in a transaction.
func (t *Table) QueryPrepared(ctx context.Context, db Querier, s barrier.Step) (committed bool, err error) {
	return t.on(db).QueryPrepared(ctx, s)
}

// Create is [barrier.Table.Create].
func (t *Table) Create(ctx context.Context, db Querier) error { return t.on(db).Create(ctx) }

// SQL is [barrier.Table.SQL].
func (t *Table) SQL() []string { return t.table.SQL() }

// Check is [barrier.Table.Check].
func (t *Table) Check(ctx context.Context, db Beginner) error {
	if t == nil || db == nil {
		return fmt.Errorf("%w: table or db is nil", barrier.ErrInvalid)
	}
	tx, err := db.BeginTx(ctx, pgx.TxOptions{})
	if err != nil {
		return fmt.Errorf("pgxbarrier: begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing is to stay
	return t.on(tx).Check(ctx)
}

// Clean is [barrier.Table.Clean]. db must not be in a transaction.
func (t *Table) Clean(ctx context.Context, db Querier, age time.Duration) (deleted int64, err error) {
	return t.on(db).Clean(ctx, age)
}

func (t *Table) on(q Querier) barrier.Bound {
	switch {
	case t == nil:
		return barrier.Bound{}
	case q == nil:
		return t.table.On(nil)
	}
	return t.table.On(session{q})
}

// session is a Querier as the barrier wants it.
type session struct{ q Querier }

func (s session) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := s.q.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (s session) Row(ctx context.Context, query string, args []any, dest ...any) error {
	return s.q.QueryRow(ctx, query, args...).Scan(dest...) // pgx.ErrNoRows wraps sql.ErrNoRows
}
