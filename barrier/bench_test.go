package barrier_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

// What the barrier adds to a transaction of one statement; "again" is a repetition.
func BenchmarkRun(b *testing.B) {
	for _, e := range []struct {
		name    string
		dialect barrier.Dialect
		driver  string
		dsn     func() string
	}{
		{"postgres", barrier.PostgreSQL, "pgx", func() string { return dbtest.SharedPostgres(b, 0).NewDatabase(b) }},
		{"mariadb", barrier.MySQL, "mysql", func() string { return dbtest.SharedMariaDB(b, 0).NewDatabase(b) }},
	} {
		table, err := barrier.NewTable(e.dialect, nil)
		must(b, err)
		db, err := sql.Open(e.driver, e.dsn())
		must(b, err)
		b.Cleanup(func() { _ = db.Close() })
		must(b, table.Create(b.Context(), db))
		for _, query := range business {
			_, err := db.ExecContext(b.Context(), query)
			must(b, err)
		}
		w := &world{table, db}
		again := newStep(b)
		must(b, w.Run(b.Context(), db, again, w.effect(again, 1)))
		for _, way := range []struct {
			name string
			do   func(ctx context.Context) error
		}{
			{"bare", func(ctx context.Context) error {
				tx, err := db.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				if err := w.insert(ctx, tx, again, 1); err != nil {
					return err
				}
				return tx.Commit()
			}},
			{"first", func(ctx context.Context) error {
				s := newStep(b)
				return w.Run(ctx, db, s, w.effect(s, 1))
			}},
			{"again", func(ctx context.Context) error { return w.Run(ctx, db, again, w.effect(again, 1)) }},
		} {
			b.Run(e.name+"/"+way.name, func(b *testing.B) {
				for b.Loop() {
					must(b, way.do(b.Context()))
				}
			})
		}
	}
}

func newStep(b *testing.B) barrier.Step {
	b.Helper()
	s, err := barrier.NewStep("saga", newGID(), "01", barrier.Action)
	must(b, err)
	return s
}
