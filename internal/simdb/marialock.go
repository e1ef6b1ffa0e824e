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
	r.inherit()
	return false, m.lockGap(c, r)
}

// inherit grants the gap to all that waited for a record which is gone.
func (r *row) inherit() {
	for _, s := range r.queue {
		if s.wait.mode == lockShared {
			r.grant(s.tx, lockShared)
		}
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
		m.keepGap(c.s.tx, r)
	}
	r.tidy()
	return nil
}

// keepGap locks the gap around a missing key.
func (m *maria) keepGap(tx *txn, r *row) {
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
	if !slices.Contains(m.gaps, g) {
		m.gaps = append(m.gaps, g)
	}
}

// keepGaps locks all gaps of a table of which a statement reads every row, because it
// names no keys.
func (m *maria) keepGaps(c *call, sc *scan) error {
	if !c.s.tx.isolated {
		return nil
	}
	_, named, err := c.keysNamed(sc.table, sc.source)
	if err == nil && !named {
		m.gaps = append(m.gaps, gap{tx: c.s.tx, table: sc.table})
	}
	return err
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
