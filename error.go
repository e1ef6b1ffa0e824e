package troth

import (
	"errors"
	"fmt"
	"strings"
)

// What a transaction's error says about it. Each is a condition to branch on
// with errors.Is.
var (
	// ErrRolledBack: the transaction is rolled back everywhere, or sure to be.
	// See [SafeToRetry].
	ErrRolledBack = errors.New("troth: rolled back")

	// ErrPending: the transaction is committed, and some branch has not said so
	// yet. Recovery finishes it; do not run the transaction again.
	ErrPending = errors.New("troth: committed, some branch is still finishing")

	// ErrUndecided: whether the transaction committed is not known yet. Ask
	// [Manager.Wait] with the id from [TxError]; assume neither.
	ErrUndecided = errors.New("troth: outcome not known yet")
)

// Other conditions.
var (
	// ErrClosed: the Manager is closed, or the transaction has ended.
	ErrClosed = errors.New("troth: closed")

	// ErrTimeout: the transaction did not reach its decision in time. It comes
	// together with ErrRolledBack.
	ErrTimeout = errors.New("troth: transaction timed out")

	// ErrUnreachable: a database or the register has not been reached since the
	// Manager was opened. It comes with the error of the last attempt.
	ErrUnreachable = errors.New("troth: not reached yet")

	// ErrNoRecord: no register has a decision about the transaction. It was rolled
	// back before a decision was needed, or committed so long ago that its record
	// is forgotten, or it is still running in another process.
	ErrNoRecord = errors.New("troth: no record of this transaction: rolled back early, forgotten, or still running")

	// ErrNoEvidence: a branch is not there and nothing shows how it ended. See
	// [Resource].
	ErrNoEvidence = errors.New("troth: the branch is gone and nothing shows how it ended")
)

// A TxError is the error of a transaction that did not simply commit. Kind is
// ErrRolledBack, ErrPending or ErrUndecided; errors.Is and errors.As reach both
// Kind and the causes.
type TxError struct {
	GID  GID
	Kind error
	Err  error // the causes, joined; nil if there is none to tell
}

func (e *TxError) Error() string {
	s := e.Kind.Error() + " (" + string(e.GID) + ")"
	if e.Err != nil {
		s += ": " + strings.ReplaceAll(e.Err.Error(), "\n", "; ")
	}
	return s
}

// Unwrap returns the kind and the causes.
func (e *TxError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// A BranchError is one branch's failure.
type BranchError struct {
	Resource string
	Op       string // "begin", "work", "prepare", "commit", "rollback", "decide" or "recover"
	XID      string // the branch's name in the database; empty before it has one
	Err      error  // the driver's error, for errors.As

	// Transient: the same transaction may well succeed if it is run again:
	// a serialization failure, a deadlock, a lock timeout.
	Transient bool
	Hint      string // what a person can do; empty if there is nothing
}

func (e *BranchError) Error() string {
	var b strings.Builder
	b.WriteString(e.Resource)
	b.WriteString(": ")
	b.WriteString(e.Op)
	if e.XID != "" {
		b.WriteString(" ")
		b.WriteString(e.XID)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		b.WriteString(" (")
		b.WriteString(e.Hint)
		b.WriteString(")")
	}
	return b.String()
}

func (e *BranchError) Unwrap() error { return e.Err }

// A HeuristicError says that branches ended against the decision: somebody
// finished them by hand, or a database lost them. The databases disagree, and a
// person must repair the data. The decision record is kept.
type HeuristicError struct {
	GID      GID
	Decision Outcome
	Branches []HeuristicBranch
}

// A HeuristicBranch is a branch that ended against the decision.
type HeuristicBranch struct {
	Resource string
	XID      string
	Ended    Outcome // how the branch ended
	Evidence string  // what shows it, in words: "pg_xact_status says aborted"
}

func (e *HeuristicError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "troth: heuristic outcome: %s was decided %s, but", e.GID, e.Decision)
	for i, h := range e.Branches {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s %s (%s)", h.Resource, h.Ended, h.Evidence)
	}
	return b.String()
}

// SafeToRetry reports whether running the same transaction again is both safe and
// likely to help: it was rolled back, because of a serialization failure, a
// deadlock or a lock timeout.
func SafeToRetry(err error) bool {
	var h *HeuristicError
	if !errors.Is(err, ErrRolledBack) || errors.As(err, &h) {
		return false
	}
	return anyBranchError(err, func(e *BranchError) bool { return e.Transient })
}

// anyBranchError walks the whole tree of causes: errors.As would stop at the
// first.
func anyBranchError(err error, f func(*BranchError) bool) bool {
	if b, ok := err.(*BranchError); ok && f(b) { //nolint:errorlint // the walk itself unwraps
		return true
	}
	switch u := err.(type) { //nolint:errorlint // the walk itself unwraps
	case interface{ Unwrap() error }:
		return anyBranchError(u.Unwrap(), f)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if anyBranchError(e, f) {
				return true
			}
		}
	}
	return false
}
