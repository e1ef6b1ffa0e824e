package simdb

import (
	"encoding/hex"
	"slices"
	"strconv"
	"time"
)

// A branch is an XA transaction. Its name is taken from XA START until it has ended.
//
//	active ──XA END──> idle ──XA PREPARE──> prepared ──XA COMMIT, XA ROLLBACK──> gone
//	   └── deadlock ──> rollback only          └── its session ends ──> detached
//
// While the session lives that prepared it, the branch is that session's alone:
// everybody else is told that the name is unknown, although XA RECOVER lists it (F6).
// A detached branch is anybody's (F10). One that changed nothing is an empty shell
// then: its locks are gone, and ending it is answered with 1402 (F7).
type branch struct {
	xid     xid
	state   branchState
	session *Session // nil once it is detached
	busy    *Session // ends the detached branch at the moment
	tx      *txn     // of a prepared branch
	shell   bool     // detached, and there is nothing in it

	// until is when the thread of the session that prepared it is gone for good.
	// Before, whoever ends the branch meets a server that is still busy with it.
	until time.Time
}

type branchState uint8

const (
	branchActive branchState = 1 + iota
	branchIdle
	branchPrepared
	branchRollbackOnly
)

func (b *branch) wrongState() error {
	state := "NON-EXISTING"
	if b != nil {
		state = [...]string{"", "ACTIVE", "IDLE", "PREPARED", "ROLLBACK ONLY"}[b.state]
	}
	return mariaError("1399", "XAE07", "XAER_RMFAIL: The command cannot be executed when global transaction is in the  "+state+" state")
}

func errUnknownXID() error { return mariaError("1397", "XAE04", "XAER_NOTA: Unknown XID") }
func errXAOutside() error {
	return mariaError("1400", "XAE09", "XAER_OUTSIDE: Some work is done outside global transaction")
}

func errXAInvalid() error {
	return mariaError("1398", "XAE05", "XAER_INVAL: Invalid arguments (or unsupported command)")
}

// An xid names a branch. The format is no part of its identity.
type xid struct {
	gtrid, bqual string
	format       int64
}

func (x xid) is(y xid) bool { return x.gtrid == y.gtrid && x.bqual == y.bqual }

// String writes the name as XA statements take it.
func (x xid) String() string {
	return xidPart(x.gtrid) + "," + xidPart(x.bqual) + "," + strconv.FormatInt(x.format, 10)
}

func xidPart(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\'' || c == '\\' {
			return "X'" + hex.EncodeToString([]byte(s)) + "'"
		}
	}
	return "'" + s + "'"
}

func (m *maria) branch(x xid) *branch {
	i := slices.IndexFunc(m.branches, func(b *branch) bool { return b.xid.is(x) })
	if i < 0 {
		return nil
	}
	return m.branches[i]
}

// drop frees the name of a branch.
func (m *maria) drop(b *branch) {
	m.branches = slices.DeleteFunc(m.branches, func(x *branch) bool { return x == b })
	m.srv.prepared = slices.DeleteFunc(m.srv.prepared, func(tx *txn) bool { return tx == b.tx })
}

func (m *maria) xaStart(s *Session, x xid) error {
	switch {
	case x.gtrid == "":
		return errXAInvalid()
	case s.maria.branch != nil:
		return s.maria.branch.wrongState()
	case s.inTransaction():
		return errXAOutside()
	case m.branch(x) != nil:
		return mariaError("1440", "XAE08", "XAER_DUPID: The XID already exists")
	}
	s.maria.branch = &branch{xid: x, state: branchActive, session: s}
	m.branches = append(m.branches, s.maria.branch)
	return nil
}

func (m *maria) xaEnd(s *Session, x xid) error {
	b := s.maria.branch
	switch {
	case b == nil || b.state != branchActive:
		return b.wrongState()
	case !b.xid.is(x):
		return errUnknownXID()
	}
	b.state = branchIdle
	return nil
}

// xaPrepare makes the branch survive its session, and a crash if it changed
// something. One that ever wrote gives up locks that are not exclusive.
func (m *maria) xaPrepare(c *call, x xid) error {
	s := c.s
	b := s.maria.branch
	switch {
	case b == nil || b.state != branchIdle:
		return b.wrongState()
	case !b.xid.is(x):
		return errUnknownXID()
	}
	return m.brink(c, PreparedKind, b.xid.String(), func() error { m.prepare(s, b); return nil })
}

func (m *maria) prepare(s *Session, b *branch) {
	if s.tx == nil {
		s.begin() // of nothing
	}
	tx := s.tx
	b.state, b.tx = branchPrepared, tx
	tx.name, tx.since = b.xid.String(), m.srv.now()
	tx.dropSnapshot()
	if tx.changed {
		m.undone = nil // a forced write
	}
	if tx.number != 0 && s.maria.isolation() < serializable { // also if all that it wrote was taken back
		m.releaseOnPrepare(tx)
	}
	m.srv.prepared = append(m.srv.prepared, tx)
	m.srv.tell(PreparedKind, s, tx.name)
}

