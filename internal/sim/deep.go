package sim

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/simdb"
	"github.com/troth-tx/troth/internal/simdb/simdriver"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlregister"
)

// deep is the deep backend of a store: a simulated SQL server, which the real
// resource managers use through database/sql.
type deep struct {
	s       *store
	srv     *simdb.Server
	byDB    map[uint64]*session // the server's sessions
	records map[troth.GID]troth.Outcome
	planted map[string]bool
	seen    map[int]bool // plans whose work is there
}

func newDeep(s *store) *deep {
	d := &deep{s: s, byDB: make(map[uint64]*session), records: make(map[troth.GID]troth.Outcome), planted: make(map[string]bool), seen: make(map[int]bool)}
	kind := simdb.Postgres
	if s.kind == kindMariaDB {
		kind = simdb.MariaDB
	}
	d.srv = simdb.New(kind, simdb.Options{
		Name:   s.name,
		Now:    time.Now,
		Rand:   func(n int) int { return s.w.rng.IntN(n) },
		On:     d.happened,
		Linger: func(simdb.Event) bool { return !s.w.healing && s.w.rng.IntN(10) == 0 },
	})
	d.setUp("CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL)")
	d.setUp("CREATE TABLE journal (plan INT PRIMARY KEY, amount INT NOT NULL)")
	for a := range accountsPerStore {
		d.setUp(fmt.Sprintf("INSERT INTO account (id, balance) VALUES (%d, %d)", a, startBalance))
	}
	return d
}

func (d *deep) setUp(text string) {
	s, err := d.srv.Connect()
	if err == nil {
		for _, err = s.Exec(text); errors.Is(err, simdb.ErrWait); {
			_, err = s.Resume()
		}
		s.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("sim: %s: %v", text, err))
	}
}

func (d *deep) kill(*rand.Rand) { d.srv.Kill() }
func (d *deep) restarted()      { d.srv.Restart() }

func (d *deep) busy() bool {
	for _, name := range d.srv.Prepared() {
		if !d.planted[name] {
			return true
		}
	}
	return false
}

func (d *deep) journal() map[int]int {
	out := make(map[int]int)
	for _, row := range d.srv.Rows("journal") {
		out[int(row[0].(int64))] = int(row[1].(int64))
	}
	return out
}

func (d *deep) count(plan int) int {
	if _, ok := d.journal()[plan]; ok {
		return 1 // the key sees to it that there are not two
	}
	return 0
}

func (d *deep) balance() int {
	sum := 0
	for _, row := range d.srv.Rows("account") {
		sum += int(row[1].(int64))
	}
	return sum
}

func (d *deep) foreign() (there, all int) {
	for _, name := range d.srv.Prepared() {
		if d.planted[name] {
			there++
		}
	}
	return there, len(d.planted)
}

// plant prepares a branch that is none of ours.
func (d *deep) plant(xid troth.XID) {
	before := len(d.srv.Prepared())
	s, err := d.srv.Connect()
	if err != nil {
		panic(err)
	}
	defer s.Close()
	row := fmt.Sprintf("INSERT INTO journal (plan, amount) VALUES (%d, 0)", 1000+before)
	texts := []string{"BEGIN", row, "PREPARE TRANSACTION '" + xid.String() + "'"}
	if d.s.kind == kindMariaDB {
		name := fmt.Sprintf("'%s','%s',%d", xid.GTRID(), xid.BQUAL(), troth.FormatID)
		texts = []string{"XA START " + name, row, "XA END " + name, "XA PREPARE " + name}
	}
	for _, text := range texts {
		_, err := s.Exec(text)
		for errors.Is(err, simdb.ErrWait) {
			_, err = s.Resume()
		}
		if err != nil {
			panic(fmt.Sprintf("sim: %s: %v", text, err))
		}
	}
	d.planted[d.srv.Prepared()[before]] = true
}

