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
	cfg.Timeout = time.Second
	m, err := troth.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(context.Background()) // only so that the test can end
	defer cancel()
	var txs []*troth.Tx
	for i := range rs {
		tx, err := m.Begin(stop)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rs[i].DB(stop, tx); err != nil {
			t.Fatal(err)
		}
		txs = append(txs, tx)
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
	case <-time.After(10 * time.Second):
		t.Error("ten seconds after both deadlines neither transaction is rolled back: both wait for the other's session")
	}
	cancel()
	ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
	defer end()
	_ = m.Close(ctx)
}

// Commit's context ends while a statement still runs. Nothing heeds it: the seal
// waits for the statement, up to the transaction's whole Timeout.
func TestCommitHeedsItsContextWhileAStatementRuns(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
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
	go func() { _, _ = h.ExecContext(context.Background(), "SELECT pg_sleep(8)") }()
	time.Sleep(200 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = tx.Commit(ctx)
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("Commit with a context of 200 ms returned after %v: %v", d, err)
	}
}
