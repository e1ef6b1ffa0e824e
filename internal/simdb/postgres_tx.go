package simdb

import (
	"slices"
	"strings"
)

// pgVerb is what a statement about transactions does.
type pgVerb uint8

const (
	pgBegin pgVerb = 1 + iota
	pgCommit
	pgRollback
	pgSavepoint
	pgRelease
	pgRollbackTo
	pgPrepare
	pgCommitPrepared
	pgRollbackPrepared
)

// pgControl is a statement about transactions.
type pgControl struct {
	verb      pgVerb
	name      string // of the savepoint or the prepared transaction
	isolation string // of BEGIN; "" if it does not say
}

// endsFailed reports whether the statement may be run in a transaction that failed.
func (ctl *pgControl) endsFailed() bool {
	switch ctl.verb {
	case pgCommit, pgRollback, pgRollbackTo, pgPrepare:
		return true
	case pgBegin, pgSavepoint, pgRelease, pgCommitPrepared, pgRollbackPrepared:
	}
	return false
}

// control reads a statement about transactions, nil if it is none.
func (pg *postgres) control(p *parser, word string) statement {
	switch word {
	case "BEGIN", "START":
		_ = p.words("TRANSACTION") || p.words("WORK")
		return &pgControl{verb: pgBegin, isolation: p.isolation()}
	case "COMMIT", "END":
		if p.words("PREPARED") {
			return &pgControl{verb: pgCommitPrepared, name: p.literal()}
		}
		return &pgControl{verb: pgCommit}
	case "ROLLBACK", "ABORT":
		switch {
		case p.words("PREPARED"):
			return &pgControl{verb: pgRollbackPrepared, name: p.literal()}
		case p.words("TO"):
			_ = p.words("SAVEPOINT")
			return &pgControl{verb: pgRollbackTo, name: p.name()}
		}
		return &pgControl{verb: pgRollback}
	case "SAVEPOINT":
		return &pgControl{verb: pgSavepoint, name: p.name()}
	case "RELEASE":
		_ = p.words("SAVEPOINT")
		return &pgControl{verb: pgRelease, name: p.name()}
	case "PREPARE":
		p.mustWords("TRANSACTION")
		return &pgControl{verb: pgPrepare, name: p.literal()}
	}
	return nil
}

// isolation reads ISOLATION LEVEL ..., "" if it is not there.
func (p *parser) isolation() string {
	if !p.words("ISOLATION", "LEVEL") {
		return ""
	}
	switch {
	case p.words("READ", "COMMITTED"), p.words("READ", "UNCOMMITTED"): // one and the same
		return "read committed"
	case p.words("REPEATABLE", "READ"):
		return "repeatable read"
	}
	p.fail("an isolation level that is not simulated")
	return ""
}

func (ctl *pgControl) start(*call) (activity, error) { return ctl, nil }

func (ctl *pgControl) step(c *call) (Result, error) {
	pg := c.eng().(*postgres)
	s := c.s
	switch ctl.verb {
	case pgBegin:
		return Result{Tag: "BEGIN"}, pg.doBegin(s, ctl.isolation)
	case pgCommit:
		return pg.doCommit(c)
	case pgRollback:
		pg.endBlock(s)
		return Result{Tag: "ROLLBACK"}, nil
	case pgSavepoint:
		return Result{Tag: "SAVEPOINT"}, pg.doSavepoint(s, ctl.name)
	case pgRelease:
		return Result{Tag: "RELEASE"}, pg.doRelease(s, ctl.name)
	case pgRollbackTo:
		return Result{Tag: "ROLLBACK"}, pg.doRollbackTo(s, ctl.name)
	case pgPrepare:
		return pg.doPrepare(c, ctl.name)
	case pgCommitPrepared, pgRollbackPrepared:
		return pg.doFinish(c, ctl)
	}
	panic("simdb: a statement about transactions without a verb")
}

func (pg *postgres) doBegin(s *Session, isolation string) error {
	if s.pg.block {
		return nil // a warning
	}
	if s.tx == nil {
		pg.begin(s)
	}
	s.pg.block = true
	if isolation != "" {
		s.tx.isolated = isolation == "repeatable read"
	}
	return nil
}

