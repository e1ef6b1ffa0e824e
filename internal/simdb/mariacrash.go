package simdb

import (
	"slices"
	"time"
)

// An undone is a prepared branch whose rollback was acknowledged, and not yet forced
// to disk: a crash may bring the branch back as prepared (F8).
type undone struct {
	xid     xid
	at      time.Time
	changes []rowChange
}

type rowChange struct {
	row  *row
	vals []any
}

// flushEvery is how often InnoDB writes its log to disk by itself.
const flushEvery = time.Second

func undoneOf(b *branch, now time.Time) undone {
	u := undone{xid: b.xid, at: now}
	for _, c := range b.tx.undo {
		if !slices.ContainsFunc(u.changes, func(x rowChange) bool { return x.row == c.row }) {
			u.changes = append(u.changes, rowChange{c.row, c.row.now})
		}
	}
	return u
}

// crash loses all branches but the prepared ones that ever wrote, also if all of that
// was taken back. Those are listed after the restart, and lock only what they changed.
// The end of an empty shell is not forced to disk either.
func (m *maria) crash() {
	kept := append(m.lost, m.branches...)
	m.branches, m.lost, m.leaving, m.suspects = nil, nil, nil, nil
	for _, t := range m.srv.tables {
		t.locks = nil
	}
	m.srv.prepared = nil
	for _, b := range kept {
		if b.tx.number == 0 || b.shell && m.srv.opt.Rand(2) == 1 {
			b.tx.rollback()
			continue
		}
		b.until, b.shell, b.busy = time.Time{}, false, nil
		b.tx.maria, b.tx.isolated = mariaTxn{}, true
		m.branches = append(m.branches, b)
		m.srv.prepared = append(m.srv.prepared, b.tx)
	}
	for _, u := range m.undone {
		if m.srv.now().Sub(u.at) < flushEvery && m.srv.opt.Rand(2) == 1 {
			m.resurrect(u)
		}
	}
	m.undone = nil
	m.purge()
}

// resurrect prepares a branch again that was rolled back. Nobody has changed its
// rows since: that would have forced the rollback to disk before.
func (m *maria) resurrect(u undone) {
	tx := &txn{srv: m.srv, name: u.xid.String(), since: m.srv.now(), isolated: true}
	for _, c := range u.changes {
		tx.put(c.row.table.row(c.row.key), c.vals)
	}
	m.branches = append(m.branches, &branch{xid: u.xid, state: branchPrepared, tx: tx})
	m.srv.prepared = append(m.srv.prepared, tx)
	m.srv.tell(Resurrected, nil, tx.name)
}

// restart numbers the sessions anew, as a server does.
func (m *maria) restart() {
	m.boot = m.srv.now()
	m.srv.lastID = 2
}
