package barrier_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/troth-tx/troth/barrier"
)

// Two steps whose business locks the same rows in opposite order: the database undoes
// one of them, and Run does it again.
func TestRunRepeatsAfterADeadlock(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		if w.Dialect() == barrier.SQLite {
			return // one writer at a time locks nobody out for ever
		}
		_, err := w.db.ExecContext(t.Context(), "INSERT INTO quiet (id) VALUES (1), (2)")
		must(t, err)
		_, err = w.db.ExecContext(t.Context(), "CREATE UNIQUE INDEX quiet_id ON quiet (id)")
		must(t, err)
		both := make(chan struct{}) // each has its first row
		var first, wg sync.WaitGroup
		first.Add(2)
		go func() { first.Wait(); close(both) }()
		var calls [2]int
		gid := newGID()
		for i, op := range []barrier.Op{barrier.Try, barrier.Confirm} {
			s := step(t, gid, op)
			wg.Go(func() {
				err := w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
					calls[i]++
					if err := lockQuiet(ctx, tx, 1+i); err != nil {
						return err
					}
					if calls[i] == 1 {
						first.Done()
					}
					<-both
					if err := lockQuiet(ctx, tx, 2-i); err != nil {
						return errors.Join(errors.New("business"), err)
					}
					return w.insert(ctx, tx, s, 1)
				})
				if err != nil {
					t.Errorf("%v: %v", s, err)
				}
			})
		}
		wg.Wait()
		if calls[0]+calls[1] < 3 {
			t.Errorf("no deadlock: calls %v", calls)
		}
		if got := w.counts(t, gid); got[barrier.Try] != 1 || got[barrier.Confirm] != 1 {
			t.Errorf("effects %v", got)
		}
	})
}

func lockQuiet(ctx context.Context, tx *sql.Tx, id int) error {
	var n int
	return tx.QueryRowContext(ctx, fmt.Sprintf("SELECT id FROM quiet WHERE id = %d FOR UPDATE", id)).Scan(&n)
}

// A file without busy_timeout answers at once that another one writes.
func TestRunRepeatsOnABusyFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, barrier.SQLite, "sqlite", strings.ReplaceAll(sqliteDSN(t), "60000", "0"), "")
	holder, err := w.db.BeginTx(t.Context(), nil)
	must(t, err)
	s := step(t, newGID(), barrier.Action)
	must(t, w.insert(t.Context(), holder, s, 1))
	var other barrier.Verdict
	tx, err := w.db.BeginTx(t.Context(), nil)
	must(t, err)
	if other, err = w.Enter(t.Context(), tx, s); err == nil {
		t.Fatalf("got %v from a busy file", other)
	}
	must(t, tx.Rollback())
	third := &nth{DB: w.db, left: 3, then: func() { must(t, holder.Rollback()) }}
	must(t, w.Run(t.Context(), third, s, w.effect(s, 1)))
	if third.left > 0 {
		t.Errorf("%d attempts were left when the file became free", third.left)
	}
	if n := w.counts(t, s.GID)[barrier.Action]; n != 1 {
		t.Errorf("%d effects", n)
	}
}

// nth is a database that calls then before the nth transaction begins.
type nth struct {
	*sql.DB
	left int
	then func()
}

func (n *nth) BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error) {
	if n.left--; n.left == 0 {
		n.then()
	}
	return n.DB.BeginTx(ctx, options)
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	busy := sqliteError{5}
	for _, test := range []struct {
		fails int
		err   error
		calls int
	}{
		{0, busy, 1},
		{3, busy, 4},
		{100, busy, 8},
		{100, sqliteError{517}, 8},
		{100, sqliteError{19}, 1}, // a constraint
		{100, errors.New("deadlock"), 1},
		{2, fmt.Errorf("wrapped: %w", errors.Join(errors.New("other"), busy)), 3},
	} {
		calls := 0
		err := barrier.Attempts(t.Context(), func() error {
			if calls++; calls > test.fails {
				return nil
			}
			return test.err
		})
		if calls != test.calls || (err == nil) != (calls > test.fails) {
			t.Errorf("%v, %d times: %d calls, error %v", test.err, test.fails, calls, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := barrier.Attempts(ctx, func() error { calls++; cancel(); return busy })
	if calls != 1 || err == nil {
		t.Errorf("went on after its context: %d calls, %v", calls, err)
	}
}

type sqliteError struct{ code int }

func (e sqliteError) Error() string { return fmt.Sprint("code ", e.code) }
func (e sqliteError) Code() int     { return e.code }
