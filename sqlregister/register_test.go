package sqlregister

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // driver "mysql"
	_ "github.com/lib/pq"              // driver "postgres"
	_ "modernc.org/sqlite"             // driver "sqlite"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/registertest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// engines make the data source name of a fresh database.
var engines = []struct {
	name, driver string
	dialect      Dialect
	dsn          func(t testing.TB) string
}{
	{"pgx", "pgx", Postgres, func(t testing.TB) string { return dbtest.SharedPostgres(t, 0).NewDatabase(t) }},
	{"pq", "postgres", Postgres, func(t testing.TB) string { return dbtest.SharedPostgres(t, 0).NewDatabase(t) }},
	{"mariadb", "mysql", MySQL, func(t testing.TB) string { return dbtest.SharedMariaDB(t, 0).NewDatabase(t) }},
	{"sqlite", "sqlite", SQLite, func(t testing.TB) string { return "file:" + filepath.Join(t.TempDir(), "db") }},
	{"sqlite-wal", "sqlite", SQLite, func(t testing.TB) string {
		return "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=journal_mode(WAL)"
	}},
}

func open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func noSettle(o *options) { o.floorSettle = time.Nanosecond }

func TestRegister(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			registertest.Run(t, registertest.Factory{
				New: func(t *testing.T) func(*testing.T) troth.Register {
					dsn := e.dsn(t)
					return func(t *testing.T) troth.Register { return New(open(t, e.driver, dsn), noSettle) }
				},
				SharedByDomains: true,
				Floor:           true,
			})
		})
	}
}
