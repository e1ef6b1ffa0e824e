package barrier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
)

// A Session is what the barrier needs of a transaction, or of a connection, of a driver
// that is not one of database/sql's.
type Session interface {
	// Exec runs a statement and returns how many rows it changed.
	Exec(ctx context.Context, query string, args ...any) (rows int64, err error)

	// Row scans the one row of a query. The error is, or wraps, sql.ErrNoRows if there is none.
	Row(ctx context.Context, query string, args []any, dest ...any) error
}

// A Bound is a [Table] with the [Session] that it is to use. Its methods are those of
// Table, which say more.
type Bound struct {
	table   *Table
	session Session
}

// On binds the table to a session. It sends nothing.
func (t *Table) On(s Session) Bound { return Bound{t, s} }

func (b Bound) usable() error {
	session := any(b.session)
	if s, ok := session.(sqlSession); ok {
		session = s.tx
	}
	switch {
	case b.table == nil || b.table.dialect == 0:
		return invalid("table: make it with NewTable")
	case isNil(session):
		return invalid("transaction or database is nil")
	}
	return nil
}

// Enter is [Table.Enter].
func (b Bound) Enter(ctx context.Context, s Step) (Verdict, error) {
	if err := b.usable(); err != nil {
		return 0, err
	}
	if err := s.validate(); err != nil {
		return 0, err
	}
	v, err := b.enter(ctx, s)
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
func (b Bound) enter(ctx context.Context, s Step) (Verdict, error) {
	empty := false
	if undone := s.Op.undoes(); undone != "" {
		by, err := b.claim(ctx, s, undone)
		if err != nil {
			return 0, err
		}
		// The row may have been ours before: written by a transaction that was committed
		// although its Enter had failed half-way.
		empty = by == claimed || by == s.Op
	}
	by, err := b.claim(ctx, s, s.Op)
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
const claimed = ""

// claim writes the row of op and returns claimed, or, if it is there, the operation that
// wrote it.
func (b Bound) claim(ctx context.Context, s Step, op Op) (by Op, err error) {
	n, err := b.session.Exec(ctx, b.table.sql.claim, s.TransType, s.GID, s.Branch, string(op), s.barrierID(), string(s.Op))
	if err != nil {
		return "", err
	}
	if n == 1 {
		return claimed, nil
	}
	return b.reason(ctx, s, op)
}

// reason returns the operation that wrote the row of op.
func (b Bound) reason(ctx context.Context, s Step, op Op) (by Op, err error) {
	var gid, branch, rowOp, reason string
	err = b.session.Row(ctx, b.table.sql.read, []any{s.GID, s.Branch, string(op), s.barrierID()}, &gid, &branch, &rowOp, &reason)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", fmt.Errorf("%w: a row that was in the way is gone; is something deleting young rows of %s?", ErrTable, b.table.name)
	case err != nil:
		return "", err
	case gid != s.GID || branch != s.Branch || rowOp != string(op):
		return "", fmt.Errorf("%w: %s takes gid %q branch %q for the same; give it a binary collation", ErrTable, b.table.name, gid, branch)
	case reason == "":
		return "", fmt.Errorf("%w: a row of %s has no reason", ErrTable, b.table.name)
	}
	return Op(reason), nil
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
