package resourcetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
)

// voteCases are about the two phases on the branch's own session.
var voteCases = []testCase{
	{name: "prepare then commit", needs: troth.CanPrepare, run: func(w *world) {
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.wantBalance(1, balance)
		if wrote, err := b.Wrote(w.ctx); !wrote || err != nil {
			w.Fatalf("Wrote answered %v, %v", wrote, err)
		}
		w.mustPrepare(b)
		w.wantBalance(1, balance)
		w.must(b.Commit(w.ctx))
		w.wantBalance(1, balance+10)
		w.wantListed(w.res, b.xid, false)
		b.Close()
		w.wantClean(w.pool, 1)
	}},
	{name: "prepare then rollback", needs: troth.CanPrepare, run: func(w *world) {
		b := w.prepared(w.res, 1)
		w.end(b)
		w.wantBalance(1, balance)
		w.wantListed(w.res, b.xid, false)
		w.wantClean(w.pool, 1)
	}},
	{name: "prepare without Wrote before", needs: troth.CanPrepare, run: func(w *world) {
		b := w.prepared(w.res, 1)
		w.must(b.Commit(w.ctx))
		w.wantBalance(1, balance+10)
	}},
	{name: "evidence is fit for a record", needs: troth.CanPrepare, run: func(w *world) {
		b := w.prepared(w.res, 1)
		record := troth.EncodeBranches([]troth.BranchRecord{{Resource: "bank", Branch: 1, Evidence: b.Evidence()}})
		back, err := troth.ParseBranches(record)
		if err != nil || back[0].Evidence != b.Evidence() {
			w.Fatalf("evidence %q does not survive a record: %v", b.Evidence(), err)
		}
		w.end(b)
	}},
	{name: "a name in use is refused, and the first branch unharmed", needs: troth.CanPrepare, run: nameInUse},
	{name: "names of two domains do not clash", needs: troth.CanPrepare, run: twoDomains},
	{name: "a resource that cannot prepare says so", run: func(w *world) {
		if w.f.Can&troth.CanPrepare != 0 {
			w.Skip("it can")
		}
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		vote, err := b.Prepare(w.ctx, b.xid)
		if vote != troth.VoteRollback || err == nil {
			w.Fatalf("Prepare answered %v, %v", vote, err)
		}
		w.end(b)
		w.wantBalance(1, balance)
		if list, err := w.res.Recover(w.ctx); len(list) != 0 || err != nil {
			w.Fatalf("Recover answered %v, %v", list, err)
		}
		if err := w.res.Finish(w.ctx, b.xid, troth.Committed, ""); err == nil {
			w.Fatal("Finish claims to have committed a branch that cannot be")
		}
	}},
}

func nameInUse(w *world) {
	first := w.prepared(w.res, 1)
	second, err := w.tryBegin(w.ctx, w.res, first.xid.GID)
	if err == nil {
		err = add(w.ctx, second, 2, 10)
	}
	if err == nil {
		var vote troth.Vote
		vote, err = second.Prepare(w.ctx, second.xid)
		if vote == troth.VoteCommit {
			w.Fatal("two branches of one name")
		}
	}
	if err == nil {
		w.Fatal("no error tells of the name in use")
	}
	if second != nil {
		// Close, not Rollback: rolling back by name would hit the first branch.
		second.Close()
	}
	w.wantListed(w.res, first.xid, true)
	w.must(first.Commit(w.ctx))
	w.wantBalance(1, balance+10)
	w.wantBalance(2, balance)
}

func twoDomains(w *world) {
	gid := troth.NewGID(domain, time.Now())
	id := string(gid)[len(domain):]
	var branches []*branch
	for i, d := range []string{"conformance", "conformanc", "conformance2"} {
		b, err := w.tryBegin(w.ctx, w.res, troth.GID(d+id))
		w.must(err)
		w.must(add(w.ctx, b, 1+i, 10))
		w.mustPrepare(b)
		branches = append(branches, b)
	}
	w.must(branches[0].Rollback(w.ctx))
	w.wantListed(w.res, branches[0].xid, false)
	w.wantListed(w.res, branches[1].xid, true)
	w.wantListed(w.res, branches[2].xid, true)
	w.must(branches[1].Commit(w.ctx))
	w.wantListed(w.res, branches[2].xid, true)
	w.must(branches[2].Commit(w.ctx))
	w.wantBalance(1, balance)
	w.wantBalance(2, balance+10)
	w.wantBalance(3, balance+10)
}

