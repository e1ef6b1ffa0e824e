package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// A plan is what a program wants, and what it was told.
type plan struct {
	gid     string
	pattern store.Pattern
	steps   int
	serial  bool
	hasty   bool // a saga that does not wait for long

	begun     bool        // the engine may know of it
	committed bool        // message: the sender's local transaction
	told      store.State // what a caller heard of the end; zero: nothing
	unwilling bool        // some participant refuses
}

// program makes one transaction, as its owner would.
func (w *world) program(i int) {
	rng := w.draw(fmt.Sprint("program", i))
	p := &plan{
		gid:     fmt.Sprint("g", i),
		pattern: []store.Pattern{store.Message, store.Saga, store.TCC, store.XA, store.Workflow}[rng.IntN(5)],
		steps:   1 + rng.IntN(4),
		serial:  rng.IntN(2) == 0,
		hasty:   rng.IntN(2) == 0,
	}
	w.mu.Lock()
	w.book.plans = append(w.book.plans, p)
	if w.cfg.unwilling && rng.IntN(3) == 0 {
		p.unwilling = true
		w.services.refuses[p.gid+" "+branchID(rng.IntN(p.steps))] = p.pattern != store.Message // nobody may refuse a message
	}
	w.mu.Unlock()
	time.Sleep(takes(rng, faultsFor*3/4))
	switch p.pattern {
	case store.Message:
		w.message(p, rng)
	case store.Saga:
		w.saga(p, rng)
	case store.TCC, store.XA:
		w.twoPhase(p, rng)
	case store.Workflow:
		p.begun = true
		w.workflow(p.gid, true)
	}
}

func branchID(step int) string { return fmt.Sprintf("%02d", step+1) }

func (p *plan) request() engine.Request {
	r := engine.Request{GID: p.gid, Pattern: p.pattern, QueryPrepared: "own", Options: store.Options{Concurrent: !p.serial, Wait: true}}
	if p.pattern == store.Message || p.pattern == store.Saga {
		for step := range p.steps {
			r.Steps = append(r.Steps, engine.Step{Action: "action" + branchID(step), Compensate: "compensate" + branchID(step)})
		}
	}
	if p.pattern == store.Saga && p.hasty {
		r.Options.TimeoutToFail = 20 * time.Second
	}
	if p.pattern == store.Workflow {
		r.Data = `{"name":"w","data":""}`
	}
	return r
}

// persist asks again, of any process, until it is told something definite.
func (w *world) persist(key string, ask func(ctx context.Context, e *engine.Engine) error) error {
	for {
		rng, _ := w.again("persist " + key)
		w.mu.Lock()
		p := w.processes[rng.IntN(len(w.processes))]
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := ask(ctx, p.engine)
		cancel()
		if !errors.Is(err, engine.ErrUnknown) && !errors.Is(err, engine.ErrClosed) {
			return err
		}
		time.Sleep(takes(rng, 5*time.Second))
	}
}

// hear notes what a caller was told of the end.
func (w *world) hear(p *plan, err error, goes store.State) {
	var state *engine.StateError
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		p.told = goes
	case errors.Is(err, engine.ErrFailed):
		p.told = store.Failed
	case errors.Is(err, engine.ErrOngoing), errors.As(err, &state):
	default:
		w.book.violateLocked("I3", p.gid, "a request was refused: %v", err)
	}
}

// vanishes reports whether the program ends here, as if it were killed.
func (w *world) vanishes(rng *rand.Rand) bool { return w.fault(w.cfg.vanish, rng, 4) }

func (w *world) message(p *plan, rng *rand.Rand) {
	p.begun = true
	err := w.persist("prepare "+p.gid, func(ctx context.Context, e *engine.Engine) error { return e.Prepare(ctx, p.request()) })
	if err != nil || w.vanishes(rng) {
		return
	}
	time.Sleep(takes(rng, time.Minute)) // the local transaction may come after the question
	if p.unwilling || !w.services.commitMessage(p.gid) {
		if !w.vanishes(rng) {
			err := w.persist("abort "+p.gid, func(ctx context.Context, e *engine.Engine) error { return e.Abort(ctx, p.gid, "", true) })
			w.hear(p, err, store.Failed)
		}
		return
	}
	w.mu.Lock()
	p.committed = true
	w.mu.Unlock()
	if !w.vanishes(rng) {
		w.submit(p)
	}
}

func (w *world) submit(p *plan) {
	w.hear(p, w.persist("submit "+p.gid, func(ctx context.Context, e *engine.Engine) error { return e.Submit(ctx, p.request()) }), store.Succeeded)
}

