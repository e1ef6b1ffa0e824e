package resourcetest

import (
	"errors"

	"github.com/troth-tx/troth"
)

// crashCases kill the server.
var crashCases = []testCase{
	{name: "an acknowledged vote survives", crash: true, needs: troth.CanPrepare, run: func(w *world) {
		commit, abort := w.prepared(w.res, 1), w.prepared(w.res, 2)
		active := w.begin(w.res)
		w.must(add(w.ctx, active, 3, 10))

		w.crash()

		other, _ := w.open("bank", 0)
		w.wantListed(other, commit.xid, true)
		w.wantListed(other, abort.xid, true)
		w.must(w.finish(other, commit, troth.Committed))
		if err := w.finish(other, abort, troth.Aborted); err != nil && !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatal(err)
		}
		w.wantBalance(1, balance+10)
		w.wantBalance(2, balance)
		w.wantBalance(3, balance)
		for _, b := range []*branch{commit, abort, active} {
			b.Close()
		}
		w.wantUsable(w.pool)
	}},
	{name: "an acknowledged commit survives", crash: true, needs: troth.CanPrepare, run: func(w *world) {
		b := w.prepared(w.res, 1)
		w.must(b.Commit(w.ctx))
		w.crash()
		w.wantBalance(1, balance+10)
		other, _ := w.open("bank", 0)
		w.wantListed(other, b.xid, false)
		w.must(w.finish(other, b, troth.Committed))
	}},
	{name: "an acknowledged decision survives", crash: true, needs: troth.CanDecide, run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.decideCommit(b)
		abort := troth.Decision{GID: w.begin(w.res).xid.GID, Outcome: troth.Aborted}
		outcome, err := w.decide(w.res, abort)
		w.must(err)
		if outcome != troth.Aborted {
			w.Fatalf("Decide answered %v", outcome)
		}

		w.crash()

		w.wantBalance(1, balance+10)
		other, _ := w.open("bank", 0)
		w.wantOutcome(other, b.xid.GID, troth.Committed)
		w.wantOutcome(other, abort.GID, troth.Aborted)
	}},
}

// wantUsable checks that a pool recovers from the loss of its sessions.
func (w *world) wantUsable(pool Session) {
	w.Helper()
	var err error
	if !w.until(func() bool {
		_, err = pool.Int(w.ctx, "select balance from account where id = 1")
		return err == nil
	}) {
		w.Fatal(err)
	}
}

// crash kills the server, and lets the test's own pool know that its sessions
// died: not every driver finds out before it is too late to try again.
func (w *world) crash() {
	w.Helper()
	w.db.Outside.SetMaxIdleConns(0)
	w.db.Crash(w.T)
	w.db.Outside.SetMaxIdleConns(2)
}
