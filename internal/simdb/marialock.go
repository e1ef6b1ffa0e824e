package simdb

import (
	"slices"
	"strings"
)

// Locks of InnoDB, as far as statements that name keys meet them:
//
//	record   shared or exclusive, of a key that is there
//	gap      between two keys that are there: keeps others from inserting. Taken by
//	         whoever locks a key that is missing, from REPEATABLE READ on
//	insert   waits shared for a record of its key, then exclusive for the gap: so of
//	         several that wait for one insertion which is rolled back, all get the
//	         shared lock, and all but one a deadlock
//
// A gap is kept aside, and becomes a shared lock on the missing key when somebody
// wants to insert that.
type gap struct {
	tx       *txn
	table    *table
	from, to string // keys of the neighbours, exclusive; to is "" if there is none
}

func (g *gap) covers(r *row) bool {
	return g.table == r.table && r.key > g.from && (g.to == "" || r.key < g.to)
}

// there reports whether a record is there, if only as a change that may be taken
// back.
func (r *row) there() bool { return r.was != nil || r.dirty != nil }

// wanted is c.lock for a session that may be unwilling to wait; then no deadlock is
// looked for either.
func (m *maria) wanted(c *call, r *row, mode lockMode) error {
	s := c.s
	if s.maria.lockWait == 1 && !s.tx.holds(r, mode) && len(s.blockers(&wait{row: r, mode: mode})) > 0 {
		return m.timedOut()
	}
	return c.lock(r, mode)
}

// claim waits until nobody else has the key, and nobody keeps its gap.
func (m *maria) claim(c *call, r *row) (bool, error) {
	tx := c.s.tx
	if r.dirty == tx && tx.holds(r, lockExclusive) {
		return r.now != nil, nil
	}
	if r.there() {
		if err := m.wanted(c, r, lockShared); err != nil {
			return false, err
		}
		if r.visible(tx, 0) != nil {
			return true, nil
		}
	}
	m.fence(tx, r)
	return false, m.lockGap(c, r)
}

// rollbackTx takes back a whole transaction of InnoDB.
func (m *maria) rollbackTx(tx *txn) {
	touched := tx.undo
	tx.rollback()
	m.vanished(touched)
}

// vanished tells of rows that were changed and may not be there any more. The locks
// of such a record become locks of the gap that it leaves, also those that were only
// waited for; and gaps that ended there are one.
func (m *maria) vanished(touched []change) {
	for i := range touched {
		r := touched[i].row
		if r.there() {
			continue
		}
		hole := r.hole(nil)
		for i := range m.gaps {
			switch g := &m.gaps[i]; {
			case g.table != r.table:
			case g.from == r.key:
				g.from = hole.from
			case g.to == r.key:
				g.to = hole.to
			}
		}
		for _, l := range r.locks {
			m.keepHole(l.tx, hole, l.mode)
		}
		for _, s := range r.queue {
			m.keepHole(s.tx, hole, s.wait.mode)
		}
	}
}

func (m *maria) keepHole(tx *txn, hole gap, mode lockMode) {
	hole.tx = tx
	if (tx.isolated || mode == lockShared) && !slices.Contains(m.gaps, hole) {
		m.gaps = append(m.gaps, hole)
	}
}

// lockGap locks a missing key to insert it. Only those keep it from that who hold
// the gap, not those who wait for it; so it waits in front of them.
func (m *maria) lockGap(c *call, r *row) error {
	s := c.s
	if !slices.ContainsFunc(r.locks, func(l lock) bool { return l.tx != s.tx }) {
		r.grant(s.tx, lockExclusive)
		s.stopWaiting()
		return nil
	}
	if s.maria.lockWait == 1 {
		return m.timedOut()
	}
	if s.wait == nil || s.wait.row != r || s.wait.mode != lockExclusive {
		s.stopWaiting()
		s.wait = &wait{row: r, mode: lockExclusive}
		r.queue = slices.Insert(r.queue, 0, s)
	}
	return c.block(*s.wait)
}

// lockRow locks a record, or the gap where it is missing.
func (m *maria) lockRow(c *call, r *row) error { return m.lockIn(c, r, lockExclusive) }

func (m *maria) lockIn(c *call, r *row, mode lockMode) error {
	if r.there() || c.s.wait != nil {
		return m.wanted(c, r, mode)
	}
	if c.s.tx.isolated {
		m.keepHole(c.s.tx, r.hole(nil), lockExclusive)
	}
	r.tidy()
	return nil
}

