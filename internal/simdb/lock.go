package simdb

import (
	"errors"
	"slices"
)

type lockMode uint8

const (
	lockShared lockMode = 1 + iota
	lockExclusive
)

// A lock on a row belongs to a transaction until that ends.
type lock struct {
	tx   *txn
	mode lockMode
}

func (m lockMode) conflicts(with lockMode) bool { return m == lockExclusive || with == lockExclusive }

// errBlocked ends a step of an activity that must wait: the session's wait says
// for what. The step is taken again when the session is resumed.
var errBlocked = errors.New("simdb: blocked")

// A wait is what a session waits for.
type wait struct {
	row  *row
	mode lockMode // of the lock; 0: for the end of another's change of the row
	at   uint64   // of the row's version when the wait began
	doom error    // it is over, with this error: a timeout, a deadlock
	lock *recLock // MariaDB's, which it waits for
}

// lock takes a lock on a row for the session's transaction, or has it wait.
func (c *call) lock(r *row, mode lockMode) error {
	tx := c.s.tx
	if tx.holds(r, mode) {
		return nil
	}
	if len(r.locks) == 0 && (len(r.queue) == 0 || r.queue[0] == c.s || c.s.wait == nil && c.eng().barges()) {
		r.grant(tx, mode)
		c.s.stopWaiting()
		return nil
	}
	w := wait{row: r, mode: mode, at: r.at}
	if len(c.s.blockers(&w)) == 0 {
		r.grant(tx, mode)
		c.s.stopWaiting()
		return nil
	}
	return c.block(w)
}

// awaitChange has the session wait while another transaction has changed the row.
func (c *call) awaitChange(r *row) error {
	if r.dirty == nil || r.dirty == c.s.tx {
		c.s.stopWaiting()
		return nil
	}
	return c.block(wait{row: r})
}

// block puts the session to wait, unless that closes a cycle.
func (c *call) block(w wait) error {
	s := c.s
	if s.wait == nil || s.wait.row != w.row || s.wait.mode != w.mode || s.wait.at != w.at && c.eng().barges() {
		s.stopWaiting()
		s.wait = &w
		if w.mode != 0 {
			w.row.queue = append(w.row.queue, s)
		}
	}
	if cycle := s.cycle(); cycle != nil {
		victim := c.eng().victim(cycle)
		if victim == s.tx {
			s.stopWaiting()
			return c.eng().deadlocked()
		}
		victim.session.wait.doom = c.eng().deadlocked()
	}
	return errBlocked
}

// grant gives a lock that nobody's conflicts with.
func (r *row) grant(tx *txn, mode lockMode) {
	for i := range r.locks {
		if r.locks[i].tx == tx {
			r.locks[i].mode = max(r.locks[i].mode, mode)
			return
		}
	}
	r.locks = append(r.locks, lock{tx, mode})
	tx.locked = append(tx.locked, r)
}

func (tx *txn) holds(r *row, mode lockMode) bool {
	for i := range r.locks {
		if r.locks[i].tx == tx {
			return r.locks[i].mode >= mode
		}
	}
	return false
}

// free gives up the lock of a transaction on a row.
func (r *row) free(tx *txn) {
	r.locks = slices.DeleteFunc(r.locks, func(l lock) bool { return l.tx == tx })
	r.tidy()
}

// stopWaiting takes the session out of the queue that it is in.
func (s *Session) stopWaiting() {
	w := s.wait
	if w == nil {
		return
	}
	s.wait = nil
	if m, ok := s.srv.eng.(*maria); ok && w.lock != nil && w.lock.waits {
		m.dequeue(w.lock)
		m.lookAgain()
	}
	if i := slices.Index(w.row.queue, s); i >= 0 {
		w.row.queue = slices.Delete(w.row.queue, i, i+1)
	}
	w.row.tidy()
}

// blockers are the transactions for which a wait of the session waits: those that
// hold the lock, and those that stand in the queue before it.
func (s *Session) blockers(w *wait) []*txn {
	if w.lock != nil {
		return w.lock.blockers()
	}
	if w.mode == 0 {
		if w.row.dirty != nil && w.row.dirty != s.tx {
			return []*txn{w.row.dirty}
		}
		return nil
	}
	var list []*txn
	for _, l := range w.row.locks {
		if s.tx.outdated(w.row) {
			break // it will not lock the row any more, whoever has it
		}
		if l.tx != s.tx && w.mode.conflicts(l.mode) {
			list = append(list, l.tx)
		}
	}
	queued := slices.Contains(w.row.queue, s)
	if !queued && s.srv.eng.barges() {
		return list
	}
	for _, ahead := range w.row.queue {
		if ahead == s {
			break
		}
		if (w.at != w.row.at || ahead.wait.at != w.at) && s.srv.eng.barges() {
			continue // they queue for a version of the row, and run for the next
		}
		if ahead.tx != s.tx && w.mode.conflicts(ahead.wait.mode) {
			list = append(list, ahead.tx)
		}
	}
	return list
}

// blocked reports whether the session would wait on if it were resumed.
func (s *Session) blocked() bool {
	return s.wait != nil && s.wait.doom == nil && len(s.blockers(s.wait)) > 0
}

// cycle finds a cycle of waits through the session: its transaction first, each
// waiting for the next. nil if there is none.
func (s *Session) cycle() []*txn {
	seen := map[*txn]bool{}
	var path []*txn
	var visit func(tx *txn) bool
	visit = func(tx *txn) bool {
		if tx == s.tx && len(path) > 0 {
			return true
		}
		if seen[tx] {
			return false
		}
		seen[tx] = true
		w := tx.session
		if w == nil || w.wait == nil || w.wait.doom != nil || w.tx != tx {
			return false // it does not wait
		}
		path = append(path, tx)
		for _, next := range w.blockers(w.wait) {
			if visit(next) {
				return true
			}
		}
		path = path[:len(path)-1]
		return false
	}
	if visit(s.tx) {
		return path
	}
	return nil
}
