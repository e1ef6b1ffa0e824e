package mysql

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth"
)

// This file is the only one that puts values into SQL text. What goes in is
// either a number or an identifier of a validated alphabet, and still written in
// hexadecimal or quoted.

// xidLiteral writes the name of a branch for XA statements, which take no
// placeholders: X'<gtrid>',X'<bqual>',<format id>. The format id must not exceed
// 2147483647 there; ours is 1414680404.
func xidLiteral(x troth.XID) string {
	gtrid, bqual := x.GTRID(), x.BQUAL()
	b := make([]byte, 0, 2*len(gtrid)+2*len(bqual)+20)
	b = append(b, "X'"...)
	b = hex.AppendEncode(b, []byte(gtrid))
	b = append(b, "',X'"...)
	b = hex.AppendEncode(b, []byte(bqual))
	b = append(b, "',"...)
	return string(strconv.AppendUint(b, uint64(troth.FormatID), 10))
}

func xaStart(x troth.XID) string    { return "XA START " + xidLiteral(x) }
func xaEnd(x troth.XID) string      { return "XA END " + xidLiteral(x) }
func xaPrepare(x troth.XID) string  { return "XA PREPARE " + xidLiteral(x) }
func xaCommit(x troth.XID) string   { return "XA COMMIT " + xidLiteral(x) }
func xaOnePhase(x troth.XID) string { return "XA COMMIT " + xidLiteral(x) + " ONE PHASE" }
func xaRollback(x troth.XID) string { return "XA ROLLBACK " + xidLiteral(x) }

// quoted writes a string of the alphabet of GIDs and places as a literal. None of
// its characters needs escaping, which is checked all the same.
func quoted(s string) string {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("._~@-", rune(c)) {
			panic("mysql: " + strconv.Quote(s) + " is not an identifier of troth's")
		}
	}
	return "'" + s + "'"
}

// quotedName writes the name of a schema or table.
func quotedName(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }

// selectWitness reads the witness row of a branch: a row proves that the branch
// has committed.
func selectWitness(table string, x troth.XID) string {
	return "SELECT 1 FROM " + table + " WHERE gid = " + quoted(string(x.GID)) + " AND branch = " + strconv.Itoa(x.Branch)
}

func killSession(id uint64) string { return "KILL CONNECTION " + strconv.FormatUint(id, 10) }

// idleLimit has the server end a session that sits idle in a transaction (R5).
// MySQL has no such setting, but ends every session that is idle for long.
func idleLimit(e engine, d time.Duration) string {
	seconds := strconv.FormatInt(max(1, int64(d/time.Second)), 10)
	if e.maria {
		return "SET SESSION idle_transaction_timeout = " + seconds
	}
	return "SET SESSION wait_timeout = " + seconds
}

// isolationLevel applies to the next transaction of the session: XA START follows.
// It is empty for the server's default.
func isolationLevel(level sql.IsolationLevel) (string, error) {
	name := ""
	switch level {
	case sql.LevelDefault:
		return "", nil
	case sql.LevelReadUncommitted:
		name = "READ UNCOMMITTED"
	case sql.LevelReadCommitted:
		name = "READ COMMITTED"
	case sql.LevelRepeatableRead:
		name = "REPEATABLE READ"
	case sql.LevelSerializable:
		name = "SERIALIZABLE"
	case sql.LevelWriteCommitted, sql.LevelSnapshot, sql.LevelLinearizable:
		fallthrough
	default:
		return "", fmt.Errorf("mysql: isolation level %v: MariaDB and MySQL have read uncommitted, read committed, repeatable read, serializable", level)
	}
	return "SET TRANSACTION ISOLATION LEVEL " + name, nil
}
