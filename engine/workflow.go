package engine

import (
	"encoding/json"
	"time"

	"github.com/troth-tx/troth/store"
)

// workflow are the rules of workflows: a function of the caller's, whose steps are
// recorded here. If nothing was heard of it for a while it is called again, and replays
// the steps that were recorded. Its end is told by the caller.
type workflow struct{}

func (workflow) judge(*machine, time.Time) {}

func (workflow) next(m *machine, _ time.Time) (calls []int, done bool) {
	if m.free(own) {
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

// WorkflowOf returns the name of a workflow and its input, from Transaction.Data or
// Request.Data; nothing of data that StartWorkflow would refuse.
func WorkflowOf(data string) (name string, input []byte) {
	var w struct {
		Name string `json:"name"`
		Data []byte `json:"data"`
	}
	if err := json.Unmarshal([]byte(data), &w); err != nil {
		return "", nil
	}
	return w.Name, w.Data
}
