package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// A session is one connection with the statements that were prepared on it. One
// goroutine uses it at a time.
type session struct {
	conn    *sql.Conn
	prepare bool
	plain   bool // the server does not know the statement of Dialect.once
	stmts   map[string]*sql.Stmt
	texts   map[textKey]string
	args    []any // kept for the next statement
}

// openSession takes a connection of its own from the pool.
func openSession(ctx context.Context, db *sql.DB, d Dialect) (*session, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, prepare: d.prepares(), stmts: make(map[string]*sql.Stmt), texts: make(map[textKey]string)}
	for _, text := range d.setup() {
		if _, err := conn.ExecContext(ctx, text); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// close ends the connection: with the settings that it has it must not go back to the
// pool, nor with a transaction that may still be open.
func (s *session) close() error {
	for _, stmt := range s.stmts {
		_ = stmt.Close() // the connection ends anyway
	}
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn }) // which makes the pool drop it
	if err := s.conn.Close(); err != nil && !errors.Is(err, sql.ErrConnDone) {
		return err
	}
	return nil
}

func (s *session) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if !s.prepare {
		return s.conn.ExecContext(ctx, text, args...)
	}
	stmt, err := s.stmt(ctx, text) //nolint:sqlclosecheck // it is closed with the session
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args...)
}

func (s *session) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if !s.prepare {
		return s.conn.QueryContext(ctx, text, args...)
	}
	stmt, err := s.stmt(ctx, text) //nolint:sqlclosecheck // it is closed with the session
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// stmt prepares a statement once. Only texts of a bounded number may come here.
func (s *session) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	if stmt := s.stmts[text]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.conn.PrepareContext(ctx, text)
	if err == nil {
		s.stmts[text] = stmt
	}
	return stmt, err
}

// execOnce runs a statement whose text does not come again soon.
func (s *session) execOnce(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return s.conn.ExecContext(ctx, text, args...)
}

func (s *session) queryOnce(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return s.conn.QueryContext(ctx, text, args...)
}

// scanAll reads what a query found, with f for each row, and ends the query.
func scanAll[T any](rows *sql.Rows, err error, f func(rows *sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	var all []T
	for rows.Next() {
		x, err := f(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, rows.Err()
}

// queryAll is scanAll of a statement that is kept prepared.
func queryAll[T any](ctx context.Context, s *session, f func(rows *sql.Rows) (T, error), text string, args ...any) ([]T, error) {
	rows, err := s.query(ctx, text, args...)
	return scanAll(rows, err, f)
}

func scanNumber(rows *sql.Rows) (n int64, err error) {
	err = rows.Scan(&n)
	return n, err
}

func scanText(rows *sql.Rows) (text string, err error) {
	err = rows.Scan(&text)
	return text, err
}

// A textKey names a statement for a number of rows.
type textKey struct {
	name string
	rows int
}

// text returns the text of a statement for n rows, which it makes once.
func (s *session) text(name string, n int, make func(n int) string) string {
	key := textKey{name, n}
	text, ok := s.texts[key]
	if !ok {
		text = make(n)
		s.texts[key] = text
	}
	return text
}
