package postgres_test

import (
	"context"
	"database/sql"
	"testing"

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

func BenchmarkSaga(b *testing.B) { storetest.Bench(b, openNew, dbtest.SharedPostgres(b, 0).Dir()) }

// What the store confirmed outlives the server's death, and nothing is there by halves.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 1)
	server.MustOwn(t)
	s := open(t, database(t, server.NewDatabase(t)), nil)
	storetest.Kills(t, s, server, 3)
}
