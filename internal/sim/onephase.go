package sim

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/troth-tx/troth"
)

// MariaDB with a binary log acknowledges a one-phase commit that InnoDB's log does
// not hold yet. Killed soon after, it comes back with the branch prepared, and
// with what was in it: see [troth.OnePhaseReturns] and test/onephase.

var _ troth.Returner = (*resource)(nil)

// Returned is as [troth.Returner] says.
func (r *resource) Returned(ctx context.Context, gid troth.GID) (bool, error) {
	got, err := r.ask(ctx, "look for its record", about(r, troth.XID{GID: gid}), func() (any, error) {
		rec := r.m.records[gid]
		return rec != nil && rec.by != nil && rec.Outcome == troth.Committed, nil
	})
	if err != nil {
		return false, err
	}
	return got.(bool), nil
}

// unsyncedFor is how long a commit may wait in memory: InnoDB writes its log every
// second, if no other statement makes it.
const unsyncedFor = time.Second

// committedInOnePhase notes that a branch may come back. Those that committed before
// are durable now, but for the others of its group commit.
func (m *model) committedInOnePhase(t *txn, xid troth.XID) {
	if !m.s.binlog {
		return
	}
	t.xid, t.native, t.at = xid, xid.String(), time.Now()
	m.onePhase = slices.DeleteFunc(m.onePhase, func(o *txn) bool { return o.at != t.at || o.shares(t) })
	m.onePhase = append(m.onePhase, t)
}

func (t *txn) mayReturn() bool { return time.Since(t.at) <= unsyncedFor }

func (t *txn) shares(o *txn) bool {
	for a, used := range t.uses {
		if used && o.uses[a] {
			return true
		}
	}
	return false
}

// harden is what every write that the database syncs does to those before it.
func (m *model) harden() { m.onePhase = nil }

// mayReturn is a store in which a crash now could bring a commit back, nil if there
// is none.
func (w *world) mayReturn() *store {
	for _, s := range w.databases() {
		if s.binlog && slices.ContainsFunc(s.backend.(*model).onePhase, (*txn).mayReturn) {
			return s
		}
	}
	return nil
}

// killCommitted now and then kills a database soon after a one-phase commit. Left to
// killOne that would be rare, for the time is short.
func (w *world) killCommitted() bool {
	if !w.cfg.kill || w.opt.Deep || w.faults >= w.cfg.faultsMax {
		return false
	}
	s := w.mayReturn()
	if s == nil || w.rng.IntN(12) != 0 || !w.kill(s) {
		return false
	}
	w.faults++
	return true
}

// killCommitting now and then kills a database that has committed in one phase and
// has not answered yet.
func (w *world) killCommitting(s *store) bool {
	if !s.binlog || !w.cfg.kill || !w.rough() || w.faults >= w.cfg.faultsMax || w.rng.IntN(4) != 0 {
		return false
	}
	w.faults++
	return w.kill(s)
}

// bringBack is what a crash makes of one-phase commits.
func (m *model) bringBack(rng *rand.Rand) {
	for _, t := range m.onePhase {
		if t.mayReturn() && rng.IntN(3) > 0 {
			m.comeBack(t)
		}
	}
	m.onePhase = nil
}

// comeBack undoes the commit, and leaves the branch prepared: nobody holds it, and
// it holds its locks and its record.
func (m *model) comeBack(t *txn) {
	if t.rows > 0 {
		for a, n := range t.amounts {
			m.accounts[a] -= n
			m.rows[t.plan] -= n
		}
		m.twice[t.plan]--
	}
	for _, gid := range t.inserts {
		m.records[gid].by = t
	}
	for a, used := range t.uses {
		if used {
			m.locks[a] = t
		}
	}
	m.xacts[t.id] = troth.Undecided
	m.prepared = append(m.prepared, t)
	m.s.w.book.cameBack(m.s, t.xid)
}
