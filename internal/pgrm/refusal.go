package pgrm

import (
	"errors"
	"strings"

	"github.com/troth-tx/troth"
)

// SQLState is the code that the server gave the error, "" if the error is not
// the server's. pgx and lib/pq both have the method.
func SQLState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// Codes that the protocol looks at by name.
const (
	codeUndefinedObject    = "42704" // COMMIT PREPARED: no such prepared transaction here
	codeNotInState         = "55000" // busy, or prepared transactions are disabled
	codeOtherDatabase      = "0A000"
	codeNotAllowed         = "42501"
	codeReadOnly           = "25006" // a standby
	codeInvalidParameter   = "22023"
	codeUniqueViolation    = "23505"
	codeFailedTransaction  = "25P02"
	codeSerialization      = "40001"
	codeDeadlock           = "40P01"
	codeLockTimeout        = "55P03"
	codeTooManyPrepared    = "53200"
	codeCompletionUnknown  = "40003"
	codeCanceled           = "57014"
	codeDuplicateGID       = "42710"
	codeIdleInTransaction  = "25P03"
	codeStatementPooling   = "08P01"
	codeAdminShutdown      = "57P01"
	codeNoActiveTransation = "25P01"
)

// refused reports whether the error proves that PREPARE TRANSACTION or COMMIT, or
// what went before it in the same round trip, was refused and the transaction is
// rolled back or can only be rolled back (R10). The list is of what the server
// says while its session goes on; internal errors (XX), trouble with files (58)
// and everything fatal (57P) are not on it.
func refused(err error) bool {
	code := SQLState(err)
	if len(code) != 5 {
		return false
	}
	switch code {
	case codeCanceled: // while deferred triggers ran: a flush is not cancelled
		return true
	case codeCompletionUnknown, codeIdleInTransaction:
		return false
	}
	switch code[:2] {
	case "0A", // what a prepared transaction cannot contain
		"09", "20", "21", "22", "24", "27", "2B", "2F", "34", "38", "39", "3B", "P0", // raised by statements and deferred triggers
		"26", // a prepared statement that the server forgot
		"23", // deferred constraints; the decision is there already
		"25", // no transaction, failed, read-only, a standby
		"3D", "3F", "42", "44",
		"40", // serialization failure, deadlock
		"53", // no slot
		"54", "55":
		return true
	}
	return false
}

// transient reports whether the same transaction may well succeed next time.
func transient(err error) bool {
	switch SQLState(err) {
	case codeSerialization, codeDeadlock, codeLockTimeout:
		return true
	}
	return false
}

// hint says what a person can do about the error, "" if there is nothing to say.
func hint(err error) string {
	text := err.Error()
	has := func(s string) bool { return strings.Contains(text, s) }
	switch SQLState(err) {
	case codeTooManyPrepared:
		if has("prepared transactions") {
			return "every slot holds a prepared transaction: end forgotten ones (SELECT * FROM pg_prepared_xacts) or ALTER SYSTEM SET max_prepared_transactions to more than max_connections and restart"
		}
	case codeNotInState:
		if has("disabled") {
			return "ALTER SYSTEM SET max_prepared_transactions = 200 and restart the server"
		}
	case codeOtherDatabase:
		switch {
		case has("temporary"):
			return "use no temporary tables in the transaction, or make this database its home: troth.Home"
		case has("NOTIFY"):
			return "send NOTIFY from Tx.AfterDone, or make this database the transaction's home: troth.Home"
		case has("WITH HOLD"):
			return "declare the cursor without WITH HOLD"
		case has("exported snapshots"):
			return "do not export snapshots in the transaction"
		case has("another database"):
			return "connect the resource to the database where the branch was prepared"
		}
	case codeNotAllowed:
		if has("finish prepared") {
			return "recovery must log in as the role that prepared the branch, or as a superuser"
		}
	case codeReadOnly:
		return "this server is a standby or the transaction is read-only: connect to the primary"
	case codeDuplicateGID:
		return "a recovering process holds the name of this branch: run the transaction again"
	case codeIdleInTransaction:
		return "the program paused longer than Config.LifeMax within the transaction"
	case codeStatementPooling:
		if has("statement pooling") {
			return "PgBouncer pools statements: set pool_mode to transaction or session"
		}
	case codeSerialization, codeDeadlock, codeLockTimeout:
		return "run the transaction again"
	}
	return ""
}

// branchError wraps an error of a branch. name may be empty.
func branchError(resource, op, name string, err error) *troth.BranchError {
	var already *troth.BranchError
	if errors.As(err, &already) && already.Resource == resource {
		return already
	}
	return &troth.BranchError{
		Resource: resource, Op: op, XID: name, Err: err,
		Transient: transient(err), Hint: hint(err),
	}
}
