package twophase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

func TestAllOrNothing(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *sql.DB) {
		dbs := []*sql.DB{a, b}
		if err := do(t, dbs, insert(1), insert(10)); err != nil {
			t.Fatal(err)
		}
		requireIDs(t, a, 1)
		requireIDs(t, b, 10)

		changed := errors.New("changed its mind")
		for name, f := range map[string]struct {
			second func(context.Context, *sql.Tx) error
			want   error // nil: any
		}{
			"its statement fails": {insert(11, 10), nil},
			"its error is swallowed": {func(ctx context.Context, tx *sql.Tx) error {
				if err := insert(11, 10)(ctx, tx); err == nil {
					return errors.New("the duplicate was accepted")
				}
				return nil
			}, nil},
			"it returns an error": {func(ctx context.Context, tx *sql.Tx) error {
				return errors.Join(insert(11)(ctx, tx), changed)
			}, changed},
			"it rolls back": {func(ctx context.Context, tx *sql.Tx) error {
				return errors.Join(insert(11)(ctx, tx), tx.Rollback())
			}, sql.ErrTxDone},
			"it commits": {func(ctx context.Context, tx *sql.Tx) error {
				return errors.Join(insert(11)(ctx, tx), tx.Commit())
			}, sql.ErrTxDone},
			"it sends COMMIT": {func(ctx context.Context, tx *sql.Tx) error {
				if err := insert(11)(ctx, tx); err != nil {
					return err
				}
				_, err := tx.ExecContext(ctx, "COMMIT")
				return err
			}, nil},
		} {
			t.Run(name, func(t *testing.T) {
				err := do(t, dbs, insert(2), f.second)
				if !errors.Is(err, troth.ErrRolledBack) || errors.Is(err, ErrCommitFailed) {
					t.Errorf("Do returned %v", err)
				}
				if f.want != nil && !errors.Is(err, f.want) {
					t.Errorf("Do returned %v, want %v in it", err, f.want)
				}
				requireIDs(t, a, 1)
				requireIDs(t, b, 10)
			})
		}
		t.Run("it panics", func(t *testing.T) {
			func() {
				defer func() {
					if p := recover(); p != "oh" {
						t.Errorf("recovered %v", p)
					}
				}()
				err := do(t, dbs, insert(2), func(ctx context.Context, tx *sql.Tx) error {
					if err := insert(11)(ctx, tx); err != nil {
						return err
					}
					panic("oh")
				})
				t.Errorf("Do returned %v", err)
			}()
			requireIDs(t, a, 1)
			requireIDs(t, b, 10)
		})
		t.Run("its context ends", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			err := Do(ctx, Params{Participants: []Participant{
				NewParticipant(a, insert(2)),
				NewParticipant(b, func(ctx context.Context, tx *sql.Tx) error {
					defer cancel()
					return insert(11)(ctx, tx)
				}),
			}})
			if !errors.Is(err, troth.ErrRolledBack) || !errors.Is(err, context.Canceled) {
				t.Errorf("Do returned %v", err)
			}
			requireIDs(t, a, 1)
			requireIDs(t, b, 10)
		})
		if err := do(t, []*sql.DB{b, a}, insert(12), insert(3)); err != nil {
			t.Error(err)
		}
		requireIDs(t, a, 1, 3)
		requireIDs(t, b, 10, 12)
	})
}

// A database given twice has one branch: the second function sees the first one's
// work and does not wait for its locks.
func TestSameDatabaseTwice(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *sql.DB) {
		second := func(ctx context.Context, tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, "UPDATE entry SET note = 'seen' WHERE id = 1")
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n != 1 {
				return fmt.Errorf("changed %d rows, %w", n, err)
			}
			return nil
		}
		if err := do(t, []*sql.DB{a, b, a}, insert(1), insert(10), second); err != nil {
			t.Fatal(err)
		}
		no := errors.New("no")
		err := do(t, []*sql.DB{a, a, b, a}, insert(2), insert(3), insert(11), func(context.Context, *sql.Tx) error { return no })
		if !errors.Is(err, no) {
			t.Errorf("Do returned %v", err)
		}
		if err := do(t, []*sql.DB{a, a}, insert(4), insert(5)); err != nil {
			t.Error(err)
		}
		requireIDs(t, a, 1, 4, 5)
		requireIDs(t, b, 10)
	})
}

func TestTwoPoolsOnOneDatabase(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"postgres", "mysql"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			driver, dsn := newDatabase(t, kind, 0)
			a, b := openDB(t, driver, dsn), openDB(t, driver, dsn)
			c := openNew(t, "postgres")
			if err := do(t, []*sql.DB{a, b, c}, insert(1), func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "UPDATE entry SET note = 'seen' WHERE id = 1") // would wait for ever
				return err
			}, insert(20)); err != nil {
				t.Fatal(err)
			}
			// Used one by one first, and together later.
			d, e := openDB(t, driver, dsn), openDB(t, driver, dsn)
			for i, db := range []*sql.DB{d, e} {
				if err := do(t, []*sql.DB{db}, insert(2+i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := do(t, []*sql.DB{d, e, c}, insert(4), insert(5), insert(21)); err != nil {
				t.Fatal(err)
			}
			requireIDs(t, a, 1, 2, 3, 4, 5)
			requireIDs(t, c, 20, 21)
		})
	}
}

