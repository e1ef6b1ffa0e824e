package simdb

import "slices"

// InnoDB follows one wait of each transaction only, that for the first lock in its
// way. It looks for a cycle when a transaction begins to wait, and again when a lock
// is given up and somebody goes on waiting for another who waits.

// resolve ends a deadlock to which the waits of tx lead, and returns who was chosen
// to be rolled back; nil if there is none.
func (m *maria) resolve(tx *txn) *txn {
	last := cycleOf(tx)
	if last == nil {
		return nil
	}
	var victim *txn
	for next := last.maria.waitsFor; ; next = next.maria.waitsFor {
		if victim == nil || next.weight() < victim.weight() || next == tx && next.weight() == victim.weight() {
			victim = next
		}
		if next == last {
			break
		}
	}
	victim.session.wait.doom = m.deadlocked()
	for _, l := range victim.maria.locks {
		if l.waits {
			m.dequeue(l)
			break
		}
	}
	return victim
}

// cycleOf finds a member of the cycle that the waits of tx lead to, nil if there is
// none. Which one is that of Brent's algorithm as InnoDB has it: of several victims of
// equal weight the first after it is chosen, unless tx is one of them.
func cycleOf(tx *txn) *txn {
	tortoise, hare := tx, tx
	for power, n := 1, 1; ; n++ {
		if hare = hare.maria.waitsFor; hare == nil {
			return nil
		}
		if hare == tortoise {
			return hare
		}
		if n == power {
			power, n, tortoise = power*2, 0, hare
		}
	}
}

// lookAgain looks for deadlocks among the waits that have changed. InnoDB begins with
// any of them.
func (m *maria) lookAgain() {
	for len(m.suspects) > 0 {
		i := 0
		if pick := m.srv.pick; pick != nil && len(m.suspects) > 1 {
			i = pick(len(m.suspects))
		}
		tx := m.suspects[i]
		m.suspects = slices.Delete(m.suspects, i, i+1)
		m.resolve(tx)
	}
}

// weight is what InnoDB compares to choose a victim: the records of the undo log and
// the lock structures.
func (tx *txn) weight() int {
	return len(tx.undo) + len(tx.maria.locks) + len(tx.maria.intents)
}
