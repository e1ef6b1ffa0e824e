package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
)

func isFinal(err error) bool {
	var h *troth.HeuristicError
	return errors.Is(err, troth.ErrNoEvidence) || errors.As(err, &h)
}

func TestTwoPhases(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.begin(w.res)
		w.must(b.add(w.ctx, 1))
		wrote, err := b.Wrote(w.ctx)
		if !wrote || err != nil {
			w.Fatalf("Wrote answered %v, %v", wrote, err)
		}
		w.mustPrepare(b)
		w.wantListed(b.xid, true)
		w.wantValue(1, 0)
		w.must(b.Commit(w.ctx))
		w.wantValue(1, 1)
		w.wantListed(b.xid, false)

		b = w.prepared(w.res, 1)
		w.must(b.Rollback(w.ctx))
		w.wantValue(1, 1)
		w.wantListed(b.xid, false)
		w.wantClean(w.pool)
	})
}

// The first statement may be of any form; its result is its own, not XA START's.
func TestFirstStatementsResult(t *testing.T) {
	eachKind(t, func(w *world) {
		first := map[string]func(db *sql.DB) error{
			"exec": func(db *sql.DB) error {
				res, err := db.ExecContext(w.ctx, "UPDATE t SET v = v + 1 WHERE id IN (1, 2)")
				return rowsAffected(res, err, 2)
			},
			"exec with arguments": func(db *sql.DB) error {
				res, err := db.ExecContext(w.ctx, "UPDATE t SET v = v + ? WHERE id IN (1, ?)", 1, 2)
				return rowsAffected(res, err, 2)
			},
			"query": func(db *sql.DB) error { return rowsRead(db.QueryContext(w.ctx, "SELECT id FROM t WHERE id < 4")) },
			"query with arguments": func(db *sql.DB) error {
				return rowsRead(db.QueryContext(w.ctx, "SELECT id FROM t WHERE id < ?", 4))
			},
			"no rows": func(db *sql.DB) error {
				err := db.QueryRowContext(w.ctx, "SELECT id FROM t WHERE id = 77").Scan(new(int))
				if errors.Is(err, sql.ErrNoRows) {
					return nil
				}
				return fmt.Errorf("want no rows, got: %w", err)
			},
			"prepared": func(db *sql.DB) error {
				s, err := db.PrepareContext(w.ctx, "UPDATE t SET v = v + 1 WHERE id = ?")
				if err != nil {
					return err
				}
				defer func() { _ = s.Close() }()
				res, err := s.ExecContext(w.ctx, 1)
				return rowsAffected(res, err, 1)
			},
		}
		for name, f := range first {
			b := w.begin(w.res)
			if err := f(b.db); err != nil {
				w.Fatalf("%s: %v", name, err)
			}
			w.must(b.Rollback(w.ctx))
		}
		w.wantValue(1, 0)
		w.wantValue(2, 0)
		w.wantClean(w.pool)
	})
}

func rowsAffected(res sql.Result, err error, want int64) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if n != want && err == nil {
		return fmt.Errorf("%d rows affected, want %d", n, want)
	}
	return err
}

func rowsRead(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for want := 1; rows.Next(); want++ {
		var id int
		if err := rows.Scan(&id); err != nil {
			return err
		}
		if id != want {
			return fmt.Errorf("read %d, want %d", id, want)
		}
		if want > 3 {
			return errors.New("too many rows")
		}
	}
	return rows.Err()
}

// R9: these servers undo the failed statement alone and would commit the rest.
func TestStatementErrorMakesRollbackOnly(t *testing.T) {
	eachKind(t, func(w *world) {
		for _, first := range []bool{true, false} {
			b := w.begin(w.res)
			if !first {
				w.must(b.add(w.ctx, 1))
			}
			if _, err := b.db.ExecContext(w.ctx, "INSERT INTO t VALUES (1, 0)"); !isCode(err, codeDuplicateKey) {
				w.Fatalf("got %v, want a duplicate key", err)
			}
			if err := b.add(w.ctx, 2); err == nil {
				w.Fatal("a branch that failed goes on")
			}
			if vote, err := b.Prepare(w.ctx, b.xid); vote != troth.VoteRollback || !isCode(err, codeDuplicateKey) {
				w.Fatalf("Prepare answered %v, %v", vote, err)
			}
			w.wantListed(b.xid, false)
			w.wantValue(1, 0)
		}
		b := w.begin(w.res)
		w.must(b.add(w.ctx, 1))
		_, _ = b.db.ExecContext(w.ctx, "INSERT INTO t VALUES (1, 0)")
		if outcome, err := b.CommitDeciding(w.ctx, w.decision(b)); outcome != troth.Aborted || err == nil {
			w.Fatalf("CommitDeciding answered %v, %v", outcome, err)
		}
		w.wantValue(1, 0)
		w.wantClean(w.pool)
	})
}