func (m *maria) xaCommit(c *call, x xid, onePhase bool) error {
	s := c.s
	b := s.maria.branch
	if b == nil || !b.xid.is(x) {
		return m.endForeign(c, x, true, onePhase)
	}
	switch {
	case b.state == branchRollbackOnly:
		m.endOwn(s, false)
		return mariaError("1614", "XA102", "XA_RBDEADLOCK: Transaction branch was rolled back: deadlock was detected")
	case b.state == branchPrepared && onePhase:
		return errXAInvalid()
	case b.state == branchPrepared:
		return m.brink(c, CommitPrepared, b.tx.name, func() error { m.endOwn(s, true); return nil })
	case b.state == branchIdle && onePhase:
		return m.brink(c, Committed, "", func() error { m.endOwn(s, true); return nil })
	}
	return b.wrongState()
}

func (m *maria) xaRollback(c *call, x xid) error {
	s := c.s
	b := s.maria.branch
	if b == nil || !b.xid.is(x) {
		return m.endForeign(c, x, false, false)
	}
	if b.state == branchActive {
		return b.wrongState()
	}
	if b.state != branchPrepared {
		m.endOwn(s, false)
		return nil
	}
	return m.brink(c, RollbackPrepared, b.tx.name, func() error { m.endOwn(s, false); return nil })
}

// endOwn ends the branch of a session.
func (m *maria) endOwn(s *Session, commit bool) {
	b := s.maria.branch
	s.maria.branch = nil
	m.drop(b)
	switch {
	case b.state != branchPrepared && commit:
		m.commitTx(s.tx, Committed, s, "")
	case b.state != branchPrepared:
		m.rollbackLocal(s)
	case commit:
		m.commitTx(b.tx, CommitPrepared, s, b.tx.name)
	default:
		m.rollbackPrepared(b, s)
	}
	m.over(s)
}

func (m *maria) rollbackPrepared(b *branch, by *Session) {
	if b.tx.changed {
		m.undone = append(m.undone, undoneOf(b, m.srv.now()))
	}
	m.rollbackTx(b.tx)
	m.srv.tell(RollbackPrepared, by, b.tx.name)
}

// endForeign ends a branch that another session prepared, or none.
func (m *maria) endForeign(c *call, x xid, commit, onePhase bool) error {
	s := c.s
	if s.maria.branch != nil || s.inTransaction() || s.maria.manual {
		return errXAOutside()
	}
	if onePhase {
		return errXAInvalid()
	}
	b := m.branch(x)
	if b == nil || b.session != nil || b.busy != nil && b.busy != s && b.busy.alive {
		return errUnknownXID()
	}
	b.busy = s
	kind := RollbackPrepared
	if commit {
		kind = CommitPrepared
	}
	return m.brink(c, kind, b.tx.name, func() error { return m.finishForeign(s, b, commit) })
}

func (m *maria) finishForeign(s *Session, b *branch, commit bool) error {
	if m.srv.now().Before(b.until) {
		switch n := m.srv.opt.Rand(8); {
		case n < 6:
			b.busy = nil
			return errUnknownXID()
		case n == 7 && commit && b.tx.changed:
			// Acknowledged and not done (facts 3.10): the branch is in no list from now
			// on, and keeps its locks until a restart lists it again.
			m.drop(b)
			m.lost = append(m.lost, b)
			return nil
		}
	}
	m.drop(b)
	switch {
	case b.shell:
		b.tx.rollback()
		m.srv.tell(RollbackPrepared, s, b.tx.name)
		return mariaError("1402", "XA100", "XA_RBROLLBACK: Transaction branch was rolled back")
	case commit:
		m.commitTx(b.tx, CommitPrepared, s, b.tx.name)
	default:
		m.rollbackPrepared(b, s)
	}
	return nil
}

// A leaver is a thread that has lost its client and is not gone yet.
type leaver struct {
	id    uint64
	until time.Time
}

// detach leaves a prepared branch without its session. The thread may take some
// milliseconds to go; Rand says how many. A branch of which no statement succeeded in
// changing something is a shell then.
func (m *maria) detach(s *Session, b *branch) {
	s.tx = nil
	b.session, b.tx.session = nil, nil
	if !m.srv.up {
		return
	}
	b.until = m.srv.now().Add(time.Duration(m.srv.opt.Rand(4)) * 5 * time.Millisecond)
	m.leaving = slices.DeleteFunc(m.leaving, func(l leaver) bool { return !m.srv.now().Before(l.until) })
	m.leaving = append(m.leaving, leaver{s.id, b.until})
	if !b.tx.changed {
		b.shell = true
		m.release(b.tx)
		m.srv.tell(LocksLost, nil, b.tx.name)
	}
}

func (m *maria) xaRecover() Result {
	res := Result{Columns: []string{"formatID", "gtrid_length", "bqual_length", "data"}}
	for _, tx := range m.srv.prepared {
		i := slices.IndexFunc(m.branches, func(b *branch) bool { return b.tx == tx })
		x := m.branches[i].xid
		res.Rows = append(res.Rows, []any{x.format, int64(len(x.gtrid)), int64(len(x.bqual)), x.gtrid + x.bqual})
	}
	res.Affected = int64(len(res.Rows))
	return res
}
