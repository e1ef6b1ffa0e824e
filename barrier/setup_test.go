package barrier_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// world is a database of one test, with the barrier's table and one of business: a row
// of effect is one execution of a step.
type world struct {
	*barrier.Table
	db *sql.DB
}

// business are the tables of the steps' own data; nobody writes to quiet.
var business = []string{
	"CREATE TABLE effect (gid varchar(128) NOT NULL, op varchar(45) NOT NULL, part int NOT NULL)",
	"CREATE TABLE quiet (id int NOT NULL)",
}

// engines are the databases that every test of the barrier's meaning runs on.
var engines = []struct {
	name string
	open func(t *testing.T) *world
}{
	{"postgres", func(t *testing.T) *world {
		return newWorld(t, barrier.PostgreSQL, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t), "")
	}},
	{"mariadb", func(t *testing.T) *world {
		return newWorld(t, barrier.MySQL, "mysql", dbtest.SharedMariaDB(t, 0).NewDatabase(t), "")
	}},
	{"sqlite", func(t *testing.T) *world {
		return newWorld(t, barrier.SQLite, "sqlite", sqliteDSN(t), "")
	}},
	{"postgres with lib/pq", func(t *testing.T) *world {
		return newWorld(t, barrier.PostgreSQL, "postgres", dbtest.SharedPostgres(t, 0).NewDatabase(t), "")
	}},
}

func sqliteDSN(t *testing.T) string {
	return "file:" + filepath.Join(t.TempDir(), "db") + "?" + url.Values{
		"_pragma": {"busy_timeout(60000)", "journal_mode(WAL)", "synchronous(FULL)"},
	}.Encode()
}

func newWorld(t *testing.T, d barrier.Dialect, driver, dsn, name string) *world {
	t.Helper()
	table, err := barrier.NewTable(d, &barrier.Config{Name: name})
	must(t, err)
	db := openDB(t, driver, dsn)
	must(t, table.Create(t.Context(), db))
	for _, query := range business {
		if d == barrier.MySQL {
			query += " CHARSET utf8mb4 COLLATE utf8mb4_bin"
		}
		_, err = db.ExecContext(t.Context(), query)
		must(t, err)
	}
	return &world{table, db}
}

func openDB(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// eachEngine runs a test on every database.
func eachEngine(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e.open(t))
		})
	}
}

// effect is the business of a step.
func (w *world) effect(s barrier.Step, part int) func(ctx context.Context, tx *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error { return w.insert(ctx, tx, s, part) }
}

var errBusiness = errors.New("business failed")

// failing is effect, which fails in the end if fail.
func (w *world) failing(s barrier.Step, fail bool) func(ctx context.Context, tx *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		if err := w.insert(ctx, tx, s, 1); err != nil || !fail {
			return err
		}
		return errBusiness
	}
}

func (w *world) insert(ctx context.Context, tx barrier.Tx, s barrier.Step, part int) error {
	query := "INSERT INTO effect (gid, op, part) VALUES (?, ?, ?)"
	if w.Dialect() == barrier.PostgreSQL {
		query = "INSERT INTO effect (gid, op, part) VALUES ($1, $2, $3)"
	}
	_, err := tx.ExecContext(ctx, query, s.GID, string(s.Op), part)
	return err
}

// run runs the step with its effect.
func (w *world) run(t *testing.T, s barrier.Step) error {
	return w.Run(t.Context(), w.db, s, w.effect(s, 1))
}

// counts returns how often each operation of a gid took effect.
func (w *world) counts(t *testing.T, gid string) map[barrier.Op]int {
	t.Helper()
	rows, err := w.db.QueryContext(t.Context(), "SELECT op, count(*) FROM effect WHERE gid = '"+gid+"' GROUP BY op")
	must(t, err)
	defer func() { _ = rows.Close() }()
	counts := map[barrier.Op]int{}
	for rows.Next() {
		var op string
		var n int
		must(t, rows.Scan(&op, &n))
		counts[barrier.Op(op)] = n
	}
	must(t, rows.Err())
	return counts
}

// reasons returns the rows of a gid as "branch/op/barrier_id=reason", in order of their ids.
func (w *world) reasons(t *testing.T, gid string) string {
	t.Helper()
	rows, err := w.db.QueryContext(t.Context(),
		"SELECT branch_id, op, barrier_id, reason FROM "+w.Name()+" WHERE gid = '"+gid+"' ORDER BY id")
	must(t, err)
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var branch, op, id, reason string
		must(t, rows.Scan(&branch, &op, &id, &reason))
		all = append(all, fmt.Sprintf("%s/%s/%s=%s", branch, op, id, reason))
	}
	must(t, rows.Err())
	return strings.Join(all, " ")
}

func newGID() string { return "g" + rand.Text() }

func step(t *testing.T, gid string, op barrier.Op) barrier.Step {
	t.Helper()
	kind := "saga"
	switch op {
	case barrier.Try, barrier.Confirm, barrier.Cancel:
		kind = "tcc"
	case barrier.Commit, barrier.Rollback:
		kind = "workflow"
	case barrier.Message:
		kind = "msg"
	}
	branch := "01"
	if op == barrier.Message {
		branch = "00"
	}
	s, err := barrier.NewStep(kind, gid, branch, op)
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func requireIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}
