package services

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/store"
)

// book knows what was promised. World.mu guards it.
type book struct {
	world      *world
	plans      []*plan
	states     map[string]store.State // as last stored
	faults     int
	succeeded  int
	failed     int
	violations []string
}

func (b *book) init(w *world) { b.world, b.states = w, make(map[string]store.State) }

func (b *book) planLocked(gid string) *plan {
	return b.plans[slices.IndexFunc(b.plans, func(p *plan) bool { return p.gid == gid })]
}

func (b *book) violateLocked(rule, gid, format string, args ...any) {
	text := fmt.Sprintf("%s: %s: %s", rule, gid, fmt.Sprintf(format, args...))
	b.violations = append(b.violations, text)
	b.world.trace.add("VIOLATION " + text)
}

// forward are the edges of the state diagram.
var forward = map[store.State][]store.State{
	store.Prepared:  {store.Submitted, store.Aborting, store.Succeeded, store.Failed},
	store.Submitted: {store.Succeeded, store.Aborting, store.Failed},
	store.Aborting:  {store.Failed},
}

// stored is I13: told of every change, as the store makes it.
func (w *world) stored(p *process, t *store.Transaction) {
	w.note("%s stores %s %v", p.name, t.GID, t.State)
	w.mu.Lock()
	defer w.mu.Unlock()
	before, known := w.book.states[t.GID]
	if known && before != t.State && !slices.Contains(forward[before], t.State) {
		w.book.violateLocked("I13", t.GID, "went from %v to %v", before, t.State)
	}
	if known && before == store.Submitted && t.State == store.Aborting && t.Pattern != store.Saga {
		w.book.violateLocked("I13", t.GID, "a %v went back after it was submitted", t.Pattern)
	}
	w.book.states[t.GID] = t.State
}

// over reports whether all that was begun has ended.
func (w *world) over() bool {
	page, _, err := w.disk.List(context.Background(), store.Filter{States: []store.State{store.Prepared, store.Submitted, store.Aborting}})
	return err == nil && len(page) == 0
}

// check is everything else, at the end.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.book.plans, func(a, b *plan) int { return strings.Compare(a.gid, b.gid) }) // programs began together
	for _, p := range w.book.plans {
		t, err := w.disk.Get(context.Background(), p.gid)
		if err != nil {
			if p.told != 0 {
				w.book.violateLocked("I3", p.gid, "%v was told, and it is not stored", p.told)
			}
			continue
		}
		w.checkOne(p, t)
	}
}

func (w *world) checkOne(p *plan, t *store.Transaction) {
	b := &w.book
	switch t.State {
	case store.Succeeded:
		b.succeeded++
	case store.Failed:
		b.failed++
	case store.Prepared, store.Submitted, store.Aborting:
		b.violateLocked("I7", p.gid, "%v %v is not over after %v without faults; due %v", p.pattern, t.State, endsAfter, t.Due.Sub(w.began).Round(time.Second))
		return
	}
	if p.told != 0 && p.told != t.State {
		b.violateLocked("I3", p.gid, "its caller was told %v, and it is %v", p.told, t.State)
	}
	went := t.State == store.Succeeded
	if p.pattern == store.Message && p.committed != went {
		b.violateLocked("I15", p.gid, "its sender committed: %v, and it is %v", p.committed, t.State)
	}
	forth, back := opsOf(p.pattern)
	for step := range p.steps {
		id := branchID(step)
		did, undid := w.services.effects[effect{p.gid, id, forth}], w.services.effects[effect{p.gid, id, back}]
		acted := w.services.effects[effect{p.gid, id, store.Action}]
		switch {
		case did > 1 || undid > 1 || acted > 1:
			b.violateLocked("I6", p.gid, "step %s took effect %d times, its undoing %d times", id, did, undid)
		case went && (did != 1 || undid != 0):
			b.violateLocked("I1", p.gid, "succeeded, and step %s took effect %d times and was undone %d times", id, did, undid)
		case !went && acted != undid || !went && forth != store.Action && did != 0:
			b.violateLocked("I1", p.gid, "failed, and step %s took effect %d times and was undone %d times", id, acted, undid)
		}
	}
	if p.pattern == store.Saga && p.serial && !went {
		w.checkOrder(p)
	}
}

// opsOf are what takes effect, and what undoes the action.
func opsOf(p store.Pattern) (forth, back store.Op) {
	switch p {
	case store.TCC:
		return store.Confirm, store.Cancel
	case store.XA:
		return store.Commit, store.Rollback
	case store.Workflow:
		return store.Action, store.Rollback
	case store.Message, store.Saga:
	}
	return store.Action, store.Compensate
}

// checkOrder is I14: what a serial saga did is undone in the opposite order.
func (w *world) checkOrder(p *plan) {
	var done, undone []string
	for _, what := range w.services.order[p.gid] {
		if id := what[:2]; what[3:] == store.Action.String() {
			done = append(done, id)
		} else {
			undone = append(undone, id)
		}
	}
	slices.Reverse(undone)
	if !slices.Equal(done, undone) || !slices.IsSorted(done) {
		w.book.violateLocked("I14", p.gid, "done %v, undone in reverse %v", done, undone)
	}
}

// trace is everything that happened. Lines begin with their time, so their sum says as
// much as a hash of all of them in order, and two of one nanosecond may come in any order.
type trace struct {
	mu  sync.Mutex
	sum uint64
	out io.Writer
}

func (t *trace) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := fnv.New64a()
	_, _ = io.WriteString(h, line) // never fails
	t.sum += h.Sum64()
	if t.out != nil {
		_, _ = fmt.Fprintln(t.out, line) // a trace is for reading
	}
}

func (w *world) note(format string, args ...any) {
	w.trace.add(fmt.Sprintf("%v ", time.Since(w.began)) + fmt.Sprintf(format, args...))
}
