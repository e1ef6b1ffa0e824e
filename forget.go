package troth

import (
	"context"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// A forgetter drops the records of transactions whose branches have all
// acknowledged commit (R4), in batches, off the commit path, once they are
// KeepDecisions old; and then what the branches left to prove it. What it does not
// get to before a crash, the recovery pass proves again and drops.
type forgetter struct {
	mgr *Manager

	work     chan struct{} // something was added. Capacity 1
	flushing sync.Mutex    // held while a batch is forgotten; taken before mu

	mu    sync.Mutex
	queue map[Place][]forgettable     // records, by register, in the order of time
	left  map[Forgetter][]forgettable // rows that may go, by when their records went
}

type forgettable struct {
	gid    GID
	at     time.Time
	leaves []Forgetter // the resources in which branches left rows
}

const (
	forgetEvery = 250 * time.Millisecond
	forgetBatch = 1000
	// rowsDelay is how long after its record what proves it is dropped: a register
	// may have forgotten without a flush, and the record come back with a crash.
	rowsDelay = 10 * time.Second
	// forgetMax bounds the memory of a forgetter whose register is down. What does
	// not fit is left to the recovery pass.
	forgetMax = 1 << 20
)

// add takes note of a finished transaction. The place is zero if it left no
// record.
func (f *forgetter) add(p Place, gid GID, leaves []Forgetter) {
	if p == (Place{}) && len(leaves) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queue == nil {
		f.queue = make(map[Place][]forgettable)
		f.left = make(map[Forgetter][]forgettable)
	}
	select {
	case f.work <- struct{}{}:
	default:
	}
	if len(f.queue[p]) < forgetMax {
		f.queue[p] = append(f.queue[p], forgettable{gid: gid, at: time.Now(), leaves: leaves})
	}
}

func (f *forgetter) run() {
	for f.awaitWork() && f.mgr.pause(max(forgetEvery, time.Until(f.nextDue()))) {
		f.flush(f.mgr.life)
	}
}

// awaitWork waits until there is something to forget. It reports false if the
// Manager ends meanwhile.
func (f *forgetter) awaitWork() bool {
	f.mu.Lock()
	idle := len(f.queue) == 0 && len(f.left) == 0
	f.mu.Unlock()
	if !idle {
		return true
	}
	select {
	case <-f.work:
		return true
	case <-f.mgr.life.Done():
		return false
	}
}

// nextDue is when the oldest that is queued may go.
func (f *forgetter) nextDue() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := time.Now().Add(time.Hour)
	for _, q := range f.queue {
		next = earlier(next, q[0].at.Add(f.mgr.cfg.KeepDecisions))
	}
	for _, q := range f.left {
		next = earlier(next, q[0].at.Add(rowsDelay))
	}
	return next
}

// flush forgets what is old enough.
func (f *forgetter) flush(ctx context.Context) {
	f.flushing.Lock()
	defer f.flushing.Unlock()
	for _, p := range append(f.mgr.places(), Place{}) { // the zero place: what left rows but no record
		for f.flushRecords(ctx, p) {
		}
	}
	for _, r := range f.mgr.cfg.Resources {
		if r, ok := r.(Forgetter); ok {
			for f.flushRows(ctx, r) {
			}
		}
	}
}

// flushRecords forgets one batch at one register, and reports whether to go on.
func (f *forgetter) flushRecords(ctx context.Context, p Place) bool {
	batch := f.due(p)
	if len(batch) == 0 {
		return false
	}
	if p != (Place{}) {
		gids := make([]GID, len(batch))
		for i, b := range batch {
			gids[i] = b.gid
		}
		reg, ok := f.mgr.registerAt(p)
		if !ok || !f.drop(ctx, p.String(), gids, reg.Forget) {
			return false
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queue[p] = f.queue[p][len(batch):]; len(f.queue[p]) == 0 {
		delete(f.queue, p) // and let the array go
	}
	now := time.Now()
	for _, b := range batch {
		for _, r := range b.leaves {
			if len(f.left[r]) < forgetMax {
				f.left[r] = append(f.left[r], forgettable{gid: b.gid, at: now})
			}
		}
	}
	return len(batch) == forgetBatch
}

// flushRows drops one batch of what branches left in one resource, and reports
// whether to go on.
func (f *forgetter) flushRows(ctx context.Context, r Forgetter) bool {
	f.mu.Lock()
	batch := oldest(f.left[r], time.Now().Add(-rowsDelay))
	f.mu.Unlock()
	gids := make([]GID, len(batch))
	for i, b := range batch {
		gids[i] = b.gid
	}
	if len(gids) == 0 || !f.drop(ctx, "rows", gids, r.Forget) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left[r] = f.left[r][len(batch):]; len(f.left[r]) == 0 {
		delete(f.left, r)
	}
	return len(batch) == forgetBatch
}

func (f *forgetter) drop(ctx context.Context, what string, gids []GID, forget func(context.Context, []GID) error) bool {
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	faultpoint.Hit("drop.before")
	err := forget(ctx, gids)
	faultpoint.Hit("drop.after")
	if err != nil {
		f.mgr.cfg.Logger.DebugContext(ctx, "not forgotten yet", "what", what, "err", err)
	}
	return err == nil
}

// due is the next batch of records that may be forgotten. Only the flushing
// goroutine removes items, so it stays at the head of the queue.
func (f *forgetter) due(p Place) []forgettable {
	f.mu.Lock()
	defer f.mu.Unlock()
	return oldest(f.queue[p], time.Now().Add(-max(f.mgr.cfg.KeepDecisions, 0)))
}

// oldest is the head of items: up to a batch, all from before a time.
func oldest(items []forgettable, before time.Time) []forgettable {
	n := 0
	for n < len(items) && n < forgetBatch && items[n].at.Before(before) {
		n++
	}
	return items[:n:n]
}
