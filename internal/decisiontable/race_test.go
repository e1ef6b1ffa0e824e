package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

// A home is a session of a program whose transaction carries a decision.
type home struct {
	t    *testing.T
	e    engine
	conn *sql.Conn
}

func newHome(t *testing.T, e engine, db *sql.DB) *home {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	h := &home{t, e, conn}
	mustExec(t, conn, "BEGIN")
	return h
}

// awaitWaiter returns once a session of the database waits for a lock. SQLite
// cannot tell: a writer there polls, and a moment is all that can be given.
func awaitWaiter(t *testing.T, e engine, db *sql.DB, n int) {
	t.Helper()
	var query string
	switch e.kind {
	case Postgres:
		query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
	case MySQL:
		query = "SELECT count(DISTINCT x.trx_id) FROM information_schema.innodb_trx x JOIN information_schema.innodb_locks l" +
			" ON l.lock_trx_id = x.trx_id WHERE x.trx_state = 'LOCK WAIT' AND l.lock_table LIKE CONCAT('_', DATABASE(), '_.%')" // the quotes are sql_mode's
	case SQLite:
		time.Sleep(100 * time.Millisecond)
		return
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if e.kind == MySQL {
			innodbLook.Lock()
			time.Sleep(innodbCache)
		}
		var waiting int
		err := db.QueryRowContext(t.Context(), query).Scan(&waiting)
		if e.kind == MySQL {
			innodbLook.Unlock()
		}
		if err != nil {
			t.Fatal(err)
		}
		if waiting >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions wait for a lock, want %d", waiting, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A server keeps what innodb_trx shows until nobody has looked for 100 ms: tests that
// look in turns would all see the past for ever.
const innodbCache = 150 * time.Millisecond

var innodbLook sync.Mutex

type answer struct {
	outcome troth.Outcome
	err     error
}

// decideMany starts n recoverers at once.
func decideMany(ctx context.Context, table *Table, d troth.Decision, n int) <-chan answer {
	answers := make(chan answer, n)
	for range n {
		go func() {
			outcome, err := table.Decide(ctx, d)
			answers <- answer{outcome, err}
		}()
	}
	return answers
}

func TestRecovererWaitsForTheHome(t *testing.T) {
	for _, end := range []struct {
		statement string
		want      troth.Outcome
	}{{"COMMIT", troth.Committed}, {"ROLLBACK", troth.Aborted}} {
		t.Run(end.statement, func(t *testing.T) {
			forEach(t, func(t *testing.T, e engine, db *sql.DB) {
				table, gid := openTable(t, e, db, Options{LockWait: 10 * time.Minute}), newGID()
				h := newHome(t, e, db)
				mustExec(t, h.conn, table.InsertSQL(commit(gid)))
				// Three, as InnoDB makes those that wait for one key deadlock when the
				// holder rolls back.
				const recoverers = 3
				answers := decideMany(t.Context(), table, abort(gid), recoverers)
				awaitWaiter(t, e, db, recoverers)
				select {
				case a := <-answers:
					t.Fatalf("a recoverer did not wait for the home: %v, %v", a.outcome, a.err)
				default:
				}
				mustLookup(t, table, gid, troth.Undecided) // sees nothing that is not committed
				mustExec(t, h.conn, end.statement)
				for range recoverers {
					if a := <-answers; a.err != nil || a.outcome != end.want {
						t.Errorf("recoverer heard %v, %v, want %v", a.outcome, a.err, end.want)
					}
				}
				mustLookup(t, table, gid, end.want)
			})
		})
	}
}

func TestHomeThatLostItsSessionIsAborted(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		if e.kind == SQLite {
			t.Skip("the session is in this process and cannot be lost alone")
		}
		table, gid := openTable(t, e, db, Options{LockWait: 10 * time.Minute}), newGID()
		h := newHome(t, e, db)
		id, kill := "SELECT connection_id()", "KILL ?"
		if e.kind == Postgres {
			id, kill = "SELECT pg_backend_pid()", "SELECT pg_terminate_backend($1)"
		}
		var session int64
		if err := h.conn.QueryRowContext(t.Context(), id).Scan(&session); err != nil {
			t.Fatal(err)
		}
		mustExec(t, h.conn, table.InsertSQL(commit(gid)))
		answers := decideMany(t.Context(), table, abort(gid), 1)
		awaitWaiter(t, e, db, 1)
		if _, err := db.ExecContext(t.Context(), kill, session); err != nil {
			t.Fatal(err)
		}
		if a := <-answers; a.err != nil || a.outcome != troth.Aborted {
			t.Errorf("recoverer heard %v, %v, want aborted", a.outcome, a.err)
		}
	})
}