func (w *world) saga(p *plan, rng *rand.Rand) {
	p.begun = true
	w.submit(p)
	if rng.IntN(3) == 0 { // a client that did not hear the answer
		time.Sleep(takes(rng, time.Minute))
		w.submit(p)
	}
}

// twoPhase tries each branch, or prepares it, after registering it.
func (w *world) twoPhase(p *plan, rng *rand.Rand) {
	p.begun = true
	forth, back := store.Confirm, store.Cancel
	if p.pattern == store.XA {
		forth, back = store.Commit, store.Rollback
	}
	err := w.persist("prepare "+p.gid, func(ctx context.Context, e *engine.Engine) error { return e.Prepare(ctx, p.request()) })
	if err != nil {
		return
	}
	for step := range p.steps {
		if w.vanishes(rng) {
			return
		}
		id := branchID(step)
		err := w.persist("register "+p.gid+id, func(ctx context.Context, e *engine.Engine) error {
			err := e.Register(ctx, p.gid, store.Branch{ID: id, Op: back, URL: "back", State: store.BranchPrepared},
				store.Branch{ID: id, Op: forth, URL: "forth", State: store.BranchPrepared})
			if errors.Is(err, store.ErrExists) {
				return nil
			}
			return err
		})
		if err == nil {
			time.Sleep(takes(rng, time.Second))
			err = w.try(p, id)
		}
		if err != nil {
			err := w.persist("abort "+p.gid, func(ctx context.Context, e *engine.Engine) error { return e.Abort(ctx, p.gid, "", true) })
			w.hear(p, err, store.Failed)
			return
		}
	}
	time.Sleep(takes(rng, 40*time.Second)) // its time may be over
	if rng.IntN(4) == 0 {                  // somebody else gives up on it
		after := takes(rng, time.Minute)
		w.late.Go(func() {
			time.Sleep(after)
			_ = w.persist("abort "+p.gid, func(ctx context.Context, e *engine.Engine) error { return e.Abort(ctx, p.gid, "", false) }) // the end tells
		})
	}
	if !w.vanishes(rng) {
		w.submit(p)
	}
}

// try is the caller's own call of a branch, at which it may fail.
func (w *world) try(p *plan, branch string) error {
	w.mu.Lock()
	no := w.services.refuses[p.gid+" "+branch]
	w.mu.Unlock()
	if no {
		return engine.ErrFailed
	}
	w.services.do(p.gid, branch, store.Action)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.services.barrier[row{p.gid, branch, store.Action}] != store.Action {
		return engine.ErrFailed // it was cancelled before
	}
	return nil
}

// workflow is the function of a workflow: it replays what is recorded, goes on, and
// takes back what it did when a step refuses. It may stop anywhere.
func (w *world) workflow(gid string, first bool) {
	w.mu.Lock()
	p := w.book.planLocked(gid)
	w.mu.Unlock()
	var t *store.Transaction
	err := w.persist("start "+gid, func(ctx context.Context, e *engine.Engine) (err error) {
		t, err = e.StartWorkflow(ctx, p.request())
		return err
	})
	if err != nil || t.State.Over() {
		return
	}
	rng, _ := w.again("workflow " + gid)
	if first && w.vanishes(rng) {
		return
	}
	ok, done := true, 0
	for ; done < p.steps && ok; done++ {
		if w.vanishes(rng) {
			return
		}
		ok = w.recorded(t, done, store.Action, func() bool { return w.try(p, branchID(done)) == nil })
	}
	for step := done - 1; step >= 0 && !ok; step-- {
		if w.vanishes(rng) {
			return
		}
		w.recorded(t, step, store.Rollback, func() bool { w.services.do(gid, branchID(step), store.Rollback); return true })
	}
	err = w.persist("end "+gid, func(ctx context.Context, e *engine.Engine) error { return e.EndWorkflow(ctx, gid, ok, "", "") })
	if err == nil {
		end := store.Failed
		if ok {
			end = store.Succeeded
		}
		w.hear(p, nil, end)
	}
}

// recorded does a step unless its result is known, and records it.
func (w *world) recorded(t *store.Transaction, step int, op store.Op, do func() bool) bool {
	id := branchID(step)
	for _, b := range t.Branches {
		if b.ID == id && b.Op == op {
			return b.State == store.BranchSucceeded
		}
	}
	rng, _ := w.again("step " + t.GID + id)
	time.Sleep(takes(rng, time.Second))
	ok, state := do(), store.BranchSucceeded
	if !ok {
		state = store.BranchFailed
	}
	_ = w.persist("record "+t.GID+id, func(ctx context.Context, e *engine.Engine) error {
		return e.Register(ctx, t.GID, store.Branch{ID: id, Op: op, State: state})
	}) // recorded by another run of the function, or too late: the end tells
	return ok
}
