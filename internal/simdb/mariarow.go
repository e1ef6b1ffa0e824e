package simdb

// claim is INSERT's: a shared lock on a record with the key shows whether that is
// there; one that is marked as deleted is changed, and a new one needs the gap.
func (m *maria) claim(c *call, r *row) (bool, error) {
	tx := c.s.tx
	c.s.stopWaiting()
	r = r.table.row(r.key) // it may have been forgotten
	m.intend(tx, r.table, lockExclusive)
	if r.there() {
		if err := m.ask(c, r, lockShared, lockRecord, false); err != nil {
			return false, err
		}
		if r.visible(tx, 0) != nil {
			return true, nil
		}
		return false, m.ask(c, r, lockExclusive, lockRecord, true)
	}
	next := r.successor()
	if l := next.blocker(tx, lockExclusive, lockIntention, nil); l != nil {
		r.tidy()
		return false, m.enqueue(c, next, lockExclusive, lockIntention, l)
	}
	m.arrive(r, next)
	return false, nil
}

// lockRow locks a record for a change, or the gap where it is missing.
func (m *maria) lockRow(c *call, r *row) error { return m.lockIn(c, r, lockExclusive) }

func (m *maria) lockIn(c *call, r *row, mode lockMode) error {
	tx := c.s.tx
	c.s.stopWaiting()
	if !r.there() {
		defer r.tidy()
		if !tx.isolated {
			m.intend(tx, r.table, mode)
			return nil
		}
		return m.ask(c, r.successor(), mode, lockGap, false)
	}
	kind := lockRecord
	if tx.isolated && c.ranged {
		kind = lockNextKey
	}
	if !tx.isolated && r.dirty == nil && r.deleted() {
		return nil // not locked, nor waited for
	}
	return m.ask(c, r, mode, kind, false)
}

// narrow leaves out of a scan the rows that a statement does not come to see, because
// its conditions on columns of the key rule them out. If it does not name the keys it
// locks the gaps between them, and the one at the end. Records that others insert
// while it waits it does not see; and of those that are marked as deleted it skips
// the ones behind a condition.
func (m *maria) narrow(c *call, sc *scan, mode lockMode) error {
	_, named, err := c.keysNamed(sc.table, sc.source)
	if err != nil {
		return err
	}
	sc.ranged = !named
	if c.ranged = !named; named {
		return nil
	}
	var on []expr
	for _, x := range sc.source.and {
		if sc.table.keyCondition(x) {
			on = append(on, x)
		}
	}
	e := env{c: c, names: sc.table.names, alias: sc.source.name()}
	rows := sc.rows[:0]
	for _, r := range sc.rows {
		if e.row = r.was; e.row == nil {
			e.row = r.now
		}
		in := r.there() && (len(on) == 0 || e.row != nil)
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
	switch {
	case !c.s.tx.isolated:
	case len(on) == 0:
		return m.ask(c, sc.table.last(), mode, lockGap, false)
	case len(rows) > 0:
		return m.ask(c, rows[len(rows)-1].successor(), mode, lockGap, false)
	}
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
		if !isKey(x.x) {
			return false
		}
		for _, x := range x.list {
			if !constant(x) {
				return false
			}
		}
		return true
	}
	return false
}
