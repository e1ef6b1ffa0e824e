package simdb

import (
	"slices"
	"strings"
)

// Locks of InnoDB 10.11, as its lock0lock.cc keeps them. A lock is of one kind:
//
//	next-key   the record, and the gap between it and the one before
//	gap        that gap alone: keeps others from inserting, and waits for nobody
//	record     the record alone
//	intention  an insertion waits for the gap; nobody waits for it
//
// From REPEATABLE READ on whoever looks for a key that is missing locks the gap in
// which it would be, and whoever looks for no key locks every record with its gap. A
// record that is marked as deleted is not missing. The end of a table (supremum) is a
// record that only has a gap.
//
// Records come and go with their gaps: one that is inserted takes over the gap locks
// of its successor, and when it vanishes, by a rollback or by purge, its locks become
// gap locks of the successor, also those that were only waited for (vanish).
//
// Whoever changes a record has it locked; a lock for an insertion is made only when
// somebody asks for it (explicit). An insertion first takes a shared lock on a record
// with its key: so of several that wait for an insertion which is then rolled back all
// have the gap, and all but one get a deadlock.
//
// Tables are taken for one page of their primary key, as small ones are.
type recLock struct {
	tx    *txn
	table *table
	mode  lockMode
	kind  lockKind
	rows  []*row // that it is on; a lock that is waited for is on one
	waits bool
}

type lockKind uint8

const (
	lockNextKey lockKind = 1 + iota
	lockGap
	lockRecord
	lockIntention
)

// A mariaTxn is what InnoDB knows of the locks of a transaction.
type mariaTxn struct {
	locks    []*recLock
	intents  []intent
	waitsFor *txn // whose lock it waits for: of several, one
	prepared bool // its locks are not passed on any more
}

// An intent is a lock on a whole table. It never conflicts here; but locks are counted.
type intent struct {
	table *table
	mode  lockMode
}

func (l *recLock) on(r *row) bool { return slices.Contains(l.rows, r) }

// isEnd reports whether the row stands for the end of its table.
func (r *row) isEnd() bool { return r == r.table.end }

// there reports whether a record is there, if only as a change that may be taken
// back, or marked as deleted.
func (r *row) there() bool { return r.was != nil || r.dirty != nil || r.marked != 0 }

// deleted reports whether the record is marked as deleted.
func (r *row) deleted() bool {
	if r.dirty != nil {
		return r.now == nil
	}
	return r.was == nil
}

// successor is the record after a key, or the end of the table.
func (r *row) successor() *row {
	t := r.table
	i, _ := slices.BinarySearchFunc(t.sorted, r.key, func(x *row, key string) int { return strings.Compare(x.key, key) })
	for _, x := range t.sorted[i:] {
		if x.key > r.key && x.there() {
			return x
		}
	}
	return t.last()
}

// last is the row that stands for the end of the table.
func (t *table) last() *row {
	if t.end == nil {
		t.end = &row{table: t}
	}
	return t.end
}

// mustWait reports whether a request of tx on a row has to wait for another lock.
func (l *recLock) mustWait(tx *txn, r *row, mode lockMode, kind lockKind) bool {
	switch {
	case l.tx == tx, !mode.conflicts(l.mode), l.kind == lockIntention:
		return false
	case kind == lockIntention:
		return l.kind != lockRecord
	case kind == lockGap, r.isEnd():
		return false
	}
	return l.kind != lockGap
}

// blocker is the first lock for which a request has to wait, waiting ones included;
// before ends the search: it is the request itself, nil if it is not queued.
func (r *row) blocker(tx *txn, mode lockMode, kind lockKind, before *recLock) *recLock {
	for _, l := range r.table.locks {
		if l == before {
			break
		}
		if l.on(r) && l.mustWait(tx, r, mode, kind) {
			return l
		}
	}
	return nil
}

// has reports whether tx has a lock that is as good as the one asked for.
func (tx *txn) has(r *row, mode lockMode, kind lockKind) bool {
	return slices.ContainsFunc(tx.maria.locks, func(l *recLock) bool {
		return l.mode >= mode && !l.waits && (l.kind == lockNextKey || l.kind == kind && kind != lockIntention) && l.on(r)
	})
}

// ask locks a record, its gap, or both, or has the session wait. implied: the caller
// is about to change the record, which is lock enough if nobody else has one.
func (m *maria) ask(c *call, r *row, mode lockMode, kind lockKind, implied bool) error {
	tx := c.s.tx
	m.intend(tx, r.table, mode)
	m.explicit(r, tx)
	switch {
	case !r.isEnd() && r.dirty == tx && kind == lockRecord, tx.has(r, mode, kind):
		return nil
	}
	if kind == lockNextKey && tx.has(r, mode, lockRecord) {
		kind = lockGap // is all that is lacking
	}
	if l := r.blocker(tx, mode, kind, nil); l != nil {
		return m.enqueue(c, r, mode, kind, l)
	}
	if !implied {
		m.add(tx, r, mode, kind)
	}
	return nil
}

// explicit makes a lock of the one that another transaction has on a record by having
// changed it.
func (m *maria) explicit(r *row, asks *txn) {
	if tx := r.dirty; tx != nil && tx != asks && !tx.has(r, lockExclusive, lockRecord) {
		m.add(tx, r, lockExclusive, lockRecord)
	}
}

func (m *maria) intend(tx *txn, t *table, mode lockMode) {
	for _, i := range tx.maria.intents {
		if i.table == t && i.mode >= mode {
			return
		}
	}
	tx.maria.intents = append(tx.maria.intents, intent{t, mode})
}

