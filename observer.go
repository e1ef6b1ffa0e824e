package troth

import "time"

// An Observer is told what happens. Every field may be nil. The functions are
// called by the goroutine that does the work: they must be quick and must not
// call the Manager.
type Observer struct {
	// TxBegin: a transaction began.
	TxBegin func(GID)
	// TxEnd: a transaction ended for its caller. err is what Commit or Rollback
	// returned.
	TxEnd func(gid GID, outcome Outcome, branches int, took time.Duration, err error)
	// BranchOp: a branch was asked to prepare, decide, commit or roll back.
	BranchOp func(gid GID, resource, op string, took time.Duration, err error)
	// Recovered: recovery ended an in-doubt branch.
	Recovered func(xid XID, resource string, outcome Outcome)
	// RecoverPass: a recovery pass ended. inDoubt counts our prepared branches that
	// it left, unreachable the resources that it could not ask.
	RecoverPass func(inDoubt, unreachable int, took time.Duration)
	// Heuristic: branches ended against the decision. A person must act.
	Heuristic func(*HeuristicError)
}
