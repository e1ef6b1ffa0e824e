// Package lastresource is a resource manager for databases that cannot prepare,
// as far as it is the same for all of them. Such a database takes part in a global
// transaction as its home participant: it commits last, in one phase, and the
// record of the decision commits with its own work. Hence the name (last resource
// commit optimization, in the words of the Java application servers), but for the
// record: without it a crash at the wrong moment splits the transaction.
//
// Rules kept here: R1 to R3 and R9 ([Branch.CommitDeciding]), R5 (the age of a
// branch), R10 ([Engine.Commit]).
package lastresource

import (
	"context"
	"database/sql"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/sqltext"
)

// An Engine is what differs between databases. Its methods are safe for
// concurrent use on different lines.
type Engine interface {
	// Dialect is how the database writes SQL and keeps decisions.
	Dialect() sqltext.Dialect

	// Examine looks at the settings of the database and of a session as the pool
	// gives it. It changes nothing. lifeMax is 0 if it is not known.
	Examine(ctx context.Context, l Line, lifeMax time.Duration) ([]troth.Finding, error)

	// Open is called once Examine found nothing fatal: the engine may look for what
	// it must know to begin branches. It may be called again.
	Open(ctx context.Context, l Line, lifeMax time.Duration) error

	// Begin begins the transaction of a branch. What it returns is valid with an
	// error too.
	Begin(ctx context.Context, l Line, how How) (Begun, error)

	// Changed reports whether the transaction changed anything, or locked what must
	// stay locked, by what the client saw and the server knows. If unsure: true.
	Changed(ctx context.Context, l Line, b Begun, seen pinned.Change) (bool, error)

	// Record runs insert, which records the decision, in the transaction. It fails
	// unless that is still the one that Begin began: in a session whose transaction
	// has silently ended, the record would be committed at once, and without the
	// work. It also sees to it that the coming COMMIT is durable.
	Record(ctx context.Context, l Line, b Begun, insert string) error

	// Commit sends COMMIT. nil: the database acknowledged it. never: the error
	// proves that this COMMIT did not and cannot take effect. Otherwise nobody
	// knows (R10).
	Commit(ctx context.Context, l Line) (never bool, err error)

	// Idle reports whether an error of ROLLBACK says only that there is no
	// transaction.
	Idle(err error) bool

	// Transient reports whether the same work may well succeed if it is tried
	// again: a lock timeout, a deadlock, a serialization failure.
	Transient(err error) bool
}

// How says how to begin a branch.
type How struct {
	GID       troth.GID
	Isolation sql.IsolationLevel
	Deadline  time.Time // of the transaction; zero if there is none
}

// Begun is what is to be remembered about a transaction that was begun.
type Begun struct {
	Undo []string // puts the session's settings back when the transaction is over
	GID  troth.GID
	Mark int64 // the engine's own
}
