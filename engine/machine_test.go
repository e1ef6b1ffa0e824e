package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

var testLimits = Limits{
	TimeoutToFail: 35 * time.Second, RetryInterval: 10 * time.Second, RetryIntervalMax: 10 * time.Minute,
	RequestTimeout: 3 * time.Second, ErrorMax: 1024, Lease: 15 * time.Second, jitter: func(d time.Duration) time.Duration { return d },
}

// start is when every test transaction begins.
var start = time.Unix(1_000_000_000, 0)

func transaction(p store.Pattern, state store.State, branches int, o store.Options) *store.Transaction {
	t := &store.Transaction{
		GID: "g", Pattern: p, State: state, QueryPrepared: "http://own", Options: o,
		Created: start, Due: start, Interval: testLimits.RetryInterval, Version: 1,
	}
	for i := range branches {
		id := fmt.Sprintf("%02d", i+1)
		for _, op := range opsOf(p) {
			t.Branches = append(t.Branches, store.Branch{ID: id, Op: op, URL: "http://" + id, State: store.BranchPrepared})
		}
	}
	return t
}

func opsOf(p store.Pattern) []store.Op {
	switch p {
	case store.Message:
		return []store.Op{store.Action}
	case store.Saga:
		return []store.Op{store.Compensate, store.Action}
	case store.TCC:
		return []store.Op{store.Cancel, store.Confirm}
	case store.XA:
		return []store.Op{store.Rollback, store.Commit}
	case store.Workflow:
		return nil
	}
	return nil
}

// world is a transaction, its machine, and what its participants have seen.
type world struct {
	m      *machine
	stored store.Transaction // what a crash leaves
	now    time.Time
	seen   []seen // in order
	ready  []int  // calls under way, in the order of their start
	rested bool
	away   int // how many calls may yet find no place
}

type seen struct {
	branch int
	answer Answer
}

func (w *world) clone() *world {
	c := &world{stored: copyOf(&w.stored), now: w.now, seen: append([]seen(nil), w.seen...), ready: append([]int(nil), w.ready...), rested: w.rested, away: w.away}
	t := copyOf(w.m.t)
	c.m = newMachine(&t, &testLimits)
	c.m.pass, c.m.dirty = w.m.pass, w.m.dirty
	c.m.pass.first = append([]int(nil), w.m.pass.first...)
	c.m.pass.tried = make(map[int]int)
	for k, v := range w.m.pass.tried {
		c.m.pass.tried[k] = v
	}
	for k, v := range w.m.flying {
		c.m.flying[k] = v
	}
	return c
}

func copyOf(t *store.Transaction) store.Transaction {
	c := *t
	c.Branches = append([]store.Branch(nil), t.Branches...)
	return c
}

func newWorld(t *store.Transaction) *world {
	w := &world{stored: copyOf(t), now: start, away: 1}
	w.m = newMachine(t, &testLimits)
	return w
}

// carry does what an engine does with effects.
func (w *world) carry(t *testing.T, effects []effect) {
	t.Helper()
	for _, e := range effects {
		switch e.kind {
		case save:
			w.stored = copyOf(w.m.t)
		case call:
			w.checkDurable(t, e.branch)
			w.ready = append(w.ready, e.branch)
		case rest:
			w.rested = true
			if !w.m.t.State.Over() && !w.m.t.Due.After(w.now) {
				t.Fatalf("the pass ended at %v and the next is due at %v", w.now, w.m.t.Due)
			}
		}
	}
}

// checkDurable is E1 and E2.
func (w *world) checkDurable(t *testing.T, branch int) {
	t.Helper()
	if w.stored.State != w.m.t.State {
		t.Fatalf("E1: branch %d is called in state %d, and the store has %d", branch, w.m.t.State, w.stored.State)
	}
	if branch != own && w.m.t.Pattern == store.Saga && w.m.t.Branches[branch].Op == store.Action && w.stored.Branches[branch].Called.IsZero() {
		t.Fatalf("E2: action %d is called, and the store does not know", branch)
	}
}

// crash loses all but the store. What was under way may have happened.
func (w *world) crash() {
	for _, b := range w.ready {
		w.seen = append(w.seen, seen{b, Unknown})
	}
	t := copyOf(&w.stored)
	w.m, w.ready, w.rested = newMachine(&t, &testLimits), nil, true
}

// walk tries every answer to every call, in every order, turns calls away, and crashes
// everywhere.
func walk(t *testing.T, w *world, depth, crashes int, check func(*world)) (ends int) {
	t.Helper()
	if w.m.t.State.Over() && len(w.ready) == 0 {
		check(w)
		return 1
	}
	if depth == 0 {
		return 0
	}
	if crashes > 0 && len(w.ready) > 0 {
		c := w.clone()
		c.crash()
		ends += walk(t, c, depth-1, crashes-1, check)
	}
	if len(w.ready) == 0 {
		c := w.clone()
		c.now, c.rested = c.now.Add(time.Minute), false
		if c.m.t.Due.After(c.now) {
			c.now = c.m.t.Due
		}
		c.carry(t, c.m.begin(c.now))
		return ends + walk(t, c, depth-1, crashes, check)
	}
	for i, branch := range w.ready {
		if w.away > 0 {
			c := w.clone()
			c.away--
			c.ready = append(c.ready[:i:i], c.ready[i+1:]...)
			attempts := c.m.t.Attempts
			c.carry(t, c.m.turnedAway(branch, time.Second, c.now))
			if c.rested && !c.m.pass.failed && c.m.t.State == w.m.t.State && c.m.t.Attempts > attempts {
				t.Fatal("a call that was not made counts as one that failed")
			}
			ends += walk(t, c, depth-1, 0, check) // and a crash: too many to try
		}
		for _, a := range []Answer{Success, Failure, Ongoing, Unknown} {
			c := w.clone()
			c.ready = append(c.ready[:i:i], c.ready[i+1:]...)
			c.seen = append(c.seen, seen{branch, a})
			c.carry(t, c.m.answered(branch, a, "text", c.now))
			if len(c.ready) == 0 && !c.rested {
				t.Fatalf("the machine does nothing and has not ended its pass: %+v", c.m.t)
			}
			ends += walk(t, c, depth-1, crashes, check)
		}
	}
	return ends
}

