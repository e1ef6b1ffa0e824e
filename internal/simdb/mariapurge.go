package simdb

// A record that is deleted stays, marked, until InnoDB purges it in the background:
// when no snapshot needs it any more, and it gets to it. Until then it has locks, and
// a gap before it; an insertion of its key takes it over.

// mark marks what a transaction that commits has deleted.
func (m *maria) mark(tx *txn) {
	for i := range tx.undo {
		r := tx.undo[i].row
		switch {
		case r.dirty != tx:
		case r.now != nil:
			r.marked = 0
		default:
			if r.marked == 0 {
				m.marks = append(m.marks, r)
			}
			r.marked = m.srv.commits + 1
		}
	}
}

// mayPurge purges if nothing is in the way, and chance has it.
func (m *maria) mayPurge() {
	if len(m.marks) > 0 && !m.purgeHeld && m.srv.snapshots == 0 && m.srv.opt.Rand(4) != 3 {
		m.purge()
	}
}

// purge removes the marked records of which nobody has made new ones.
func (m *maria) purge() {
	marks := m.marks
	m.marks, m.purged = nil, m.srv.commits
	for _, r := range marks {
		switch {
		case r.marked == 0:
		case r.dirty != nil:
			m.marks = append(m.marks, r)
		default:
			r.marked = 0
			m.vanish(r)
		}
	}
}
