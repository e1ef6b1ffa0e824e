package pgxtx

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/internal/pinned"
)

// rig is one database with an open resource on it. It counts round trips.
type rig struct {
	*testing.T
	pool  *pgxpool.Pool
	res   *Resource
	trips atomic.Int64
}

// tripConn counts messages to the server: pgx writes once per round trip.
type tripConn struct {
	net.Conn
	trips *atomic.Int64
}

func (c tripConn) Write(b []byte) (int, error) {
	c.trips.Add(1)
	return c.Conn.Write(b)
}

func newRig(t *testing.T, decisions bool) *rig {
	t.Helper()
	r := &rig{T: t}
	cfg, err := pgxpool.ParseConfig(dbtest.SharedPostgres(t, 0).NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	recovery := cfg.ConnConfig.DialFunc
	cfg.MaxConns = 1 // so that statements are prepared once
	counting := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := recovery(ctx, network, addr)
		return tripConn{c, &r.trips}, err
	}
	cfg.ConnConfig.DialFunc = counting
	if r.pool, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.pool.Close)
	r.exec("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))")
	r.exec("INSERT INTO account SELECT i, 100 FROM generate_series(1, 10) i")
	r.res = New("athos", r.pool)
	err = r.res.Open(t.Context(), troth.ResourceConfig{
		Domain: "test", Logger: slog.New(slog.DiscardHandler), NeedDecisions: decisions, LifeMax: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.res.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) exec(query string) {
	r.Helper()
	if _, err := r.pool.Exec(r.Context(), query); err != nil {
		r.Fatalf("%s: %v", query, err)
	}
}

func (r *rig) wantBalance(id, want int) {
	r.Helper()
	var got int
	if err := r.pool.QueryRow(r.Context(), "SELECT balance FROM account WHERE id = $1", id).Scan(&got); err != nil || got != want {
		r.Errorf("account %d has %d, want %d (%v)", id, got, want, err)
	}
}

func (r *rig) begin() (*pgrm.Branch, *session, pgx.Tx) {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	b, err := r.res.Begin(r.Context(), troth.BranchConfig{Branch: 1, Context: ctx})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { b.Close(); cancel() })
	own := b.(*pgrm.Branch)
	return own, own.Session().(*session), handle(b)
}

func newXID() troth.XID {
	return troth.XID{GID: troth.NewGID("test", time.Now()), Place: troth.Place{Resource: "athos", Identity: "00000000"}, Branch: 1}
}

func commitRecord() troth.Decision {
	return troth.Decision{GID: newXID().GID, Outcome: troth.Committed}
}

// counts runs f and says how many round trips it took.
func (r *rig) counts(f func()) int64 {
	before := r.trips.Load()
	f()
	return r.trips.Load() - before
}

func add(id, amount int, rows int64) Stmt {
	return Stmt{SQL: "UPDATE account SET balance = balance + $1 WHERE id = $2", Args: []any{amount, id}, Rows: rows}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	for i := range 2 { // the first time prepares statements
		check := func(what string, want int64, f func()) {
			t.Helper()
			if n := r.counts(f); i == 1 && n != want {
				t.Errorf("%s: %d round trips, want %d", what, n, want)
			}
		}
		b, _, tx := r.begin()
		check("BEGIN and Exec", 1, func() {
			if _, err := tx.Exec(t.Context(), "UPDATE account SET balance = balance + $1 WHERE id = 1", 1); err != nil {
				t.Fatal(err)
			}
		})
		check("Wrote", 0, func() {
			if wrote, err := b.Wrote(t.Context()); !wrote || err != nil {
				t.Fatal(wrote, err)
			}
		})
		check("PREPARE", 1, func() {
			if vote, err := b.Prepare(t.Context(), newXID()); vote != troth.VoteCommit {
				t.Fatal(vote, err)
			}
		})
		check("COMMIT PREPARED", 1, func() {
			if err := b.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		})

		b, _, tx = r.begin()
		check("BEGIN and Query", 1, func() {
			var n int
			if err := tx.QueryRow(t.Context(), "SELECT balance FROM account WHERE id = $1 FOR UPDATE", 1).Scan(&n); err != nil {
				t.Fatal(err)
			}
		})
		check("decision and COMMIT", 1, func() {
			if outcome, err := b.CommitDeciding(t.Context(), commitRecord()); outcome != troth.Committed {
				t.Fatal(outcome, err)
			}
		})

		b, s, _ := r.begin()
		if err := s.enqueue([]Stmt{add(2, 1, 1), add(3, 1, 1)}); err != nil {
			t.Fatal(err)
		}
		check("queued and PREPARE", 1, func() {
			if wrote, err := b.Wrote(t.Context()); !wrote || err != nil {
				t.Fatal(wrote, err)
			}
			if vote, err := b.Prepare(t.Context(), newXID()); vote != troth.VoteCommit {
				t.Fatal(vote, err)
			}
		})
		if b.Evidence() == "" {
			t.Error("no evidence")
		}
		check("COMMIT PREPARED of queued", 1, func() {
			if err := b.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		})

		b, s, _ = r.begin()
		if err := s.enqueue([]Stmt{add(2, 1, 1), add(3, 1, 1)}); err != nil {
			t.Fatal(err)
		}
		check("queued and decision and COMMIT", 1, func() {
			if outcome, err := b.CommitDeciding(t.Context(), commitRecord()); outcome != troth.Committed {
				t.Fatal(outcome, err)
			}
		})
	}
	r.wantBalance(1, 102)
	r.wantBalance(2, 104)
	r.wantBalance(3, 104)
}

