package barrier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
)

// Config configures a [Table].
type Config struct {
	// Name is the table's name, as table or schema.table (in MySQL and MariaDB
	// database.table): letters, digits and underscores. It must be in the database that
	// has the business data, or a transaction would not hold them together. Defaults to
	// [Dialect.DefaultName].
	Name string

	// TxOptions are those of the transactions that Run begins. Nil means the database's
	// defaults. Every isolation level is good enough for the barrier.
	TxOptions *sql.TxOptions
}

// A Table is a barrier in a SQL database. It holds no connection: each call says where
// it is to happen. It is safe for concurrent use.
type Table struct {
	dialect Dialect
	name    string
	sql     statements
	options *sql.TxOptions
}

// NewTable returns the barrier of a database of that kind. It sends nothing; see
// [Table.Create] for the table itself. All errors are [ErrInvalid].
func NewTable(d Dialect, cfg *Config) (*Table, error) {
	switch d {
	case PostgreSQL, MySQL, SQLite:
	default:
		return nil, invalid("%v: want PostgreSQL, MySQL or SQLite", d)
	}
	if cfg == nil {
		cfg = &Config{}
	}
	name := cfg.Name
	if name == "" {
		name = d.DefaultName()
	}
	schema, table, err := splitName(name)
	if err != nil {
		return nil, err
	}
	return &Table{dialect: d, name: name, sql: d.statements(schema, table), options: cfg.TxOptions}, nil
}

// Name returns the table's name.
func (t *Table) Name() string { return t.name }

// Dialect returns the kind of the database.
func (t *Table) Dialect() Dialect { return t.dialect }

// A Verdict is what is to be done with a step.
type Verdict uint8

// The verdicts.
const (
	// Proceed: this is the first time. Do it, in the same transaction, and commit.
	Proceed Verdict = iota + 1

	// Repeat: it was done before. Do nothing; answer success.
	Repeat

	// Empty: it would undo what never happened, and from now on never will. Do nothing
	// else, but commit; answer success.
	Empty

	// Late: what undoes it has come first. Do nothing; answer success.
	Late
)

func (v Verdict) String() string {
	switch v {
	case Proceed:
		return "proceed"
	case Repeat:
		return "repeat"
	case Empty:
		return "empty"
	case Late:
		return "late"
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// A Tx is what the barrier needs of a transaction: a *sql.Tx is one, and so is a
// *sql.Conn on which a transaction was begun.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// A Session is the same for drivers that have a way of their own.
type Session interface {
	// Exec runs a statement and returns how many rows it changed.
	Exec(ctx context.Context, query string, args ...any) (rows int64, err error)

	// Row scans the one row of a query. The error is, or wraps, sql.ErrNoRows if there is none.
	Row(ctx context.Context, query string, args []any, dest ...any) error
}

// Enter writes the step's row in the transaction tx and says what is to be done. It
// neither commits nor rolls back: that is the caller's, who must commit after Proceed
// and after Empty, and may do what he likes after Repeat and Late. The row and the
// work it stands for must be in the one transaction, and Enter is best its first
// statement.
//
// Enter waits while another transaction that has entered the same step, or the one that
// it undoes, is not over: as long as ctx, the database's own time for locks and, in
// SQLite, busy_timeout allow.
//
// After an error the transaction must be rolled back; it can be begun anew. Op msg has
// no harmless repetition: instead of Repeat and Late the error is [ErrDuplicated], or
// also [ErrRuledOut].
func (t *Table) Enter(ctx context.Context, tx Tx, s Step) (Verdict, error) {
	if isNil(tx) {
		return 0, invalid("tx is nil")
	}
	return t.EnterSession(ctx, sqlSession{tx}, s)
}

// EnterSession is [Table.Enter] for other drivers.
func (t *Table) EnterSession(ctx context.Context, tx Session, s Step) (Verdict, error) {
	if err := t.usable(); err != nil {
		return 0, err
	}
	if err := s.validate(); err != nil {
		return 0, err
	}
	v, err := t.enter(ctx, tx, s)
	if err != nil {
		return 0, fmt.Errorf("barrier: enter %v: %w", s, err)
	}
	if s.Op == Message {
		switch v {
		case Repeat:
			return v, ErrDuplicated
		case Late:
			return v, ErrRuledOut
		case Proceed, Empty:
		}
	}
	return v, nil
}

// enter claims first the row of what is undone, then the step's own: that is the order
// in which an action and its compensation that come at once meet at one row only.
func (t *Table) enter(ctx context.Context, tx Session, s Step) (Verdict, error) {
	empty := false
	if undone := s.Op.undoes(); undone != "" {
		by, err := t.claim(ctx, tx, s, undone)
		if err != nil {
			return 0, err
		}
		// The row may have been ours before: written by a transaction that was committed
		// although its Enter had failed half-way.
		empty = by == claimed || by == s.Op
	}
	by, err := t.claim(ctx, tx, s, s.Op)
	switch {
	case err != nil:
		return 0, err
	case by == claimed && empty:
		return Empty, nil
	case by == claimed:
		return Proceed, nil
	case by == s.Op:
		return Repeat, nil
	}
	return Late, nil
}

// claimed is what claim returns for a row that is new.
const claimed Op = ""

// claim writes the row of op and returns claimed, or, if it is there, the operation that
// wrote it.
func (t *Table) claim(ctx context.Context, tx Session, s Step, op Op) (by Op, err error) {
	n, err := tx.Exec(ctx, t.sql.claim, s.TransType, s.GID, s.Branch, string(op), s.barrierID(), string(s.Op))
	if err != nil {
		return "", err
	}
	if n == 1 {
		return claimed, nil
	}
	return t.reason(ctx, tx, s, op)
}

// reason returns the operation that wrote the row of op.
func (t *Table) reason(ctx context.Context, tx Session, s Step, op Op) (by Op, err error) {
	var gid, branch, rowOp, reason string
	err = tx.Row(ctx, t.sql.read, []any{s.GID, s.Branch, string(op), s.barrierID()}, &gid, &branch, &rowOp, &reason)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", fmt.Errorf("%w: a row that was in the way is gone; is something deleting young rows of %s?", ErrTable, t.name)
	case err != nil:
		return "", err
	case gid != s.GID || branch != s.Branch || rowOp != string(op):
		return "", fmt.Errorf("%w: %s takes gid %q branch %q for the same; give it a binary collation", ErrTable, t.name, gid, branch)
	case reason == "":
		return "", fmt.Errorf("%w: a row of %s has no reason", ErrTable, t.name)
	}
	return Op(reason), nil
}

func (t *Table) usable() error {
	if t == nil || t.dialect == 0 {
		return invalid("table: make it with NewTable")
	}
	return nil
}

// sqlSession is database/sql's way.
type sqlSession struct{ tx Tx }

func (s sqlSession) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := s.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (s sqlSession) Row(ctx context.Context, query string, args []any, dest ...any) error {
	rows, err := s.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // what matters is Err
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	return rows.Close()
}

// isNil finds also the nil pointer in an interface that is not nil, which would panic
// in database/sql.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}