// recoveryCases are about branches whose session is lost.
var recoveryCases = []testCase{
	{name: "finish committed", needs: troth.CanPrepare, run: func(w *world) {
		b := w.orphan(1)
		other, _ := w.open("bank", 0)
		w.wantListed(other, b.xid, true)
		w.must(w.finish(other, b, troth.Committed))
		w.wantBalance(1, balance+10)
		w.wantListed(other, b.xid, false)
		w.must(w.finish(other, b, troth.Committed)) // a second time: positive evidence
		w.must(w.finish(w.res, b, troth.Committed))
		if err := w.finish(other, b, troth.Aborted); err == nil {
			w.Fatal("a committed branch passed for rolled back")
		}
		w.wantBalance(1, balance+10)
	}},
	{name: "finish aborted", needs: troth.CanPrepare, run: func(w *world) {
		b := w.orphan(1)
		other, _ := w.open("bank", 0)
		w.must(w.finish(other, b, troth.Aborted))
		w.wantBalance(1, balance)
		w.wantListed(other, b.xid, false)
		if err := w.finish(other, b, troth.Aborted); err != nil && !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatal(err)
		}
		if err := w.finish(other, b, troth.Committed); err == nil {
			w.Fatal("a rolled back branch passed for committed")
		}
		w.wantBalance(1, balance)
	}},
	{name: "the session is killed after the vote", needs: troth.CanPrepare, skip: needsKill, run: killedAfterVote},
	{name: "another process finishes while the session lives", needs: troth.CanPrepare, run: finishedUnderneath},
	{name: "an unknown branch is no evidence", needs: troth.CanPrepare, run: func(w *world) {
		xid := troth.XID{GID: troth.NewGID(domain, time.Now()), Place: troth.Place{Identity: "00000000"}, Branch: 1}
		b := &branch{Branch: noBranch{}, xid: xid}
		if err := w.finish(w.res, b, troth.Committed); !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatalf("Finish(Committed) of a branch that never was answered %v", err)
		}
		if err := w.finish(w.res, b, troth.Aborted); err != nil && !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatalf("Finish(Aborted) of a branch that never was answered %v", err)
		}
	}},
	{name: "rolled back by hand against the decision", needs: troth.CanPrepare, skip: needsHand, run: func(w *world) {
		b := w.orphan(1)
		w.byHand(b, troth.Aborted)
		w.wantBalance(1, balance)
		if err := w.finish(w.res, b, troth.Committed); !isHeuristic(err) && !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatalf("Finish(Committed) answered %v", err)
		}
	}},
	{name: "committed by hand against the decision", needs: troth.CanPrepare, skip: needsHand, run: func(w *world) {
		b := w.orphan(1)
		w.byHand(b, troth.Committed)
		w.wantBalance(1, balance+10)
		if err := w.finish(w.res, b, troth.Aborted); !isHeuristic(err) {
			w.Fatalf("Finish(Aborted) answered %v", err)
		}
		w.must(w.finish(w.res, b, troth.Committed))
	}},
	{name: "two recoverers at once", needs: troth.CanPrepare, run: twoRecoverers},
	{name: "prepared transactions of others are shown and left alone", needs: troth.CanPrepare, skip: func(f Factory) string {
		if f.SQL.Foreign == nil {
			return "the factory makes no foreign transactions"
		}
		return ""
	}, run: foreign},
}

// noBranch stands in for a branch that nobody began.
type noBranch struct{ troth.Branch }

func (noBranch) Evidence() string { return "" }

func needsHand(f Factory) string {
	if f.SQL.Finish == nil {
		return "the factory finishes nothing by hand"
	}
	return ""
}

