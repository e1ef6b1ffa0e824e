package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// saga are the rules of sagas (Garcia-Molina and Salem 1987). Every step has two
// branches, its compensation and then its action. Actions run in their order; when one
// says that it failed, what may have been done is undone, in the opposite order. An
// action that may have been called counts as done, for a lost answer says nothing.
//
//	Submitted -> Succeeded  every action succeeded
//	Submitted -> Aborting   an action failed, its repetitions are used up, or time is over
//	Aborting  -> Failed     all that may have been done is undone
//
// A compensation must not refuse: it is called until it succeeds.
type saga struct{}

// The branches of a step.
func compensationOf(step int) int { return 2 * step }
func actionOf(step int) int       { return 2*step + 1 }

func (saga) steps(m *machine) int { return len(m.t.Branches) / 2 }

// before returns the steps whose actions must have succeeded before that of a step.
func (saga) before(m *machine, step int) []int {
	if m.t.Options.Concurrent {
		return m.t.Options.Orders[step]
	}
	if step == 0 {
		return nil
	}
	return []int{step - 1}
}

func (saga) judge(m *machine, now time.Time) {
	if limit := m.t.Options.TimeoutToFail; m.t.State == store.Submitted && limit > 0 && !now.Add(m.ageAhead).Before(m.t.Created.Add(limit)) {
		m.giveUp(store.Aborting, timeoutReason(limit))
	}
}

func (s saga) next(m *machine, _ time.Time) (calls []int, done bool) {
	if m.t.State == store.Aborting {
		return s.nextBack(m)
	}
	done = true
	for step := range s.steps(m) {
		i := actionOf(step)
		if m.t.Branches[i].State == store.BranchSucceeded {
			continue
		}
		done = false
		ready := !slices.ContainsFunc(s.before(m, step), func(b int) bool {
			return m.t.Branches[actionOf(b)].State != store.BranchSucceeded
		})
		if ready && s.free(m, i) {
			calls = append(calls, i)
		}
	}
	return calls, done
}

// free reports whether an action may be called: repetitions within the limit are made
// at once.
func (saga) free(m *machine, i int) bool {
	return m.free(i) || !m.flying[i] && m.pass.tried[i] <= m.t.Options.RetryLimit && !m.pass.ongoing && m.pass.putOff == 0
}

// nextBack waits until no action is under way: what comes of it decides what there is
// to undo.
func (s saga) nextBack(m *machine) (calls []int, done bool) {
	for step := range s.steps(m) {
		if m.flying[actionOf(step)] {
			return nil, false
		}
	}
	done = true
	for step := range s.steps(m) {
		if !s.owed(m, step) {
			continue
		}
		done = false
		later := false // a step that built on this one is still to be undone
		for other := range s.steps(m) {
			later = later || s.owed(m, other) && slices.Contains(s.before(m, other), step)
		}
		if i := compensationOf(step); (!later || mistake.On("compensations-at-once")) && m.free(i) {
			calls = append(calls, i)
		}
	}
	return calls, done
}

// owed reports whether a step is still to be undone.
func (saga) owed(m *machine, step int) bool {
	if mistake.On("unanswered-is-undone") && m.t.Branches[actionOf(step)].State != store.BranchSucceeded {
		return false
	}
	return !m.t.Branches[actionOf(step)].Called.IsZero() && m.t.Branches[compensationOf(step)].State != store.BranchSucceeded
}

func (saga) done(m *machine) store.State {
	if m.t.State == store.Aborting {
		return store.Failed
	}
	return store.Succeeded
}

func (saga) missed(m *machine, branch int, a Answer, text string) bool {
	b := &m.t.Branches[branch]
	if b.Op != store.Action {
		return false
	}
	if a == Failure {
		b.State = store.BranchFailed
	} else if limit := m.t.Options.RetryLimit; a == Ongoing || limit == 0 || m.pass.tried[branch] <= limit {
		return false
	} else { // the branch keeps what it said
		text = fmt.Sprintf("RetryCount is greater than RetryLimit, RetryLimit: %d", limit) // dtm's words
	}
	if m.t.State == store.Submitted {
		m.giveUp(store.Aborting, text)
	}
	return true
}

func (saga) wake(m *machine) time.Time {
	if limit := m.t.Options.TimeoutToFail; m.t.State == store.Submitted && limit > 0 {
		return m.t.Created.Add(limit)
	}
	return time.Time{}
}
