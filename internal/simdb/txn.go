package simdb

import "time"

// A txn is a transaction of one server: of a session, or prepared.
type txn struct {
	srv     *Server
	session *Session // nil if it is prepared and on its own
	number  uint64   // given when it changes or locks something; 0 before
	name    string   // of a prepared one
	busy    *Session // ends the prepared transaction at the moment
	since   time.Time

	locked []*row
	undo   []change
	marks  []mark // savepoints

	seen     uint64 // its snapshot: what was committed then; 0 if it has none
	isolated bool   // all its statements see one snapshot
	changed  bool   // it has ever changed a row
	ended    bool

	maria mariaTxn
}

// A change is how a row was before a transaction changed it.
type change struct {
	row   *row
	now   []any
	dirty *txn
	life  uint64
}

// A mark is a place in a transaction to which it can be rolled back.
type mark struct {
	name         string
	undo, locked int
	settings     int // made before it, for the engine
}

func (s *Session) begin() *txn {
	s.tx = &txn{srv: s.srv, session: s, since: s.srv.now()}
	return s.tx
}

// number gives the transaction a number if it has none: it writes.
func (tx *txn) write() {
	if tx.number == 0 {
		tx.srv.lastNumber++
		tx.number = tx.srv.lastNumber
		tx.srv.ends = append(tx.srv.ends, endOpen)
	}
}

// put changes a row that the transaction has locked; nil removes it.
func (tx *txn) put(r *row, vals []any) {
	tx.write()
	tx.changed = true
	tx.undo = append(tx.undo, change{r, r.now, r.dirty, r.life})
	if r.visible(tx, 0) == nil {
		r.life++
	}
	r.now, r.dirty = vals, tx
}

func (tx *txn) mark(name string) mark {
	return mark{name: name, undo: len(tx.undo), locked: len(tx.locked)}
}

// undoTo takes back what was done since the mark.
func (tx *txn) undoTo(m mark) {
	for i := len(tx.undo) - 1; i >= m.undo; i-- {
		u := &tx.undo[i]
		u.row.now, u.row.dirty, u.row.life = u.now, u.dirty, u.life
	}
	touched := tx.undo[m.undo:]
	tx.undo = tx.undo[:m.undo]
	if tx.srv.eng.undoFrees() && m.locked < len(tx.locked) {
		freed := tx.locked[m.locked:]
		tx.locked = tx.locked[:m.locked]
		for _, r := range freed {
			r.free(tx)
		}
	}
	for i := range touched {
		touched[i].row.tidy()
	}
}

// commit makes the transaction's changes those of the database and frees its locks.
func (tx *txn) commit() {
	srv := tx.srv
	if len(tx.undo) > 0 {
		srv.commits++
	}
	for i := range tx.undo {
		r := tx.undo[i].row
		if r.dirty != tx {
			continue // done
		}
		if srv.snapshots > 0 {
			r.old = append(r.old, version{r.at, r.was})
		} else {
			r.old = nil
		}
		r.was, r.at, r.dirty, r.wasLife = r.now, srv.commits, nil, r.life
		r.now = nil
	}
	tx.end(endCommitted)
}

// rollback takes back all of it.
func (tx *txn) rollback() {
	tx.undoTo(mark{})
	tx.end(endAborted)
}

func (tx *txn) end(how ending) {
	if tx.ended {
		return
	}
	tx.ended = true
	tx.dropSnapshot()
	if tx.number != 0 {
		tx.srv.ends[tx.number-firstNumber] = how
	}
	touched := tx.undo
	tx.undo, tx.marks = nil, nil
	locked := tx.locked
	tx.locked = nil
	for _, r := range locked {
		r.free(tx)
	}
	for i := range touched {
		touched[i].row.tidy()
	}
	if tx.session != nil && tx.session.tx == tx {
		tx.session.tx = nil
	}
}

// outdated reports whether PostgreSQL tells the transaction that it cannot lock a row
// because that was changed since its snapshot. It does not wait for whoever has it.
func (tx *txn) outdated(r *row) bool {
	return tx.srv.kind == Postgres && tx.isolated && r.dirty != tx && r.at > tx.seen
}

// takeSnapshot fixes what the transaction sees.
func (tx *txn) takeSnapshot() {
	if tx.seen == 0 {
		tx.seen = tx.srv.commits
		tx.srv.snapshots++
	}
}

func (tx *txn) dropSnapshot() {
	if tx.seen != 0 {
		tx.seen = 0
		tx.srv.snapshots--
	}
}

// ending is how a numbered transaction ended.
type ending uint8

const (
	endOpen ending = iota
	endCommitted
	endAborted
)

const firstNumber = 741 // a server has had some when it is new
