package simdb

import (
	"slices"
	"strconv"
	"strings"
)

// A mariaSelect is a SELECT with what MariaDB adds to it.
type mariaSelect struct {
	q     *selectQuery
	share bool
}

func (st *mariaSelect) touches(srv *Server) bool {
	return st.q.from != nil && srv.find(st.q.from.table) != nil || touchesTable(srv, selectSources(nil, st.q))
}

func (st *mariaSelect) start(c *call) (activity, error) {
	m := c.eng().(*maria)
	s, q := c.s, st.q
	if q.from == nil || s.srv.find(q.from.table) == nil {
		return q.start(c)
	}
	alone := s.maria.branch == nil && !s.maria.begun && !s.maria.manual
	switch level := s.maria.isolation(); {
	case q.lock:
		act, err := q.start(c)
		if read, ok := act.(*lockingRead); ok {
			err = m.narrow(c, read.scan, lockExclusive)
		}
		return act, err
	case st.share, level == serializable && !alone:
		if q.group || len(q.order) > 0 || q.limit != nil {
			return nil, s.srv.unknown(c, "a locking read with more than a condition")
		}
		sc, err := c.scan(q.from)
		if err == nil {
			err = m.narrow(c, sc, lockShared)
		}
		return &sharedRead{q: q, scan: sc}, err
	case level == readUncommitted:
		return action(func(c *call) (Result, error) {
			found, names, err := m.dirtyRead(c, q.from)
			if err != nil {
				return Result{}, err
			}
			return q.result(c, found, names)
		}), nil
	}
	return q.start(c)
}

// dirtyRead sees changes of transactions that have not ended.
func (m *maria) dirtyRead(c *call, s *source) (found [][]any, names []string, err error) {
	t := c.s.srv.find(s.table)
	rows, err := c.candidates(t, s)
	if err != nil {
		return nil, nil, err
	}
	e := env{c: c, names: t.names, alias: s.name()}
	for _, r := range rows {
		e.row = r.was
		if r.dirty != nil {
			e.row = r.now
		}
		r.tidy()
		if e.row == nil {
			continue
		}
		ok, err := s.meets(&e)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			found = append(found, e.row)
		}
	}
	return found, t.names, nil
}

// A sharedRead is a SELECT ... LOCK IN SHARE MODE under way.
type sharedRead struct {
	q    *selectQuery
	scan *scan
	rows [][]any
}

func (l *sharedRead) step(c *call) (Result, error) {
	m := c.eng().(*maria)
	sc := l.scan
	for ; sc.i < len(sc.rows); sc.i++ {
		r := sc.rows[sc.i]
		if err := m.lockIn(c, r, lockShared); err != nil {
			return Result{}, err
		}
		vals := r.visible(c.s.tx, 0)
		if vals == nil {
			continue
		}
		ok, err := sc.source.meets(&env{c: c, names: sc.table.names, alias: sc.source.name(), row: vals})
		if err != nil {
			return Result{}, err
		}
		if ok {
			l.rows = append(l.rows, vals)
		}
	}
	return l.q.result(c, l.rows, sc.table.names)
}

// A mariaInsert is an INSERT. From REPEATABLE READ on it locks, shared, the rows
// that it reads, and reads what is committed now.
type mariaInsert struct {
	in      *insertStatement
	sources []*source
}

func (st *mariaInsert) touches(*Server) bool { return true }

func (st *mariaInsert) start(c *call) (activity, error) {
	run := &mariaInserting{st: st}
	if !c.s.tx.isolated {
		return run, nil
	}
	for _, s := range st.sources {
		if c.s.srv.find(s.table) == nil {
			continue
		}
		sc, err := c.scan(s)
		if err != nil {
			return nil, err
		}
		if err := c.eng().(*maria).narrow(c, sc, lockShared); err != nil {
			return nil, err
		}
		run.reads = append(run.reads, sc)
	}
	return run, nil
}

type mariaInserting struct {
	st    *mariaInsert
	reads []*scan
	act   activity
}

