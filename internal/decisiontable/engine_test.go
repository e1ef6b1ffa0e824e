package decisiontable

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // driver "mysql"
	_ "github.com/lib/pq"              // driver "postgres"
	_ "modernc.org/sqlite"             // driver "sqlite"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/reserve"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// An engine is a database with a driver.
type engine struct {
	name string
	kind Dialect
	new  func(t *testing.T) *sql.DB // a handle on a fresh database
}

func postgresOf(driver string) func(*testing.T) *sql.DB {
	return func(t *testing.T) *sql.DB { return open(t, driver, dbtest.SharedPostgres(t, 0).NewDatabase(t)) }
}

var engines = []engine{
	{"pgx", Postgres, postgresOf("pgx")},
	{"pq", Postgres, postgresOf("postgres")},
	{"mariadb", MySQL, func(t *testing.T) *sql.DB { return open(t, "mysql", dbtest.SharedMariaDB(t, 0).NewDatabase(t)) }},
	{"sqlite", SQLite, func(t *testing.T) *sql.DB {
		return open(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	}},
}

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// forEach runs a test on every engine, each with a fresh database.
func forEach(t *testing.T, f func(t *testing.T, e engine, db *sql.DB)) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			f(t, e, e.new(t))
		})
	}
}

// newTable returns a Table that is not open yet, with sessions of its own.
func newTable(t *testing.T, e engine, db *sql.DB, opts Options) *Table {
	t.Helper()
	r := reserve.NewSize(db, 4)
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return New(e.kind, r, opts)
}

func openTable(t *testing.T, e engine, db *sql.DB, opts Options) *Table {
	t.Helper()
	table := newTable(t, e, db, opts)
	if err := table.Open(t.Context(), troth.RegisterConfig{Domain: "bank"}); err != nil {
		t.Fatal(err)
	}
	return table
}

func newGID() troth.GID { return troth.NewGID("bank", time.Now()) }

func commit(gid troth.GID) troth.Decision {
	return troth.Decision{GID: gid, Outcome: troth.Committed, Branches: []troth.BranchRecord{{Resource: "porthos", Branch: 2, Evidence: "42"}}}
}

func abort(gid troth.GID) troth.Decision { return troth.Decision{GID: gid, Outcome: troth.Aborted} }

func mustDecide(t *testing.T, table *Table, d troth.Decision, want troth.Outcome) {
	t.Helper()
	got, err := table.Decide(t.Context(), d)
	if err != nil || got != want {
		t.Fatalf("Decide(%v, %s) = %v, %v, want %v", d.Outcome, d.GID, got, err, want)
	}
}

func mustLookup(t *testing.T, table *Table, gid troth.GID, want troth.Outcome) {
	t.Helper()
	got, err := table.Lookup(t.Context(), gid)
	if err != nil || got != want {
		t.Fatalf("Lookup(%s) = %v, %v, want %v", gid, got, err, want)
	}
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func mustExec(t *testing.T, db execer, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
