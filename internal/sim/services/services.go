package services

import (
	"context"
	"fmt"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// services are the participants: one database for all, with the table of barriers that
// package barrier has. World.mu guards them.
type services struct {
	world *world
	calls int

	barrier map[row]store.Op // by which operation the row was written
	effects map[effect]int
	order   map[string][]string // of a gid: what took effect, "01 action", in order
	refuses map[string]bool     // "gid branch": its action, or try, says no
}

// row is a row of the barrier: an operation that counts as done.
type row struct {
	gid, branch string
	op          store.Op
}

// effect is what an operation of a branch has done.
type effect struct {
	gid, branch string
	op          store.Op
}

func (s *services) init(w *world) {
	s.world = w
	s.barrier = make(map[row]store.Op)
	s.effects = make(map[effect]int)
	s.order = make(map[string][]string)
	s.refuses = make(map[string]bool)
}

// undoes is what an operation that goes back takes back.
func undoes(op store.Op) (store.Op, bool) {
	switch op {
	case store.Compensate, store.Cancel, store.Rollback:
		return store.Action, true // a try, or the work of an XA branch, is an action as well
	case store.Action, store.Confirm, store.Commit, store.Business, store.Query, store.Resume:
	}
	return 0, false
}

// passLocked is the barrier: whether the operation is to take effect. It is what package
// barrier does in one local transaction.
func (s *services) passLocked(gid, branch string, op store.Op) bool {
	if origin, back := undoes(op); back {
		first := row{gid, branch, origin}
		if _, there := s.barrier[first]; !there {
			s.barrier[first] = op
			s.barrier[row{gid, branch, op}] = op
			return false // an empty compensation: nothing was done
		}
	}
	r := row{gid, branch, op}
	if _, there := s.barrier[r]; there {
		return false // repeated; or it comes after it was undone
	}
	s.barrier[r] = op
	return true
}

// do is one operation, through the barrier.
func (s *services) do(gid, branch string, op store.Op) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if s.passLocked(gid, branch, op) {
		s.effects[effect{gid, branch, op}]++
		s.order[gid] = append(s.order[gid], branch+" "+op.String())
	}
}

// commitMessage is the local transaction of a message's sender; it fails if the question
// came first.
func (s *services) commitMessage(gid string) bool {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if _, asked := s.barrier[row{gid, "00", store.Query}]; asked {
		return false
	}
	s.barrier[row{gid, "00", store.Query}] = store.Action
	return true
}

// committed answers the question to the sender: whichever of the two comes first wins.
func (s *services) committed(gid string) bool {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	mark := row{gid, "00", store.Query}
	if _, there := s.barrier[mark]; !there {
		s.barrier[mark] = store.Rollback
	}
	return s.barrier[mark] == store.Action
}

// caller is a process's way to the participants.
type caller struct{ process *process }

// Call implements engine.Caller. A call may be lost on its way there or back, arrive
// late, and arrive twice.
func (c caller) Call(ctx context.Context, call engine.Call) (engine.Answer, string) {
	w := c.process.world
	rng, n := w.again(fmt.Sprint("call ", call.GID, call.Branch, call.Op))
	w.mu.Lock()
	w.services.calls++
	w.mu.Unlock()
	if err := c.process.cross(ctx, takes(rng, 50*time.Millisecond)); err != nil {
		return engine.Unknown, err.Error()
	}
	w.note("%s calls %s %s %v #%d", c.process.name, call.GID, call.Branch, call.Op, n)
	if w.fault(w.cfg.callsLost, rng, 8) {
		return engine.Unknown, "lost on the way there"
	}
	if w.fault(w.cfg.ongoing, rng, 8) {
		return engine.Ongoing, "not yet"
	}
	if w.fault(w.cfg.late, rng, 8) {
		w.serveLate(call, takes(rng, time.Minute))
		<-ctx.Done()
		time.Sleep(takes(rng, 50*time.Millisecond)) // see cross
		return engine.Unknown, "no answer in time"
	}
	a := engine.Success
	if call.Op == store.Resume {
		w.resume(ctx, call.GID)
		time.Sleep(takes(rng, 50*time.Millisecond)) // see cross
	} else {
		a = w.serve(call)
	}
	if w.fault(w.cfg.twice, rng, 8) {
		w.serveLate(call, takes(rng, time.Minute))
	}
	if w.fault(w.cfg.callsLost, rng, 8) {
		return engine.Unknown, "lost on the way back"
	}
	if err := c.process.cross(ctx, takes(rng, 50*time.Millisecond)); err != nil {
		return engine.Unknown, err.Error()
	}
	return a, fmt.Sprint("answer ", a)
}

// serveLate carries out a call that was on its way for long.
func (w *world) serveLate(c engine.Call, after time.Duration) {
	w.late.Go(func() {
		time.Sleep(after)
		w.serve(c)
	})
}

// resume runs a workflow's function until it returns or the caller gives up on it: then
// it goes on by itself.
func (w *world) resume(ctx context.Context, gid string) {
	returned := make(chan struct{})
	w.late.Go(func() {
		defer close(returned)
		w.workflow(gid, false)
	})
	select {
	case <-returned:
	case <-ctx.Done():
	}
}

// serve is what a participant does.
func (w *world) serve(c engine.Call) engine.Answer {
	switch c.Op {
	case store.Query:
		if w.services.committed(c.GID) {
			return engine.Success
		}
		return engine.Failure
	case store.Resume:
		w.workflow(c.GID, false)
		return engine.Success
	case store.Action:
		w.mu.Lock()
		no := w.services.refuses[c.GID+" "+c.Branch]
		w.mu.Unlock()
		if no {
			return engine.Failure
		}
	case store.Compensate, store.Confirm, store.Cancel, store.Commit, store.Rollback, store.Business:
	}
	w.services.do(c.GID, c.Branch, c.Op)
	return engine.Success
}
