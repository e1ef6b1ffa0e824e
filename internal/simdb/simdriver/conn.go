package simdriver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/troth-tx/troth/internal/simdb"
)

// conn is one connection.
type conn struct {
	inner  Conn
	kind   simdb.Kind
	lost   bool         // of no more use
	ended  func() error // whether the context of the request that runs has ended
	closed bool
}

var (
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
)

// send carries one request.
func (c *conn) send(ctx context.Context, text string, named []driver.NamedValue) ([]simdb.Result, error) {
	if c.lost {
		return nil, driver.ErrBadConn
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var args []any
	for _, a := range named {
		if a.Name != "" {
			return nil, errors.New("simdriver: named arguments are not supported")
		}
		args = append(args, a.Value)
	}
	c.ended = ctx.Err
	results, err := c.inner.Exec(ctx, text, args)
	if err != nil {
		err = c.failed(err)
	}
	c.ended = nil
	return results, err
}

func (c *conn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	results, err := c.send(ctx, text, args)
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return driver.RowsAffected(0), nil
	}
	return driver.RowsAffected(results[len(results)-1].Affected), nil
}

func (c *conn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	results, err := c.send(ctx, text, args)
	r := &rows{kind: c.kind, err: err}
	rowsThere := false
	for i := range results {
		if results[i].Columns != nil { // statements without rows have no result set of their own
			r.sets = append(r.sets, results[i])
			rowsThere = rowsThere || len(results[i].Rows) > 0
		}
		r.tag = results[i].Tag
	}
	// An error behind rows comes behind them, unless the connection took all.
	if err != nil && (!rowsThere || c.lost) {
		return nil, err
	}
	return r, nil
}

func (c *conn) PrepareContext(_ context.Context, text string) (driver.Stmt, error) {
	return &stmt{c: c, text: text}, nil
}

func (c *conn) Prepare(text string) (driver.Stmt, error) { return &stmt{c: c, text: text}, nil }

func (c *conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed, c.lost = true, true
	return c.inner.Close()
}

// Begin is what driver.Conn demands; database/sql calls BeginTx.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	var before []string
	begin := "BEGIN"
	switch level := sql.IsolationLevel(opts.Isolation); {
	case opts.ReadOnly:
		return nil, errors.New("simdriver: read-only transactions are not supported")
	case level == sql.LevelDefault:
	case c.kind == simdb.Postgres:
		begin += " ISOLATION LEVEL " + fmt.Sprint(level)
	case c.kind == simdb.MariaDB:
		before = append(before, "SET TRANSACTION ISOLATION LEVEL "+fmt.Sprint(level))
	case c.kind == simdb.SQLite:
	}
	for _, text := range append(before, begin) {
		if _, err := c.send(ctx, text, nil); err != nil {
			return nil, err
		}
	}
	return &tx{c}, nil
}

// Ping asks the server for nothing.
func (c *conn) Ping(ctx context.Context) error {
	if _, err := c.send(ctx, "", nil); err != nil {
		return driver.ErrBadConn
	}
	return nil
}

// ResetSession is asked before a connection of the pool is used again.
func (c *conn) ResetSession(context.Context) error {
	if p, ok := c.inner.(Prober); ok && p.Lost() {
		c.lost = true
	}
	if c.lost {
		return driver.ErrBadConn
	}
	return nil
}

func (c *conn) IsValid() bool { return !c.lost }

type tx struct{ c *conn }

var errFailedTransaction = errors.New("simdriver: could not complete operation in a failed transaction")

func (t *tx) Commit() error {
	results, err := t.c.send(context.Background(), "COMMIT", nil)
	if err == nil && len(results) == 1 && results[0].Tag == "ROLLBACK" {
		return errFailedTransaction
	}
	return err
}

func (t *tx) Rollback() error {
	_, err := t.c.send(context.Background(), "ROLLBACK", nil)
	return err
}

// stmt is a text to be run later: the server hears of it then.
type stmt struct {
	c    *conn
	text string
}

func (s *stmt) Close() error  { return nil }
func (s *stmt) NumInput() int { return -1 }

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.text, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.QueryContext(ctx, s.text, args)
}

// Exec and Query are what driver.Stmt demands; database/sql calls the others.
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *stmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

// rows are the results of a request, one set after the other.
type rows struct {
	kind simdb.Kind
	sets []simdb.Result
	set  int
	row  int
	tag  string
	err  error // comes behind the rows
}

var _ driver.RowsNextResultSet = (*rows)(nil)

func (r *rows) Columns() []string {
	if r.set >= len(r.sets) {
		return nil
	}
	return r.sets[r.set].Columns
}

func (r *rows) Close() error { return r.err }

// Tag is the command tag of the last statement, as the rows of lib/pq tell it.
func (r *rows) Tag() string { return r.tag }

func (r *rows) Next(dest []driver.Value) error {
	if r.set >= len(r.sets) || r.row >= len(r.sets[r.set].Rows) {
		if r.err != nil && r.set >= len(r.sets)-1 {
			return r.err
		}
		return io.EOF
	}
	for i, v := range r.sets[r.set].Rows[r.row] {
		if t, ok := v.(time.Time); ok && r.kind != simdb.Postgres {
			v = []byte(t.UTC().Format("2006-01-02 15:04:05.000000"))
		}
		dest[i] = v
	}
	r.row++
	return nil
}

func (r *rows) HasNextResultSet() bool { return r.set+1 < len(r.sets) }

func (r *rows) NextResultSet() error {
	if !r.HasNextResultSet() {
		return io.EOF
	}
	r.set++
	r.row = 0
	return nil
}