// hole is the gap around a missing key.
func (r *row) hole(tx *txn) gap {
	g := gap{tx: tx, table: r.table}
	for _, x := range r.table.sorted {
		switch {
		case !x.there():
		case x.key < r.key:
			g.from = x.key
		case x.key > r.key && g.to == "":
			g.to = x.key
		}
	}
	return g
}

// narrow leaves out of a scan the rows that a statement does not come to see, because
// its conditions on columns of the key rule them out. If there are none such it reads
// the whole table, and locks all gaps of it.
func (m *maria) narrow(c *call, sc *scan) error {
	if _, named, err := c.keysNamed(sc.table, sc.source); named || err != nil {
		return err
	}
	var on []expr
	for _, x := range sc.source.and {
		if sc.table.keyCondition(x) {
			on = append(on, x)
		}
	}
	if len(on) == 0 && c.s.tx.isolated {
		m.gaps = append(m.gaps, gap{tx: c.s.tx, table: sc.table})
	}
	e := env{c: c, names: sc.table.names, alias: sc.source.name()}
	rows := sc.rows[:0]
	for _, r := range sc.rows {
		if e.row = r.was; e.row == nil {
			e.row = r.now
		}
		in := e.row != nil
		for i := 0; i < len(on) && in; i++ {
			v, err := on[i].eval(&e)
			if err != nil {
				return err
			}
			in = truth(v)
		}
		if in {
			rows = append(rows, r)
		}
	}
	sc.rows = rows
	return nil
}

// keyCondition reports whether a condition is one on the first column of the key
// alone, which an index serves.
func (t *table) keyCondition(x expr) bool {
	if len(t.key) == 0 {
		return false
	}
	isKey := func(x expr) bool {
		col, ok := x.(*column)
		return ok && col.name == t.names[t.key[0]]
	}
	switch x := x.(type) {
	case *comparison:
		return isKey(x.left) && constant(x.right)
	case *inList:
		return isKey(x.x) && !slices.ContainsFunc(x.list, func(x expr) bool { return !constant(x) })
	}
	return false
}

// fence turns the gaps of others around a key that tx wants to insert into locks of
// the key.
func (m *maria) fence(tx *txn, r *row) {
	if len(m.gaps) == 0 || r.there() {
		return
	}
	m.gaps = slices.DeleteFunc(m.gaps, func(g gap) bool { return g.tx.ended })
	for i := range m.gaps {
		if g := &m.gaps[i]; g.tx != tx && g.covers(r) && !g.tx.holds(r, lockShared) {
			r.grant(g.tx, lockShared)
		}
	}
}

func (m *maria) dropGaps(tx *txn) {
	m.gaps = slices.DeleteFunc(m.gaps, func(g gap) bool { return g.tx == tx })
}

// freeShared is what XA PREPARE does to locks that are not exclusive.
func (m *maria) freeShared(tx *txn) {
	m.dropGaps(tx)
	for _, r := range slices.Clone(tx.locked) {
		if !tx.holds(r, lockExclusive) {
			m.free(tx, r)
		}
	}
}

// free gives up one lock.
func (m *maria) free(tx *txn, r *row) {
	tx.locked = slices.DeleteFunc(tx.locked, func(x *row) bool { return x == r })
	r.free(tx)
}

// victim is the transaction with the least to undo and the fewest lock structures,
// of equals the one that closed the cycle.
func (m *maria) victim(cycle []*txn) *txn {
	victim := cycle[0]
	for _, tx := range cycle[1:] {
		if tx.weight() < victim.weight() {
			victim = tx
		}
	}
	return victim
}

// weight counts as InnoDB does: a lock of a table, the records of a table that are
// locked in one mode, and each lock that is waited for are one structure. The lock
// of a record that the transaction inserted is none until somebody asks for it.
func (tx *txn) weight() int {
	type structure struct {
		table *table
		mode  lockMode
	}
	seen := map[structure]bool{}
	for _, r := range tx.locked {
		seen[structure{table: r.table}] = true
		mode := lockShared
		if tx.holds(r, lockExclusive) {
			mode = lockExclusive
		}
		if r.was == nil && r.dirty == tx && len(r.queue) == 0 {
			continue
		}
		seen[structure{r.table, mode}] = true
	}
	n := len(tx.undo) + len(seen)
	if s := tx.session; s != nil && s.wait != nil {
		n++
		if w := s.wait.row; !seen[structure{table: w.table}] {
			n++
		}
	}
	return n
}

// likeName compares names as MariaDB does.
func likeName(a, b string) bool { return strings.EqualFold(a, b) }
