package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth"
)

// Errors that the servers answer. The XA ones are MariaDB's and MySQL's alike.
const (
	codeDatabaseDenied  = 1044
	codeUnknownTable    = 1146
	codeSyntax          = 1064
	codeDuplicateKey    = 1062
	codeNoSuchThread    = 1094
	codeKillDenied      = 1095
	codeTableDenied     = 1142
	codeLockWait        = 1205
	codeDeadlock        = 1213
	codePrivilege       = 1227
	codeRecordChanged   = 1020 // MariaDB: changed since the snapshot (innodb_snapshot_isolation)
	codeReadOnly        = 1290
	codeLockNoWait      = 3572 // MySQL 8
	codeUnknownXID      = 1397 // XAER_NOTA
	codeXAOutside       = 1400 // XAER_OUTSIDE
	codeXARolledBack    = 1402 // XA_RBROLLBACK
	codeXATimeout       = 1613 // XA_RBTIMEOUT
	codeXADeadlock      = 1614 // XA_RBDEADLOCK
	codeXADuplicate     = 1440 // XAER_DUPID
	codeXARecoverDenied = 1401 // XAER_RMERR: MySQL 8 without XA_RECOVER_ADMIN
)

// serverCode is the number of the error that the server answered; 0 if err is not
// an answer: then nothing is known about what the server did (R10).
func serverCode(err error) uint16 {
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		return answer.Number
	}
	return 0
}

func isCode(err error, codes ...uint16) bool {
	code := serverCode(err)
	for _, c := range codes {
		if code == c {
			return code != 0
		}
	}
	return false
}

// transient: the same transaction may well succeed if it runs again.
func transient(err error) bool {
	return isCode(err, codeDeadlock, codeLockWait, codeLockNoWait, codeRecordChanged, codeXADeadlock, codeXATimeout)
}

// branchError dresses the error of one branch.
func (r *Resource) branchError(op string, xid troth.XID, err error) error {
	if err == nil {
		return nil
	}
	var done *troth.BranchError
	var heuristic *troth.HeuristicError
	if errors.As(err, &done) || errors.As(err, &heuristic) || errors.Is(err, troth.ErrNoEvidence) {
		return err
	}
	name := ""
	if xid.GID != "" {
		name = xid.String()
	}
	return &troth.BranchError{Resource: r.name, Op: op, XID: name, Err: err, Transient: transient(err), Hint: hint(err)}
}

// A hintError is an error that a person can mend.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() + " (" + e.hint + ")" }
func (e *hintError) Unwrap() error { return e.err }

// hinted adds what to do, where that is known.
func hinted(err error) error {
	if h := hint(err); h != "" {
		return &hintError{err, h}
	}
	return err
}

func hint(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return "" // it says so itself
	}
	switch serverCode(err) {
	case codeKillDenied:
		return "let all processes use one database user, or GRANT CONNECTION ADMIN (MariaDB), CONNECTION_ADMIN (MySQL 8)"
	case codeXARecoverDenied:
		return "an administrator runs GRANT XA_RECOVER_ADMIN ON *.* TO the user that CURRENT_USER() shows"
	case codeXAOutside:
		return "the session has a transaction open or autocommit = 0: use a *sql.DB without autocommit in its DSN"
	case codeReadOnly:
		return "the server is read-only; is it a replica?"
	}
	return ""
}

// detached returns a context for what must be finished although ctx has ended.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), cleanupTimeout,
		fmt.Errorf("mysql: no answer within %v", cleanupTimeout))
}