func (run *mariaInserting) step(c *call) (Result, error) {
	m := c.eng().(*maria)
	for ; run.act == nil && len(run.reads) > 0; run.reads = run.reads[1:] {
		sc := run.reads[0]
		for c.ranged = sc.ranged; sc.i < len(sc.rows); sc.i++ {
			if err := m.lockIn(c, sc.rows[sc.i], lockShared); err != nil {
				return Result{}, err
			}
		}
	}
	if run.act == nil {
		m.current = true
		act, err := run.st.in.start(c)
		m.current = false
		if err != nil {
			return Result{}, err
		}
		run.act = act
	}
	return run.act.step(c)
}

// A mariaUpdate is an UPDATE: a row that it does not change is locked, and not
// changed.
type mariaUpdate struct{ *updateStatement }

func (mariaUpdate) touches(*Server) bool { return true }

type mariaDelete struct{ *deleteStatement }

func (mariaDelete) touches(*Server) bool { return true }

func (d mariaDelete) start(c *call) (activity, error) {
	act, err := d.deleteStatement.start(c)
	if err != nil {
		return nil, err
	}
	if run, ok := act.(*deleting); ok {
		err = c.eng().(*maria).narrow(c, run.scan, lockExclusive)
	}
	return act, err
}

func (u mariaUpdate) start(c *call) (activity, error) {
	act, err := u.updateStatement.start(c)
	if err != nil {
		return nil, err
	}
	run, ok := act.(*updating)
	if !ok {
		return act, nil
	}
	return &mariaUpdating{run}, c.eng().(*maria).narrow(c, run.scan, lockExclusive)
}

type mariaUpdating struct{ *updating }

func (u *mariaUpdating) step(c *call) (Result, error) {
	for {
		r, vals, err := u.scan.next(c)
		if err != nil {
			return Result{}, err
		}
		if r == nil {
			return Result{Affected: u.n}, nil
		}
		e := env{c: c, names: u.scan.table.names, alias: u.scan.source.name(), row: vals}
		next := slices.Clone(vals)
		for i, s := range u.u.sets {
			if next[u.cols[i]], err = s.x.eval(&e); err != nil {
				return Result{}, err
			}
		}
		if err := u.scan.table.conform(c, next); err != nil {
			return Result{}, err
		}
		if !slices.Equal(vals, next) {
			c.s.tx.put(r, next)
			u.n++
		}
	}
}

// touchesTable reports whether one of the sources is a table.
func touchesTable(srv *Server, list []*source) bool {
	for _, s := range list {
		if s.table.name != "" && srv.find(s.table) != nil {
			return true
		}
	}
	return false
}

// selectSources lists what a query reads, subqueries included.
func selectSources(list []*source, q *selectQuery) []*source {
	if q == nil {
		return list
	}
	if q.from != nil {
		if q.from.table.name != "" {
			list = append(list, q.from)
		}
		list = exprSources(list, q.from.where)
	}
	for _, it := range q.items {
		list = exprSources(list, it.x)
	}
	return list
}

func exprSources(list []*source, x expr) []*source {
	switch x := x.(type) {
	case *subquery:
		return selectSources(list, x.query)
	case *not:
		return exprSources(list, x.x)
	case *logical:
		return exprSources(exprSources(list, x.left), x.right)
	case *comparison:
		return exprSources(exprSources(list, x.left), x.right)
	case *arithmetic:
		return exprSources(exprSources(list, x.left), x.right)
	case *cast:
		return exprSources(list, x.x)
	}
	return list
}

// control is a statement about transactions. In a transaction it may pause at the
// brink of what it does; if its session ends meanwhile the server completes it.
func control(run func(m *maria, c *call) error) statement {
	return action(func(c *call) (Result, error) {
		c.s.maria.brink = nil
		err := run(c.eng().(*maria), c)
		return Result{}, err
	})
}

// brink has a control statement pause before do, if the options say so.
func (m *maria) brink(c *call, kind EventKind, name string, do func() error) error {
	if c.lingers(kind, name) {
		c.s.maria.brink = do
		return errBlocked
	}
	return do()
}

