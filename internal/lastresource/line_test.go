package lastresource

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

// A plainConn is a connection of a driver that can only prepare; each statement
// returns the rows, and then the end.
type plainConn struct {
	rows [][]driver.Value
	end  error
	log  []string
}

func (c *plainConn) Prepare(query string) (driver.Stmt, error) { return &plainStmt{c, query}, nil }
func (c *plainConn) Close() error                              { return nil }
func (c *plainConn) Begin() (driver.Tx, error)                 { return nil, errors.New("begin") }

type plainStmt struct {
	c     *plainConn
	query string
}

func (s *plainStmt) NumInput() int { return 0 }

func (s *plainStmt) Close() error {
	s.c.log = append(s.c.log, "close")
	return errors.New("close") // after what counts
}

func (s *plainStmt) Exec([]driver.Value) (driver.Result, error) {
	s.c.log = append(s.c.log, s.query)
	return driver.ResultNoRows, nil
}

func (s *plainStmt) Query([]driver.Value) (driver.Rows, error) {
	s.c.log = append(s.c.log, s.query)
	return &plainRows{s.c.rows, s.c.end}, nil
}

type plainRows struct {
	left [][]driver.Value
	end  error
}

func (r *plainRows) Columns() []string { return []string{"a", "b"} }
func (r *plainRows) Close() error      { return nil }

func (r *plainRows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return r.end
	}
	copy(dest, r.left[0])
	r.left = r.left[1:]
	return nil
}

func TestLineOverAPlainDriver(t *testing.T) {
	t.Parallel()
	c := &plainConn{rows: [][]driver.Value{{int64(7), nil}, {[]byte("x"), "y"}}, end: io.EOF}
	l := Line{c}
	if err := l.Exec(t.Context(), "COMMIT"); err != nil {
		t.Errorf("Exec: %v", err)
	}
	rows, err := l.Query(t.Context(), "SELECT")
	if err != nil || fmt.Sprintf("%q", rows) != `[["7" ""] ["x" "y"]]` {
		t.Errorf("Query: %q, %v", rows, err)
	}
	if n, err := l.Int(t.Context(), "SELECT"); n != 7 || err != nil {
		t.Errorf("Int: %d, %v", n, err)
	}
	if want := []string{"COMMIT", "close", "SELECT", "close", "SELECT", "close"}; !slices.Equal(c.log, want) {
		t.Errorf("sent %q, want %q", c.log, want)
	}
}

// A result that is cut off must not look complete: an empty answer means something.
func TestLineDoesNotTakeALossForTheEnd(t *testing.T) {
	t.Parallel()
	l := Line{&plainConn{end: fmt.Errorf("read tcp: %w", io.EOF)}}
	if text, err := l.Text(t.Context(), "SELECT"); err == nil {
		t.Errorf("%q, and no error", text)
	}
}

func TestLineSendsNothingTooLate(t *testing.T) {
	t.Parallel()
	c := &plainConn{end: io.EOF}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := (Line{c}).Exec(ctx, "COMMIT"); !errors.Is(err, over) {
		t.Errorf("Exec: %v", err)
	}
	if _, err := (Line{c}).Query(ctx, "SELECT"); !errors.Is(err, over) {
		t.Errorf("Query: %v", err)
	}
	if len(c.log) > 0 {
		t.Errorf("sent %q", c.log)
	}
}