func TestHomeSecondFailsWithDuplicateKey(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table, gid := openTable(t, e, db, Options{}), newGID()
		h := newHome(t, e, db)
		mustDecide(t, table, abort(gid), troth.Aborted)
		_, err := h.conn.ExecContext(t.Context(), table.InsertSQL(commit(gid)))
		if !table.dialect.exists(err) {
			t.Fatalf("the home's insert gave %v, want a duplicate key", err)
		}
		mustExec(t, h.conn, "ROLLBACK")
		mustLookup(t, table, gid, troth.Aborted)
		mustDecide(t, table, commit(gid), troth.Aborted)
	})
}

func TestTheServerBoundsTheWait(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table, gid := openTable(t, e, db, Options{LockWait: time.Second}), newGID()
		h := newHome(t, e, db)
		mustExec(t, h.conn, table.InsertSQL(commit(gid)))
		outcome, err := table.Decide(t.Context(), abort(gid)) // no deadline of its own
		if err == nil || outcome != troth.Undecided {
			t.Fatalf("Decide = %v, %v while the home is open, want an error", outcome, err)
		}
		mustExec(t, h.conn, "COMMIT")
		mustDecide(t, table, abort(gid), troth.Committed)
	})
}

func TestTheCallerBoundsTheWait(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table, gid := openTable(t, e, db, Options{LockWait: time.Hour}), newGID()
		h := newHome(t, e, db)
		mustExec(t, h.conn, table.InsertSQL(commit(gid)))
		ctx, cancel := context.WithCancel(t.Context())
		answers := decideMany(ctx, table, abort(gid), 1)
		awaitWaiter(t, e, db, 1)
		cancel()
		select {
		case a := <-answers:
			if a.err == nil || a.outcome != troth.Undecided {
				t.Fatalf("Decide = %v, %v after cancel, want an error", a.outcome, a.err)
			}
		case <-time.After(time.Minute):
			t.Fatal("Decide does not heed its ctx")
		}
		mustExec(t, h.conn, "COMMIT")
		mustDecide(t, table, abort(gid), troth.Committed)
	})
}

// Two processes race for one key many times: both hear the same.
func TestBothHearTheSame(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		one, two := openTable(t, e, db, Options{}), openTable(t, e, db, Options{Floor: true})
		if one.Identity() != two.Identity() {
			t.Fatalf("identities %s and %s of one database", one.Identity(), two.Identity())
		}
		contend(t, one, two, 40)
	})
}

// contend has two tables decide n transactions at once, one each way.
func contend(t *testing.T, one, two *Table, n int) {
	t.Helper()
	for range n {
		gid := newGID()
		var wg sync.WaitGroup
		var a, b answer
		wg.Go(func() { a.outcome, a.err = one.Decide(t.Context(), abort(gid)) })
		wg.Go(func() { b.outcome, b.err = two.Decide(t.Context(), commit(gid)) })
		wg.Wait()
		if err := errors.Join(a.err, b.err); err != nil {
			t.Fatal(err)
		}
		if a.outcome != b.outcome || a.outcome == troth.Undecided {
			t.Fatalf("one heard %v, the other %v", a.outcome, b.outcome)
		}
		mustLookup(t, one, gid, a.outcome)
	}
}

// Housekeeping must not wait for a home that is open, nor the home for it.
func TestHousekeepingPassesAnOpenHome(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		if e.kind == SQLite {
			t.Skip("one writer at a time")
		}
		table := openTable(t, e, db, Options{LockWait: time.Hour})
		old := troth.NewGID("bank", time.Now().Add(-time.Hour))
		gids := []troth.GID{newGID(), newGID(), newGID()}
		mustDecide(t, table, abort(old), troth.Aborted)
		mustDecide(t, table, commit(gids[0]), troth.Committed)
		mustDecide(t, table, commit(gids[2]), troth.Committed)
		h := newHome(t, e, db)
		mustExec(t, h.conn, table.InsertSQL(commit(gids[1])))

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		list, err := table.Committed(ctx, 0, "", 10)
		if err != nil || len(list) != 2 {
			t.Errorf("Committed = %v, %v, want two", list, err)
		}
		if n, err := table.Expire(ctx, 0); n != 1 || err != nil {
			t.Errorf("Expire = %d, %v, want 1", n, err)
		}
		forget := []troth.GID{gids[0], gids[2]}
		for range 498 { // so many that a scan of the small table looks cheaper
			forget = append(forget, newGID())
		}
		if err := table.Forget(ctx, forget); err != nil {
			t.Errorf("Forget: %v", err)
		}
		if err := openTable(t, e, db, Options{}).Close(ctx); err != nil {
			t.Errorf("another process cannot open the table: %v", err)
		}
		mustExec(t, h.conn, "COMMIT")
		mustLookup(t, table, gids[1], troth.Committed)
		mustLookup(t, table, gids[0], troth.Undecided)
	})
}
