package engine

import (
	"time"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// message are the rules of the two-phase message. The sender announces it, commits a
// transaction of its own that leaves a mark, and submits. If the submission does not
// come the sender is asked whether it committed, which is decided by the mark (package
// barrier). Once submitted each branch is called until it succeeds: nobody may refuse.
//
//	Prepared  -> Submitted  the sender says that it committed
//	Prepared  -> Failed     the sender says that it did not
//	Submitted -> Succeeded  every branch succeeded
type message struct{}

func (message) judge(*machine, time.Time) {}

func (message) next(m *machine, now time.Time) (calls []int, done bool) {
	if m.t.State == store.Prepared {
		if m.free(own) && m.late(now) {
			calls = append(calls, own)
		}
		return calls, false
	}
	if now.Add(m.delayAhead).Before(m.t.Created.Add(m.t.Options.Delay)) {
		return nil, false
	}
	done = true
	for i := range m.t.Branches {
		if m.t.Branches[i].State == store.BranchSucceeded {
			continue
		}
		done = false
		if m.free(i) {
			calls = append(calls, i)
		}
		if !m.t.Options.Concurrent {
			break // the first of those that are left
		}
	}
	return calls, done
}

func (message) done(*machine) store.State { return store.Succeeded }

func (message) answeredYes(m *machine) { m.become(store.Submitted) }

func (message) missed(m *machine, branch int, a Answer, text string) bool {
	switch {
	case branch != own:
		return false
	case m.t.State != store.Prepared:
		return true // it submitted while it was being asked: that was confirmed, and holds
	case a != Failure && !mistake.On("silence-is-rollback"):
		return false
	}
	m.giveUp(store.Failed, text)
	return true
}

func (message) wake(m *machine) time.Time {
	if m.t.State == store.Prepared {
		return m.deadline()
	}
	return m.t.Created.Add(m.t.Options.Delay)
}