// endBlock rolls back what there is.
func (pg *postgres) endBlock(s *Session) {
	s.pg.block, s.pg.failed = false, false
	if s.tx != nil {
		pg.rollback(s, s)
	}
	pg.over(s, true)
}

// doCommit commits; a failed transaction it rolls back, and tells so only by its tag.
func (pg *postgres) doCommit(c *call) (Result, error) {
	s := c.s
	if s.pg.failed {
		pg.endBlock(s)
		return Result{Tag: "ROLLBACK"}, nil
	}
	if s.tx != nil {
		if s.tx.number != 0 && c.lingers(Committed, "") {
			return Result{}, errBlocked
		}
		s.pg.block = false
		pg.commit(s)
	}
	return Result{Tag: "COMMIT"}, nil
}

func needsBlock(what string) error {
	return &Error{Code: "25P01", Message: what + " can only be used in transaction blocks"}
}

func noSavepoint(name string) error {
	return &Error{Code: "3B001", Message: `savepoint "` + name + `" does not exist`}
}

func (pg *postgres) doSavepoint(s *Session, name string) error {
	if !s.pg.block {
		return needsBlock("SAVEPOINT")
	}
	m := s.tx.mark(name)
	m.settings = len(s.pg.settings)
	s.tx.marks = append(s.tx.marks, m)
	return nil
}

// savepoint finds the newest of a name, -1 if there is none.
func (tx *txn) savepoint(name string) int {
	for i := len(tx.marks) - 1; i >= 0; i-- {
		if tx.marks[i].name == name {
			return i
		}
	}
	return -1
}

func (pg *postgres) doRelease(s *Session, name string) error {
	if !s.pg.block {
		return needsBlock("RELEASE SAVEPOINT")
	}
	i := s.tx.savepoint(name)
	if i < 0 {
		return noSavepoint(name)
	}
	s.tx.marks = s.tx.marks[:i]
	return nil
}

func (pg *postgres) doRollbackTo(s *Session, name string) error {
	if !s.pg.block {
		return needsBlock("ROLLBACK TO SAVEPOINT")
	}
	if s.tx == nil { // failed, and no savepoint was set
		return noSavepoint(name)
	}
	i := s.tx.savepoint(name)
	if i < 0 {
		return noSavepoint(name)
	}
	m := s.tx.marks[i]
	s.tx.undoTo(m)
	s.tx.marks = s.tx.marks[:i+1]
	s.pg.settings = s.pg.settings[:min(m.settings, len(s.pg.settings))]
	s.pg.failed = false
	return nil
}

// gidMax is the longest name of a prepared transaction, in bytes.
const gidMax = 199

// doPrepare makes the transaction one of its own. Whatever keeps it from that
// rolls the transaction back; a failed one is rolled back without an error.
func (pg *postgres) doPrepare(c *call, gid string) (Result, error) {
	s := c.s
	if s.pg.failed || !s.pg.block && s.alone() {
		pg.endBlock(s)
		return Result{Tag: "ROLLBACK"}, nil
	}
	if s.tx == nil { // in a request of several statements
		pg.begin(s)
	}
	err := pg.mayPrepare(gid, s.tx)
	if err != nil {
		pg.endBlock(s)
		return Result{}, err
	}
	s.tx.write()
	s.tx.name = gid // reserved from now on
	if c.lingers(PreparedKind, gid) {
		return Result{}, errBlocked
	}
	tx := s.tx
	tx.since = pg.srv.now()
	tx.session, s.tx = nil, nil
	tx.marks = nil
	tx.dropSnapshot()
	s.pg.block = false
	pg.over(s, false)
	pg.srv.prepared = append(pg.srv.prepared, tx)
	pg.force()
	pg.srv.tell(PreparedKind, s, gid)
	return Result{Tag: "PREPARE TRANSACTION"}, nil
}