// orphan is a prepared branch whose session is gone.
func (w *world) orphan(id int) *branch {
	w.Helper()
	b := w.prepared(w.res, id)
	b.Close()
	w.wantListed(w.res, b.xid, true)
	return b
}

// byHand finishes an orphan as an operator would, who tries again when the
// database has not let go of the branch yet.
func (w *world) byHand(b *branch, outcome troth.Outcome) {
	w.Helper()
	list, err := w.res.Recover(w.ctx)
	w.must(err)
	xid, ok := find(list, b.xid)
	if !ok {
		w.Fatalf("%v is not listed", b.xid)
	}
	if !w.until(func() bool {
		_, err = w.db.Outside.ExecContext(w.ctx, w.f.SQL.Finish(xid, outcome))
		return err == nil
	}) {
		w.Fatal(err)
	}
	w.wantListed(w.res, b.xid, false)
}

func killedAfterVote(w *world) {
	for i, outcome := range []troth.Outcome{troth.Committed, troth.Aborted} {
		id := 1 + i
		b := w.begin(w.res)
		session, err := b.Int(w.ctx, w.f.SQL.SessionID)
		w.must(err)
		w.must(add(w.ctx, b, id, 10))
		w.mustPrepare(b)
		w.killSession(session)
		// The branch's own attempt may fail or find another way.
		if outcome == troth.Committed {
			_ = b.Commit(w.ctx)
		} else {
			_ = b.Rollback(w.ctx)
		}
		b.Close()
		switch err := w.finish(w.res, b, outcome); {
		case err == nil:
		case outcome == troth.Aborted && errors.Is(err, troth.ErrNoEvidence):
		default:
			w.Fatal(err)
		}
		w.wantListed(w.res, b.xid, false)
	}
	w.wantBalance(1, balance+10)
	w.wantBalance(2, balance)
	w.wantClean(w.pool, 1)
}

func finishedUnderneath(w *world) {
	b := w.prepared(w.res, 1)
	other, _ := w.open("bank", 0)
	// It may succeed, or have to wait for the session; it must not claim what is
	// not so.
	if err := other.Finish(w.ctx, b.xid, troth.Committed, b.Evidence()); err == nil {
		w.wantBalance(1, balance+10)
	}
	_ = b.Commit(w.ctx) // may find nothing left to do
	b.Close()
	w.must(w.finish(other, b, troth.Committed))
	w.wantBalance(1, balance+10)
	w.wantListed(other, b.xid, false)
	w.wantClean(w.pool, 1)
}

func twoRecoverers(w *world) {
	other, _ := w.open("bank", 0)
	for round := range 5 {
		b := w.orphan(1)
		results := make(chan error)
		for i := range 6 {
			r := []troth.Resource{w.res, other}[i%2]
			go func() { results <- w.finish(r, b, troth.Committed) }()
		}
		for range 6 {
			if err := <-results; err != nil {
				w.Errorf("round %d: %v", round, err)
			}
		}
		w.wantBalance(1, int64(balance+10*(round+1)))
		w.wantListed(w.res, b.xid, false)
	}
}

func foreign(w *world) {
	// One that is plainly another's, and one that only looks like ours.
	native := fmt.Sprintf("x%d", time.Now().UnixNano())
	prepare, end := w.f.SQL.Foreign(native)
	conn, err := w.db.Outside.Conn(w.ctx)
	w.must(err)
	for _, statement := range prepare {
		if _, err := conn.ExecContext(w.ctx, statement); err != nil {
			w.Fatalf("%s: %v", statement, err)
		}
	}
	discard(conn)
	w.Cleanup(func() {
		w.until(func() bool {
			_, err := w.db.Outside.ExecContext(w.ctx, end)
			return err == nil
		})
	})
	list, err := w.res.Recover(w.ctx)
	w.must(err)
	var found *troth.Prepared
	for i := range list {
		if containsFold(list[i].Native, native) {
			found = &list[i]
		}
	}
	if found == nil {
		w.Fatalf("Recover does not show %s: %+v", native, list)
	}
	if found.Ours || found.XID != (troth.XID{}) {
		w.Fatalf("Recover takes %s for ours: %+v", native, found)
	}
}
