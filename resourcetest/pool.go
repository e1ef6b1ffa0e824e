package resourcetest

import (
	"fmt"
	"sync"
	"time"

	"github.com/troth-tx/troth"
)

// poolCases are about the sessions that branches borrow.
var poolCases = []testCase{
	{name: "size 1", run: func(w *world) { smallPool(w, 1) }},
	{name: "size 2", run: func(w *world) { smallPool(w, 2) }},
	{name: "every ending gives a clean session back", run: everyEnding},
	{name: "closing the resource leaves the pool", run: func(w *world) {
		r, pool := w.db.Resource(w.T, "bank", 2)
		w.must(r.Open(w.ctx, w.resourceConfig()))
		b := w.begin(r)
		w.must(add(w.ctx, b, 1, 10))
		w.end(b)
		w.must(r.Close(w.ctx))
		w.wantClean(pool, 1)
	}},
	{name: "opening twice", run: func(w *world) {
		w.must(w.res.Open(w.ctx, w.resourceConfig())) // the Manager does so after a failure
		b := w.begin(w.res)
		w.must(add(w.ctx, b, 1, 10))
		w.commit(b)
		w.wantBalance(1, balance+10)
	}},
	{name: "32 branches at once", run: manyBranches},
}

// smallPool does with poolMax sessions what a program does, and recovery beside
// it while every session of the pool is in use.
func smallPool(w *world, poolMax int) {
	r, pool := w.open("bank", poolMax)
	for range 3 {
		var open []*branch
		for i := range poolMax {
			if i > 0 && w.f.OneWriter {
				break
			}
			b := w.begin(r)
			w.must(add(w.ctx, b, 1+i, 10))
			open = append(open, b)
		}
		if _, err := r.Recover(w.ctx); err != nil {
			w.Fatalf("recovery needs a session of the program's: %v", err)
		}
		if w.f.Can&troth.CanDecide != 0 {
			if _, err := r.Decisions().Lookup(w.ctx, open[0].xid.GID); err != nil {
				w.Fatalf("the decision table needs a session of the program's: %v", err)
			}
		}
		for _, b := range open {
			w.commit(b)
		}
		w.wantClean(pool, 5)
	}
	for i := range poolMax {
		if i > 0 && w.f.OneWriter {
			break
		}
		w.wantBalance(1+i, balance+30)
	}
}

func everyEnding(w *world) {
	endings := []struct {
		name  string
		needs troth.Capability
		end   func(b *branch) error
	}{
		{"rollback", 0, func(b *branch) error { return b.Rollback(w.ctx) }},
		{"close", 0, func(b *branch) error { b.Close(); return nil }},
		{"rollback of a spoilt branch", 0, func(b *branch) error {
			_ = fail(w.ctx, b)
			return b.Rollback(w.ctx)
		}},
		{"rollback after Wrote", 0, func(b *branch) error {
			if _, err := b.Wrote(w.ctx); err != nil {
				return err
			}
			return b.Rollback(w.ctx)
		}},
		{"rollback by the context", 0, func(b *branch) error {
			b.cancel()
			return b.Rollback(w.ctx)
		}},
		{"commit prepared", troth.CanPrepare, func(b *branch) error {
			w.mustPrepare(b)
			return b.Commit(w.ctx)
		}},
		{"rollback prepared", troth.CanPrepare, func(b *branch) error {
			w.mustPrepare(b)
			return b.Rollback(w.ctx)
		}},
		{"close prepared", troth.CanPrepare, func(b *branch) error {
			w.mustPrepare(b)
			b.Close()
			return w.finish(w.res, b, troth.Committed)
		}},
		{"decide", troth.CanDecide, func(b *branch) error {
			w.decideCommit(b)
			return nil
		}},
	}
	r, pool := w.open("bank", 1)
	for _, e := range endings {
		if w.f.Can&e.needs != e.needs {
			continue
		}
		b := w.begin(r)
		w.must(add(w.ctx, b, 1, 10))
		if err := e.end(b); err != nil {
			w.Fatalf("%s: %v", e.name, err)
		}
		w.wantClean(pool, 2)
		b.Close()
		w.wantClean(pool, 3)
	}
}

// manyBranches runs 32 branches on 8 sessions, each in its own goroutine, and
// ends them in every way.
func manyBranches(w *world) {
	const branches = 32
	r, pool := w.open("bank", 8)
	errs := make(chan error, branches)
	var all sync.WaitGroup
	for i := range branches {
		all.Go(func() { errs <- oneOfMany(w, r, i) })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			w.Error(err)
		}
	}
	for i := range branches {
		want := int64(balance)
		if i%2 == 0 {
			want += 10
		}
		w.wantBalance(1+i, want)
	}
	w.wantClean(pool, 40)
}

func oneOfMany(w *world, r troth.Resource, i int) error {
	b, err := w.tryBegin(w.ctx, r, troth.NewGID(domain, time.Now()))
	if err != nil {
		return fmt.Errorf("begin %d: %w", i, err)
	}
	defer b.Close()
	if err := add(w.ctx, b, 1+i, 10); err != nil {
		return fmt.Errorf("work %d: %w", i, err)
	}
	if i%2 == 1 {
		return b.Rollback(w.ctx)
	}
	if w.f.Can&troth.CanDecide != 0 && (i%4 == 0 || w.f.Can&troth.CanPrepare == 0) {
		if outcome, err := b.CommitDeciding(w.ctx, decision(b)); outcome != troth.Committed || err != nil {
			return fmt.Errorf("decide %d: %v, %w", i, outcome, err)
		}
		return nil
	}
	if vote, err := b.Prepare(w.ctx, b.xid); vote != troth.VoteCommit || err != nil {
		return fmt.Errorf("prepare %d: %v, %w", i, vote, err)
	}
	return b.Commit(w.ctx)
}
