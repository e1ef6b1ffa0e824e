package resourcetest

import (
	"errors"

	"github.com/troth-tx/troth"
)

// cutCases lose connections at the messages that matter (R3, R10).
var cutCases = []testCase{
	{name: "prepare", cut: true, needs: troth.CanPrepare, run: func(w *world) {
		w.eachCut(w.f.SQL.Messages.Prepare, func(id int, cut func()) {
			b := w.begin(w.res)
			w.must(add(w.ctx, b, id, 10))
			cut()
			vote, err := b.Prepare(w.ctx, b.xid)
			if vote != troth.VoteCommit && err == nil {
				w.Fatalf("the vote is %v without an error", vote)
			}
			if vote == troth.VoteRollback {
				w.wantListed(w.res, b.xid, false)
			}
			// What the Manager does then.
			if b.Rollback(w.ctx) != nil {
				b.Close()
				if err := w.finish(w.res, b, troth.Aborted); err != nil && !errors.Is(err, troth.ErrNoEvidence) {
					w.Fatal(err)
				}
			}
			b.Close()
			w.wantListed(w.res, b.xid, false)
			w.wantBalance(id, balance)
		})
	}},
	{name: "commit", cut: true, needs: troth.CanPrepare, run: func(w *world) {
		w.eachCut(w.f.SQL.Messages.Commit, func(id int, cut func()) {
			b := w.prepared(w.res, id)
			cut()
			if b.Commit(w.ctx) != nil {
				b.Close()
				w.must(w.finish(w.res, b, troth.Committed))
			}
			w.wantBalance(id, balance+10)
			w.wantListed(w.res, b.xid, false)
		})
	}},
	{name: "decide", cut: true, needs: troth.CanDecide, run: func(w *world) {
		w.eachCut(w.f.SQL.Messages.Decide, func(id int, cut func()) {
			b := w.begin(w.res)
			w.must(add(w.ctx, b, id, 10))
			cut()
			first, err := b.CommitDeciding(w.ctx, decision(b))
			if err == nil && first != troth.Committed {
				w.Fatalf("CommitDeciding answered %v without an error", first)
			}
			b.Close()
			final, err := w.decide(w.res, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
			w.must(err)
			if first != troth.Undecided && first != final {
				w.Fatalf("CommitDeciding answered %v, the table has %v", first, final)
			}
			w.wantAgreement(id, balance, final)
		})
	}},
}

// eachCut runs f for each text and each place, with an account of its own.
func (w *world) eachCut(texts []string, f func(id int, cut func())) {
	w.Helper()
	if len(texts) == 0 {
		w.Fatal("the factory opens databases behind a proxy, but SQL.Messages is empty")
	}
	id := 1
	for _, text := range texts {
		for _, before := range []bool{true, false} {
			var acted <-chan struct{}
			f(id, func() { acted = w.db.Cut(before, text) })
			select {
			case <-acted:
			default:
				w.Fatalf("no message with %q came by (cut before the server: %v)", text, before)
			}
			w.wantUsable(w.pool)
			id++
		}
	}
}
