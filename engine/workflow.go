package engine

import (
	"time"

	"github.com/troth-tx/troth/store"
)

// workflow are the rules of workflows: a function of the caller's, whose steps are
// recorded here. If it does not come to its end it is called again, and replays the
// steps that were recorded. Its end is told by the caller.
type workflow struct{}

func (workflow) judge(*machine, time.Time) {}

func (workflow) next(m *machine, now time.Time) (calls []int, done bool) {
	if m.free(own) && !now.Before(m.deadline()) {
		calls = append(calls, own)
	}
	return calls, false
}

func (workflow) done(m *machine) store.State { return m.t.State } // never: the caller ends it

// answeredYes: the function has returned, and told its end in a request of its own. If
// it did not, it is called again.
func (workflow) answeredYes(m *machine) {
	m.pass.tried[own]++
	m.pass.ongoing = true
}

func (workflow) missed(*machine, int, Answer, string) bool { return false }

func (workflow) wake(m *machine) time.Time { return m.deadline() }
