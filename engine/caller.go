package engine

import (
	"context"
	"time"

	"github.com/troth-tx/troth/store"
)

// A Caller carries calls to participants. Package server has one for HTTP and gRPC; in
// one process branches may be Go functions, see Config.Funcs.
type Caller interface {
	// Call makes one call and reports what the participant answered. It returns when
	// ctx ends, if not before. text is for people.
	Call(ctx context.Context, c Call) (a Answer, text string)
}

// A Call is one call of a participant.
type Call struct {
	GID      string
	Pattern  store.Pattern
	Protocol string
	Branch   string // "00" for the transaction's own address
	Op       store.Op
	Name     string // of a workflow, instead of Op
	URL      string
	Payload  []byte
	Headers  map[string]string
	Timeout  time.Duration
}

// ownBranch is the id under which a transaction's own address is called.
const ownBranch = "00"

// An Answer is what a participant may say. Only the agreed words decide (E3).
type Answer uint8

// The answers.
const (
	Success Answer = iota + 1
	Failure        // it did not, and will not
	Ongoing        // not yet: ask again after the same time
	Unknown        // anything else: it may have happened
)