// statement reads MariaDB's own.
func (m *maria) statement(p *parser, word string) statement {
	switch word {
	case "SELECT":
		q := p.query()
		return &mariaSelect{q: q, share: p.words("LOCK", "IN", "SHARE", "MODE")}
	case "INSERT":
		in, _ := p.insertStatement().(*insertStatement)
		st := &mariaInsert{in: in}
		if in != nil {
			st.sources = selectSources(nil, in.query)
		}
		return st
	case "UPDATE":
		u, _ := p.updateStatement().(*updateStatement)
		return mariaUpdate{u}
	case "DELETE":
		return m.deleteText(p)
	case "CREATE":
		return m.ddl(p.createStatement())
	case "XA":
		return m.xaText(p)
	case "BEGIN":
		return control((*maria).doBegin)
	case "START":
		p.mustWords("TRANSACTION")
		return control((*maria).doBegin)
	case "COMMIT":
		return control((*maria).doCommit)
	case "ROLLBACK":
		if !p.words("TO") {
			return control((*maria).doRollback)
		}
		_ = p.words("SAVEPOINT")
		name := p.name()
		return control(func(m *maria, c *call) error { return m.doRollbackTo(c.s, name) })
	case "SAVEPOINT":
		name := p.name()
		return control(func(m *maria, c *call) error { return m.doSavepoint(c.s, name) })
	case "RELEASE":
		p.mustWords("SAVEPOINT")
		name := p.name()
		return control(func(m *maria, c *call) error { return m.doRelease(c.s, name) })
	case "SET":
		return m.setText(p)
	case "SHOW":
		return m.showText(p)
	case "KILL":
		_ = p.words("CONNECTION")
		return m.kill(p.expression())
	}
	return nil
}

// deleteText reads DELETE FROM t, and DELETE t FROM x AS t FORCE INDEX (PRIMARY).
func (m *maria) deleteText(p *parser) statement {
	if p.isWord("FROM") {
		d, _ := p.deleteStatement().(*deleteStatement)
		return mariaDelete{d}
	}
	alias := p.name()
	p.mustWords("FROM")
	d := &deleteStatement{from: source{table: p.tableName()}}
	p.mustWords("AS")
	if d.from.alias = p.name(); d.from.alias != alias {
		p.fail("expected the alias " + alias)
	}
	if p.words("FORCE", "INDEX") {
		p.names()
	}
	if p.words("WHERE") {
		p.where(&d.from)
	}
	return mariaDelete{d}
}

// ddl commits the open transaction; it is no part of any.
func (m *maria) ddl(inner statement) statement {
	return &mariaDDL{inner}
}

type mariaDDL struct{ inner statement }

func (st *mariaDDL) start(c *call) (activity, error) {
	if b := c.s.maria.branch; b != nil {
		return nil, b.wrongState()
	}
	c.eng().(*maria).commitLocal(c.s)
	return st.inner.start(c)
}

// xaText reads an XA statement. A name that is too long or a format that is out of
// range is an error of syntax there.
func (m *maria) xaText(p *parser) statement {
	word := strings.ToUpper(p.name())
	if word == "RECOVER" {
		return action(func(c *call) (Result, error) { return m.xaRecover(), nil })
	}
	x := p.xid()
	switch word {
	case "START", "BEGIN":
		if p.words("JOIN") || p.words("RESUME") {
			return control(func(*maria, *call) error { return errXAInvalid() })
		}
		return control(func(m *maria, c *call) error { return m.xaStart(c.s, x) })
	case "END":
		return control(func(m *maria, c *call) error { return m.xaEnd(c.s, x) })
	case "PREPARE":
		return control(func(m *maria, c *call) error { return m.xaPrepare(c, x) })
	case "COMMIT":
		onePhase := p.words("ONE", "PHASE")
		return control(func(m *maria, c *call) error { return m.xaCommit(c, x, onePhase) })
	case "ROLLBACK":
		return control(func(m *maria, c *call) error { return m.xaRollback(c, x) })
	}
	p.fail("unknown XA statement")
	return nil
}

func (p *parser) xid() xid {
	x := xid{gtrid: p.literal(), format: 1}
	if p.op(",") {
		x.bqual = p.literal()
		if p.op(",") {
			n, err := strconv.ParseInt(p.take().text, 10, 64)
			if err != nil || n < 0 || n > 1<<31-1 {
				p.refuse(mariaSyntax())
			}
			x.format = n
		}
	}
	if len(x.gtrid) > 64 || len(x.bqual) > 64 {
		p.refuse(mariaSyntax())
	}
	return x
}

func mariaSyntax() error {
	return mariaError("1064", "42000", "You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version")
}

// refuse ends reading with the server's own error: the text is known to be wrong.
func (p *parser) refuse(err error) {
	if p.err == nil {
		p.err = err
	}
	p.i = len(p.tokens) - 1
}