func TestSavepointUndoesAnError(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.begin(w.res)
		w.must(b.add(w.ctx, 1))
		nested, err := b.db.BeginTx(w.ctx, nil)
		w.must(err)
		if _, err := nested.ExecContext(w.ctx, "INSERT INTO t VALUES (1, 0)"); !isCode(err, codeDuplicateKey) {
			w.Fatalf("got %v, want a duplicate key", err)
		}
		w.must(nested.Rollback())
		w.must(b.add(w.ctx, 2))
		w.mustPrepare(b)
		w.must(b.Commit(w.ctx))
		w.wantValue(1, 1)
		w.wantValue(2, 1)
	})
}

// The server rolls the whole branch of a deadlock victim back at once, and then
// answers 1399 to everything but XA ROLLBACK.
func TestDeadlockVictim(t *testing.T) {
	eachKind(t, func(w *world) {
		a, b := w.begin(w.res), w.begin(w.res)
		w.must(a.add(w.ctx, 1))
		w.must(b.add(w.ctx, 2))
		errs := make(chan error, 2)
		go func() { errs <- a.add(w.ctx, 2) }()
		go func() { errs <- b.add(w.ctx, 1) }()
		first, second := <-errs, <-errs
		victim := errors.Join(first, second)
		if !isCode(victim, codeDeadlock) || first != nil && second != nil {
			w.Fatalf("got %v and %v, want one deadlock", first, second)
		}
		votes := map[troth.Vote]int{}
		for _, x := range []*testBranch{a, b} {
			vote, err := x.Prepare(w.ctx, x.xid)
			votes[vote]++
			var be *troth.BranchError
			if vote == troth.VoteRollback && (!errors.As(err, &be) || !be.Transient) {
				w.Fatalf("the victim's vote comes with %v, not marked transient", err)
			}
			w.must(x.Rollback(w.ctx))
		}
		if votes[troth.VoteCommit] != 1 || votes[troth.VoteRollback] != 1 {
			w.Fatalf("votes are %v", votes)
		}
		w.wantValue(1, 0)
		w.wantValue(2, 0)
		w.wantClean(w.pool)
	})
}

