package api_test

import (
	"testing"
	"time"

	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/store"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	branch := func(id string, op store.Op, s store.BranchState) store.Branch {
		b := store.Branch{ID: id, Op: op, State: s, URL: "http://user:secret@" + op.String() + ".test/x?token=secret"}
		if s != store.BranchPrepared {
			b.Called = in(-time.Minute)
		}
		return b
	}
	const (
		todo = store.BranchPrepared
		done = store.BranchSucceeded
		no   = store.BranchFailed
	)
	failing := branch("02", store.Action, todo)
	failing.Called, failing.Error = in(-time.Minute), "HTTP 500:\n\tsaid \"no\""
	sender := "http://user:secret@bank.test/asked?token=secret"
	for _, c := range []struct {
		name string
		t    store.Transaction
		want string
	}{
		{
			"a message that was announced",
			store.Transaction{Pattern: store.Message, State: store.Prepared, QueryPrepared: sender, Due: in(20 * time.Second)},
			"decision: not made yet; the sender has announced it and not submitted; unless it does, bank.test/asked is asked in 20s whether it committed; nothing to do",
		},
		{
			"a message whose sender does not answer",
			store.Transaction{Pattern: store.Message, State: store.Prepared, QueryPrepared: sender, Due: in(3 * time.Minute), Attempts: 2},
			"decision: not made yet; the sender did not submit, and bank.test/asked did not tell whether it committed (asked 2 times without an agreed answer); it is asked again in 3 minutes; mend the sender if it is down",
		},
		{
			"a message on its way",
			store.Transaction{Pattern: store.Message, State: store.Submitted, Due: in(15 * time.Second), Leased: true, Branches: []store.Branch{branch("01", store.Action, done), branch("02", store.Action, todo)}},
			"decision: go on; 1 of 2 branches done; waiting for action of branch 02 at action.test/x; it goes on by itself; nothing to do",
		},
		{
			"a message with a delay",
			store.Transaction{Pattern: store.Message, State: store.Submitted, Created: now, Options: store.Options{Delay: time.Hour}, Due: in(time.Hour), Branches: []store.Branch{branch("01", store.Action, todo)}},
			"decision: go on; 0 of 1 branch done; it begins in 60 minutes, as its sender wished; nothing to do",
		},
		{
			"a message that was stopped half-way",
			store.Transaction{Pattern: store.Message, State: store.Failed, Reason: "enough", Branches: []store.Branch{branch("01", store.Action, done), branch("02", store.Action, todo)}},
			"stopped by force, because \"enough\"; 1 of 2 branches had its message, and the others will not have it; a person must look at them",
		},
		{
			"a saga that is stuck",
			store.Transaction{Pattern: store.Saga, State: store.Submitted, Due: in(40 * time.Second), Attempts: 3, Branches: []store.Branch{branch("01", store.Compensate, todo), branch("01", store.Action, done), branch("02", store.Compensate, todo), failing}},
			"decision: go on; 1 of 2 branches done; stuck: the last 3 attempts failed at action of branch 02, action.test/x said \"HTTP 500: said 'no'\"; tried again in 40s, and for ever; mend the participant, or retry now once it is well",
		},
		{
			"a saga that has a limit",
			store.Transaction{Pattern: store.Saga, State: store.Submitted, Created: now, Due: in(40 * time.Second), Attempts: 1, Options: store.Options{TimeoutToFail: 5 * time.Minute}, Branches: []store.Branch{failing}},
			"decision: go on; 0 of 1 branch done; stuck: the last attempt failed at action of branch 02, action.test/x said \"HTTP 500: said 'no'\"; tried again in 40s; if it is not over in 5 minutes it goes back by itself; nothing to decide",
		},
		{
			"a saga that goes back",
			store.Transaction{Pattern: store.Saga, State: store.Aborting, Reason: "no seats", Due: in(15 * time.Second), Leased: true, Branches: []store.Branch{
				branch("01", store.Compensate, todo), branch("01", store.Action, done), branch("02", store.Compensate, done), branch("02", store.Action, no), branch("03", store.Compensate, todo), branch("03", store.Action, todo),
			}},
			"decision: go back, because \"no seats\"; 1 of 2 branches done; waiting for compensate of branch 01 at compensate.test/x; it goes on by itself; nothing to do",
		},
		{
			"a saga that went back",
			store.Transaction{Pattern: store.Saga, State: store.Failed, Reason: "no seats", Branches: []store.Branch{
				branch("01", store.Compensate, done), branch("01", store.Action, done), branch("02", store.Compensate, todo), branch("02", store.Action, todo),
			}},
			"failed, because \"no seats\"; what had been done is undone; nothing to do",
		},
		{
			"a saga that was stopped",
			store.Transaction{Pattern: store.Saga, State: store.Failed, Reason: "enough", Branches: []store.Branch{branch("01", store.Compensate, todo), branch("01", store.Action, done)}},
			"stopped by force, because \"enough\"; branch 01 was not asked to undo its work, or did not agree; a person must look at it",
		},
		{
			"a TCC at work",
			store.Transaction{Pattern: store.TCC, State: store.Prepared, Due: in(30 * time.Second), Branches: []store.Branch{branch("01", store.Cancel, todo), branch("01", store.Confirm, todo)}},
			"decision: not made yet; the caller is at work, 2 steps so far; unless it submits or aborts, it is aborted in 30s; nothing to do",
		},
		{
			"a TCC that confirms",
			store.Transaction{Pattern: store.TCC, State: store.Submitted, Due: in(30 * time.Second), Leased: true, Branches: []store.Branch{branch("01", store.Cancel, todo), branch("01", store.Confirm, done), branch("02", store.Cancel, todo), branch("02", store.Confirm, todo)}},
			"decision: go on; 1 of 2 branches done; waiting for confirm of branch 02 at confirm.test/x; it goes on by itself; nothing to do",
		},
		{
			"an XA that rolls back and is stuck",
			store.Transaction{Pattern: store.XA, State: store.Aborting, Reason: "Timeout after 35 seconds", Attempts: 1, Due: in(10 * time.Second), Branches: []store.Branch{branch("01", store.Rollback, todo), branch("01", store.Commit, todo)}},
			"decision: go back, because \"Timeout after 35 seconds\"; 0 of 1 branch done; stuck: the last attempt failed at rollback of branch 01, rollback.test/x; tried again in 10s, and for ever; mend the participant, or retry now once it is well",
		},
		{
			"a workflow",
			store.Transaction{Pattern: store.Workflow, State: store.Prepared, QueryPrepared: "flow.test:9000/workflow.Workflow/Execute", Due: in(35 * time.Second), Branches: []store.Branch{branch("01", store.Action, done)}},
			"decision: not made yet; the workflow runs in its program, 1 step so far; if it does not end, flow.test:9000/workflow.Workflow/Execute is called in 35s to resume it; nothing to do",
		},
		{
			"a workflow whose program is gone",
			store.Transaction{Pattern: store.Workflow, State: store.Prepared, QueryPrepared: sender, Due: in(time.Minute), Attempts: 1},
			"decision: not made yet; the workflow runs in its program, and bank.test/asked could not resume it (the last attempt failed); it is called again in 1m0s; mend the program if it is down",
		},
		{"over", store.Transaction{Pattern: store.TCC, State: store.Succeeded}, "succeeded; nothing to do"},
	} {
		if got := api.Verdict(&c.t, now); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}