// A queued statement that changes another number of rows than it should never
// commits, whichever way the branch ends.
func TestQueuedCount(t *testing.T) {
	t.Parallel()
	returning := add(1, 1, 1)
	returning.SQL += " RETURNING balance"
	noArgs := Stmt{SQL: "  update account set balance = 7 where id = 4711 ;\n", Rows: 1}
	literal := Stmt{SQL: "UPDATE account SET balance = 7 WHERE 'returning' = 'x' -- a comment", Rows: 3}
	for _, decisions := range []bool{true, false} {
		r := newRig(t, decisions)
		for name, wrong := range map[string]Stmt{
			"too few": add(4711, 1, 1), "too many": {SQL: "UPDATE account SET balance = 9", Rows: 1},
			"without arguments": noArgs, "word in a literal": literal,
			"returning": {SQL: returning.SQL, Args: []any{1, 4711}, Rows: 1},
			"with":      {SQL: "WITH a AS (SELECT 1) UPDATE account SET balance = 8", Rows: 1},
		} {
			wantCount := func(err error) {
				t.Helper()
				var count *pgrm.CountError
				if !errors.As(err, &count) || count.Want != wrong.Rows || count.SQL != wrong.SQL || count.Got == wrong.Rows || count.Got < 0 {
					t.Errorf("%s: error %v", name, err)
				}
			}
			b, s, _ := r.begin()
			if err := s.enqueue([]Stmt{add(1, 1, 1), wrong}); err != nil {
				t.Fatal(err)
			}
			vote, err := b.Prepare(t.Context(), newXID())
			if vote != troth.VoteRollback {
				t.Errorf("%s: vote %v, %v", name, vote, err)
			}
			wantCount(err)

			b, s, _ = r.begin()
			if err := s.enqueue([]Stmt{add(1, 1, 1), wrong}); err != nil {
				t.Fatal(err)
			}
			d := commitRecord()
			outcome, err := b.CommitDeciding(t.Context(), d)
			if outcome != troth.Aborted {
				t.Errorf("%s: outcome %v, %v", name, outcome, err)
			}
			wantCount(err)
			if decisions {
				if got, err := r.res.Decisions().Lookup(t.Context(), d.GID); got != troth.Undecided || err != nil {
					t.Errorf("%s: the decision is there: %v, %v", name, got, err)
				}
			}
			r.wantBalance(1, 100)
		}
		list, err := r.res.Recover(t.Context())
		if len(list) != 0 || err != nil {
			t.Errorf("still prepared: %v, %v", list, err)
		}
		// What is right, and what may be any number, commits.
		b, s, tx := r.begin()
		if _, err := tx.Exec(t.Context(), "UPDATE account SET balance = 50 WHERE id = 5"); err != nil {
			t.Fatal(err)
		}
		if err := s.enqueue([]Stmt{add(1, 1, 1), returning, add(4711, 1, -1), {SQL: "SELECT 1 FROM account", Rows: 10}}); err != nil {
			t.Fatal(err)
		}
		if outcome, err := b.CommitDeciding(t.Context(), commitRecord()); outcome != troth.Committed {
			t.Error(outcome, err)
		}
		r.wantBalance(1, 102)
		r.wantBalance(5, 50)
	}
}

func TestQueuedErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	for name, stmts := range map[string][]Stmt{
		"constraint":  {add(1, 1, 1), add(2, -1000, 1)},
		"syntax":      {add(1, 1, 1), {SQL: "UPDAT account"}},
		"argument":    {add(1, 1, 1), {SQL: "UPDATE account SET balance = $1", Args: []any{struct{}{}}}},
		"too many":    {add(1, 1, 1), {SQL: "SELECT 1", Args: []any{1, 2}}},
		"several":     {add(1, 1, 1), {SQL: "SELECT 1; SELECT 2"}},
		"after begin": {add(1, 1, 1), {SQL: "SELECT 1/0"}},
	} {
		for _, started := range []bool{false, true} {
			b, s, tx := r.begin()
			if started {
				if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.enqueue(stmts); err != nil {
				t.Fatal(err)
			}
			if vote, err := b.Prepare(t.Context(), newXID()); vote != troth.VoteRollback || err == nil {
				t.Errorf("%s: vote %v, %v", name, vote, err)
			}
			b, s, _ = r.begin()
			if err := s.enqueue(stmts); err != nil {
				t.Fatal(err)
			}
			if outcome, err := b.CommitDeciding(t.Context(), commitRecord()); outcome != troth.Aborted || err == nil {
				t.Errorf("%s: outcome %v, %v", name, outcome, err)
			}
		}
	}
	_, s, _ := r.begin()
	var refused *pinned.RefusedError
	if err := s.enqueue([]Stmt{{SQL: "COMMIT"}}); !errors.As(err, &refused) {
		t.Errorf("COMMIT was queued: %v", err)
	}
	if err := s.enqueue([]Stmt{{SQL: "SELECT $1", Args: []any{pgx.QueryExecModeExec, 1}}}); err == nil {
		t.Error("an option of pgx was queued")
	}
}

// A table that changes beneath a prepared queued statement costs one transaction,
// not all that come.
func TestQueuedStatementOutOfDate(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	run := func() (troth.Outcome, error) {
		b, s, _ := r.begin()
		if err := s.enqueue([]Stmt{{SQL: "SELECT * FROM account", Rows: 10}}); err != nil {
			t.Fatal(err)
		}
		return b.CommitDeciding(t.Context(), commitRecord())
	}
	if outcome, err := run(); outcome != troth.Committed {
		t.Fatal(outcome, err)
	}
	r.exec("ALTER TABLE account ADD COLUMN note text")
	_, _ = run() // it may fail, "cached plan must not change result type"
	if outcome, err := run(); outcome != troth.Committed {
		t.Error(outcome, err)
	}
	r.exec("DEALLOCATE ALL")
	_, _ = run() // it fails: the server forgot
	if outcome, err := run(); outcome != troth.Committed {
		t.Error(outcome, err)
	}
}

// Whatever the way an error comes, the branch is not prepared after it, and a
// rollback to a savepoint mends it.
func TestLateErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	const bad = "UPDATE account SET balance = -1 WHERE id = 1"
	ways := map[string]func(ctx context.Context, tx pgx.Tx){
		"exec":     func(ctx context.Context, tx pgx.Tx) { _, _ = tx.Exec(ctx, bad) },
		"argument": func(ctx context.Context, tx pgx.Tx) { _, _ = tx.Exec(ctx, "SELECT $1::int", "no number") },
		"rows": func(ctx context.Context, tx pgx.Tx) {
			rows, _ := tx.Query(ctx, "SELECT 1/(3 - i) FROM generate_series(1, 5) i")
			for rows.Next() { // its error is not looked at, that is the point
			}
		},
		"open rows": func(ctx context.Context, tx pgx.Tx) {
			rows, _ := tx.Query(ctx, "SELECT 1/(3 - i) FROM generate_series(1, 5) i")
			rows.Next() // left open
		},
		"row": func(ctx context.Context, tx pgx.Tx) { _ = tx.QueryRow(ctx, bad+" RETURNING 1").Scan(new(int)) },
		"batch": func(ctx context.Context, tx pgx.Tx) {
			b := new(pgx.Batch)
			b.Queue("SELECT 1")
			b.Queue(bad)
			_ = tx.SendBatch(ctx, b).Close()
		},
		"open batch": func(ctx context.Context, tx pgx.Tx) {
			b := new(pgx.Batch)
			b.Queue("SELECT 1")
			b.Queue(bad)
			_, _ = tx.SendBatch(ctx, b).Exec()
		},
		"copy": func(ctx context.Context, tx pgx.Tx) {
			_, _ = tx.CopyFrom(ctx, pgx.Identifier{"account"}, []string{"id", "balance"}, pgx.CopyFromRows([][]any{{1, 1}}))
		},
		"large object": func(ctx context.Context, tx pgx.Tx) {
			lo := tx.LargeObjects()
			_, _ = lo.Open(ctx, 4711, pgx.LargeObjectModeRead)
		},
		"prepare": func(ctx context.Context, tx pgx.Tx) { _, _ = tx.Prepare(ctx, "p", "SELEC") },
	}
	for name, fail := range ways {
		b, _, tx := r.begin()
		fail(t.Context(), tx)
		if _, err := b.Wrote(t.Context()); err == nil {
			t.Errorf("%s: Wrote saw no error", name)
		}
		if vote, err := b.Prepare(t.Context(), newXID()); vote != troth.VoteRollback || err == nil {
			t.Errorf("%s: vote %v, %v", name, vote, err)
		}

		b, _, tx = r.begin()
		if _, err := tx.Exec(t.Context(), "UPDATE account SET balance = balance + 1 WHERE id = 2"); err != nil {
			t.Fatal(err)
		}
		sp, err := tx.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fail(t.Context(), sp)
		if err := sp.Rollback(t.Context()); err != nil {
			t.Errorf("%s: rollback to savepoint: %v", name, err)
		}
		if _, err := sp.Exec(t.Context(), "SELECT 1"); !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("%s: savepoint after its end: %v", name, err)
		}
		if outcome, err := b.CommitDeciding(t.Context(), commitRecord()); outcome != troth.Committed {
			t.Errorf("%s: after the savepoint: %v, %v", name, outcome, err)
		}
	}
	r.wantBalance(1, 100)
	r.wantBalance(2, 100+len(ways))
}