// happened hears from the server what takes effect.
func (d *deep) happened(e simdb.Event) {
	if d.planted[e.Name] && (e.Kind == simdb.CommitPrepared || e.Kind == simdb.RollbackPrepared) {
		d.s.w.book.violate("R7", "", "%s at %s is none of ours, and is ended", e.Name, d.s.name)
		return
	}
	xid, ours := d.xid(e.Name)
	switch e.Kind {
	case simdb.PreparedKind:
		if ours {
			d.s.w.book.prepared(d.s, xid)
		}
	case simdb.CommitPrepared:
		d.look()
		if ours {
			d.s.w.book.resolves(d.s, xid, troth.Committed)
		}
	case simdb.RollbackPrepared:
		if ours {
			d.s.w.book.resolves(d.s, xid, troth.Aborted)
		}
	case simdb.Resurrected:
		if ours {
			d.s.w.book.resurrected(d.s, xid)
		}
	case simdb.Committed, simdb.RolledBack, simdb.LocksLost:
	}
}

// xid reads a branch's name as the server writes it.
func (d *deep) xid(name string) (troth.XID, bool) {
	if d.s.kind == kindMariaDB {
		part := strings.Split(name, "'")
		if len(part) != 5 {
			return troth.XID{}, false
		}
		name = "troth:" + part[1] + ":" + part[3]
	}
	xid, err := troth.ParseXID(name)
	return xid, err == nil && d.s.w.plan(xid.GID) != nil
}

// look compares the decision table with what it held before.
func (d *deep) look() {
	now := make(map[troth.GID]troth.Outcome)
	columns := d.srv.Columns("troth_decision")
	gid, outcome := -1, -1
	for i, c := range columns {
		switch c {
		case "gid":
			gid = i
		case "outcome":
			outcome = i
		}
	}
	if gid < 0 || outcome < 0 {
		return // the table is not there yet
	}
	for _, row := range d.srv.Rows("troth_decision") {
		o := troth.Aborted
		if strings.HasPrefix(fmt.Sprint(row[outcome]), "commit") {
			o = troth.Committed
		}
		now[troth.GID(fmt.Sprint(row[gid]))] = o
	}
	for gid, o := range now {
		if d.records[gid] != o {
			d.s.w.book.decided(gid, o)
		}
	}
	for gid, o := range d.records {
		switch {
		case now[gid] != troth.Undecided:
		case o == troth.Committed:
			d.s.w.book.forgets(gid)
		default:
			d.s.w.book.expires(gid)
		}
	}
	d.records = now
}

// lookForSole finds the work of transactions that committed in one phase and left
// no record, because the only branch needs none: its commit was the decision.
func (d *deep) lookForSole() {
	for _, row := range d.srv.Rows("journal") {
		if plan := int(row[0].(int64)); !d.seen[plan] {
			d.seen[plan] = true
			d.s.w.book.committedAlone(plan)
		}
	}
}

// wire is a process's connection to a simulated server: what simdriver speaks to.
type wire struct {
	p    *process
	d    *deep
	sess *session
	db   *simdb.Session
	n    int
}

// dial connects.
func (d *deep) dial(p *process) func(context.Context) (simdriver.Conn, error) {
	return func(ctx context.Context) (simdriver.Conn, error) {
		got, err := p.ask(ctx, &call{to: d.s, key: key{op: opConnect}, do: func() (any, error) {
			db, err := d.srv.Connect()
			if err != nil {
				return nil, err
			}
			sess := &session{store: d.s, slot: p.slot, incarnation: p.incarnation, atEnd: func() {
				delete(d.byDB, db.ID())
				db.Close()
			}}
			d.byDB[db.ID()] = sess
			sess.open(p)
			return &wire{p: p, d: d, sess: sess, db: db}, nil
		}})
		if err != nil {
			return nil, err
		}
		return got.(*wire), nil
	}
}

const opConnect = "connect"

