package pgrm

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth"
)

// quote writes s as an SQL string literal. It is the only place that does, and
// takes only what could not end a literal anyway (S1): a branch's name, a number,
// an identifier of ours. Anything else is a bug.
func quote(s string) string {
	for i := range len(s) {
		c := s[i]
		if c == '\'' || c == '\\' || c < ' ' || c > '~' {
			panic("pgrm: quote: unexpected " + strconv.Quote(s))
		}
	}
	return "'" + s + "'"
}

// beginSQL begins a transaction. SET LOCAL travels in the same round trip and
// ends with the transaction; a plain SET, done once per session, would save the
// server some microseconds, but a pooler in front, DISCARD ALL or the
// transaction's own rollback may undo it unseen.
func beginSQL(level sql.IsolationLevel, lifeMax time.Duration) (string, error) {
	text := "BEGIN"
	switch level {
	case sql.LevelDefault:
	case sql.LevelReadUncommitted:
		text = "BEGIN ISOLATION LEVEL READ UNCOMMITTED"
	case sql.LevelReadCommitted:
		text = "BEGIN ISOLATION LEVEL READ COMMITTED"
	case sql.LevelRepeatableRead, sql.LevelSnapshot: // what PostgreSQL calls repeatable read is a snapshot
		text = "BEGIN ISOLATION LEVEL REPEATABLE READ"
	case sql.LevelSerializable:
		text = "BEGIN ISOLATION LEVEL SERIALIZABLE"
	case sql.LevelWriteCommitted, sql.LevelLinearizable:
		fallthrough
	default:
		return "", fmt.Errorf("isolation level %v does not exist in PostgreSQL: use ReadCommitted, RepeatableRead, Snapshot or Serializable", level)
	}
	if lifeMax > 0 { // R5: the server ends a transaction whose program stopped
		text += "; SET LOCAL idle_in_transaction_session_timeout = " + strconv.FormatInt(max(lifeMax.Milliseconds(), 1), 10)
	}
	return text, nil
}

// Parts splits a BEGIN text into its statements.
func Parts(begin string) []string { return strings.Split(begin, "; ") }

const (
	xidSQL = "SELECT pg_current_xact_id_if_assigned()"

	// guardSQL fails outside a transaction block. It stands before what would
	// otherwise be carried out alone if the branch's transaction were gone, where
	// the driver does not show the state of the session.
	guardSQL   = "SAVEPOINT troth_guard"
	unguardSQL = "RELEASE troth_guard"

	// durableSQL makes the coming COMMIT wait for its flush if the session would
	// not. It leaves the stronger settings alone (remote_apply ...).
	durableSQL = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)

func prepareSQL(xid troth.XID) string          { return "PREPARE TRANSACTION " + quote(xid.String()) }
func commitPreparedSQL(xid troth.XID) string   { return "COMMIT PREPARED " + quote(xid.String()) }
func rollbackPreparedSQL(xid troth.XID) string { return "ROLLBACK PREPARED " + quote(xid.String()) }

// listedSQL gives the branch's name if it is prepared here.
func listedSQL(xid troth.XID) string {
	return "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid = " + quote(xid.String())
}

// evidence is what [troth.Branch.Evidence] returns: "<xid8>-<system identifier
// in hexadecimal>". A transaction's number says nothing on another cluster, so
// the cluster is named. It is a durable format.
func evidence(xid8, system string) string {
	if xid8 == "" || system == "" {
		return xid8
	}
	return xid8 + "-" + system
}

func parseEvidence(s string) (xid8, system string, ok bool) {
	xid8, system, _ = strings.Cut(s, "-")
	_, err := strconv.ParseUint(xid8, 10, 64)
	return xid8, system, err == nil
}