func TestTheProgramCannotEndTheBranch(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	b, _, tx := r.begin()
	if _, err := tx.Exec(t.Context(), "UPDATE account SET balance = 1 WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); !errors.Is(err, ErrManaged) {
		t.Errorf("Commit: %v", err)
	}
	if err := tx.Rollback(t.Context()); !errors.Is(err, ErrManaged) {
		t.Errorf("Rollback: %v", err)
	}
	var refused *pinned.RefusedError
	for _, text := range []string{"COMMIT", "select 1; /* x */ commit", "ROLLBACK", "BEGIN", "PREPARE TRANSACTION 'x'", "END"} {
		if _, err := tx.Exec(t.Context(), text); !errors.As(err, &refused) {
			t.Errorf("%s: %v", text, err)
		}
		if rows, err := tx.Query(t.Context(), text); !errors.As(err, &refused) || rows.Err() == nil {
			t.Errorf("%s: %v", text, err)
		}
		batch := new(pgx.Batch)
		batch.Queue(text)
		if err := tx.SendBatch(t.Context(), batch).Close(); !errors.As(err, &refused) {
			t.Errorf("%s: %v", text, err)
		}
	}
	sp, err := tx.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if vote, err := b.Prepare(t.Context(), newXID()); vote != troth.VoteCommit {
		t.Fatal(vote, err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a statement after the vote")
	}
	if err := tx.Rollback(t.Context()); !errors.Is(err, pgx.ErrTxClosed) {
		t.Errorf("deferred Rollback: %v", err)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	r.wantBalance(1, 1)
}

// Around the Tx a program can still break its branch, but not unnoticed.
func TestCommitThroughConn(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	b, _, tx := r.begin()
	conn := tx.Conn() // begins the branch: no statement may run outside it
	if status := conn.PgConn().TxStatus(); status != 'T' {
		t.Fatalf("status %c", status)
	}
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Wrote(t.Context()); err == nil || !strings.Contains(err.Error(), "not in a transaction any more") {
		t.Errorf("got %v", err)
	}
	if err := b.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEndOfContextBreaksAStatement(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	for name, f := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"exec": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
			return err
		},
		"rows": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "SELECT pg_sleep(60)")
			if err != nil {
				return err
			}
			for rows.Next() { // only its end counts
			}
			return rows.Err()
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		b, err := r.res.Begin(t.Context(), troth.BranchConfig{Branch: 1, Context: ctx})
		if err != nil {
			t.Fatal(err)
		}
		tx := handle(b)
		if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(50*time.Millisecond, func() { cancel(troth.ErrTimeout) })
		if err := f(t.Context(), tx); err == nil {
			t.Errorf("%s: no error", name)
		}
		timer.Stop()
		if _, err := tx.Exec(t.Context(), "SELECT 1"); !errors.Is(err, troth.ErrTimeout) {
			t.Errorf("%s: afterwards %v", name, err)
		}
		if err := b.Rollback(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.exec("SELECT 1") // the pool of one has a session again
		cancel(nil)
	}
}
