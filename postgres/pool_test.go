package postgres

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

// Two transactions take the one session of two pools in opposite orders, with
// contexts that do not end (Begin, not Run). Their deadline is there for that.
func TestDeadlineEndsAPoolDeadlock(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 0)
	var rs []*Resource
	var cfg troth.Config
	for _, name := range []string{"athos", "porthos"} {
		db, err := sql.Open("pgx", server.NewDatabase(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		db.SetMaxOpenConns(1)
		r := New(name, db)
		rs = append(rs, r)
		cfg.Resources = append(cfg.Resources, r)
	}
	m, err := troth.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(context.Background()) // only so that the test can end
	defer cancel()
	var txs []*troth.Tx
	for limit := time.Second; txs == nil; limit *= 4 {
		txs = takeOneEach(stop, t, m, rs, limit)
	}
	failed := make(chan error, 2)
	for i, tx := range txs {
		go func() {
			_, err := rs[1-i].DB(stop, tx)
			failed <- errors.Join(err, tx.Rollback(stop))
		}()
	}
	select {
	case err := <-failed:
		t.Logf("ended with %v", err)
	case <-time.After(5 * time.Minute):
		t.Error("long after both deadlines neither transaction is rolled back: both wait for the other's session")
	}
	cancel()
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	_ = m.Close(ctx)
}

// takeOneEach begins a transaction for each resource that takes a session of it. It returns
// nil if the machine was too busy for that within their deadline.
func takeOneEach(ctx context.Context, t *testing.T, m *troth.Manager, rs []*Resource, limit time.Duration) (txs []*troth.Tx) {
	t.Helper()
	for _, r := range rs {
		tx, err := m.Begin(ctx, troth.Timeout(limit))
		if err == nil {
			txs = append(txs, tx)
			_, err = r.DB(ctx, tx)
		}
		if err == nil {
			continue
		}
		for _, tx := range txs {
			_ = tx.Rollback(ctx) // its deadline may have ended it
		}
		if limit > time.Minute {
			t.Fatal(err)
		}
		return nil
	}
	return txs
}

// Commit's context ends while a statement still runs. Nothing heeds it: the seal
// waits for the statement, up to the transaction's whole Timeout.
func TestCommitHeedsItsContextWhileAStatementRuns(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	r := New("athos", db)
	m, err := troth.Open(t.Context(), troth.Config{Resources: []troth.Resource{r}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	tx, err := m.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h, err := r.DB(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = h.ExecContext(context.Background(), "SELECT pg_sleep(120)") }()
	outside, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Close() }()
	for running := false; !running; {
		const query = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
		if err := outside.QueryRowContext(t.Context(), query).Scan(&running); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = tx.Commit(ctx)
	if d := time.Since(start); d > time.Minute {
		t.Errorf("Commit with a context of 200 ms returned after %v: %v", d, err)
	}
}
