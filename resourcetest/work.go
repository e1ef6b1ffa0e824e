package resourcetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
)

// workCases are about statements in a branch, before anybody votes.
var workCases = []testCase{
	{name: "rollback undoes the work", run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.wantBalance(1, balance)
		w.end(b)
		w.wantBalance(1, balance)
		w.wantClean(w.pool, 1)
	}},
	{name: "a branch reads its own work", run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		got, err := b.Int(w.ctx, "select balance from account where id = 1")
		w.must(err)
		if got != balance+10 {
			w.Fatalf("the branch reads %d", got)
		}
		w.end(b)
	}},
	{name: "a branch without statements", run: func(w *world) {
		b := w.begin(w.res)
		wrote, err := b.Wrote(w.ctx)
		if wrote || err != nil {
			w.Fatalf("Wrote answered %v, %v", wrote, err)
		}
		w.must(b.Release(w.ctx))
		b.Close()
		w.wantClean(w.pool, 1)

		w.end(w.begin(w.res)) // rolled back as easily
	}},
	{name: "a failed statement spoils the branch", run: failedStatement}, // R9
	{name: "a savepoint repairs the branch", run: savepointRepairs},      // R9
	{name: "Wrote", run: wroteMatrix},
	{name: "a cancelled statement spoils nothing else", skip: needsSlow, run: cancelledStatement},
	{name: "the end of the branch's context cancels its statement", skip: needsSlow, run: cancelledBranch},
	{name: "a context cancelled beforehand", run: cancelledBefore},
	{name: "a killed session cannot commit", skip: needsKill, run: killedBeforeVote},
	{name: "no statement after Wrote", run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		if _, err := b.Wrote(w.ctx); err != nil {
			w.Fatal(err)
		}
		if err := add(w.ctx, b, 2, 10); err == nil {
			w.Fatal("a statement ran after the work was over")
		}
		w.end(b)
	}},
	{name: "the handle is dead after the end", run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.end(b)
		if err := add(w.ctx, b, 2, 10); err == nil {
			w.Fatal("a statement ran after the end")
		}
		w.wantBalance(2, balance)
	}},
}

func needsSlow(f Factory) string {
	if f.SQL.Slow == "" {
		return "the factory has no slow query"
	}
	return ""
}

func needsKill(f Factory) string {
	if f.SQL.SessionID == "" || f.SQL.Kill == nil {
		return "sessions cannot be killed from outside"
	}
	return ""
}

func failedStatement(w *world) {
	endings := map[string]func(b *branch) error{
		"Prepare": func(b *branch) error {
			vote, err := b.Prepare(w.ctx, b.xid)
			if vote != troth.VoteRollback || err == nil {
				return fmt.Errorf("the vote is %v, %w", vote, err)
			}
			return nil
		},
		"CommitDeciding": func(b *branch) error {
			outcome, err := b.CommitDeciding(w.ctx, troth.Decision{GID: b.xid.GID, Outcome: troth.Committed})
			if outcome != troth.Aborted {
				return fmt.Errorf("the outcome is %v, %w", outcome, err)
			}
			return nil
		},
	}
	for name, ending := range endings {
		if name == "Prepare" && w.f.Can&troth.CanPrepare == 0 {
			continue
		}
		for _, askFirst := range []bool{true, false} {
			b := w.begin(w.res)
			w.must(add(w.ctx, b, 1, 10))
			failure := fail(w.ctx, b)
			if failure == nil {
				w.Fatal("the database has no check constraints")
			}
			_ = add(w.ctx, b, 2, 10) // whether this works differs
			if askFirst {
				if _, err := b.Wrote(w.ctx); err == nil {
					w.Fatal("Wrote does not tell of the failed statement")
				}
			}
			if err := ending(b); err != nil {
				w.Fatalf("%s after a failed statement: %v", name, err)
			}
			w.end(b)
			if w.f.Can&troth.CanPrepare != 0 {
				w.wantListed(w.res, b.xid, false)
			}
			w.wantBalance(1, balance)
			w.wantBalance(2, balance)
		}
	}
	w.wantClean(w.pool, 1)
}

func savepointRepairs(w *world) {
	b := w.begin(w.res)
	w.must(add(w.ctx, b, 1, 10))
	undone := errors.New("undone")
	err := b.Nested(w.ctx, func(s Session) error {
		if err := add(w.ctx, s, 2, 10); err != nil {
			return fmt.Errorf("behind the savepoint: %w", err)
		}
		if err := fail(w.ctx, s); err == nil {
			return errors.New("the database has no check constraints")
		}
		return undone
	})
	if !errors.Is(err, undone) {
		w.Fatal(err)
	}
	w.must(b.Nested(w.ctx, func(s Session) error { return add(w.ctx, s, 3, 10) }))
	if _, err := b.Wrote(w.ctx); err != nil {
		w.Fatalf("the branch is still spoilt: %v", err)
	}
	w.commit(b)
	w.wantBalance(1, balance+10)
	w.wantBalance(2, balance)
	w.wantBalance(3, balance+10)
}

// commit ends the branch in the way that its resource knows.
func (w *world) commit(b *branch) {
	w.Helper()
	if w.f.Can&troth.CanPrepare != 0 {
		w.mustPrepare(b)
		w.must(b.Commit(w.ctx))
		return
	}
	outcome, err := b.CommitDeciding(w.ctx, troth.Decision{GID: b.xid.GID, Outcome: troth.Committed})
	if outcome != troth.Committed || err != nil {
		w.Fatalf("CommitDeciding answered %v, %v", outcome, err)
	}
}

