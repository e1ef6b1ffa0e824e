package twophase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child()) // see crash_test.go
	}
	dbtest.Main(m)
}

// pairs of kinds; in each the first participant's database comes first.
var pairs = [][2]string{
	{"postgres", "postgres"},
	{"postgres", "mysql"},
	{"mysql", "postgres"},
	{"mysql", "mysql"},
	{"sqlite", "mysql"},
	{"postgres", "sqlite"},
	{"mysql", "sqlite"},
}

func eachPair(t *testing.T, f func(t *testing.T, a, b *sql.DB)) {
	t.Parallel()
	for _, p := range pairs {
		t.Run(p[0]+"+"+p[1], func(t *testing.T) {
			t.Parallel()
			f(t, openNew(t, p[0]), openNew(t, p[1]))
		})
	}
}

// newDatabase makes a database with the table entry, and returns its driver and
// DSN.
func newDatabase(t *testing.T, kind string, server int) (driver, dsn string) {
	t.Helper()
	switch kind {
	case "postgres":
		driver, dsn = "pgx", dbtest.SharedPostgres(t, server).NewDatabase(t)
	case "mysql":
		driver, dsn = "mysql", dbtest.SharedMariaDB(t, server).NewDatabase(t)
	case "sqlite":
		driver = "sqlite"
		dsn = "file:" + filepath.Join(t.TempDir(), "a.db") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(60000)&_pragma=synchronous(FULL)"
	}
	db := openDB(t, driver, dsn)
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE entry (id INT PRIMARY KEY, note VARCHAR(50) NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return driver, dsn
}

func openNew(t *testing.T, kind string) *sql.DB {
	t.Helper()
	driver, dsn := newDatabase(t, kind, 0)
	return openDB(t, driver, dsn)
}

// openDB opens a pool. At the end of the test its background work is ended too.
func openDB(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(Shutdown(ctx, db), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return db
}

// insert is a participant's function that adds rows.
func insert(ids ...int) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO entry VALUES (%d, 'x')", id)); err != nil {
				return err
			}
		}
		return nil
	}
}

// ids are those in the table.
func ids(t *testing.T, db *sql.DB) []int {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT id FROM entry ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	all := []int{}
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func requireIDs(t *testing.T, db *sql.DB, want ...int) {
	t.Helper()
	if got := ids(t, db); !slices.Equal(got, append([]int{}, want...)) {
		t.Errorf("the table has the rows %v, want %v", got, want)
	}
}

// do runs functions, each on its database.
func do(t *testing.T, dbs []*sql.DB, fns ...func(context.Context, *sql.Tx) error) error {
	t.Helper()
	params := Params{LogFn: t.Logf}
	for i, f := range fns {
		params.Participants = append(params.Participants, NewParticipant(dbs[i], f))
	}
	return Do(t.Context(), params)
}
