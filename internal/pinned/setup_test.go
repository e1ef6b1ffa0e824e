package pinned

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/drivercall"
	"github.com/troth-tx/troth/internal/sqltext"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// An engine is a database with a driver.
type engine struct {
	name    string
	dialect sqltext.Dialect
	driver  string
	dsn     func(t testing.TB) string
	lost    func(driver.Conn, error) bool
	begin   string // %d: a number of its own
}

var branches atomic.Int64

var (
	engineSQLite = engine{
		name: "sqlite", dialect: sqltext.SQLite, driver: "sqlite", begin: "BEGIN IMMEDIATE",
		dsn: func(t testing.TB) string { return filepath.Join(t.TempDir(), "db") },
	}
	enginePGX = engine{
		name: "pgx", dialect: sqltext.Postgres, driver: "pgx", begin: "BEGIN",
		dsn:  func(t testing.TB) string { return dbtest.SharedPostgres(t, 0).NewDatabase(t) },
		lost: func(dc driver.Conn, _ error) bool { return dc.(*stdlib.Conn).Conn().IsClosed() },
	}
	enginePQ = engine{
		name: "pq", dialect: sqltext.Postgres, driver: "postgres", begin: "BEGIN",
		dsn: enginePGX.dsn,
	}
	engineMySQL = engine{
		name: "mariadb", dialect: sqltext.MySQL, driver: "mysql", begin: "XA START 'pinned%d'",
		dsn: func(t testing.TB) string { return dbtest.SharedMariaDB(t, 0).NewDatabase(t) },
	}
	engines = []engine{engineSQLite, enginePGX, enginePQ, engineMySQL}
)

// A world is a database with one branch on it.
type world struct {
	engine
	t     testing.TB
	s     *Session
	db    *sql.DB // the branch's handle
	other *sql.DB // outside of the branch
	done  bool
	begun int64 // the number in its name
}

// setup makes a table a(id, v) with the rows 1..3 and opens a branch.
func setup(t testing.TB, e engine, options ...func(*Config)) *world {
	t.Helper()
	other, err := sql.Open(e.driver, e.dsn(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	w := &world{engine: e, t: t, other: other}
	w.outside("CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(100))")
	w.outside("INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three')")

	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begin := e.begin
	if strings.Contains(begin, "%d") {
		w.begun = branches.Add(1)
		begin = fmt.Sprintf(begin, w.begun)
	}
	cfg := Config{
		Resource: "athos", Dialect: e.dialect, Conn: conn, Driver: other.Driver(), Lost: e.lost,
		Start: func(ctx context.Context, dc driver.Conn) error {
			_, err := drivercall.Exec(ctx, dc, begin, nil)
			return err
		},
	}
	for _, o := range options {
		o(&cfg)
	}
	w.s = New(cfg)
	w.db = w.s.DB()
	t.Cleanup(func() { w.end(false) })
	return w
}

// end ends the branch as a resource manager would, by its own text.
func (w *world) end(commit bool) {
	w.t.Helper()
	if w.done {
		return
	}
	w.done = true
	w.s.Seal(nil)
	if commit && w.s.Failed() != nil {
		w.t.Errorf("branch failed: %v", w.s.Failed())
	}
	if w.s.Started() && !w.s.Broken() {
		err := w.s.Raw(context.Background(), func(dc driver.Conn) error {
			return w.finish(dc, commit)
		})
		if err != nil && commit {
			w.t.Errorf("end of the branch: %v", err)
		}
	}
	if err := w.s.Release(false); err != nil {
		w.t.Errorf("release: %v", err)
	}
}

func (w *world) finish(dc driver.Conn, commit bool) error {
	texts := []string{"ROLLBACK"}
	if commit {
		texts = []string{"COMMIT"}
	}
	if w.dialect == sqltext.MySQL {
		xid := fmt.Sprintf("'pinned%d'", w.begun)
		texts = []string{"XA END " + xid, "XA ROLLBACK " + xid}
		if commit {
			texts[1] = "XA COMMIT " + xid + " ONE PHASE"
		}
	}
	var last error
	for _, text := range texts {
		_, last = drivercall.Exec(context.Background(), dc, text, nil)
	}
	return last
}

func (w *world) outside(query string) {
	w.t.Helper()
	if _, err := w.other.Exec(query); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// must runs a statement that has to succeed.
func (w *world) must(x execer, query string, args ...any) {
	w.t.Helper()
	if _, err := x.ExecContext(context.Background(), query, args...); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

// fails runs a statement that has to fail.
func (w *world) fails(x execer, query string) {
	w.t.Helper()
	_ = w.failure(x, query)
}

// failure is fails for who wants to look at the error.
func (w *world) failure(x execer, query string) error {
	w.t.Helper()
	_, err := x.ExecContext(context.Background(), query)
	if err == nil {
		w.t.Fatalf("%s: no error", query)
	}
	return err
}

// values returns the ids of the table as seen outside of the branch.
func (w *world) values() string {
	w.t.Helper()
	all, err := ids(w.other)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// ids reads the ids of the table through db.
func ids(db *sql.DB) (string, error) {
	rows, err := db.Query("SELECT id FROM a ORDER BY id")
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return "", err
		}
		all = append(all, id)
	}
	return strings.Join(all, " "), rows.Err()
}

// drain reads what a query returns.
func drain(db *sql.DB, query string) error {
	rows, err := db.Query(query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
	}
	return rows.Err()
}

// arg numbers a placeholder in the engine's way.
func (w *world) arg(n int) string {
	if w.dialect == sqltext.Postgres {
		return fmt.Sprintf("$%d", n)
	}
	return "?"
}

func each(t *testing.T, f func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			f(t, e)
		})
	}
}
