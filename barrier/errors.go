package barrier

import (
	"errors"
	"fmt"
)

// Errors to branch on. Whatever else a function here returns is the database's, wrapped.
var (
	// ErrInvalid: a step, a configuration or an argument is wrong in itself. Nothing was
	// sent to the database, and repeating the call does not help.
	ErrInvalid = errors.New("barrier: invalid")

	// ErrDuplicated: the local transaction of a message (op "msg") has its row, so it
	// must not run. Either it ran before, and the message is to be submitted, or the
	// error is also ErrRuledOut.
	ErrDuplicated = errors.New("barrier: the message has a local transaction already")

	// ErrRuledOut: QueryPrepared came first and answered that there was no local
	// transaction, so there may be none any more. It wraps ErrDuplicated.
	ErrRuledOut = fmt.Errorf("barrier: the local transaction was ruled out by a query: %w", ErrDuplicated)

	// ErrTable: the table is not fit for its task, as the error says: it compares names
	// without regard to case, it has no unique key, or somebody deletes its rows.
	ErrTable = errors.New("barrier: unfit table")

	// ErrLost: the database had rolled the transaction back before it was committed, and
	// an error that said so was swallowed by the function that [Table.Run] called.
	ErrLost = errors.New("barrier: the transaction was rolled back by the database")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}
