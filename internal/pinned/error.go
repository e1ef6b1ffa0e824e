package pinned

import (
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/troth-tx/troth/internal/sqltext"
)

var (
	// ErrNotJoined is returned by Config.StartExec and StartQuery when they did nothing.
	ErrNotJoined = errors.New("troth: statement cannot be joined with the start of the branch")

	// ErrReleased is the reason after Release.
	ErrReleased = errors.New("troth: the branch is over and its session was given back")
)

// A RefusedError is a text that was not sent because it would end the
// branch, or have the database end it.
type RefusedError struct {
	Resource string
	Kind     sqltext.Kind // TransactionControl or ImplicitCommit
	Word     string       // what was refused: "COMMIT", "CREATE"
	Dialect  sqltext.Dialect
}

func (e *RefusedError) Error() string {
	if e.Kind == sqltext.ImplicitCommit {
		return fmt.Sprintf("troth: resource %s: %s refused: %s commits the running transaction before it; "+
			"run it outside of the transaction", e.Resource, e.Word, e.Dialect)
	}
	return fmt.Sprintf("troth: resource %s: %s refused: the branch is begun and ended by the transaction manager; "+
		"return nil from the function to commit, an error to roll back (tx.Commit, tx.Rollback in the explicit form); "+
		"options such as troth.Isolation belong to the whole branch", e.Resource, e.Word)
}

// A SessionLostError says that the session, and with it the branch, is gone. Nothing
// can be said about the statement that met it. It never is driver.ErrBadConn, which
// would tell database/sql to repeat the statement elsewhere.
type SessionLostError struct {
	Resource string
	Cause    error // what the driver said; may be driver.ErrBadConn
}

func (e *SessionLostError) Error() string {
	return fmt.Sprintf("troth: resource %s: the database session of the branch is lost: %v", e.Resource, e.Cause)
}

// Unwrap returns Cause, unless that is driver.ErrBadConn.
func (e *SessionLostError) Unwrap() error {
	if errors.Is(e.Cause, driver.ErrBadConn) {
		return nil
	}
	return e.Cause
}

// A FailedError refuses a statement in a branch that an earlier error has made
// rollback-only. MySQL and SQLite would go on, possibly outside of any
// transaction (both may roll back the whole of it on an error); PostgreSQL
// refuses by itself and is left to do so.
//
// Cause is not in the error's chain: the statement that was refused did not
// meet a duplicate key because an earlier one did.
type FailedError struct {
	Resource string
	Cause    error
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("troth: resource %s: statement refused, an earlier error has made the branch rollback-only "+
		"(roll back to a savepoint set before it, or return an error): %v", e.Resource, e.Cause)
}