func (pg *postgres) mayPrepare(gid string, tx *txn) error {
	taken := func(gid string) bool {
		if pg.find(gid) != nil {
			return true
		}
		return slices.ContainsFunc(pg.srv.sessions, func(s *Session) bool {
			return s.tx != nil && s.tx != tx && s.tx.name == gid && s.tx.name != ""
		})
	}
	switch {
	case len(gid) > gidMax:
		return &Error{Code: "22023", Message: `transaction identifier "` + gid + `" is too long`}
	case pg.srv.opt.MaxPrepared < 0:
		return &Error{Code: "55000", Message: "prepared transactions are disabled"}
	case taken(gid):
		return &Error{Code: "42710", Message: `transaction identifier "` + gid + `" is already in use`}
	case len(pg.srv.prepared) >= pg.srv.opt.MaxPrepared:
		return &Error{Code: "53200", Message: "maximum number of prepared transactions reached"}
	}
	return nil
}

// doFinish commits or rolls back a prepared transaction, of whichever session.
func (pg *postgres) doFinish(c *call, ctl *pgControl) (Result, error) {
	tag, kind := "COMMIT PREPARED", CommitPrepared
	if ctl.verb == pgRollbackPrepared {
		tag, kind = "ROLLBACK PREPARED", RollbackPrepared
	}
	if c.s.pg.block || !c.s.alone() {
		return Result{}, &Error{Code: "25001", Message: tag + " cannot run inside a transaction block"}
	}
	tx := pg.find(ctl.name)
	if tx == nil {
		return Result{}, &Error{Code: "42704", Message: `prepared transaction with identifier "` + ctl.name + `" does not exist`}
	}
	if tx.busy != nil && tx.busy != c.s && tx.busy.alive {
		return Result{}, &Error{Code: "55000", Message: `prepared transaction with identifier "` + ctl.name + `" is busy`}
	}
	tx.busy = c.s
	if c.lingers(kind, ctl.name) {
		return Result{}, errBlocked
	}
	pg.srv.prepared = slices.DeleteFunc(pg.srv.prepared, func(other *txn) bool { return other == tx })
	if kind == CommitPrepared {
		tx.commit()
	} else {
		tx.rollback()
	}
	pg.force()
	pg.srv.tell(kind, c.s, ctl.name)
	return Result{Tag: tag}, nil
}

// set reads SET [LOCAL | SESSION] name = value, and SET TRANSACTION ISOLATION LEVEL.
func (pg *postgres) set(p *parser) statement {
	if p.words("TRANSACTION") {
		level := p.isolation()
		if level == "" {
			p.fail("expected ISOLATION LEVEL")
		}
		return action(func(c *call) (Result, error) {
			if c.s.tx.seen != 0 || c.s.tx.number != 0 {
				return Result{}, &Error{Code: "25001", Message: "SET TRANSACTION ISOLATION LEVEL must be called before any query"}
			}
			c.s.tx.isolated = level == "repeatable read"
			return Result{Tag: "SET"}, nil
		})
	}
	local := p.words("LOCAL")
	_ = p.words("SESSION")
	name := p.name()
	if p.op(".") {
		name += "." + p.name() // a setting of the program's own
	}
	if !p.op("=") {
		p.mustWords("TO")
	}
	t := p.take()
	if t.kind != tokenText && t.kind != tokenNumber && t.kind != tokenWord {
		p.fail("expected a value")
	}
	return action(func(c *call) (Result, error) {
		return Result{Tag: "SET"}, pg.change(c.s, name, t.text, local)
	})
}

// change makes a setting.
func (pg *postgres) change(s *Session, name, value string, local bool) error {
	if _, known := pg.settings[name]; !known && !strings.Contains(name, ".") && name != "application_name" && name != "deadlock_timeout" {
		return &Error{Code: "42704", Message: `unrecognized configuration parameter "` + name + `"`}
	}
	if strings.HasSuffix(name, "_timeout") {
		value = pgDurationText(pgDuration(value))
	}
	s.pg.settings = append(s.pg.settings, setting{name, value, local})
	return nil
}
