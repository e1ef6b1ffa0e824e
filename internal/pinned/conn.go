package pinned

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"

	"github.com/troth-tx/troth/internal/drivercall"
	"github.com/troth-tx/troth/internal/sqltext"
)

// connector makes the handle's connections out of nothing.
type connector struct{ s *Session }

func (k *connector) Connect(context.Context) (driver.Conn, error) { return &conn{s: k.s}, nil }

func (k *connector) Driver() driver.Driver {
	if k.s.cfg.Driver == nil {
		return noDriver{}
	}
	return k.s.cfg.Driver
}

// Close is called when the handle is closed: DB makes a new one then.
func (k *connector) Close() error {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if !k.s.released {
		k.s.db = nil
	}
	return nil
}

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("troth: the handle of a branch opens no connections")
}

// A conn is one of the handle's connections: all are the session. It has
// every optional interface; where the driver lacks one it does what database/sql
// would have done.
type conn struct {
	s  *Session
	tx atomic.Pointer[nestedTx] // the innermost begun on it; changed with the turn only
}

var (
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
)

func (c *conn) Close() error                       { return nil }
func (c *conn) ResetSession(context.Context) error { return nil }
func (c *conn) IsValid() bool                      { return true }

// Begin is what driver.Conn demands; database/sql calls BeginTx.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// Prepare is what driver.Conn demands; database/sql calls PrepareContext.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// Ping asks the driver, if it can be asked, and does not begin the branch.
func (c *conn) Ping(ctx context.Context) error {
	s := c.s
	if err := s.enter(ctx, c); err != nil {
		return err
	}
	defer s.leave()
	p, ok := s.dc.(driver.Pinger)
	if !ok {
		return nil
	}
	ctx, end := s.bound(ctx)
	defer end()
	if err := p.Ping(ctx); err != nil {
		return s.statementFailed(c, err, false)
	}
	return nil
}

// CheckNamedValue lets the driver convert an argument. It does not wait for the session: drivers look
// at the value and at settings that stay, and a driver.Valuer that it calls may want the session itself.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	switch {
	case c.s.wasSealed.Load():
		return c.s.sealReason()
	case c.s.checker == nil:
		return driver.ErrSkip // database/sql goes on to its default
	}
	return c.s.checker.CheckNamedValue(v)
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s := c.s
	t := parse(s.cfg.Dialect, query)
	if err := s.enter(ctx, c); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.check(c, &t); err != nil {
		return nil, err
	}
	ctx, end := s.bound(ctx)
	defer end()
	res, err := s.exec(ctx, c, query, args)
	if err != nil {
		return nil, err
	}
	s.executed(c, &t, res)
	return res, nil
}

// exec runs the statement, joined with the start of the branch if possible. Its error is on record.
func (s *Session) exec(ctx context.Context, c *conn, query string, args []driver.NamedValue) (driver.Result, error) {
	if !s.begun && s.cfg.StartExec != nil {
		if res, joined, err := s.startExec(ctx, c, query, args); joined {
			return res, err
		}
	}
	if err := s.start(ctx, c); err != nil {
		return nil, err
	}
	res, err := drivercall.Exec(ctx, s.dc, query, args)
	return res, s.answered(c, err)
}

// answered puts the error of a text on record. driver.ErrSkip is none: nothing was sent, and
// database/sql goes on to PrepareContext.
func (s *Session) answered(c *conn, err error) error {
	if err == nil || err == driver.ErrSkip { //nolint:errorlint // wrapped, it does not move database/sql to go on
		return err
	}
	return s.statementFailed(c, err, false)
}

func (s *Session) startExec(ctx context.Context, c *conn, query string, args []driver.NamedValue) (res driver.Result, joined bool, err error) {
	// Set before, so that a panic or a lost reply leaves a branch that counts as begun.
	s.started.Store(true)
	res, err = s.cfg.StartExec(ctx, s.dc, query, args)
	if joined = s.joined(err); joined && err != nil {
		err = s.startFailed(c, err)
	}
	return res, joined, err
}

