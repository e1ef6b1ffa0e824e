package store

import (
	"fmt"
	"slices"
	"time"
)

// A Pattern is the way in which the branches of a transaction become one.
type Pattern uint8

// The patterns. In stores: never renumber.
const (
	Message  Pattern = iota + 1 // called until they succeed, once the sender's own transaction committed
	Saga                        // actions, and compensations if one fails
	TCC                         // tried by the caller; confirmed or cancelled here
	XA                          // prepared by the caller; committed or rolled back here
	Workflow                    // a function of the caller's, which is called again until it ends
)

// String is the pattern's name, as callers and operators use it.
func (p Pattern) String() string {
	return nameOf(p, patternNames)
}

// A State is how far a transaction is. What leads from one to another is in
// package engine, with each pattern.
type State uint8

// The states. In stores: never renumber.
const (
	Prepared  State = iota + 1 // announced; the caller may yet go either way
	Submitted                  // decided to go on: actions, confirms or commits are due
	Aborting                   // decided to go back: compensations, cancels or rollbacks are due
	Succeeded                  // over
	Failed                     // over
)

// String is the state's name, as callers and operators use it.
func (s State) String() string {
	return nameOf(s, stateNames)
}

// Over reports whether nothing is left to do.
func (s State) Over() bool { return s == Succeeded || s == Failed }

// An Op is what a branch is asked for.
type Op uint8

// The operations. In stores: never renumber.
const (
	Action Op = iota + 1
	Compensate
	Confirm
	Cancel
	Commit
	Rollback
	Business // a workflow's XA branch at its work
	Query    // whether the sender's own transaction committed; branch "00"
	Resume   // a workflow; branch "00"
)

// String is the operation's name, as participants know it. The question to a sender
// is "msg", and the resumption of a workflow is known by the workflow's name instead.
func (o Op) String() string {
	return nameOf(o, opNames)
}

// A BranchState is how far a branch is with its operation.
type BranchState uint8

// The states of a branch. In stores: never renumber.
const (
	BranchPrepared  BranchState = iota + 1 // not asked yet, or no agreed answer
	BranchSucceeded                        // it said so
	BranchFailed                           // it said so: an action of a saga, a step of a workflow
)

// String is the state's name, as callers and operators use it.
func (s BranchState) String() string { return nameOf(s, branchStateNames) }

var (
	patternNames     = []string{"msg", "saga", "tcc", "xa", "workflow"}
	stateNames       = []string{"prepared", "submitted", "aborting", "succeed", "failed"}
	opNames          = []string{"action", "compensate", "confirm", "cancel", "commit", "rollback", "business", "msg", "resume"}
	branchStateNames = []string{"prepared", "succeed", "failed"}
)

// nameOf names a value of an enumeration that begins at 1.
func nameOf[T ~uint8](v T, names []string) string {
	if v < 1 || int(v) > len(names) {
		return fmt.Sprintf("unknown (%d)", uint8(v))
	}
	return names[v-1]
}

// A Transaction is a global transaction across services. GID to Options are what
// the caller asked for; what changes afterwards follows.
type Transaction struct {
	GID     string
	Owner   string // the principal that made it; empty where nobody has to say who they are
	Pattern Pattern

	// Protocol is that of branches whose address does not tell: "http", "grpc", "json-rpc".
	Protocol string

	// QueryPrepared is the address that tells whether the sender of a message
	// committed, or that resumes a workflow.
	QueryPrepared string

	// Data belongs to the caller: a workflow's name and input, in dtm's form.
	Data string

	Options Options

	// Branches are in the order in which they were registered, one for each
	// operation. None is ever removed.
	Branches []Branch

	Created  time.Time // by the clock of the node that made it
	Updated  time.Time
	Finished time.Time // zero until it is over

	State  State
	Reason string // why it went back
	Result string // of a workflow

	// Due is when to look at it next; zero once it is over. While an engine drives the
	// transaction it lies ahead, and Leased is set: nothing but speed depends on leases,
	// and a store that only one engine can have open ends them all when it is opened.
	Due      time.Time
	Leased   bool
	Interval time.Duration // to the next attempt if this one fails
	Attempts int           // passes that failed since one went well: it is stuck if any did

	// Version goes up by one at every change: the store changes a transaction only
	// for those who know its latest.
	Version int64
}

// Clone returns a copy that shares only what never changes: the payloads and the
// options.
func (t *Transaction) Clone() *Transaction {
	c := *t
	c.Branches = slices.Clone(t.Branches)
	return &c
}

// Options are what a caller may ask for beside its branches. Zero values stand for
// the engine's defaults.
type Options struct {
	Wait           bool              // answer when the first pass has ended
	TimeoutToFail  time.Duration     // a saga, TCC or XA goes back after this; a message's sender is asked
	RetryInterval  time.Duration     // before the first repetition; it doubles
	RequestTimeout time.Duration     // of one call of a branch
	RetryLimit     int               // repetitions of a saga's action, at once, before it counts as failed; 0: no limit, no hurry
	Concurrent     bool              // actions do not wait for one another
	Orders         map[int][]int     // what the action of a step waits for, of a concurrent saga; steps count from 0
	Delay          time.Duration     // of a message
	Headers        map[string]string // sent with every call of a branch
}

// A Branch is one operation of one participant.
type Branch struct {
	ID      string
	Op      Op
	URL     string // empty: there is nothing to call, and it succeeds
	Payload []byte

	State BranchState

	// Called is when it was first called; zero if it cannot have been. It is in the
	// store before the call of an action that would have to be compensated.
	Called   time.Time
	Finished time.Time
	Error    string // of the last attempt, cut to 1 KiB
}
