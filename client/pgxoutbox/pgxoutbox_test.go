package pgxoutbox_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth/barrier/pgxbarrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/inprocess"
	"github.com/troth-tx/troth/client/pgxoutbox"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func newOutbox(t *testing.T) pgxoutbox.Outbox {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dbtest.SharedPostgres(t, 0).NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	table, err := pgxbarrier.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "CREATE TABLE account AS SELECT 100 AS balance"); err != nil {
		t.Fatal(err)
	}
	return pgxoutbox.Outbox{Pool: pool, Barrier: table}
}

// The message goes out exactly if the transaction commits, and if nobody submits it,
// because the server asks.
func TestDoAndSubmit(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	calls, err := outbound.New(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var delivered atomic.Int32
	e, err := engine.Open(t.Context(), memory.New(), engine.Config{
		Caller: calls, PollEvery: 20 * time.Millisecond, Limits: engine.Limits{RequestTimeout: time.Minute},
		Funcs: map[string]engine.Func{"deliver": func(context.Context, engine.Call) error {
			delivered.Add(1)
			return nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(e.Close(context.Background()), calls.Close()); err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(client.Config{Transport: inprocess.New(e)})
	if err != nil {
		t.Fatal(err)
	}
	query := httptest.NewServer(pgxoutbox.QueryPrepared(o))
	t.Cleanup(query.Close)

	mine := errors.New("mine")
	for _, fails := range []error{nil, mine} {
		m := c.Message(client.Wait()).Add("func://deliver", nil)
		err := pgxoutbox.DoAndSubmit(t.Context(), m, o, query.URL, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE account SET balance = balance - 30")
			return errors.Join(err, fails)
		})
		if fails == nil && err != nil || fails != nil && (!errors.Is(err, mine) || !errors.Is(err, client.ErrFailed)) {
			t.Errorf("error is %v", err)
		}
	}
	m := c.Message(client.TimeoutToFail(time.Second)).Add("func://deliver", nil) // is announced, and its sender dies
	if err := m.Prepare(t.Context(), query.URL); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(t.Context(), m.GID()); !errors.Is(err, client.ErrFailed) {
		t.Errorf("it ends with %v", err)
	}
	var balance int
	if err := o.Pool.QueryRow(t.Context(), "SELECT balance FROM account").Scan(&balance); err != nil || balance != 70 || delivered.Load() != 1 {
		t.Errorf("balance %d, %d deliveries, %v; want 70 and 1", balance, delivered.Load(), err)
	}
}
