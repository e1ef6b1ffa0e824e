// Package drivercall calls a database driver as database/sql does: by whichever
// of the optional interfaces of package driver it has.
package drivercall

import (
	"context"
	"database/sql/driver"
	"errors"
)

// Exec runs a text. driver.ErrSkip: nothing was sent, the driver wants the text
// prepared.
func Exec(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := dc.(driver.ExecerContext); ok {
		return e.ExecContext(ctx, query, args)
	}
	e, ok := dc.(driver.Execer) //nolint:staticcheck // older drivers
	if !ok {
		return nil, driver.ErrSkip
	}
	values, err := valuesOnly(ctx, args)
	if err != nil {
		return nil, err
	}
	return e.Exec(query, values)
}

// Query is Exec for a text that returns rows.
func Query(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := dc.(driver.QueryerContext); ok {
		return q.QueryContext(ctx, query, args)
	}
	q, ok := dc.(driver.Queryer) //nolint:staticcheck // older drivers
	if !ok {
		return nil, driver.ErrSkip
	}
	values, err := valuesOnly(ctx, args)
	if err != nil {
		return nil, err
	}
	return q.Query(query, values)
}

// Prepare prepares a text.
func Prepare(ctx context.Context, dc driver.Conn, query string) (driver.Stmt, error) {
	if p, ok := dc.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	return dc.Prepare(query)
}

// ExecStmt runs a prepared statement.
func ExecStmt(ctx context.Context, ds driver.Stmt, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := ds.(driver.StmtExecContext); ok {
		return e.ExecContext(ctx, args)
	}
	values, err := valuesOnly(ctx, args)
	if err != nil {
		return nil, err
	}
	return ds.Exec(values) //nolint:staticcheck // older drivers
}

// QueryStmt is ExecStmt for a statement that returns rows.
func QueryStmt(ctx context.Context, ds driver.Stmt, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := ds.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, args)
	}
	values, err := valuesOnly(ctx, args)
	if err != nil {
		return nil, err
	}
	return ds.Query(values) //nolint:staticcheck // older drivers
}

// ExecPrepared runs a text without arguments by way of a prepared statement.
func ExecPrepared(ctx context.Context, dc driver.Conn, query string) error {
	ds, err := Prepare(ctx, dc, query)
	if err != nil {
		return err
	}
	defer func() { _ = ds.Close() }() // the statement has spoken
	_, err = ExecStmt(ctx, ds, nil)
	return err
}

// valuesOnly is for drivers from before named arguments and contexts.
func valuesOnly(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		if a.Name != "" {
			return nil, errors.New("troth: the driver does not support named arguments")
		}
		values[i] = a.Value
	}
	return values, ctx.Err()
}
