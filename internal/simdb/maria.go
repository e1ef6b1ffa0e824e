package simdb

import (
	"slices"
	"strings"
	"time"
)

// A maria simulates MariaDB 10.11 with InnoDB. What it does, and what it does not:
//
// Transactions: XA in all its states (mariaxa.go), local ones, autocommit, savepoints.
// A transaction of the storage engine begins with the first statement that touches a
// table; txn is that one, so a session that has only said BEGIN or XA START has none.
//
// Locks: of records and gaps, as InnoDB queues them (marialock.go), its search for
// deadlocks (mariadeadlock.go), what statements that name keys lock (mariarow.go), and
// records that stay until purge comes (mariapurge.go). Isolation levels: all four.
//
// Crashes: a prepared branch that changed something comes back, with locks on what
// it changed; one that was rolled back may come back, too (F8).
//
// Not here: DDL but CREATE TABLE, metadata locks, foreign keys, secondary indexes,
// privileges, several schemas, read-only servers.
type maria struct {
	srv  *Server
	boot time.Time

	branches []*branch // whose name is taken, oldest first
	lost     []*branch // in no list although InnoDB holds them: see mariaxa.go
	undone   []undone  // rollbacks that a crash may take back
	leaving  []leaver  // threads that are about to end
	suspects []*txn    // waits that may have become part of a deadlock

	marks     []*row // deleted, and not purged yet
	purged    uint64 // the last commit that purge has seen
	purgeHeld bool   // purge comes when a test calls it

	current bool // reads see what is committed now, whatever the snapshot
}

const (
	mariaVersion = "10.11.19-MariaDB-0+deb12u1"
	mariaSchema  = "troth"
)

// A mariaSession is the state of a session on MariaDB.
type mariaSession struct {
	manual bool // autocommit = 0
	begun  bool // BEGIN was said
	branch *branch

	level, next isolation // of the session, of its next transaction; 0: the default
	lockWait    int64     // innodb_lock_wait_timeout + 1; 0: the default
	idleMax     int64     // idle_transaction_timeout in seconds; 0: none

	savepoints []savepoint
	brink      func() error // what a statement does that pauses before doing it
	changed    bool         // whether the transaction had changed anything when the statement began
}

type isolation uint8

const (
	readUncommitted isolation = 1 + iota
	readCommitted
	repeatableRead
	serializable
)

// A savepoint is a place in a transaction of a session.
type savepoint struct {
	name   string
	joined bool // the storage engine had a transaction then: mark is a place in it
	mark   mark
}

func newMaria(srv *Server) engine { return &maria{srv: srv, boot: srv.now()} }

func (m *maria) schema() string                     { return mariaSchema }
func (m *maria) barges() bool                       { return false }
func (m *maria) undoFrees() bool                    { return false }
func (m *maria) locksAll() bool                     { return true }
func (m *maria) countsFound() bool                  { return false }
func (m *maria) numbered(*call)                     {}
func (m *maria) finish(_ *Session, err error) error { return err }

// inTransaction reports whether the session is in a local transaction.
func (s *Session) inTransaction() bool {
	return s.maria.branch == nil && (s.maria.begun || s.maria.manual && s.tx != nil)
}

// isolation is that of the transaction that the session has, or begins next.
func (s *mariaSession) isolation() isolation {
	switch {
	case s.next != 0:
		return s.next
	case s.level != 0:
		return s.level
	}
	return repeatableRead
}

// A mariaTable is a statement that touches tables. Others have no transaction.
type mariaTable interface{ touches(srv *Server) bool }

func (m *maria) touches(st statement) bool {
	t, ok := st.(mariaTable)
	return ok && t.touches(m.srv)
}

// admit refuses statements that the state of the branch forbids, and joins InnoDB to
// the transaction.
func (m *maria) admit(c *call) error {
	s := c.s
	if !m.touches(c.st) {
		return nil
	}
	b := s.maria.branch
	refused := b != nil && b.state != branchActive
	if s.tx == nil && !refused {
		s.begin().isolated = s.maria.isolation() >= repeatableRead
	}
	if s.tx != nil {
		c.mark = s.tx.mark("")
		s.maria.changed = s.tx.changed
	}
	if refused {
		return b.wrongState()
	}
	return nil
}

// conclude ends the transaction of a single statement, and takes back a statement
// that failed. A deadlock takes the whole transaction with it.
func (m *maria) conclude(c *call, err error) error {
	s := c.s
	if s.tx == nil || !m.touches(c.st) {
		return err
	}
	single := s.maria.branch == nil && !s.maria.begun && !s.maria.manual
	switch e := asError(err); {
	case err == nil && single:
		m.commitLocal(s)
	case err == nil:
	case single, e != nil && e.Code == mariaDeadlock:
		m.rollbackLocal(s)
		if b := s.maria.branch; b != nil {
			b.state = branchRollbackOnly
		}
	default:
		m.undo(s.tx, c.mark)
		s.tx.changed = s.maria.changed
	}
	return err
}

// commitLocal ends the local transaction of a session, if there is one.
func (m *maria) commitLocal(s *Session) {
	m.commitTx(s.tx, Committed, s, "")
	m.over(s)
}

