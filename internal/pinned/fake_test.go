package pinned

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/troth-tx/troth/internal/sqltext"
)

// An oldConn is a connection of a driver with none of the optional interfaces; its
// statements have a ColumnConverter. It writes down what is asked of it.
type oldConn struct {
	log  []string
	fail func(query string) error
	next func() error // what reading a row does; nil: the end
}

func (c *oldConn) Prepare(query string) (driver.Stmt, error) { return &oldStmt{c, query}, nil }
func (c *oldConn) Close() error                              { return nil }
func (c *oldConn) Begin() (driver.Tx, error)                 { return nil, errors.New("begin") }

type oldStmt struct {
	c     *oldConn
	query string
}

func (s *oldStmt) Close() error  { return nil }
func (s *oldStmt) NumInput() int { return strings.Count(s.query, "?") }

func (s *oldStmt) Exec(args []driver.Value) (driver.Result, error) {
	s.c.log = append(s.c.log, fmt.Sprint(s.query, args))
	if s.c.fail != nil {
		if err := s.c.fail(s.query); err != nil {
			return nil, err
		}
	}
	return driver.RowsAffected(1), nil
}

func (s *oldStmt) Query(args []driver.Value) (driver.Rows, error) {
	_, err := s.Exec(args)
	return oldRows{s.c}, err
}

func (s *oldStmt) ColumnConverter(int) driver.ValueConverter { return shout{} }

// shout is a conversion that cannot be mistaken for the default one.
type shout struct{}

func (shout) ConvertValue(v any) (driver.Value, error) { return fmt.Sprint(v, "!"), nil }

type oldRows struct{ c *oldConn }

func (oldRows) Columns() []string { return []string{"a"} }
func (oldRows) Close() error      { return nil }

func (r oldRows) Next([]driver.Value) error {
	if r.c.next != nil {
		return r.c.next()
	}
	return io.EOF
}

type oldConnector struct{ c *oldConn }

func (k oldConnector) Connect(context.Context) (driver.Conn, error) { return k.c, nil }
func (k oldConnector) Driver() driver.Driver                        { return noDriver{} }

func setupOld(t *testing.T) (*oldConn, *Session) {
	c := &oldConn{}
	db := sql.OpenDB(oldConnector{c})
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Resource: "athos", Dialect: sqltext.MySQL, Conn: conn, Start: func(context.Context, driver.Conn) error {
		c.log = append(c.log, "start")
		return nil
	}})
	t.Cleanup(func() { _ = s.Release(false) })
	return c, s
}

func TestOldDriver(t *testing.T) {
	t.Parallel()
	c, s := setupOld(t)
	if _, err := s.DB().Exec("UPDATE a SET v = ?", 1); err != nil {
		t.Fatal(err)
	}
	tx, err := s.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := tx.QueryRow("SELECT ?", "x").Scan(&v); !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.DB().Ping(); err != nil {
		t.Fatal(err)
	}
	want := "start|UPDATE a SET v = ?[1!]|SAVEPOINT troth_1[]|SELECT ?[x!]|ROLLBACK TO SAVEPOINT troth_1[]|RELEASE SAVEPOINT troth_1[]"
	if got := strings.Join(c.log, "|"); got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
	if s.Failed() != nil {
		t.Errorf("no rows is no error: %v", s.Failed())
	}
}

// database/sql repeats a statement that met driver.ErrBadConn.
func TestBadConnectionIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(*sql.DB) error{
		"driver": func(db *sql.DB) error { // what database/sql itself gets to see
			c, err := db.Conn(t.Context())
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			err = c.Raw(func(dc any) (err error) {
				ps, err := dc.(driver.Conn).Prepare("SELECT 1")
				if err != nil {
					return err
				}
				_, err = ps.(driver.StmtQueryContext).QueryContext(t.Context(), nil)
				if errors.Is(err, driver.ErrBadConn) {
					t.Error("ErrBadConn reaches database/sql")
				}
				return err
			})
			return err
		},
		"exec":  func(db *sql.DB) error { _, err := db.Exec("UPDATE a SET v = 1"); return err },
		"query": func(db *sql.DB) error { return db.QueryRow("SELECT 1").Err() },
		"begin": func(db *sql.DB) error { _, err := db.Begin(); return err },
	} {
		c, s := setupOld(t)
		c.fail = func(string) error { return fmt.Errorf("reset by peer: %w", driver.ErrBadConn) }
		err := f(s.DB())
		var lost *SessionLostError
		if !errors.As(err, &lost) || errors.Is(err, driver.ErrBadConn) || !strings.Contains(err.Error(), "reset by peer") {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.log) != 2 || !s.Broken() || s.Failed() == nil {
			t.Errorf("%s: sent %q, broken %v, failed %v", name, c.log, s.Broken(), s.Failed())
		}
	}
}

func TestPanicInDriver(t *testing.T) {
	t.Parallel()
	c, s := setupOld(t)
	db := s.DB()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.fail = func(string) error { panic("boom") }
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = db.ExecContext(ctx, "UPDATE a SET v = 1")
	}()
	if !s.Broken() || s.Failed() == nil {
		t.Errorf("broken %v, failed %v", s.Broken(), s.Failed())
	}
	var lost *SessionLostError
	if err := s.Raw(ctx, func(driver.Conn) error { return nil }); !errors.As(err, &lost) {
		t.Errorf("the turn is free, but the session is not to be trusted: %v", err)
	}
}

// The rest of a result set is read on behalf of a statement that comes later: the panic is that one's.
func TestPanicInDriverWhileReadingAhead(t *testing.T) {
	t.Parallel()
	c, s := setupOld(t)
	rows, err := s.DB().Query("SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	c.next = func() error { panic("boom") }
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = s.DB().Exec("UPDATE a SET v = 1")
	}()
	if !s.Broken() || s.Failed() == nil {
		t.Errorf("broken %v, failed %v", s.Broken(), s.Failed())
	}
	s.Seal(nil) // waits for its turn
	if rows.Next() || rows.Err() == nil {
		t.Error("the result set looks complete")
	}
}