// Exec implements simdriver.Conn.
func (w *wire) Exec(ctx context.Context, text string, args []any) ([]simdb.Result, error) {
	w.n++
	begun := false
	c := &call{to: w.d.s, sess: w.sess, key: key{op: text, n: w.db.ID()}}
	c.ready = w.db.Ready
	c.do = func() (any, error) {
		w.sess.used = time.Now()
		var results []simdb.Result
		var err error
		if begun {
			results, err = w.db.Resume()
		} else {
			begun = true
			results, err = w.db.ExecArgs(text, args)
		}
		w.d.afterwards(err, text)
		switch {
		case errors.Is(err, simdb.ErrWait):
			return nil, errWait
		case errors.Is(err, simdb.ErrGone):
			return nil, errLost
		}
		return results, err
	}
	got, err := w.p.ask(ctx, c)
	if errors.Is(err, errLost) && ctx.Err() != nil {
		err = ctx.Err()
	}
	results, _ := got.([]simdb.Result)
	return results, err
}

// afterwards sees to what a request did besides its answer.
func (d *deep) afterwards(err error, text string) {
	var unknown *simdb.UnknownError
	if errors.As(err, &unknown) {
		d.s.w.book.violate("simdb", "", "%s: %v", text, err)
	}
	d.look()
	d.lookForSole()
	for id, sess := range d.byDB {
		if d.srv.Session(id) == nil { // KILL, or a timeout of the server's
			sess.end()
		}
	}
}

// Lost implements simdriver.Prober.
func (w *wire) Lost() bool { return w.sess.gone.Load() }

// Close implements simdriver.Conn.
func (w *wire) Close() error {
	if !w.p.dead.Load() {
		w.p.w.handIn(&call{by: w.p, to: w.d.s, key: key{slot: w.p.slot, incarnation: w.p.incarnation, store: w.d.s.no, op: "close", n: w.db.ID()}, do: func() (any, error) {
			w.p.w.hangUp(w.sess)
			return nil, nil
		}})
	}
	return nil
}

// deepNode is a real resource manager of one process.
type deepNode struct {
	troth.Resource
	db     *sql.DB
	handle func(context.Context, *troth.Tx) (*sql.DB, error)
}

// deepNode makes the process's resource manager for a store.
func (p *process) deepNode(s *store) *deepNode {
	d := s.backend.(*deep)
	n := &deepNode{}
	if s.kind == kindMariaDB {
		n.db = sql.OpenDB(simdriver.Connector(d.dial(p), simdriver.Kind(simdb.MariaDB)))
		r := mysql.New(s.name, n.db)
		n.Resource, n.handle = r, r.DB
	} else {
		n.db = sql.OpenDB(simdriver.Connector(d.dial(p)))
		r := postgres.New(s.name, n.db)
		n.Resource, n.handle = r, r.DB
	}
	return n
}

// deepRegister makes the process's register over a store.
func (p *process) deepRegister(s *store) troth.Register {
	d := s.backend.(*deep)
	db := sql.OpenDB(simdriver.Connector(d.dial(p)))
	p.pools = append(p.pools, db)
	return sqlregister.New(db)
}

func (n *deepNode) manager() troth.Resource { return n.Resource }

// work does a leg through the handle, as a program would.
func (n *deepNode) work(ctx context.Context, tx *troth.Tx, plan *plan, l leg) error {
	db, err := n.handle(ctx, tx)
	if err != nil {
		return &enlistError{err}
	}
	if l.reads {
		var sum sql.NullInt64
		return db.QueryRowContext(ctx, "SELECT sum(balance) FROM account").Scan(&sum)
	}
	if _, err := db.ExecContext(ctx, fmt.Sprintf("UPDATE account SET balance = balance + %d WHERE id = %d", l.amount, l.account)); err != nil {
		return err
	}
	row := fmt.Sprintf("INSERT INTO journal (plan, amount) VALUES (%d, %d)", plan.no, l.amount)
	if l.fails {
		row = fmt.Sprintf("INSERT INTO journal (plan, amount) VALUES (%d, NULL)", plan.no)
	}
	_, err = db.ExecContext(ctx, row)
	return err
}

// enlistError is an error that left no branch behind.
type enlistError struct{ error }

func (e *enlistError) Unwrap() error { return e.error }
