package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/stdlib"
)

// The driver "hidden" is pgx behind a wrapper that does not show it, as tracing
// wrappers do: no tags, no state, one statement at a time in a query.
func init() { sql.Register("hidden", hiddenDriver{stdlib.GetDefaultDriver()}) }

type hiddenDriver struct{ inner driver.Driver }

func (d hiddenDriver) Open(name string) (driver.Conn, error) {
	c, err := d.inner.Open(name)
	if err != nil {
		return nil, err
	}
	return &hiddenConn{c.(pgxConn)}, nil
}

type pgxConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
	driver.NamedValueChecker
	driver.Pinger
}

type hiddenConn struct{ inner pgxConn }

func (c *hiddenConn) Prepare(q string) (driver.Stmt, error) { return c.inner.Prepare(q) }
func (c *hiddenConn) Close() error                          { return c.inner.Close() }
func (c *hiddenConn) Begin() (driver.Tx, error)             { return c.inner.Begin() }
func (c *hiddenConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	return c.inner.BeginTx(ctx, o)
}

func (c *hiddenConn) PrepareContext(ctx context.Context, q string) (driver.Stmt, error) {
	return c.inner.PrepareContext(ctx, q)
}

func (c *hiddenConn) ExecContext(ctx context.Context, q string, a []driver.NamedValue) (driver.Result, error) {
	return c.inner.ExecContext(ctx, q, a)
}

func (c *hiddenConn) QueryContext(ctx context.Context, q string, a []driver.NamedValue) (driver.Rows, error) {
	return c.inner.QueryContext(ctx, q, a)
}

func (c *hiddenConn) ResetSession(ctx context.Context) error { return c.inner.ResetSession(ctx) }
func (c *hiddenConn) CheckNamedValue(v *driver.NamedValue) error {
	return c.inner.CheckNamedValue(v)
}
func (c *hiddenConn) Ping(ctx context.Context) error { return c.inner.Ping(ctx) }
