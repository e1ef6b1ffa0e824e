package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/troth-tx/troth"
)

// A model is the plain backend of a store: what a database, or the disk of a file
// log, makes of a transaction, without SQL. The facts F1 to F13 are those of the
// measured behaviour of PostgreSQL 15 and MariaDB 10.11.
type model struct {
	s        *store
	accounts [accountsPerStore]int
	locks    [accountsPerStore]*txn
	rows     map[int]int // journal: the number of a plan -> amount
	twice    map[int]int // how often
	records  map[troth.GID]*record
	prepared []*txn
	xacts    map[uint64]troth.Outcome
	nextXact uint64
	witness  map[string]witness
	undone   []*txn // whose rollback was acknowledged, F8
	onePhase []*txn // that committed in one phase, and may come back
	planted  int
	identity string
	writer   *txn // SQLite has one

	unsynced []troth.GID // of a file log, in the order of writing
}

// txn is a branch, as its database sees it.
type txn struct {
	m       *model
	id      uint64
	plan    int
	holder  *session // nil: detached, or prepared on PostgreSQL
	failed  bool
	amounts [accountsPerStore]int
	uses    [accountsPerStore]bool // the accounts of which it has the locks
	rows    int
	inserts []troth.GID
	xid     troth.XID // once prepared
	native  string    // its text
	at      time.Time
	foreign bool
	witness bool
}

type record struct {
	troth.Decision
	by *txn // that has not committed yet; nil: durable
}

type witness struct {
	gid   troth.GID
	place troth.Place
	at    time.Time
}

// What a database answers.
var (
	errAborted   = errors.New("sim: the transaction has failed")
	errStatement = errors.New("sim: the statement failed")
	errDuplicate = errors.New("sim: duplicate key")
	errUnknown   = errors.New("sim: unknown transaction") // 42704, XAER_NOTA: not evidence (R8)
)

func newModel(s *store) *model {
	m := &model{
		s:        s,
		rows:     make(map[int]int),
		twice:    make(map[int]int),
		records:  make(map[troth.GID]*record),
		xacts:    make(map[uint64]troth.Outcome),
		witness:  make(map[string]witness),
		identity: fmt.Sprintf("%08d", s.no+1),
	}
	for a := range accountsPerStore {
		m.accounts[a] = startBalance
	}
	return m
}

const (
	accountsPerStore = 3
	startBalance     = 1000
)

// begin makes sure that a session has a transaction.
func (m *model) begin(c *conn, p *plan) *txn {
	if c.txn == nil {
		m.nextXact++
		c.txn = &txn{m: m, id: m.nextXact, plan: p.no, holder: c.session}
		c.atEnd = func() { m.sessionEnded(c.txn, c.session) }
	}
	return c.txn
}

// work moves money: the account, and the journal's row of the same transaction.
func (m *model) work(c *conn, p *plan, l leg) error {
	t := m.begin(c, p)
	if t.failed {
		return errAborted
	}
	if m.s.kind == kindSQLite {
		if m.writer != nil && m.writer != t {
			return errWait
		}
		m.writer = t
	}
	if o := m.locks[l.account]; o != nil && o != t {
		return errWait
	}
	if l.fails {
		t.failed = m.s.kind == kindPostgres // F11: MariaDB's transaction goes on
		return errStatement
	}
	m.locks[l.account], t.uses[l.account] = t, true
	t.amounts[l.account] += l.amount
	t.rows++
	return nil
}

// insert adds a decision to a transaction.
func (m *model) insert(t *txn, d troth.Decision) error {
	switch r := m.records[d.GID]; {
	case r == nil:
	case r.by == nil:
		t.failed = true
		return errDuplicate
	case r.by != t:
		return errWait // for the unique key
	}
	m.records[d.GID] = &record{Decision: d, by: t}
	t.inserts = append(t.inserts, d.GID)
	return nil
}

// prepare answers whether the branch is prepared: PostgreSQL rolls a failed one
// back, without an error (F1).
func (m *model) prepare(c *conn, xid troth.XID) (bool, error) {
	t := c.txn
	if t == nil {
		return false, errUnknown
	}
	if t.failed {
		m.rollback(t)
		c.txn = nil
		return false, nil
	}
	t.xid, t.native, t.at, t.witness = xid, xid.String(), time.Now(), m.s.kind == kindMariaDB
	m.prepared = append(m.prepared, t)
	m.harden()
	if m.s.kind == kindPostgres {
		t.holder, c.txn = nil, nil
	}
	m.s.w.book.prepared(m.s, xid)
	return true, nil
}

func (m *model) find(xid troth.XID) *txn {
	for _, t := range m.prepared {
		if t.xid == xid && xid.GID != "" {
			return t
		}
	}
	return nil
}

// witnessed reports whether a branch's witness says that it committed.
func (m *model) witnessed(xid troth.XID) bool {
	_, ok := m.witness[xid.String()]
	return ok
}

// resolve ends a prepared branch, from the session that prepared it or, once that
// has ended, from any (F6: until then MariaDB says that it does not know it).
func (m *model) resolve(from *session, xid troth.XID, outcome troth.Outcome) error {
	t := m.find(xid)
	if t == nil || (t.holder != nil && t.holder != from) {
		return errUnknown
	}
	m.s.w.book.resolves(m.s, xid, outcome)
	m.prepared = slices.DeleteFunc(m.prepared, func(o *txn) bool { return o == t })
	if outcome == troth.Committed {
		m.commit(t)
		m.harden()
		return nil
	}
	m.rollback(t)
	if m.s.kind == kindMariaDB {
		m.undone = append(m.undone, t)
	}
	return nil
}