func TestTwoLoginsOnOneDatabase(t *testing.T) {
	t.Parallel()
	_, dsn := newDatabase(t, "postgres", 0)
	a := openDB(t, "pgx", dsn)
	b := openDB(t, "pgx", dsn+"&search_path=public,pg_catalog")
	err := do(t, []*sql.DB{a, b}, insert(1), insert(2))
	if err == nil || !strings.Contains(err.Error(), "on one database with different logins") || !strings.Contains(err.Error(), "the same *sql.DB") {
		t.Errorf("Do returned %v", err)
	}
	requireIDs(t, a)
	for i, db := range []*sql.DB{a, b} {
		if err := do(t, []*sql.DB{db}, insert(3+i)); err != nil {
			t.Error(err)
		}
	}
	requireIDs(t, a, 3, 4)
}

// setIdentity gives a PostgreSQL database that was used before another identity.
func setIdentity(t *testing.T, db *sql.DB, identity string) {
	t.Helper()
	if err := Shutdown(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	res, err := db.ExecContext(t.Context(), "UPDATE troth_meta SET value = $1 WHERE name = 'identity'", identity)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); n != 1 || err != nil {
		t.Fatalf("%d identities changed, %v", n, err)
	}
}

// A copy of a database has the same identity, and is another database: nothing of
// the one may go to the other.
func TestCopyOfADatabase(t *testing.T) {
	t.Parallel()
	driver, dsn := newDatabase(t, "postgres", 0)
	original := openDB(t, driver, dsn)
	_, dsn2 := newDatabase(t, "postgres", 0)
	twin := openDB(t, driver, dsn2)
	for _, db := range []*sql.DB{original, twin} {
		if err := do(t, []*sql.DB{db}, insert(1)); err != nil {
			t.Fatal(err)
		}
	}
	setIdentity(t, twin, only(t, groupsOf(original)).members[original].identity)
	err := do(t, []*sql.DB{original, twin}, insert(2), insert(2))
	if err == nil || !strings.Contains(err.Error(), "one is a copy of the other") {
		t.Errorf("Do returned %v", err)
	}
	requireIDs(t, original, 1)
	requireIDs(t, twin, 1)
}

// All state of a run is in Do: the same Params serve many goroutines.
func TestConcurrentWithTheSameParams(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *sql.DB) {
		const workers, each = 6, 5
		var next atomic.Int64
		no := errors.New("no")
		params := Params{LogFn: t.Logf, Participants: []Participant{
			NewParticipant(a, func(ctx context.Context, tx *sql.Tx) error { return insert(int(next.Add(1)))(ctx, tx) }),
			NewParticipant(b, func(ctx context.Context, tx *sql.Tx) error {
				n := int(next.Add(1))
				if n%4 == 0 {
					return errors.Join(insert(n)(ctx, tx), no)
				}
				return insert(n)(ctx, tx)
			}),
		}}
		var committed atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range each {
					switch err := Do(t.Context(), params); {
					case err == nil:
						committed.Add(1)
					case !errors.Is(err, no):
						t.Errorf("Do returned %v", err)
					}
				}
			})
		}
		wg.Wait()
		if na, nb := len(ids(t, a)), len(ids(t, b)); na != int(committed.Load()) || nb != na || na == 0 {
			t.Errorf("%d committed, and the tables have %d and %d rows", committed.Load(), na, nb)
		}
		if n := len(groupsOf(a, b)); n != 1 {
			t.Errorf("%d managers were left", n)
		}
	})
}

