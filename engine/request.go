package engine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// The errors of requests. What a participant or the store says is wrapped beside them.
var (
	// ErrInvalid: the request can never be accepted as it is. The text names the field.
	ErrInvalid = errors.New("engine: invalid request")

	// ErrNotFound: there is no such transaction, or it was purged.
	ErrNotFound = errors.New("engine: no such transaction")

	// ErrFailed: the transaction is over and did not succeed: what had been done is
	// undone.
	ErrFailed = errors.New("engine: failed")

	// ErrOngoing: the transaction is decided, or may be, and not over. It goes on by
	// itself; ask again.
	ErrOngoing = errors.New("engine: not over yet")

	// ErrClosed: the engine is stopping, or the transaction's pass was given up because
	// it stops. Nothing is lost.
	ErrClosed = errors.New("engine: closed")

	// ErrUnknown: the store did not answer: the request may have been accepted. It may
	// be repeated.
	ErrUnknown = errors.New("engine: not known whether the request was accepted")
)

// A StateError says that a request came too late, or too early. The transaction is
// as it was.
type StateError struct {
	GID     string
	Pattern store.Pattern
	State   store.State
	Request string // "prepare", "submit", "abort", "register", "stop"
}

func (e *StateError) Error() string {
	return fmt.Sprintf("engine: cannot %s %s: it is %s", e.Request, e.GID, e.State)
}

// A change is what a caller asks of a transaction that exists. It alters t, or fails
// and leaves it alone. If drive is set a pass shall begin at once.
type change func(t *store.Transaction, now time.Time) (changed, drive bool, err error)

// prepare is repeated by callers that did not hear the answer. One who means another
// transaction must hear it now: what he commits next could never be submitted, or
// something else would be delivered.
func prepare(t, asked *store.Transaction) error {
	if t.State != store.Prepared || t.Pattern != asked.Pattern {
		return refused(t, "prepare")
	}
	return sameWork(t, asked)
}

// sameWork refuses a repetition under a name whose transaction does something else. A
// request without steps names what is stored.
func sameWork(t, asked *store.Transaction) error {
	if t.Pattern != store.Message && t.Pattern != store.Saga || len(asked.Branches) == 0 {
		return nil
	}
	if slices.EqualFunc(t.Branches, asked.Branches, func(a, b store.Branch) bool {
		return a.ID == b.ID && a.Op == b.Op && a.URL == b.URL && bytes.Equal(a.Payload, b.Payload)
	}) {
		return nil
	}
	return fmt.Errorf("%w with other steps", store.ErrExists)
}

// submit goes forth. Repeated, it begins another pass over the branches that are left,
// never over those that succeeded.
func submit(t, asked *store.Transaction, now time.Time) (changed, drive bool, err error) {
	if mistake.On("submit-twice-is-success") && t.State == store.Submitted {
		finish(t, store.Succeeded, now)
		return true, false, nil
	}
	if t.Pattern != asked.Pattern || t.State != store.Prepared && t.State != store.Submitted {
		return false, false, refused(t, "submit")
	}
	if err := sameWork(t, asked); err != nil {
		return false, false, err
	}
	if t.State == store.Submitted {
		return false, true, nil
	}
	t.State = store.Submitted
	return true, true, nil
}

// abort goes back. A saga is aborted by its own failure only, a workflow by its caller.
func abort(t *store.Transaction, reason string, now time.Time) (changed, drive bool, err error) {
	twoPhase := t.Pattern == store.TCC || t.Pattern == store.XA
	if mistake.On("abort-after-submit") && twoPhase && t.State == store.Submitted {
		t.State = store.Aborting
		return true, true, nil
	}
	switch {
	case twoPhase && t.State == store.Aborting:
		return false, true, nil
	case t.State != store.Prepared || !twoPhase && t.Pattern != store.Message:
		return false, false, refused(t, "abort")
	}
	t.Reason = reason
	if twoPhase {
		t.State = store.Aborting
		return true, true, nil
	}
	finish(t, store.Failed, now)
	return true, false, nil
}

// registered are the operations that callers may add, by pattern. A message and a saga
// come with theirs.
var registered = map[store.Pattern][]store.Op{
	store.TCC:      {store.Confirm, store.Cancel},
	store.XA:       {store.Commit, store.Rollback},
	store.Workflow: {store.Action, store.Compensate, store.Confirm, store.Cancel, store.Commit, store.Rollback, store.Business},
}

// register adds branches while the caller may still go either way. A workflow that
// records a step is alive: it is not resumed for another timeout.
func register(branches []store.Branch, limits *Limits) change {
	return func(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
		if t.State != store.Prepared || len(registered[t.Pattern]) == 0 {
			return false, false, refused(t, "register")
		}
		for _, b := range branches {
			if !slices.Contains(registered[t.Pattern], b.Op) {
				return false, false, fmt.Errorf("%w: branch %s: a %v has no %v", ErrInvalid, b.ID, t.Pattern, b.Op)
			}
			for i := range t.Branches {
				if t.Branches[i].ID == b.ID && t.Branches[i].Op == b.Op {
					return false, false, store.ErrExists
				}
			}
		}
		all := append(t.Branches, branches...)
		if err := limits.checkBranches(all); err != nil {
			return false, false, err
		}
		t.Branches = all
		if t.Pattern == store.Workflow && !t.Leased {
			t.Due = now.Add(cmp.Or(t.Options.TimeoutToFail, limits.TimeoutToFail))
		}
		return true, false, nil
	}
}

// conclude ends a workflow as its caller says. The same end again is no error.
func conclude(end store.State, result, reason string) change {
	return func(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
		switch {
		case t.Pattern != store.Workflow || t.State.Over() && t.State != end:
			return false, false, refused(t, "submit")
		case t.State == end:
			return false, false, nil
		}
		t.Result, t.Reason = result, reason
		finish(t, end, now)
		return true, false, nil
	}
}

// makeDue lets the next pass begin now.
func makeDue(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
	if t.State.Over() {
		return false, false, refused(t, "retry")
	}
	if t.Leased && t.Due.After(now) {
		return false, false, nil // a pass is under way
	}
	t.Due = now
	return true, false, nil
}

// stop ends a transaction by an operator's word. Nothing is called.
func stop(reason string) change {
	return func(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
		if t.State.Over() {
			return false, false, refused(t, "stop")
		}
		if t.Reason == "" {
			t.Reason = reason
		}
		finish(t, store.Failed, now)
		return true, false, nil
	}
}

func finish(t *store.Transaction, s store.State, now time.Time) {
	t.State, t.Finished, t.Due, t.Leased, t.Attempts = s, now, time.Time{}, false, 0
}

func refused(t *store.Transaction, request string) error {
	return &StateError{GID: t.GID, Pattern: t.Pattern, State: t.State, Request: request}
}