func TestSagaWalk(t *testing.T) {
	for name, c := range map[string]struct {
		steps, depth int
		o            store.Options
	}{
		"serial":     {3, 9, store.Options{}},
		"concurrent": {2, 8, store.Options{Concurrent: true}},
		"ordered":    {3, 8, store.Options{Concurrent: true, Orders: map[int][]int{2: {0, 1}}}},
		"repeated":   {2, 8, store.Options{RetryLimit: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(transaction(store.Saga, store.Submitted, c.steps, c.o))
			w.carry(t, w.m.begin(w.now))
			ends := walk(t, w, c.depth, 1, func(w *world) { checkSaga(t, w) })
			if ends < 100 {
				t.Errorf("only %d runs came to an end", ends)
			}
			t.Logf("%d ends", ends)
		})
	}
}

func TestMessageWalk(t *testing.T) {
	for name, c := range map[string]struct {
		branches, depth int
		state           store.State
		o               store.Options
	}{
		"prepared":   {2, 9, store.Prepared, store.Options{}},
		"submitted":  {3, 9, store.Submitted, store.Options{}},
		"concurrent": {2, 8, store.Prepared, store.Options{Concurrent: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(transaction(store.Message, c.state, c.branches, c.o))
			w.now = start.Add(testLimits.TimeoutToFail)
			w.carry(t, w.m.begin(w.now))
			ends := walk(t, w, c.depth, 1, func(w *world) { checkMessage(t, w, c.state == store.Submitted) })
			if ends < 20 {
				t.Errorf("only %d runs came to an end", ends)
			}
		})
	}
}

// checkMessage is I15: the branches are called if, and only if, the sender committed, and
// each until it succeeded.
func checkMessage(t *testing.T, w *world, committed bool) {
	t.Helper()
	delivered := make(map[int]bool)
	for _, s := range w.seen {
		switch {
		case s.branch == own:
			committed = committed || s.answer == Success
		case !committed:
			t.Fatalf("I15: branch %d called before the sender said that it committed: %v", s.branch, w.seen)
		case s.answer == Success:
			delivered[s.branch] = true
		}
	}
	if want := w.m.t.State == store.Succeeded; committed != want || want && len(delivered) != len(w.m.t.Branches) {
		t.Fatalf("I15: %v, sender committed: %v, delivered: %v, after %v", w.m.t.State, committed, delivered, w.seen)
	}
}

func TestTwoPhaseWalk(t *testing.T) {
	for _, state := range []store.State{store.Submitted, store.Aborting, store.Prepared} {
		for _, p := range []store.Pattern{store.TCC, store.XA} {
			t.Run(p.String()+"/"+state.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(transaction(p, state, 2, store.Options{}))
				w.now = start.Add(testLimits.TimeoutToFail)
				w.carry(t, w.m.begin(w.now))
				ends := walk(t, w, 8, 1, func(w *world) {
					want, way := store.Failed, opsOf(p)[0]
					if state == store.Submitted {
						want, way = store.Succeeded, opsOf(p)[1]
					}
					done := make(map[int]bool)
					for _, s := range w.seen {
						if w.m.t.Branches[s.branch].Op != way {
							t.Fatalf("branch %d went the other way: %v", s.branch, w.seen)
						}
						done[s.branch] = done[s.branch] || s.answer == Success
					}
					for branch, ok := range done {
						if !ok {
							t.Fatalf("over, and branch %d never said that it succeeded: %v", branch, w.seen)
						}
					}
					if w.m.t.State != want || len(done) != 2 {
						t.Fatalf("%v after %v", w.m.t.State, w.seen)
					}
				})
				if ends < 20 {
					t.Errorf("only %d runs came to an end", ends)
				}
			})
		}
	}
}

// checkSaga is I14, and that a saga is all or nothing.
func checkSaga(t *testing.T, w *world) {
	t.Helper()
	var called, undone []int // steps, in the order of their first call or last compensation
	for _, s := range w.seen {
		step := s.branch / 2
		switch {
		case s.branch == actionOf(step):
			if len(undone) > 0 {
				t.Fatalf("I14: action of step %d called after a compensation: %v", step, w.seen)
			}
			if !contains(called, step) {
				called = append(called, step)
			}
		case s.answer == Success:
			undone = append(undone, step)
		}
	}
	if w.m.t.State == store.Succeeded {
		if len(undone) > 0 || len(called) != len(w.m.t.Branches)/2 {
			t.Fatalf("succeeded with calls %v", w.seen)
		}
		return
	}
	for _, s := range called {
		if !contains(undone, s) {
			t.Fatalf("failed, and step %d was called and not undone: %v", s, w.seen)
		}
	}
	for _, s := range undone {
		if !contains(called, s) {
			t.Fatalf("I14: step %d was undone and never called: %v", s, w.seen)
		}
	}
}

func contains(all []int, one int) bool {
	for _, a := range all {
		if a == one {
			return true
		}
	}
	return false
}