// commit makes a transaction's work durable, its decisions with it.
func (m *model) commit(t *txn) {
	if t.rows > 0 {
		for a, n := range t.amounts {
			m.accounts[a] += n
			m.rows[t.plan] += n
		}
		m.twice[t.plan]++
	}
	for _, gid := range t.inserts {
		m.records[gid].by = nil
		m.records[gid].At = time.Now()
		m.s.w.book.decided(gid, m.records[gid].Outcome)
	}
	if t.witness {
		m.witness[t.native] = witness{gid: t.xid.GID, place: t.xid.Place, at: time.Now()}
	}
	m.release(t, troth.Committed)
}

func (m *model) rollback(t *txn) {
	for _, gid := range t.inserts {
		if r := m.records[gid]; r != nil && r.by == t {
			delete(m.records, gid)
		}
	}
	m.release(t, troth.Aborted)
}

func (m *model) release(t *txn, o troth.Outcome) {
	m.xacts[t.id] = o
	t.holder = nil
	for a, holder := range m.locks {
		if holder == t {
			m.locks[a] = nil
		}
	}
	if m.writer == t {
		m.writer = nil
	}
}

// sessionEnded undoes what the session had open. A prepared branch stays.
func (m *model) sessionEnded(t *txn, s *session) {
	if t == nil || t.holder != s {
		return
	}
	t.holder = nil
	if !slices.Contains(m.prepared, t) {
		m.rollback(t)
	}
}

// kill is what SIGKILL leaves: acknowledged rollbacks of MariaDB may come back
// (F8), and so may one-phase commits.
func (m *model) kill(rng *rand.Rand) {
	m.bringBack(rng)
	for _, t := range m.undone {
		if rng.IntN(3) == 0 && m.free(t) {
			m.prepared = append(m.prepared, t)
			m.xacts[t.id] = troth.Undecided
			m.s.w.book.resurrected(m.s, t.xid)
			for a, used := range t.uses {
				if used {
					m.locks[a] = t
				}
			}
		}
	}
	m.undone = nil
}

func (m *model) free(t *txn) bool {
	for a, used := range t.uses {
		if used && m.locks[a] != nil {
			return false
		}
	}
	return true
}

func (m *model) restarted() {}

func (m *model) busy() bool {
	return slices.ContainsFunc(m.prepared, func(t *txn) bool { return !t.foreign })
}

func (m *model) journal() map[int]int { return m.rows }
func (m *model) count(plan int) int   { return m.twice[plan] }

func (m *model) balance() int {
	sum := 0
	for _, n := range m.accounts {
		sum += n
	}
	return sum
}

func (m *model) foreign() (there, all int) {
	for _, t := range m.prepared {
		if t.foreign {
			there++
		}
	}
	return there, m.planted
}

// plant adds a branch that is none of ours.
func (m *model) plant(xid troth.XID) {
	m.planted++
	m.prepared = append(m.prepared, &txn{m: m, xid: xid, native: xid.String(), foreign: true, at: time.Now()})
}

// decide is a register's Decide: the first writer wins. A writer that has not
// committed yet is waited for.
func (m *model) decide(d troth.Decision) (troth.Outcome, error) {
	if r := m.records[d.GID]; r != nil {
		if r.by != nil {
			return troth.Undecided, errWait
		}
		return r.Outcome, nil
	}
	d.At = time.Now()
	m.records[d.GID] = &record{Decision: d}
	m.harden()
	if m.s.kind == kindFile {
		m.unsynced = append(m.unsynced, d.GID)
	} else {
		m.s.w.book.decided(d.GID, d.Outcome)
	}
	return d.Outcome, nil
}

func (m *model) lookup(gid troth.GID) troth.Outcome {
	if r := m.records[gid]; r != nil && r.by == nil && !slices.Contains(m.unsynced, gid) {
		return r.Outcome
	}
	return troth.Undecided
}

// sync makes durable what was written to a file log.
func (m *model) sync() {
	for _, gid := range m.unsynced {
		if r := m.records[gid]; r != nil {
			m.s.w.book.decided(gid, r.Outcome)
		}
	}
	m.unsynced = nil
}

// powerCut is what the end of its process leaves of a file log: all that was
// written if the machine lives on, else any part of what was not synced.
func (m *model) powerCut(machine bool, rng *rand.Rand) {
	if machine {
		for _, gid := range m.unsynced {
			if rng.IntN(2) == 0 {
				delete(m.records, gid)
			}
		}
	}
	m.sync() // whoever opens the log next writes what it found again, and syncs it
}

func (m *model) committed(minAge time.Duration, after troth.GID, limit int) []troth.Decision {
	var out []troth.Decision
	for _, r := range m.records {
		if m.lookup(r.GID) == troth.Committed && time.Since(r.At) >= minAge && r.GID > after {
			out = append(out, r.Decision)
		}
	}
	slices.SortFunc(out, func(a, b troth.Decision) int {
		if a.GID < b.GID {
			return -1
		}
		return 1
	})
	return out[:min(limit, len(out))]
}

func (m *model) forget(gids []troth.GID) {
	for _, gid := range gids {
		if r := m.records[gid]; r != nil && r.by == nil && r.Outcome == troth.Committed {
			m.s.w.book.forgets(gid)
			delete(m.records, gid)
			m.harden()
		}
	}
}

func (m *model) expire(age time.Duration) int {
	n := 0
	for gid, r := range m.records {
		if r.by == nil && r.Outcome == troth.Aborted && time.Since(r.At) > age {
			m.s.w.book.expires(gid)
			delete(m.records, gid)
			m.harden()
			n++
		}
	}
	return n
}
