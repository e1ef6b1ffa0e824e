package engine

import (
	"time"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// twoPhase are the rules of TCC and XA: the caller tries (or prepares) every branch
// itself and registers it before; then it submits, or aborts. Every branch has one
// branch here for each way, and those of one way are called all at once until each has
// succeeded: nobody who tried successfully may refuse.
//
//	Prepared  -> Aborting   nothing was heard of the caller in time
//	Submitted -> Succeeded  every branch went forth
//	Aborting  -> Failed     every branch went back
type twoPhase struct {
	forth, back store.Op
}

func (twoPhase) judge(m *machine, now time.Time) {
	if m.t.State == store.Prepared && m.late(now) {
		m.giveUp(store.Aborting, timeoutReason(m.timeout()))
	}
}

func (p twoPhase) next(m *machine, _ time.Time) (calls []int, done bool) {
	op := p.forth
	switch m.t.State {
	case store.Prepared:
		return nil, false
	case store.Aborting:
		op = p.back
	case store.Submitted, store.Succeeded, store.Failed:
	}
	done = true
	for i := range m.t.Branches {
		if b := &m.t.Branches[i]; b.Op == op && b.State != store.BranchSucceeded {
			done = false
			if m.free(i) {
				calls = append(calls, i)
			}
		}
	}
	return calls, done
}

func (twoPhase) done(m *machine) store.State {
	if m.t.State == store.Aborting {
		return store.Failed
	}
	return store.Succeeded
}

func (twoPhase) missed(m *machine, _ int, _ Answer, text string) bool {
	if m.t.Attempts > 1 && mistake.On("stuck-is-given-up") {
		m.giveUp(store.Failed, text)
		return true
	}
	return false
}

func (twoPhase) wake(m *machine) time.Time {
	if m.t.State == store.Prepared {
		return m.deadline()
	}
	return time.Time{}
}