// Transactions that take sessions out of small pools do not wait for each other in
// a circle, whatever the order of their participants.
func TestSmallPools(t *testing.T) {
	t.Parallel()
	a, b := openNew(t, "postgres"), openNew(t, "mysql")
	a.SetMaxOpenConns(1)
	b.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	const each = 20
	var wg sync.WaitGroup
	for i, dbs := range [][]*sql.DB{{a, b}, {b, a}, {b, a, b}, {a, a, b}} {
		wg.Go(func() {
			for n := range each {
				params := Params{LogFn: t.Logf}
				for p, db := range dbs {
					params.Participants = append(params.Participants, NewParticipant(db, insert(1000*i+10*n+p)))
				}
				if err := Do(ctx, params); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if na, nb := len(ids(t, a)), len(ids(t, b)); na != 5*each || nb != 5*each {
		t.Errorf("the tables have %d and %d rows, want %d", na, nb, 5*each)
	}
}

func TestParamsNotValid(t *testing.T) {
	t.Parallel()
	if err := Do(t.Context(), Params{}); err != nil {
		t.Errorf("without participants: %v", err)
	}
	db := openNew(t, "sqlite")
	for _, p := range []Participant{{}, NewParticipant(nil, insert(1)), NewParticipant(db, nil)} {
		err := Do(t.Context(), Params{Participants: []Participant{NewParticipant(db, insert(1)), p}})
		if err == nil || !strings.Contains(err.Error(), "Params.Participants[1]") {
			t.Errorf("Do returned %v", err)
		}
	}
	requireIDs(t, db)
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	err := Do(expired, Params{Participants: []Participant{NewParticipant(db, insert(1))}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Do returned %v", err)
	}
	if _, err := Outcome(t.Context(), "x"); err == nil {
		t.Error("Outcome without databases gave no error")
	}
}

// The deadline of ctx is the transaction's.
func TestDeadline(t *testing.T) {
	t.Parallel()
	db := openNew(t, "postgres")
	if err := do(t, []*sql.DB{db}, insert(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	err := Do(ctx, Params{Participants: []Participant{NewParticipant(db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "SELECT pg_sleep(60)")
		return err
	})}})
	if !errors.Is(err, troth.ErrRolledBack) || time.Since(start) > 30*time.Second {
		t.Errorf("after %v Do returned %v", time.Since(start), err)
	}
}

// Two databases that cannot vote cannot be in one transaction.
func TestTwoSQLite(t *testing.T) {
	t.Parallel()
	a, b := openNew(t, "sqlite"), openNew(t, "sqlite")
	err := do(t, []*sql.DB{a, b}, insert(1), insert(1))
	if !errors.Is(err, troth.ErrRolledBack) {
		t.Errorf("Do returned %v", err)
	}
	requireIDs(t, a)
	requireIDs(t, b)
}

// A participant that does not answer after the decision does not make the
// transaction fail.
func TestPending(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 1)
	server.MustOwn(t)
	home := openNew(t, "postgres")
	_, dsn := newDatabase(t, "postgres", 1)
	other := openDB(t, "pgx", dsn)
	other.SetMaxIdleConns(0) // its server dies
	// The first by identity is the home. Its commit waits until the test says so.
	if err := do(t, []*sql.DB{home}, insert(0)); err != nil {
		t.Fatal(err)
	}
	setIdentity(t, home, "00000000")
	gate, err := home.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gate.Close() }()
	for _, s := range []string{
		"CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END'",
		"CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON entry DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()",
		"SELECT pg_advisory_lock(77)",
	} {
		if _, err := gate.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	var logged atomic.Int64
	go func() {
		done <- Do(context.WithoutCancel(t.Context()), Params{
			LogFn:        func(msg string, args ...any) { logged.Add(1); t.Logf(msg, args...) },
			Participants: []Participant{NewParticipant(home, insert(1)), NewParticipant(other, insert(1))},
		})
	}()
	waitFor(t, "the other branch to be prepared", func() bool {
		var n int
		if err := other.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := gate.ExecContext(t.Context(), "SELECT pg_advisory_unlock(77)"); err != nil {
		t.Fatal(err)
	}
	err = <-done
	if !errors.Is(err, ErrCommitFailed) || !errors.Is(err, troth.ErrPending) || logged.Load() != 1 {
		t.Errorf("Do returned %v and logged %d times", err, logged.Load())
	}
	requireIDs(t, home, 0, 1)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(t.Context(), other, home); err != nil {
		t.Log(err) // the background may be at it
	}
	waitFor(t, "the other branch to be committed", func() bool { return len(ids(t, other)) == 1 })
	var tx *troth.TxError
	if !errors.As(err, &tx) {
		t.Fatalf("no TxError in %v", err)
	}
	if o, err := Outcome(t.Context(), tx.GID, home, other); o != troth.Committed || err != nil {
		t.Errorf("Outcome is %v, %v", o, err)
	}
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	heuristic := &troth.HeuristicError{GID: "x", Decision: troth.Committed}
	for _, test := range []struct {
		err    error
		failed bool
	}{
		{nil, false},
		{cause, false},
		{&troth.TxError{Kind: troth.ErrRolledBack, Err: cause}, false},
		{&troth.TxError{Kind: troth.ErrPending, Err: cause}, true},
		{&troth.TxError{Kind: troth.ErrUndecided, Err: cause}, true},
		{heuristic, true},
		{&troth.TxError{Kind: troth.ErrRolledBack, Err: heuristic}, true},
	} {
		var logged int
		got := confirm(test.err, func(string, ...any) { logged++ })
		if errors.Is(got, ErrCommitFailed) != test.failed || logged != map[bool]int{true: 1}[test.failed] {
			t.Errorf("%v became %v, logged %d times", test.err, got, logged)
		}
		if !errors.Is(got, test.err) {
			t.Errorf("%v is not in %v", test.err, got)
		}
		_ = confirm(test.err, nil)
	}
}