// add grants a lock. Locks of one kind in one table share a structure, unless
// somebody waits for the record.
func (m *maria) add(tx *txn, r *row, mode lockMode, kind lockKind) {
	if r.isEnd() && kind == lockGap {
		kind = lockNextKey
	}
	t := r.table
	if !slices.ContainsFunc(t.locks, func(l *recLock) bool { return l.waits && l.on(r) }) {
		for _, l := range t.locks {
			if l.tx == tx && l.mode == mode && l.kind == kind && !l.waits {
				if !l.on(r) {
					l.rows = append(l.rows, r)
				}
				return
			}
		}
	}
	m.create(&recLock{tx: tx, table: t, mode: mode, kind: kind, rows: []*row{r}})
}

func (m *maria) create(l *recLock) {
	l.table.locks = append(l.table.locks, l)
	l.tx.maria.locks = append(l.tx.maria.locks, l)
}

// enqueue has the session wait for a lock that by holds, unless it will not wait or
// is the victim of a deadlock.
func (m *maria) enqueue(c *call, r *row, mode lockMode, kind lockKind, by *recLock) error {
	s := c.s
	if s.maria.lockWait == 1 {
		return m.timedOut()
	}
	l := &recLock{tx: s.tx, table: r.table, mode: mode, kind: kind, rows: []*row{r}, waits: true}
	m.create(l)
	s.tx.maria.waitsFor = by.tx
	s.wait = &wait{row: r, mode: mode, lock: l}
	r.queue = append(r.queue, s)
	if victim := m.resolve(s.tx); victim == s.tx {
		s.stopWaiting()
		return m.deadlocked()
	}
	return errBlocked
}

// dequeue removes a lock, and grants what waited for it alone.
func (m *maria) dequeue(l *recLock) {
	is := func(x *recLock) bool { return x == l }
	l.table.locks = slices.DeleteFunc(l.table.locks, is)
	l.tx.maria.locks = slices.DeleteFunc(l.tx.maria.locks, is)
	m.settled(l)
	m.regrant(l.table, nil)
}

// settled ends the wait for a lock, however it ended.
func (m *maria) settled(l *recLock) {
	if l.waits {
		l.waits, l.tx.maria.waitsFor = false, nil
	}
}

// regrant grants the locks on a record that need not wait any more, nil: on all of the
// table, and notes whose waits may have become part of a deadlock.
func (m *maria) regrant(t *table, r *row) {
	for _, l := range t.locks {
		if !l.waits || r != nil && !l.on(r) {
			continue
		}
		by := l.rows[0].blocker(l.tx, l.mode, l.kind, l)
		if by == nil {
			m.settled(l)
			continue
		}
		l.tx.maria.waitsFor = by.tx
		if by.tx.maria.waitsFor != nil && !slices.Contains(m.suspects, by.tx) {
			m.suspects = append(m.suspects, by.tx)
		}
	}
}

// release gives up all locks of a transaction.
func (m *maria) release(tx *txn) {
	if len(tx.maria.intents) == 0 && len(tx.maria.locks) == 0 {
		return // it has none, and InnoDB does not look for deadlocks
	}
	for n := len(tx.maria.locks); n > 0; n = len(tx.maria.locks) {
		m.dequeue(tx.maria.locks[n-1])
	}
	tx.maria.intents = nil
	m.lookAgain()
}

// releaseOnPrepare is what XA PREPARE does to locks that are not exclusive, and to
// gaps. If that lets somebody's wait close a cycle, InnoDB notices when a transaction
// next gives up its locks.
func (m *maria) releaseOnPrepare(tx *txn) {
	tx.maria.prepared = true
	for _, l := range slices.Backward(slices.Clone(tx.maria.locks)) {
		end := l.table.end
		switch {
		case l.mode != lockExclusive, l.kind == lockGap, l.kind == lockIntention && !l.on(end):
			m.dequeue(l)
		case l.on(end):
			m.takeOff(l, end)
			m.regrant(l.table, end)
		}
	}
	tx.maria.intents = slices.DeleteFunc(tx.maria.intents, func(i intent) bool { return i.mode == lockShared })
}

// takeOff takes a lock off one record. The structure stays, and counts.
func (m *maria) takeOff(l *recLock, r *row) {
	l.rows = slices.DeleteFunc(l.rows, func(x *row) bool { return x == r })
}

// arrive has a record that is about to be inserted take over the locks of the gap.
func (m *maria) arrive(r, next *row) {
	for _, l := range slices.Clone(r.table.locks) {
		if l.on(next) && l.kind != lockIntention && l.kind != lockRecord && !l.tx.maria.prepared {
			m.add(l.tx, r, l.mode, lockGap)
		}
	}
}

// vanish is the end of a record. Its locks become locks of the gap that it leaves,
// also those that were only waited for. Below REPEATABLE READ only shared ones do,
// which insertions took.
func (m *maria) vanish(r *row) {
	heir := r.successor()
	for _, l := range slices.Clone(r.table.locks) {
		if !l.on(r) {
			continue
		}
		if l.kind != lockIntention && !l.tx.maria.prepared && (l.tx.isolated || l.mode == lockShared) {
			m.add(l.tx, heir, l.mode, lockGap)
		}
		m.takeOff(l, r)
		m.settled(l)
	}
	r.tidy()
}

// blockers are the transactions for whose locks a lock waits.
func (l *recLock) blockers() []*txn {
	if !l.waits {
		return nil
	}
	var list []*txn
	for _, by := range l.table.locks {
		if by == l {
			break
		}
		if r := l.rows[0]; by.on(r) && by.mustWait(l.tx, r, l.mode, l.kind) {
			list = append(list, by.tx)
		}
	}
	return list
}