func TestLockWaitTimeout(t *testing.T) {
	eachKind(t, func(w *world) {
		holder := w.begin(w.res)
		w.must(holder.add(w.ctx, 1))
		b := w.begin(w.res)
		w.must(b.add(w.ctx, 2))
		_, err := b.db.ExecContext(w.ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT")
		if !isCode(err, codeLockWait) {
			w.Fatalf("got %v, want a lock wait timeout", err)
		}
		vote, err := b.Prepare(w.ctx, b.xid)
		var be *troth.BranchError
		if vote != troth.VoteRollback || !errors.As(err, &be) || !be.Transient {
			w.Fatalf("Prepare answered %v, %v", vote, err)
		}
		w.wantValue(2, 0)
		w.must(holder.Rollback(w.ctx))
		w.wantClean(w.pool)
	})
}

func TestTextsThatWouldEndTheBranch(t *testing.T) {
	eachKind(t, func(w *world) {
		for _, text := range []string{
			"COMMIT", "ROLLBACK", "BEGIN", "CREATE TABLE u (id INT)", "TRUNCATE t", "XA END 'x'", "SET autocommit = 0",
			"LOCK TABLES t WRITE", "ALTER TABLE t ADD COLUMN w INT",
		} {
			b := w.begin(w.res)
			w.must(b.add(w.ctx, 1))
			if _, err := b.db.ExecContext(w.ctx, text); err == nil {
				w.Fatalf("%s was let through", text)
			}
			w.must(b.Rollback(w.ctx))
		}
		w.wantValue(1, 0)
		w.wantClean(w.pool)
	})
}

func TestReadOnlyBranchTakesNoPart(t *testing.T) {
	eachKind(t, func(w *world) {
		for text, want := range map[string]bool{
			"":                                      false,
			"SELECT v FROM t WHERE id = 1":          false,
			"SELECT COUNT(*), MAX(v), NOW() FROM t": false,
			"SELECT v FROM t WHERE id = 1 FOR UPDATE": true,
			"UPDATE t SET v = v WHERE id = 1":         true,
		} {
			b := w.begin(w.res)
			if text != "" {
				w.must(rowsIgnored(b.db.QueryContext(w.ctx, text)))
			}
			if wrote, err := b.Wrote(w.ctx); wrote != want || err != nil {
				w.Fatalf("%q: Wrote answered %v, %v", text, wrote, err)
			}
			w.must(b.Release(w.ctx))
		}
		w.wantClean(w.pool)
	})
}

func rowsIgnored(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	return errors.Join(rows.Err(), rows.Close())
}

// A branch that only locks would be an empty shell once its session is gone: the
// witness row makes its lock last.
func TestWitnessMakesLocksLast(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.begin(w.res)
		w.must(rowsIgnored(b.db.QueryContext(w.ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE")))
		w.mustPrepare(b)
		b.Close()
		w.until("the session is gone", func() bool { return w.session(b.thread) == nil })
		if _, err := w.outside.ExecContext(w.ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT"); !isCode(err, codeLockWait) {
			w.Fatalf("got %v: the lock of a prepared branch is gone", err)
		}
		w.must(w.finish(w.res, b, troth.Committed, b.Evidence()))
		w.must(rowsIgnored(w.outside.QueryContext(w.ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT")))
	})
}

func TestIsolation(t *testing.T) {
	eachKind(t, func(w *world) {
		read := func(b *testBranch) (v int) {
			w.must(b.db.QueryRowContext(w.ctx, "SELECT v FROM t WHERE id = 1").Scan(&v))
			return v
		}
		for level, want := range map[sql.IsolationLevel]int{sql.LevelDefault: 0, sql.LevelReadCommitted: 1, sql.LevelRepeatableRead: 0} {
			w.exec("UPDATE t SET v = 0 WHERE id = 1")
			b := w.beginAt(w.res, level)
			before := read(b)
			w.exec("UPDATE t SET v = 1 WHERE id = 1")
			if got := read(b); before != 0 || got != want {
				w.Fatalf("%v: read %d, then %d", level, before, got)
			}
			w.must(b.Release(w.ctx))
		}

		b := w.beginAt(w.res, sql.LevelSerializable)
		read(b)
		if err := rowsIgnored(w.outside.QueryContext(w.ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT")); !isCode(err, codeLockWait) {
			w.Fatalf("serializable: a row that was read is not locked: %v", err)
		}
		w.must(b.Release(w.ctx))

		b = w.beginAt(w.res, sql.LevelLinearizable)
		if _, err := b.db.ExecContext(w.ctx, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "isolation") {
			w.Fatalf("an unknown level gives %v", err)
		}
		w.must(b.Rollback(w.ctx))
		w.wantClean(w.pool)
	})
}

func TestHomeDecides(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.begin(w.res)
		w.must(b.add(w.ctx, 1))
		if outcome, err := b.CommitDeciding(w.ctx, w.decision(b)); outcome != troth.Committed || err != nil {
			w.Fatalf("CommitDeciding answered %v, %v", outcome, err)
		}
		w.wantValue(1, 1)
		if outcome, err := w.res.Decisions().Lookup(w.ctx, b.xid.GID); outcome != troth.Committed || err != nil {
			w.Fatalf("Lookup answered %v, %v", outcome, err)
		}

		// After a duplicate key the server would still commit the rest.
		b = w.begin(w.res)
		w.must(b.add(w.ctx, 1))
		_, err := w.res.Decisions().Decide(w.ctx, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
		w.must(err)
		if outcome, err := b.CommitDeciding(w.ctx, w.decision(b)); outcome != troth.Aborted || !isCode(err, codeDuplicateKey) {
			w.Fatalf("CommitDeciding answered %v, %v", outcome, err)
		}
		w.wantValue(1, 1)
		w.wantClean(w.pool)
	})
}

// lostReplies are the ways in which a request or its answer can be lost.
var lostReplies = map[string]cutproxy.Place{
	"before": cutproxy.BeforeServer, "after": cutproxy.AfterAnswer,
	"stranded before": cutproxy.StrandedBefore, "stranded after": cutproxy.StrandedAfter,
}

func TestLostReplyOfPrepare(t *testing.T) {
	eachKind(t, func(w *world) {
		for name, place := range lostReplies {
			for _, outcome := range []troth.Outcome{troth.Aborted, troth.Committed} {
				proxy, dsn := throughProxy(w.T, w.dsn)
				r, _ := w.resource("porthos", dsn, true)
				b := w.begin(r)
				before := w.int("SELECT v FROM t WHERE id = 1")
				w.must(b.add(w.ctx, 1))
				cut := proxy.Cut(place, "XA PREPARE", 1)
				vote, err := b.Prepare(w.ctx, b.xid)
				<-cut
				if vote != troth.VoteUnknown || err == nil {
					w.Fatalf("%s: Prepare answered %v, %v", name, vote, err)
				}
				b.Close()
				// The core never commits such a branch; an operator might.
				err = w.finish(r, b, outcome, b.Evidence())
				var h *troth.HeuristicError
				switch ended := place == cutproxy.AfterAnswer || place == cutproxy.StrandedAfter; {
				case outcome == troth.Aborted:
					w.must(err)
					w.wantValue(1, before)
				case !ended && !errors.As(err, &h):
					w.Fatalf("%s: commit of a branch that was never prepared: %v", name, err)
				case ended && err == nil:
					w.wantValue(1, before+1)
				case ended && !errors.As(err, &h): // the kill may have come before the server acted
					w.Fatalf("%s: %v", name, err)
				}
				w.wantListed(b.xid, false)
			}
		}
		w.exec("ALTER TABLE t COMMENT = 'nobody holds it'")
	})
}

func TestLostReplyOfCommit(t *testing.T) {
	eachKind(t, func(w *world) {
		for name, place := range lostReplies {
			proxy, dsn := throughProxy(w.T, w.dsn)
			r, _ := w.resource("porthos", dsn, true)
			before := w.int("SELECT v FROM t WHERE id = 1")
			b := w.prepared(r, 1)
			cut := proxy.Cut(place, "XA COMMIT", 1)
			if err := b.Commit(w.ctx); err == nil {
				w.Fatalf("%s: Commit says that it was acknowledged", name)
			}
			<-cut
			b.Close()
			w.must(w.finish(r, b, troth.Committed, b.Evidence()))
			w.wantValue(1, before+1)
			w.wantListed(b.xid, false)
		}
	})
}

func TestLostReplyOfDecision(t *testing.T) {
	eachKind(t, func(w *world) {
		for name, place := range lostReplies {
			proxy, dsn := throughProxy(w.T, w.dsn)
			r, _ := w.resource("porthos", dsn, true)
			before := w.int("SELECT v FROM t WHERE id = 1")
			b := w.begin(r)
			w.must(b.add(w.ctx, 1))
			cut := proxy.Cut(place, "ONE PHASE", 1)
			outcome, err := b.CommitDeciding(w.ctx, w.decision(b))
			if outcome != troth.Undecided || err == nil {
				w.Fatalf("%s: CommitDeciding answered %v, %v", name, outcome, err)
			}
			<-cut
			b.Close()
			outcome, err = r.Decisions().Decide(w.ctx, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
			w.must(err)
			w.wantAgreement(name, place, outcome, before)
		}
	})
}

// wantAgreement checks that row 1 was changed exactly if the outcome is commit.
func (w *world) wantAgreement(name string, place cutproxy.Place, outcome troth.Outcome, before int) {
	w.Helper()
	if place != cutproxy.StrandedAfter && outcome == troth.Committed != (place == cutproxy.AfterAnswer) {
		w.Fatalf("%s: the outcome is %v", name, outcome)
	}
	if outcome == troth.Committed {
		before++
	}
	w.wantValue(1, before)
}

// Without a decision table the witness settles a lost one-phase commit.
func TestLostReplyOfSoleBranch(t *testing.T) {
	eachKind(t, func(w *world) {
		for name, place := range lostReplies {
			proxy, dsn := throughProxy(w.T, w.dsn)
			r, _ := w.resource("porthos", dsn, false)
			if r.Can()&troth.CanDecide != 0 || r.Decisions() != nil {
				w.Fatal("has decisions that nobody asked for")
			}
			before := w.int("SELECT v FROM t WHERE id = 1")
			b := w.begin(r)
			w.must(b.add(w.ctx, 1))
			cut := proxy.Cut(place, "ONE PHASE", 1)
			outcome, err := b.CommitDeciding(w.ctx, w.decision(b))
			if outcome != troth.Undecided || err == nil {
				w.Fatalf("%s: CommitDeciding answered %v, %v", name, outcome, err)
			}
			<-cut
			b.Close()
			w.until("the branch is settled", func() bool {
				outcome, err = b.Settle(w.ctx)
				return err == nil
			})
			w.wantAgreement(name, place, outcome, before)
		}
	})
}

// A statement whose context ends goes on in the server: Rollback ends it there,
// and with it the locks that others wait for.
func TestCancelledStatementIsEnded(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.begin(w.res)
		w.must(b.add(w.ctx, 1))
		ctx, cancel := context.WithCancel(w.ctx)
		running := make(chan error)
		go func() { running <- rowsIgnored(b.db.QueryContext(ctx, "SELECT SLEEP(60) FROM t WHERE id = 1")) }()
		w.until("the statement runs", func() bool {
			p := w.session(b.thread)
			return p != nil && strings.Contains(p.info, "SLEEP")
		})
		cancel()
		if err := <-running; err == nil {
			w.Fatal("a cancelled statement succeeded")
		}
		w.must(b.Rollback(w.ctx))
		w.must(rowsIgnored(w.outside.QueryContext(w.ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT")))
		w.wantClean(w.pool)
	})
}

func TestSessionKilled(t *testing.T) {
	eachKind(t, func(w *world) {
		idle := w.begin(w.res)
		w.kill(idle.thread)
		w.must(idle.Rollback(w.ctx))

		active := w.begin(w.res)
		w.must(active.add(w.ctx, 1))
		w.kill(active.thread)
		if vote, err := active.Prepare(w.ctx, active.xid); vote == troth.VoteCommit || err == nil {
			w.Fatalf("Prepare on a killed session answered %v, %v", vote, err)
		}
		w.must(active.Rollback(w.ctx))
		w.wantValue(1, 0)

		b := w.prepared(w.res, 1)
		w.kill(b.thread)
		if err := b.Commit(w.ctx); err == nil {
			w.Fatal("Commit on a killed session says that it was acknowledged")
		}
		b.Close()
		w.must(w.finish(w.res, b, troth.Committed, b.Evidence()))
		w.wantValue(1, 1)

		b = w.prepared(w.res, 1)
		w.kill(b.thread)
		w.must(b.Rollback(w.ctx))
		w.wantValue(1, 1)
		w.wantListed(b.xid, false)
		w.wantClean(w.pool)
	})
}

// R5: the server ends a session that idles in a transaction.
func TestIdleLimit(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.begin(w.res)
		var seconds int
		w.must(b.db.QueryRowContext(w.ctx, "SELECT @@SESSION.idle_transaction_timeout").Scan(&seconds))
		if seconds != int(time.Hour/time.Second) {
			w.Fatalf("the limit is %d seconds, want an hour", seconds)
		}
		w.must(b.Release(w.ctx))
	})
}

func TestSmallPools(t *testing.T) {
	eachKind(t, func(w *world) {
		for _, size := range []int{1, 2} {
			r, _ := w.resource("porthos", w.dsn, true, func(pool *sql.DB) { pool.SetMaxOpenConns(size) })
			for range 3 {
				b := w.prepared(r, 1)
				if !w.listed(r, b.xid) {
					w.Fatal("not listed")
				}
				b.Close()
				w.must(w.finish(r, b, troth.Aborted, ""))
			}
			var branches []*testBranch
			for i := range size {
				branches = append(branches, w.prepared(r, 1+i))
			}
			ctx, cancel := context.WithTimeout(w.ctx, 20*time.Millisecond)
			if _, err := r.Begin(ctx, troth.BranchConfig{Context: ctx}); !errors.Is(err, context.DeadlineExceeded) {
				w.Fatalf("an exhausted pool gives %v", err)
			}
			cancel()
			// Recovery still has a session.
			if !w.listed(r, branches[0].xid) {
				w.Fatal("not listed")
			}
			for _, b := range branches {
				w.must(b.Rollback(w.ctx))
			}
		}
		w.wantValue(1, 0)
	})
}
