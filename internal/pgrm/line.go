package pgrm

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// A Line carries the protocol's own statements to one PostgreSQL session.
type Line interface {
	// Round sends the statements, each without arguments, in one round trip if it
	// can. It stops at the first that fails. The error is the server's (see
	// [SQLState]) or hides what happened: whatever a driver says about being safe
	// to retry is not believed.
	Round(ctx context.Context, statements ...string) (Answer, error)

	// Status is the state of the session as the server last gave it: 'I' idle, 'T'
	// in a transaction, 'E' in one that failed; 0 if the driver does not show it.
	Status() byte

	// Tags reports whether Answer.Tag is known.
	Tags() bool

	// PID is the server's process, 0 if the driver does not show it.
	PID() uint32
}

// An Answer is what a round brought back.
type Answer struct {
	Tag    string   // the command tag of the last statement, if the line shows tags
	Values []string // the first column of each row, as text; "" for NULL
}

func (a Answer) first() string {
	if len(a.Values) == 0 {
		return ""
	}
	return a.Values[0]
}

// Lines makes the lines of one pool, and remembers what its driver can do. The
// zero value is ready.
type Lines struct{ known atomic.Pointer[traits] }

// traits are what a driver other than pgx can do.
type traits struct {
	multi  bool // several statements in one text, each with its results
	tagged bool // rows tell the command tag, as those of lib/pq do
}

// Of finds the best line over a driver's connection. Known drivers are
// recognised also inside wrappers that show what they wrap. The first connection
// of an unknown driver is probed, which takes a round trip and must not be done
// in a transaction of which a refusal would matter.
func (ls *Lines) Of(ctx context.Context, conn any) (Line, error) {
	for inner := conn; inner != nil; {
		switch c := inner.(type) {
		case interface{ Conn() *pgx.Conn }: // *stdlib.Conn
			return PgxLine{c.Conn()}, nil
		case interface{ Raw() driver.Conn }:
			inner = c.Raw()
		case interface{ Unwrap() driver.Conn }:
			inner = c.Unwrap()
		default:
			conn, inner = inner, nil
		}
	}
	c, ok := conn.(driver.QueryerContext)
	if !ok {
		return nil, fmt.Errorf("the driver's connection, %T, lacks driver.QueryerContext: use pgx or lib/pq", conn)
	}
	t := ls.known.Load()
	if t == nil {
		var err error
		if t, err = probe(ctx, c); err != nil {
			return nil, err
		}
		ls.known.Store(t)
	}
	return &driverLine{conn: c, traits: *t}, nil
}

// Joins reports whether a statement of the program without arguments can be sent
// behind others in one text, and its result be had as the driver gives it.
func Joins(l Line) bool {
	d, ok := l.(*driverLine)
	return ok && d.traits == traits{multi: true, tagged: true} // lib/pq
}

func probe(ctx context.Context, c driver.QueryerContext) (*traits, error) {
	t := new(traits)
	rows, err := c.QueryContext(ctx, "SELECT 1; SELECT 2", nil)
	if err == nil {
		var a Answer
		_, t.tagged = rows.(interface{ Tag() string })
		err = drain(rows, &a)
		t.multi = len(a.Values) == 2
	}
	if err != nil && SQLState(err) == "" { // a refusal is an answer
		return nil, err
	}
	t.tagged = t.tagged && err == nil
	return t, nil
}

// PgxLine is a line over a pgx connection. It uses the simple protocol: one
// message for all statements, no names and no cache on either side.
type PgxLine struct{ Conn *pgx.Conn }

// Round is as Line says.
func (l PgxLine) Round(ctx context.Context, statements ...string) (Answer, error) {
	var a Answer
	results := l.Conn.PgConn().Exec(ctx, join(statements))
	for results.NextResult() {
		r := results.ResultReader()
		for r.NextRow() {
			if v := r.Values(); len(v) > 0 {
				a.Values = append(a.Values, string(v[0]))
			}
		}
		tag, err := r.Close()
		if err != nil {
			_ = results.Close() // it repeats the error
			return a, err
		}
		a.Tag = tag.String()
	}
	return a, results.Close()
}

// Status is as Line says.
func (l PgxLine) Status() byte {
	if l.Conn.IsClosed() {
		return 0
	}
	return l.Conn.PgConn().TxStatus()
}

// Tags is as Line says.
func (PgxLine) Tags() bool { return true }

// PID is as Line says.
func (l PgxLine) PID() uint32 { return l.Conn.PgConn().PID() }

// driverLine is a line over any other driver, lib/pq first of all.
type driverLine struct {
	conn driver.QueryerContext
	traits
}

func (l *driverLine) Round(ctx context.Context, statements ...string) (Answer, error) {
	var a Answer
	if l.multi {
		statements = []string{join(statements)}
	}
	for _, s := range statements {
		if err := l.one(ctx, s, &a); err != nil {
			return a, err
		}
	}
	return a, nil
}

// one sends one text. What returns no rows goes by Exec, for which drivers use the
// simple protocol if there are no arguments: a Query of theirs may prepare each
// text, and the names of branches would fill their cache.
func (l *driverLine) one(ctx context.Context, s string, a *Answer) error {
	if e, ok := l.conn.(driver.ExecerContext); ok && !l.multi && !strings.HasPrefix(s, "SELECT") {
		_, err := e.ExecContext(ctx, s, nil)
		return err
	}
	rows, err := l.conn.QueryContext(ctx, s, nil)
	if err != nil {
		return err
	}
	return drain(rows, a)
}

func (*driverLine) Status() byte { return 0 }
func (l *driverLine) Tags() bool { return l.tagged }
func (*driverLine) PID() uint32  { return 0 }

func join(statements []string) string {
	if len(statements) == 1 {
		return statements[0]
	}
	n := 2 * len(statements)
	for _, s := range statements {
		n += len(s)
	}
	b := make([]byte, 0, n)
	for i, s := range statements {
		if i > 0 {
			b = append(b, "; "...)
		}
		b = append(b, s...)
	}
	return string(b)
}

// drain reads all result sets to the end, because an error may come last.
func drain(rows driver.Rows, a *Answer) error {
	sets, _ := rows.(driver.RowsNextResultSet)
	for {
		dest := make([]driver.Value, len(rows.Columns()))
		for {
			err := rows.Next(dest)
			if err == io.EOF { //nolint:errorlint // a wrapped one is a broken connection
				break
			}
			if err != nil {
				_ = rows.Close() // it would repeat the error
				return err
			}
			if len(dest) > 0 {
				a.Values = append(a.Values, text(dest[0]))
			}
		}
		if sets == nil || !sets.HasNextResultSet() {
			break
		}
		if err := sets.NextResultSet(); err != nil {
			_ = rows.Close() // the first error counts
			return err
		}
	}
	err := rows.Close()
	if t, ok := rows.(interface{ Tag() string }); ok {
		a.Tag = t.Tag()
	}
	return err
}

func text(v driver.Value) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return string(v)
	case string:
		return v
	}
	return fmt.Sprint(v)
}
