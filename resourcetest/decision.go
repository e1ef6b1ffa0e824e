package resourcetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"

	"github.com/troth-tx/troth"
)

// decisionCases are about the home participant: the branch's own commit is the
// decision.
var decisionCases = []testCase{
	{name: "commit writes the record with the work", needs: troth.CanDecide, run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.wantOutcome(w.res, b.xid.GID, troth.Undecided)
		w.decideCommit(b)
		w.wantBalance(1, balance+10)
		b.Close()

		other, _ := w.open("bank", 0)
		if other.Decisions().Identity() != w.res.Decisions().Identity() {
			w.Fatal("two processes know one table by two identities")
		}
		w.wantOutcome(other, b.xid.GID, troth.Committed)
		outcome, err := w.decide(other, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
		if outcome != troth.Committed || err != nil {
			w.Fatalf("abort after commit: Decide answered %v, %v", outcome, err)
		}
		w.wantRecord(other, b.xid.GID)
		w.wantClean(w.pool, 1)
	}},
	{name: "the first abort record wins", needs: troth.CanDecide, run: func(w *world) {
		b := w.begin(w.res)
		other, _ := w.open("bank", 0)
		if !w.f.OneWriter { // else the branch would keep the recoverer waiting
			w.must(add(w.ctx, b, 1, 10))
		}
		outcome, err := w.decide(other, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
		if outcome != troth.Aborted || err != nil {
			w.Fatalf("Decide answered %v, %v", outcome, err)
		}
		w.must(add(w.ctx, b, 2, 10))
		outcome, err = b.CommitDeciding(w.ctx, decision(b))
		if outcome != troth.Aborted {
			w.Fatalf("commit after abort: CommitDeciding answered %v, %v", outcome, err)
		}
		w.end(b)
		w.wantBalance(1, balance)
		w.wantBalance(2, balance)
		w.wantOutcome(w.res, b.xid.GID, troth.Aborted)
		w.wantClean(w.pool, 1)
	}},
	{name: "racing a recoverer", needs: troth.CanDecide, run: raceRecoverer},
	{name: "a branch without statements can be home", needs: troth.CanDecide, run: func(w *world) {
		b := w.begin(w.res)
		w.decideCommit(b)
		w.wantOutcome(w.res, b.xid.GID, troth.Committed)
		w.wantClean(w.pool, 1)
	}},
	{name: "a cancelled context decides nothing by itself", needs: troth.CanDecide, run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		dead, cancel := context.WithCancel(w.ctx)
		cancel()
		first, _ := b.CommitDeciding(dead, decision(b))
		b.Close()
		final, err := w.decide(w.res, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
		w.must(err)
		if first != troth.Undecided && first != final {
			w.Fatalf("CommitDeciding answered %v, the table has %v", first, final)
		}
		w.wantAgreement(1, balance, final)
		w.wantClean(w.pool, 2)
	}},
}

func decision(b *branch) troth.Decision {
	return troth.Decision{
		GID: b.xid.GID, Outcome: troth.Committed,
		Branches: []troth.BranchRecord{{Resource: "elsewhere", Branch: 2, Evidence: "4711"}, {Resource: "far", Branch: 3}},
	}
}

func (w *world) decideCommit(b *branch) {
	w.Helper()
	outcome, err := b.CommitDeciding(w.ctx, decision(b))
	if outcome != troth.Committed || err != nil {
		w.Fatalf("CommitDeciding answered %v, %v", outcome, err)
	}
}

func (w *world) wantOutcome(r troth.Resource, gid troth.GID, want troth.Outcome) {
	w.Helper()
	var got troth.Outcome
	var err error
	w.until(func() bool {
		got, err = r.Decisions().Lookup(w.ctx, gid)
		return err == nil
	})
	if got != want || err != nil {
		w.Fatalf("Lookup answered %v, %v, want %v", got, err, want)
	}
}

// wantRecord checks what recovery will read.
func (w *world) wantRecord(r troth.Resource, gid troth.GID) {
	w.Helper()
	list, err := r.Decisions().Committed(w.ctx, 0, "", 100)
	w.must(err)
	for _, d := range list {
		if d.GID == gid {
			if got, want := troth.EncodeBranches(d.Branches), "elsewhere.2=4711 far.3="; got != want {
				w.Fatalf("the record names %q, want %q", got, want)
			}
			return
		}
	}
	w.Fatalf("no record of %s in %+v", gid, list)
}

// wantAgreement checks that the work is there exactly if the table says commit.
func (w *world) wantAgreement(id int, before int64, outcome troth.Outcome) {
	w.Helper()
	switch outcome {
	case troth.Committed:
		w.wantBalance(id, before+10)
	case troth.Aborted:
		w.wantBalance(id, before)
	case troth.Undecided:
		w.Fatal("the table has no decision")
	}
}

// raceRecoverer lets a recoverer abort while the home commits. Whoever wins, the
// two agree with each other and with the data.
func raceRecoverer(w *world) {
	const rounds = 40
	other, _ := w.open("bank", 0)
	seen := make(map[troth.Outcome]int)
	for range rounds {
		before := w.balance(1)
		b := w.begin(w.res)
		work := func() {
			if err := add(w.ctx, b, 1, 10); err != nil {
				w.Error(err)
			}
		}
		if !w.f.OneWriter { // else the recoverer would never be first
			work()
		}
		var home, recoverer troth.Outcome
		var homeErr, recovererErr error
		var both sync.WaitGroup
		both.Go(func() {
			recoverer, recovererErr = w.decide(other, troth.Decision{GID: b.xid.GID, Outcome: troth.Aborted})
		})
		both.Go(func() {
			if w.f.OneWriter {
				work()
			}
			home, homeErr = b.CommitDeciding(w.ctx, decision(b))
		})
		both.Wait()
		w.must(recovererErr)
		if home != recoverer {
			w.Fatalf("the home says %v (%v), the recoverer %v", home, homeErr, recoverer)
		}
		if home == troth.Aborted {
			w.must(b.Rollback(w.ctx))
		}
		b.Close()
		w.wantAgreement(1, before, recoverer)
		seen[home]++
	}
	w.Logf("after %d rounds: %v", rounds, seen)
	w.wantClean(w.pool, 1)
}

// discard closes a session instead of giving it back to its pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // that is the answer that closes it
	_ = conn.Close()                                           // closed already
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part)) ||
		strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", part))
}
