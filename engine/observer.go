package engine

import (
	"time"

	"github.com/troth-tx/troth/store"
)

// An Observer is told what an engine does. All functions are optional; they must return
// quickly and must not call the engine. What they are given is theirs.
type Observer struct {
	// Created: a transaction was stored for the first time.
	Created func(p store.Pattern)

	// Ended: a transaction is over, and how long it took from its creation.
	Ended func(p store.Pattern, s store.State, took time.Duration)

	// Called: a participant was called.
	Called func(p store.Pattern, op store.Op, a Answer, took time.Duration)

	// Missed: a pass ended without success, because of an answer that was none of the
	// agreed ones. It is tried again for ever.
	Missed func(Miss)
}

// A Miss is a pass that failed.
type Miss struct {
	GID      string
	Pattern  store.Pattern
	State    store.State
	Branch   string // the first that failed; "00" for the transaction's own address
	Op       store.Op
	Error    string
	Attempts int // passes that failed since one went well
}
