package client

import (
	"context"
	"time"
)

// A Transport carries requests to a server. Each method makes one attempt. Its errors
// are *[Error]; ErrUnknown makes the client repeat the request, so every request may
// reach the server twice. Methods are safe for concurrent use.
type Transport interface {
	Prepare(ctx context.Context, t *Transaction) error
	Submit(ctx context.Context, t *Transaction) error
	Abort(ctx context.Context, t *Transaction) error
	Register(ctx context.Context, b *Branch) error

	// StartWorkflow creates a workflow, or finds it, and returns it with its steps.
	StartWorkflow(ctx context.Context, t *Transaction) (*Status, error)

	// EndWorkflow tells how the function of a workflow ended: t.Failed, t.Reason, t.Result.
	EndWorkflow(ctx context.Context, t *Transaction) error

	// Status returns a transaction as the server has it. ErrNotFound: there is none.
	// ErrInvalid: this transport cannot ask.
	Status(ctx context.Context, gid string) (*Status, error)

	// Server is the address that participants are told, who register branches
	// themselves; empty if it has none.
	Server() string

	// Protocol is that of addresses which do not tell: "http" or "grpc".
	Protocol() string
}

// A Pattern is the way in which the branches of a transaction become one.
type Pattern string

// The patterns, by their names on the wire.
const (
	PatternMessage  Pattern = "msg"
	PatternSaga     Pattern = "saga"
	PatternTCC      Pattern = "tcc"
	PatternXA       Pattern = "xa"
	PatternWorkflow Pattern = "workflow"
)

// A State is how far a transaction is.
type State string

// The states, by their names on the wire.
const (
	Prepared  State = "prepared"  // announced; it may yet go either way
	Submitted State = "submitted" // decided to go forth
	Aborting  State = "aborting"  // decided to go back
	Succeeded State = "succeed"   // over
	Failed    State = "failed"    // over
)

// Over reports whether nothing is left to do.
func (s State) Over() bool { return s == Succeeded || s == Failed }

// An Op is what a participant is asked for.
type Op string

// The operations, by their names on the wire.
const (
	OpTry        Op = "try"
	OpAction     Op = "action"
	OpCompensate Op = "compensate"
	OpConfirm    Op = "confirm"
	OpCancel     Op = "cancel"
	OpCommit     Op = "commit"
	OpRollback   Op = "rollback"
	OpQuery      Op = "msg" // whether the sender of a message committed
)

// A Transaction is what a request says of one. Which fields count depends on the request.
type Transaction struct {
	GID           string
	Pattern       Pattern
	Steps         []Step // of a message or a saga
	QueryPrepared string // where the server asks about a message, or resumes a workflow
	Options       Options

	Delay      time.Duration // of a message
	Concurrent bool          // of a message or a saga
	Orders     map[int][]int // of a concurrent saga: what a step waits for

	Name  string // of a workflow
	Input []byte // of a workflow

	Failed bool   // how a workflow ended
	Reason string // of an abort, or of a workflow that failed
	Result []byte // of a workflow that succeeded
}

// A Step of a message or a saga.
type Step struct {
	Action     string
	Compensate string // of a saga
	Payload    []byte
}

// A Branch is registered by whoever calls it, or takes part with it.
type Branch struct {
	GID     string
	Pattern Pattern // TCC, XA or workflow
	ID      string

	Confirm, Cancel string // of a TCC
	Payload         []byte // of a TCC: sent with Confirm and Cancel
	URL             string // of an XA branch: where it is committed or rolled back

	Op     Op     // of a workflow's step
	Failed bool   // how a workflow's step ended
	Data   []byte // of a workflow's step
}

// A Status is a transaction as the server has it.
type Status struct {
	GID      string
	Pattern  Pattern
	State    State
	Reason   string // why it went back
	Result   []byte // of a workflow
	Name     string // of a workflow
	Input    []byte // of a workflow
	Branches []BranchStatus
}

// A BranchStatus is one operation of one branch.
type BranchStatus struct {
	ID    string
	Op    Op
	URL   string
	State State  // Prepared, Succeeded or Failed
	Data  []byte // of a workflow's step
}
