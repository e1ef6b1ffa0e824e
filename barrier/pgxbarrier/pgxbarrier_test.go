package pgxbarrier_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/barrier/pgxbarrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setup(t *testing.T, options pgx.TxOptions) (*pgxbarrier.Table, *pgxpool.Pool) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dbtest.SharedPostgres(t, 0).NewDatabase(t))
	must(t, err)
	t.Cleanup(pool.Close)
	table, err := pgxbarrier.New(&pgxbarrier.Config{TxOptions: options})
	must(t, err)
	must(t, table.Create(t.Context(), pool))
	must(t, table.Create(t.Context(), pool))
	must(t, table.Check(t.Context(), pool))
	_, err = pool.Exec(t.Context(), "CREATE TABLE effect (gid text, op text)")
	must(t, err)
	return table, pool
}

func run(t *testing.T, table *pgxbarrier.Table, pool *pgxpool.Pool, s barrier.Step) error {
	return table.Run(t.Context(), pool, s, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO effect VALUES ($1, $2)", s.GID, string(s.Op))
		return err
	})
}

func effects(t *testing.T, pool *pgxpool.Pool, gid string) (n int) {
	t.Helper()
	must(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM effect WHERE gid = $1", gid).Scan(&n))
	return n
}

func step(t *testing.T, gid string, op barrier.Op) barrier.Step {
	t.Helper()
	s, err := barrier.NewStep("saga", gid, "01", op)
	must(t, err)
	return s
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	table, pool := setup(t, pgx.TxOptions{})
	for _, test := range []struct {
		ops  []barrier.Op
		want []barrier.Verdict
	}{
		{[]barrier.Op{"action", "action"}, []barrier.Verdict{barrier.Proceed, barrier.Repeat}},
		{[]barrier.Op{"action", "compensate", "compensate"}, []barrier.Verdict{barrier.Proceed, barrier.Proceed, barrier.Repeat}},
		{[]barrier.Op{"compensate", "action", "compensate"}, []barrier.Verdict{barrier.Empty, barrier.Late, barrier.Repeat}},
	} {
		gid := rand.Text()
		for i, op := range test.ops {
			tx, err := pool.Begin(t.Context())
			must(t, err)
			v, err := table.Enter(t.Context(), tx, step(t, gid, op))
			must(t, err)
			must(t, tx.Commit(t.Context())) // ours to do
			if v != test.want[i] {
				t.Errorf("%v: call %d: got %v", test.ops, i, v)
			}
		}
	}
}

// A step and its undoing at once, at the default level and where the database answers
// with serialization failures.
func TestStepRacesItsUndoing(t *testing.T) {
	t.Parallel()
	for _, level := range []pgx.TxIsoLevel{"", pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			table, pool := setup(t, pgx.TxOptions{IsoLevel: level})
			seen := map[int]int{}
			rounds := 0
			for ; rounds < 60 || (seen[0] == 0 || seen[2] == 0) && rounds < 1000; rounds++ {
				gid := rand.Text()
				var wg sync.WaitGroup
				ops := []barrier.Op{barrier.Action, barrier.Compensate, barrier.Action}
				for _, i := range mathrand.Perm(len(ops)) { // none is always the last to start
					wg.Go(func() {
						if err := run(t, table, pool, step(t, gid, ops[i])); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				seen[effects(t, pool, gid)]++
			}
			if seen[0]+seen[2] != rounds || seen[0] == 0 || seen[2] == 0 {
				t.Errorf("number of effects and how often: %v; want none, or action and compensation, and both of it", seen)
			}
		})
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	table, pool := setup(t, pgx.TxOptions{})
	for _, queryFirst := range []bool{false, true} {
		s, err := barrier.ForMessage(rand.Text())
		must(t, err)
		var want error
		if queryFirst {
			committed, err := table.QueryPrepared(t.Context(), pool, s)
			must(t, err)
			if committed {
				t.Error("there is no local transaction")
			}
			want = barrier.ErrRuledOut
		}
		if err := run(t, table, pool, s); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		committed, err := table.QueryPrepared(t.Context(), pool, s)
		must(t, err)
		if committed == queryFirst || effects(t, pool, s.GID) == 1 == queryFirst {
			t.Errorf("query first %v: committed %v, %d effects", queryFirst, committed, effects(t, pool, s.GID))
		}
	}
}

// A transaction in which a statement failed is rolled back by its COMMIT.
func TestSwallowedError(t *testing.T) {
	t.Parallel()
	table, pool := setup(t, pgx.TxOptions{})
	s := step(t, rand.Text(), barrier.Action)
	err := table.Run(t.Context(), pool, s, func(ctx context.Context, tx pgx.Tx) error {
		_, _ = tx.Exec(ctx, "SELECT 1/0")
		return nil
	})
	if !errors.Is(err, barrier.ErrLost) {
		t.Errorf("got %v", err)
	}
	must(t, run(t, table, pool, s))
	if n := effects(t, pool, s.GID); n != 1 {
		t.Errorf("%d effects", n)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	table, pool := setup(t, pgx.TxOptions{})
	_, err := pool.Exec(t.Context(), fmt.Sprintf(
		"INSERT INTO dtm_barrier.barrier (gid, create_time) SELECT 'old' || n, now() - interval '73 hours' FROM generate_series(1, %d) n",
		barrier.CleanBatch+1))
	must(t, err)
	must(t, run(t, table, pool, step(t, rand.Text(), barrier.Action)))
	n, err := table.Clean(t.Context(), pool, 72*60*60*1e9)
	must(t, err)
	if n != barrier.CleanBatch+1 {
		t.Errorf("deleted %d", n)
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	table, err := pgxbarrier.New(nil)
	must(t, err)
	var none *pgxbarrier.Table
	s := step(t, "g", barrier.Action)
	for name, call := range map[string]func() error{
		"name":      func() error { _, err := pgxbarrier.New(&pgxbarrier.Config{Name: "a b"}); return err },
		"nil tx":    func() error { _, err := table.Enter(t.Context(), nil, s); return err },
		"nil table": func() error { _, err := none.Enter(t.Context(), nil, s); return err },
		"nil db":    func() error { return table.Run(t.Context(), nil, s, nil) },
	} {
		if err := call(); !errors.Is(err, barrier.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