func wroteMatrix(w *world) {
	type work struct {
		name string
		do   func(s Session) error
		want bool
	}
	query := func(text string) func(Session) error {
		return func(s Session) error {
			_, err := s.Int(w.ctx, text)
			return err
		}
	}
	works := []work{
		{"select", query("select balance from account where id = 1"), false},
		{"update", func(s Session) error { return add(w.ctx, s, 1, 10) }, true},
		{"update of no row", func(s Session) error { return add(w.ctx, s, accounts+1, 10) }, w.f.SQL.UnsureOfNoRows},
		{"insert", func(s Session) error { return s.Exec(w.ctx, "insert into account values (1000, 1)") }, true},
		{"delete", func(s Session) error { return s.Exec(w.ctx, "delete from account where id = 7") }, true},
		{"update behind a savepoint", func(s Session) error {
			return s.Nested(w.ctx, func(s Session) error { return add(w.ctx, s, 1, 10) })
		}, true},
		{"select after update", func(s Session) error {
			return errors.Join(add(w.ctx, s, 1, 10), query("select balance from account where id = 1")(s))
		}, true},
	}
	if w.f.SQL.ForUpdate != "" {
		works = append(works, work{"select for update", query("select balance from account where id = 1" + w.f.SQL.ForUpdate), true})
	}
	if w.f.SQL.Returning {
		works = append(works, work{"insert returning", query("insert into account values (1001, 1) returning id"), true})
	}
	for _, work := range works {
		b := w.begin(w.res)
		if err := work.do(b); err != nil {
			w.Fatalf("%s: %v", work.name, err)
		}
		wrote, err := b.Wrote(w.ctx)
		if err != nil {
			w.Fatalf("%s: Wrote: %v", work.name, err)
		}
		if wrote != work.want {
			w.Errorf("%s: Wrote answered %v, want %v", work.name, wrote, work.want)
		}
		if wrote {
			w.end(b)
		} else {
			w.must(b.Release(w.ctx))
		}
		w.wantClean(w.pool, 2)
	}
	w.wantBalance(1, balance)
}

func cancelledStatement(w *world) {
	b := w.begin(w.res)
	w.must(add(w.ctx, b, 1, 10))
	ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := b.Int(ctx, w.f.SQL.Slow); err == nil {
		w.Fatal("the slow query was not slow")
	}
	w.wantQuick(began)
	if _, err := b.Wrote(w.ctx); err == nil {
		w.Fatal("Wrote does not tell of the cancelled statement")
	}
	w.end(b)
	w.wantBalance(1, balance)
	w.wantClean(w.pool, 1)
}

func cancelledBranch(w *world) {
	b := w.begin(w.res)
	w.must(add(w.ctx, b, 1, 10))
	time.AfterFunc(100*time.Millisecond, b.cancel)
	began := time.Now()
	if _, err := b.Int(w.ctx, w.f.SQL.Slow); err == nil {
		w.Fatal("the slow query was not slow")
	}
	w.wantQuick(began)
	w.end(b)
	w.wantBalance(1, balance)
	w.wantClean(w.pool, 1)
}

func (w *world) wantQuick(began time.Time) {
	w.Helper()
	if took := time.Since(began); took > time.Minute {
		w.Fatalf("it took %v", took)
	}
}

func cancelledBefore(w *world) {
	dead, cancel := context.WithCancel(w.ctx)
	cancel()
	b, err := w.tryBegin(dead, w.res, troth.NewGID(domain, time.Now()))
	if err != nil {
		return // refused at once, and nothing is held
	}
	if err := add(dead, b, 1, 10); err == nil {
		w.Fatal("a statement ran with a context that had ended")
	}
	w.end(b)
	w.wantBalance(1, balance)
	w.wantClean(w.pool, 1)
}

func killedBeforeVote(w *world) {
	for _, deciding := range []bool{false, true} {
		if !deciding && w.f.Can&troth.CanPrepare == 0 {
			continue
		}
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.kill(b)
		if deciding {
			outcome, err := b.CommitDeciding(w.ctx, troth.Decision{GID: b.xid.GID, Outcome: troth.Committed})
			if outcome == troth.Committed || err == nil {
				w.Fatalf("CommitDeciding answered %v, %v on a killed session", outcome, err)
			}
		} else if vote, err := b.Prepare(w.ctx, b.xid); vote == troth.VoteCommit || err == nil {
			w.Fatalf("Prepare answered %v, %v on a killed session", vote, err)
		}
		_ = b.Rollback(w.ctx) // may not know
		b.Close()
		if w.f.Can&troth.CanPrepare != 0 {
			w.wantListed(w.res, b.xid, false)
		}
		w.wantBalance(1, balance)
		w.wantClean(w.pool, 2)
	}
}

// kill ends the branch's session from outside.
func (w *world) kill(b *branch) {
	w.Helper()
	id, err := b.Int(w.ctx, w.f.SQL.SessionID)
	w.must(err)
	w.killSession(id)
}

func (w *world) killSession(id int64) {
	w.Helper()
	w.outside(w.f.SQL.Kill(id))
}
