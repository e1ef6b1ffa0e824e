package client_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql" // driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/internal/dbtest"
)

// A bank is a database with one account, a barrier, and the handler that looks into it.
type bank struct {
	client.Outbox
	driver, dsn string
	query       *httptest.Server
}

func newBank(t *testing.T, driver string) *bank {
	t.Helper()
	b := &bank{driver: driver}
	dialect := barrier.PostgreSQL
	if driver == "mysql" {
		dialect, b.dsn = barrier.MySQL, dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	} else {
		b.dsn = dbtest.SharedPostgres(t, 0).NewDatabase(t)
	}
	b.Outbox = openOutbox(t, driver, b.dsn, dialect)
	if err := b.Barrier.Create(t.Context(), b.DB); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)", "INSERT INTO account VALUES (1, 100)"} {
		if _, err := b.DB.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	b.query = httptest.NewServer(client.QueryPrepared(b.Outbox))
	t.Cleanup(b.query.Close)
	return b
}

func openOutbox(t testing.TB, driver, dsn string, dialect barrier.Dialect) client.Outbox {
	t.Helper()
	cfg := &barrier.Config{Name: "barrier"} // in the test's own database
	table, err := barrier.NewTable(dialect, cfg)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return client.Outbox{DB: db, Barrier: table}
}

func (b *bank) balance(t *testing.T) (balance int) {
	t.Helper()
	if err := b.DB.QueryRowContext(t.Context(), "SELECT balance FROM account").Scan(&balance); err != nil {
		t.Fatal(err)
	}
	return balance
}

func withdraw(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - 30 WHERE id = 1")
	return err
}

func eachDatabase(t *testing.T, f func(t *testing.T, b *bank)) {
	t.Parallel()
	for _, driver := range []string{"pgx", "mysql"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			f(t, newBank(t, driver))
		})
	}
}

func TestDoAndSubmit(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		send := func() error {
			return w.Message(client.GID("transfer-1"), client.Wait()).Add(s.URL, 30).DoAndSubmit(t.Context(), b.Outbox, b.query.URL, withdraw)
		}
		for range 2 { // the second is a repetition
			if err := send(); err != nil {
				t.Fatal(err)
			}
			if got, n := b.balance(t), len(s.seen()); got != 70 || n != 1 {
				t.Errorf("balance %d, %d deliveries, want 70 and 1", got, n)
			}
		}
	})
}

func TestDoFails(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		mine := errors.New("mine")
		m := w.Message().Add(s.URL, 30)
		err := m.DoAndSubmit(t.Context(), b.Outbox, b.query.URL, func(ctx context.Context, tx *sql.Tx) error {
			return errors.Join(withdraw(ctx, tx), mine)
		})
		if !errors.Is(err, client.ErrFailed) || !errors.Is(err, mine) {
			t.Errorf("error is %v", err)
		}
		if got, state := b.balance(t), w.state(t, m.GID()); got != 100 || state != client.Failed || len(s.seen()) > 0 {
			t.Errorf("balance %d, state %s, deliveries %v", got, state, s.seen())
		}
	})
}

// The server asks before the transaction begins: it is told no, and so it stays.
func TestQueryComesFirst(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		m := w.Message().Add(s.URL, 30)
		step, err := barrier.ForMessage(m.GID())
		if err != nil {
			t.Fatal(err)
		}
		if committed, err := b.Barrier.QueryPrepared(t.Context(), b.DB, step); committed || err != nil {
			t.Fatal(committed, err)
		}
		if err := m.DoAndSubmit(t.Context(), b.Outbox, b.query.URL, withdraw); !errors.Is(err, client.ErrFailed) {
			t.Errorf("error is %v", err)
		}
		if got, state := b.balance(t), w.state(t, m.GID()); got != 100 || state != client.Failed {
			t.Errorf("balance %d, state %s", got, state)
		}
	})
}

// The submission never arrives: the server asks, and delivers.
func TestSubmissionIsLost(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		var lost atomic.Int32
		w.setIntercept(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/submit") {
				lost.Add(1)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(rw, r)
		})
		m := w.Message().Add(s.URL, 30)
		err := m.DoAndSubmit(t.Context(), b.Outbox, b.query.URL, withdraw)
		if !errors.Is(err, client.ErrOngoing) || lost.Load() == 0 {
			t.Errorf("error is %v, %d submissions lost", err, lost.Load())
		}
		w.later()
		w.await(t, m.GID(), client.Succeeded)
		if got, n := b.balance(t), len(s.seen()); got != 70 || n != 1 {
			t.Errorf("balance %d, %d deliveries, want 70 and 1", got, n)
		}
	})
}

// The caller's context ends when its transaction has committed: the message goes out
// at once all the same.
func TestCallerGoesAwayAfterCommit(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		m := w.Message().Add(s.URL, 30)
		err := m.DoAndSubmitLocal(ctx, b.query.URL, local{
			run: func(ctx context.Context, step barrier.Step) error {
				defer cancel()
				return b.Barrier.Run(ctx, b.DB, step, withdraw)
			},
		})
		if !errors.Is(err, client.ErrOngoing) || !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		w.await(t, m.GID(), client.Succeeded)
	})
}

// The answer to the commit is lost. The barrier knows what became of it.
func TestCommitIsNotAnswered(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		lost := errors.New("connection lost")
		for _, committed := range []bool{false, true} {
			m := w.Message().Add(s.URL, 30)
			err := m.DoAndSubmitLocal(t.Context(), b.query.URL, local{
				run: func(ctx context.Context, step barrier.Step) error {
					if committed {
						if err := b.Barrier.Run(ctx, b.DB, step, withdraw); err != nil {
							return err
						}
					}
					return lost
				},
				committed: func(ctx context.Context, step barrier.Step) (bool, error) {
					return b.Barrier.QueryPrepared(ctx, b.DB, step)
				},
			})
			if committed && err != nil || !committed && (!errors.Is(err, client.ErrFailed) || !errors.Is(err, lost)) {
				t.Errorf("committed=%v: error is %v", committed, err)
			}
			want := client.Failed
			if committed {
				want = client.Succeeded
			}
			w.await(t, m.GID(), want)
		}
		if got := b.balance(t); got != 70 {
			t.Errorf("balance is %d, want 70", got)
		}
	})
}

type local struct {
	run       func(ctx context.Context, step barrier.Step) error
	committed func(ctx context.Context, step barrier.Step) (bool, error)
}

func (l local) Run(ctx context.Context, step barrier.Step) error { return l.run(ctx, step) }

func (l local) Committed(ctx context.Context, step barrier.Step) (bool, error) {
	return l.committed(ctx, step)
}

// Somebody stops the message by force after its transaction committed.
func TestMixedOutcome(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		m := w.Message().Add(s.URL, 30)
		do := func() error {
			return m.DoAndSubmit(t.Context(), b.Outbox, b.query.URL, func(ctx context.Context, tx *sql.Tx) error {
				return errors.Join(withdraw(ctx, tx), w.engine.Stop(ctx, m.GID(), "an operator's whim"))
			})
		}
		for range 2 {
			if err := do(); !errors.Is(err, client.ErrMixed) {
				t.Errorf("error is %v, want ErrMixed", err)
			}
		}
	})
}