// joined takes note of the answer of StartExec or StartQuery.
func (s *Session) joined(err error) bool {
	if errors.Is(err, driver.ErrSkip) || errors.Is(err, ErrNotJoined) {
		s.started.Store(false)
		return false
	}
	s.begun = true
	return true
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s := c.s
	t := parse(s.cfg.Dialect, query)
	if err := s.enter(ctx, c); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.check(c, &t); err != nil {
		return nil, err
	}
	statement := ctx
	ctx, end := s.bound(ctx)
	dr, err := s.query(ctx, c, query, args)
	if err != nil {
		end()
		return nil, err
	}
	s.executed(c, &t, nil)
	return s.stream(c, statement, dr, end), nil
}

func (s *Session) query(ctx context.Context, c *conn, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !s.begun && s.cfg.StartQuery != nil {
		s.started.Store(true)
		dr, err := s.cfg.StartQuery(ctx, s.dc, query, args)
		if s.joined(err) {
			if err != nil {
				return nil, s.startFailed(c, err)
			}
			return dr, nil
		}
	}
	if err := s.start(ctx, c); err != nil {
		return nil, err
	}
	dr, err := drivercall.Query(ctx, s.dc, query, args)
	return dr, s.answered(c, err)
}

// A text is what is known of a statement's text.
type text struct {
	first   sqltext.Statement
	rest    string // the statements behind it; mostly none
	dialect sqltext.Dialect
	refused *sqltext.Statement
	writes  bool // one is a Write
	last    sqltext.Statement
	changes bool // one is neither Read nor Empty nor about savepoints
	points  bool // one is about savepoints
	undoes  bool // the first is a ROLLBACK TO, which is allowed in a branch that failed
}

func parse(d sqltext.Dialect, query string) text {
	t := text{dialect: d}
	t.first, t.rest = sqltext.First(d, query)
	t.undoes = t.first.Kind == sqltext.RollbackTo
	t.add(t.first)
	if t.rest != "" {
		for st := range sqltext.Statements(d, t.rest) {
			t.add(st)
		}
	}
	return t
}

func (t *text) add(st sqltext.Statement) {
	switch st.Kind {
	case sqltext.TransactionControl, sqltext.ImplicitCommit:
		if t.refused == nil {
			refused := st
			t.refused = &refused
		}
	case sqltext.Write:
		t.writes, t.changes = true, true
	case sqltext.Setting:
		t.changes = true
	case sqltext.Savepoint, sqltext.RollbackTo, sqltext.Release:
		t.points = true
	case sqltext.Empty, sqltext.Read:
	}
	t.last = st
}

// each calls f for every statement of the text.
func (t *text) each(f func(*sqltext.Statement) error) error {
	st := t.first // a copy, so that t need not live on the heap
	if err := f(&st); err != nil {
		return err
	}
	for st := range sqltext.Statements(t.dialect, t.rest) {
		if err := f(&st); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses texts that must not be sent, before anything is. A program that sent one that
// ends a transaction believes that the branch has ended: the branch counts as failed.
func (s *Session) checkText(c *conn, t *text) error {
	if t.refused != nil {
		return s.failIn(c, &RefusedError{Resource: s.cfg.Resource, Kind: t.refused.Kind, Word: t.refused.Word, Dialect: s.cfg.Dialect})
	}
	if err := s.checkNested(c); err != nil {
		return err
	}
	if t.undoes {
		return nil
	}
	return s.refuseAfterFailure()
}

// check is checkText, and all else that must hold before the text is run.
func (s *Session) check(c *conn, t *text) error {
	if err := s.checkText(c, t); err != nil {
		return err
	}
	if t.points {
		if err := t.each(s.checkSavepoint); err != nil {
			return s.failIn(c, err)
		}
	}
	if t.writes {
		s.wrote(ChangeMaybe) // before it is sent: what comes back may be lost
	}
	return nil
}

// executed draws the conclusions from a text that was carried out. res is nil for a query.
func (s *Session) executed(c *conn, t *text, res driver.Result) {
	if t.changes && len(s.stack) > 0 {
		s.ran(c)
	}
	if t.points {
		_ = t.each(func(st *sqltext.Statement) error {
			s.follow(c, st)
			return nil
		})
	}
	// The count is that of the last statement. A SELECT that locks reports what it found.
	if res != nil && t.last.Kind == sqltext.Write && t.last.Word != "SELECT" {
		if n, err := res.RowsAffected(); err == nil && n > 0 {
			s.wrote(ChangeYes)
		}
	}
}
