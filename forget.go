package troth

import (
	"context"
	"sync"
	"time"
)

// A forgetter drops the records of transactions whose branches have all
// acknowledged commit (R4), in batches, off the commit path, once they are
// KeepDecisions old. What it does not get to before a crash, the recovery pass
// proves again and drops.
type forgetter struct {
	mgr *Manager

	mu    sync.Mutex
	queue map[Place]*forgetQueue
}

// forgetQueue holds what one register may forget, in the order of time.
type forgetQueue struct{ items []forgettable }

type forgettable struct {
	gid GID
	at  time.Time
}

const (
	forgetEvery = 250 * time.Millisecond
	forgetBatch = 1000
	// forgetMax bounds the memory of a forgetter whose register is down. What does
	// not fit is left to the recovery pass.
	forgetMax = 1 << 20
)

func (f *forgetter) add(p Place, gid GID) {
	if p == (Place{}) {
		return // no record was made
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queue == nil {
		f.queue = make(map[Place]*forgetQueue)
	}
	q := f.queue[p]
	if q == nil {
		q = &forgetQueue{}
		f.queue[p] = q
	}
	if len(q.items) < forgetMax {
		q.items = append(q.items, forgettable{gid: gid, at: time.Now()})
	}
}

func (f *forgetter) run() {
	for f.mgr.pause(forgetEvery) {
		f.flush(f.mgr.life, false)
	}
}

// flush forgets what is old enough, or everything.
func (f *forgetter) flush(ctx context.Context, all bool) {
	f.mu.Lock()
	places := make([]Place, 0, len(f.queue))
	for p := range f.queue {
		places = append(places, p)
	}
	f.mu.Unlock()
	for _, p := range places {
		for f.flushBatch(ctx, p, all) {
		}
	}
}

// flushBatch forgets one batch at one register, and reports whether to go on.
func (f *forgetter) flushBatch(ctx context.Context, p Place, all bool) bool {
	batch := f.due(p, all)
	if len(batch) == 0 {
		return false
	}
	r, ok := f.mgr.registerAt(p)
	if !ok {
		return false
	}
	gids := make([]GID, len(batch))
	for i, b := range batch {
		gids[i] = b.gid
	}
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	if err := r.Forget(ctx, gids); err != nil {
		f.mgr.cfg.Logger.DebugContext(ctx, "records not forgotten yet", "register", p.String(), "err", err)
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queue[p]
	q.items = q.items[len(batch):]
	if len(q.items) == 0 {
		q.items = nil // let the array go
	}
	return len(batch) == forgetBatch
}

// due is the next batch that may be forgotten. Only the flushing goroutine removes
// items, so it stays at the head of the queue.
func (f *forgetter) due(p Place, all bool) []forgettable {
	before := time.Now().Add(-max(f.mgr.cfg.KeepDecisions, 0))
	f.mu.Lock()
	defer f.mu.Unlock()
	items := f.queue[p].items
	n := 0
	for n < len(items) && n < forgetBatch && (all || items[n].at.Before(before)) {
		n++
	}
	return items[:n:n]
}
