package lastresource

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/troth-tx/troth/internal/drivercall"
)

// A Line carries the resource manager's own statements, without arguments, to one
// session.
type Line struct{ conn driver.Conn }

// onConn runs f with the line to a session that database/sql holds.
func onConn(c *sql.Conn, f func(Line) error) error {
	return c.Raw(func(dc any) error {
		conn, ok := dc.(driver.Conn)
		if !ok {
			return fmt.Errorf("%T is not a driver.Conn", dc)
		}
		// database/sql would take a driver.ErrBadConn as an order to discard and,
		// further up, to repeat.
		return hideBadConn(f(Line{conn}))
	})
}

func hideBadConn(err error) error {
	if errors.Is(err, driver.ErrBadConn) {
		return fmt.Errorf("the session is lost: %v", err) //nolint:errorlint // on purpose, see above
	}
	return err
}

// Exec runs statements that return nothing of interest.
func (l Line) Exec(ctx context.Context, query string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if _, err := drivercall.Exec(ctx, l.conn, query, nil); err != driver.ErrSkip { //nolint:errorlint // as database/sql compares
		return err
	}
	return drivercall.ExecPrepared(ctx, l.conn, query)
}

// Query reads all rows as text, NULL as "".
func (l Line) Query(ctx context.Context, query string) ([][]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	rows, err := drivercall.Query(ctx, l.conn, query, nil)
	if err == driver.ErrSkip { //nolint:errorlint // as database/sql compares
		var stmt driver.Stmt
		if stmt, err = drivercall.Prepare(ctx, l.conn, query); err != nil {
			return nil, err
		}
		defer func() { _ = stmt.Close() }() // it has spoken
		rows, err = drivercall.QueryStmt(ctx, stmt, nil)
	}
	if err != nil {
		return nil, err
	}
	return readAll(rows)
}

func readAll(rows driver.Rows) (_ [][]string, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	var all [][]string
	values := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(values)
		if err == io.EOF { //nolint:errorlint // wrapped, it may be a connection that broke
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		row := make([]string, len(values))
		for i, v := range values {
			switch v := v.(type) {
			case nil:
			case []byte:
				row[i] = string(v)
			default:
				row[i] = fmt.Sprint(v)
			}
		}
		all = append(all, row)
	}
}

// Text reads the first value of the first row, "" if there is no row.
func (l Line) Text(ctx context.Context, query string) (string, error) {
	rows, err := l.Query(ctx, query)
	if err != nil || len(rows) == 0 || len(rows[0]) == 0 {
		return "", err
	}
	return rows[0][0], nil
}

// Int reads the first value of the first row as a number.
func (l Line) Int(ctx context.Context, query string) (int64, error) {
	s, err := l.Text(ctx, query)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s answered %q, not a number", query, s)
	}
	return n, nil
}
