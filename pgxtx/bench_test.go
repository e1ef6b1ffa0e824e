package pgxtx

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

// BenchmarkTwoPhases compares branches with the same statements sent by hand.
func BenchmarkTwoPhases(b *testing.B) {
	server := dbtest.SharedPostgres(b, 0)
	pool, err := pgxpool.New(b.Context(), server.NewDatabase(b))
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(b.Context(), "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO account SELECT i, 0 FROM generate_series(1, 10) i"); err != nil {
		b.Fatal(err)
	}
	res := New("athos", pool)
	if err := res.Open(b.Context(), troth.ResourceConfig{Domain: "test", Logger: slog.New(slog.DiscardHandler)}); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Close(context.Background()) }()
	const update = "UPDATE account SET balance = balance + $1 WHERE id = $2"
	ctx := context.Background()

	b.Run("by hand", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			c, err := pool.Acquire(ctx)
			if err != nil {
				b.Fatal(err)
			}
			gid := fmt.Sprintf("bench-%d-%d", b.N, i)
			_, err = c.Exec(ctx, "BEGIN")
			if err == nil {
				_, err = c.Exec(ctx, update, 1, 1)
			}
			if err == nil {
				_, err = c.Exec(ctx, "PREPARE TRANSACTION '"+gid+"'")
			}
			if err == nil {
				_, err = c.Exec(ctx, "COMMIT PREPARED '"+gid+"'")
			}
			if err != nil {
				b.Fatal(err)
			}
			c.Release()
		}
	})
	b.Run("exec", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			br, err := res.Begin(ctx, troth.BranchConfig{Branch: 1, Context: ctx})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := handle(br).Exec(ctx, update, 1, 1); err != nil {
				b.Fatal(err)
			}
			finish(b, br)
		}
	})
	b.Run("queued", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			br, err := res.Begin(ctx, troth.BranchConfig{Branch: 1, Context: ctx})
			if err != nil {
				b.Fatal(err)
			}
			s := handle(br).(*branchTx).s
			if err := s.enqueue([]Stmt{{SQL: update, Args: []any{1, 1}, Rows: 1}}); err != nil {
				b.Fatal(err)
			}
			finish(b, br)
		}
	})
}

func finish(b *testing.B, br troth.Branch) {
	b.Helper()
	if _, err := br.Wrote(b.Context()); err != nil {
		b.Fatal(err)
	}
	if vote, err := br.Prepare(b.Context(), newXID()); vote != troth.VoteCommit {
		b.Fatal(vote, err)
	}
	if err := br.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
}
