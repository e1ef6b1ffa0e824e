package postgres_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/postgres"
	"github.com/troth-tx/troth/store/storetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func database(tb testing.TB, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	db.SetMaxIdleConns(16)
	db.SetMaxOpenConns(16)
	return db
}

func open(tb testing.TB, db *sql.DB, o *postgres.Options) *postgres.Store {
	tb.Helper()
	s, err := postgres.Open(context.Background(), db, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func openNew(tb testing.TB) store.Store {
	return open(tb, database(tb, dbtest.SharedPostgres(tb, 0).NewDatabase(tb)), nil)
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, openNew)
}

func BenchmarkGet(b *testing.B) { storetest.BenchGet(b, openNew) }

func BenchmarkSaga(b *testing.B) { storetest.Bench(b, openNew, dbtest.SharedPostgres(b, 0).Dir()) }

// What the store confirmed outlives the server's death, and nothing is there by halves.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 1)
	server.MustOwn(t)
	s := open(t, database(t, server.NewDatabase(t)), nil)
	storetest.Kills(t, s, server, 3)
}

func TestTwoStores(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
	// They make the tables at the same time.
	opened := make(chan store.Store, 2)
	for range 2 {
		db := database(t, dsn)
		go func() {
			s, err := postgres.Open(context.Background(), db, &postgres.Options{Writers: 2})
			if err != nil {
				t.Error(err)
				opened <- nil
				return
			}
			opened <- s
		}()
	}
	a, b := <-opened, <-opened
	if a == nil || b == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _, _ = a.Close(context.Background()), b.Close(context.Background()) })
	storetest.Shared(t, a, b)
}

// Somebody else can make the tables; without them Open says what is missing.
func TestNoCreate(t *testing.T) {
	t.Parallel()
	db := database(t, dbtest.SharedPostgres(t, 0).NewDatabase(t))
	no := &postgres.Options{NoCreate: true}
	if _, err := postgres.Open(t.Context(), db, no); err == nil || !strings.Contains(err.Error(), "Schema()") {
		t.Errorf("Open without tables = %v, want what to do", err)
	}
	if _, err := db.ExecContext(t.Context(), postgres.Schema()); err != nil {
		t.Fatal(err)
	}
	s := open(t, db, no)
	if err := s.Create(t.Context(), &store.Transaction{GID: "a", Pattern: store.Saga, State: store.Failed, Created: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	var row string
	err := db.QueryRowContext(t.Context(), "SELECT gid || ' ' || pattern || ' ' || state || ' ' || extract(epoch from created)::int FROM troth_overview").Scan(&row)
	if err != nil || row != "a saga failed 1" {
		t.Errorf("the overview has %q, %v", row, err)
	}
	open(t, db, nil) // there is nothing left to make
	if _, err := db.ExecContext(t.Context(), "INSERT INTO troth_schema_version (version_id, is_applied) VALUES (9999, TRUE)"); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Open(t.Context(), db, nil); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("Open of a newer program's tables = %v, want a refusal", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	server, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	db := database(t, server.DSN("postgres"))
	if _, err := postgres.Open(t.Context(), db, nil); err == nil || !strings.Contains(err.Error(), "fsync is off") {
		t.Errorf("Open of a server without fsync = %v, want a refusal", err)
	}
	open(t, db, &postgres.Options{Allow: []string{"fsync"}})
	db.SetMaxOpenConns(2)
	if _, err := postgres.Open(t.Context(), db, &postgres.Options{Allow: []string{"fsync"}}); err == nil || !strings.Contains(err.Error(), "SetMaxOpenConns") {
		t.Errorf("Open of a pool that is too small = %v, want a refusal", err)
	}
}

func TestServerFrozen(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 2)
	server.MustOwn(t)
	storetest.Frozen(t, open(t, database(t, server.NewDatabase(t)), nil), server)
}

// The store of a server that only reads says so, and recovers when another takes over.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 0)
	db, admin := database(t, server.NewDatabase(t)), database(t, server.DSN("postgres"))
	s := open(t, db, nil)
	var name string
	if err := db.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	readOnly := func(is string) func() {
		return func() {
			for _, text := range []string{
				"ALTER DATABASE " + name + " SET default_transaction_read_only = " + is,
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'",
			} {
				if _, err := admin.ExecContext(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}
			db.SetMaxIdleConns(0) // which were ended
			db.SetMaxIdleConns(16)
		}
	}
	storetest.Unwritable(t, s, readOnly("on"), readOnly("off"))
}