// rollbackLocal takes back the transaction of a session, if there is one.
func (m *maria) rollbackLocal(s *Session) {
	if tx := s.tx; tx != nil {
		told := len(tx.undo) > 0 || len(tx.maria.locks) > 0
		m.rollbackTx(tx)
		if told {
			m.srv.tell(RolledBack, s, "")
		}
	}
	m.over(s)
}

// over forgets what belonged to a session's transaction.
func (m *maria) over(s *Session) {
	s.tx = nil
	s.maria.begun, s.maria.next, s.maria.savepoints = false, 0, nil
}

// commitTx commits a transaction of InnoDB. Its forced write makes durable what was
// written before.
func (m *maria) commitTx(tx *txn, kind EventKind, by *Session, name string) {
	if tx == nil {
		return
	}
	told := len(tx.undo) > 0 || len(tx.maria.locks) > 0 || name != ""
	if tx.changed {
		m.undone = nil
	}
	m.mark(tx)
	tx.commit()
	m.release(tx)
	m.mayPurge()
	if told {
		m.srv.tell(kind, by, name)
	}
}

// undo takes back what a transaction did since a mark. Locks stay.
func (m *maria) undo(tx *txn, to mark) {
	touched := slices.Clone(tx.undo[to.undo:])
	tx.undoTo(to)
	for i := range touched {
		if r := touched[i].row; r.dirty == nil && r.was == nil && r.marked <= m.purged {
			r.marked = 0
			m.vanish(r)
		}
	}
}

// rollbackTx takes back a whole transaction of InnoDB.
func (m *maria) rollbackTx(tx *txn) {
	m.undo(tx, mark{})
	tx.rollback()
	m.release(tx)
	m.mayPurge()
}

// leave is the end of a session: what is not prepared is rolled back. A prepared
// branch stays, and is anybody's from when the thread is gone: see detach.
func (m *maria) leave(s *Session) {
	if do := s.maria.brink; do != nil {
		s.maria.brink = nil
		if m.srv.up {
			_ = do() // there is nobody to tell
		}
	}
	b := s.maria.branch
	s.maria.branch = nil
	if b == nil {
		m.rollbackLocal(s)
		return
	}
	if b.state == branchPrepared {
		m.detach(s, b)
		return
	}
	m.drop(b)
	m.rollbackLocal(s)
}

// lockTimeout is how long a statement of the session waits for a lock.
func (m *maria) lockTimeout(s *Session) time.Duration {
	if s.maria.lockWait == 0 {
		return 50 * time.Second
	}
	return time.Duration(s.maria.lockWait-1) * time.Second
}

// idleTimeout is how long the session may be idle in a transaction, prepared ones
// included.
func (m *maria) idleTimeout(s *Session) time.Duration {
	if s.req.running || s.maria.branch == nil && !s.inTransaction() {
		return 0
	}
	return time.Duration(s.maria.idleMax) * time.Second
}

// snapshot reports whether plain reads see the state of the first of them.
func (m *maria) snapshot(tx *txn) bool { return tx.isolated && !m.current }

// Errors that the engine itself looks at.
const (
	mariaDeadlock = "1213"
	mariaLockWait = "1205"
)

func mariaError(code, state, message string) *Error {
	return &Error{Code: code, State: state, Message: message}
}

func (m *maria) deadlocked() error {
	return mariaError(mariaDeadlock, "40001", "Deadlock found when trying to get lock; try restarting transaction")
}

func (m *maria) timedOut() error {
	return mariaError(mariaLockWait, "HY000", "Lock wait timeout exceeded; try restarting transaction")
}

func (m *maria) duplicate(t *table, key string) error {
	entry := "?"
	if r := t.rows[key]; r != nil {
		vals := r.now
		if vals == nil {
			vals = r.was
		}
		var parts []string
		for _, i := range t.key {
			if vals != nil {
				text, _ := toString(vals[i])
				parts = append(parts, text)
			}
		}
		entry = strings.Join(parts, "-")
	}
	return mariaError("1062", "23000", "Duplicate entry '"+entry+"' for key 'PRIMARY'")
}

func (m *maria) mistake(what mistake, detail string) error {
	switch what {
	case mistakeArguments:
		return mariaError("1210", "HY000", "Incorrect arguments to EXECUTE: "+detail)
	case mistakeColumn:
		return mariaError("1054", "42S22", "Unknown column '"+detail+"' in 'field list'")
	case mistakeTable:
		return mariaError("1146", "42S02", "Table '"+mariaSchema+"."+detail+"' doesn't exist")
	case mistakeTableExists:
		return mariaError("1050", "42S01", "Table '"+detail+"' already exists")
	case mistakeType:
		return mariaError("1292", "22007", "Truncated incorrect value: "+detail)
	case mistakeDivision:
		return mariaError("1365", "22012", "Division by 0")
	case mistakeManyRows:
		return mariaError("1242", "21000", "Subquery returns more than 1 row")
	case mistakeNull:
		return mariaError("1048", "23000", "Column '"+detail+"' cannot be null")
	case mistakeCheck:
		return mariaError("4025", "23000", "CONSTRAINT `CONSTRAINT_1` failed for `"+mariaSchema+"`.`"+detail+"`")
	case mistakeLong:
		return mariaError("1406", "22001", "Data too long for column '"+detail+"' at row 1")
	}
	return mariaError("1105", "HY000", "Unknown error")
}

// victim is for the other servers: see mariadeadlock.go.
func (m *maria) victim(cycle []*txn) *txn { return cycle[0] }
