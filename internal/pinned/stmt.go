package pinned

import (
	"context"
	"database/sql/driver"

	"github.com/troth-tx/troth/internal/drivercall"
)

// A stmt is a statement prepared on the session.
type stmt struct {
	c          *conn
	ds         driver.Stmt
	t          text
	closed     bool // guarded by the turn
	prev, next *stmt
}

// A convertingStmt is a stmt of a driver with a ColumnConverter.
type convertingStmt struct {
	*stmt
	columns driver.ColumnConverter //nolint:staticcheck // older drivers
}

func (st convertingStmt) ColumnConverter(i int) driver.ValueConverter {
	return st.columns.ColumnConverter(i)
}

var (
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
	_ driver.ColumnConverter   = convertingStmt{} //nolint:staticcheck // older drivers
)

// PrepareContext begins the branch if need be: an error of a prepared text
// must be the branch's, whichever way the driver prepares it.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s := c.s
	t := parse(s.cfg.Dialect, query)
	if err := s.enter(ctx, c); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.checkText(c, &t); err != nil {
		return nil, err
	}
	ctx, end := s.bound(ctx)
	defer end()
	if err := s.start(ctx, c); err != nil {
		return nil, err
	}
	ds, err := drivercall.Prepare(ctx, s.dc, query)
	if err != nil {
		return nil, s.statementFailed(c, err, false)
	}
	st := &stmt{c: c, ds: ds, t: t}
	s.stmts.add(st)
	if cc, ok := ds.(driver.ColumnConverter); ok { //nolint:staticcheck // older drivers
		return convertingStmt{st, cc}, nil
	}
	return st, nil
}

// NumInput is the driver's answer, which it has since the statement was prepared.
func (st *stmt) NumInput() int { return st.ds.NumInput() }

func (st *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := st.ds.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return st.c.CheckNamedValue(v)
}

// Close does nothing once the session is sealed: that has closed it.
func (st *stmt) Close() error {
	s := st.c.s
	s.turn <- struct{}{}
	defer s.leave()
	if st.closed || s.wasSealed.Load() {
		return nil // Seal closes it, or has done so
	}
	if err := s.detach(); err != nil {
		return nil // it stays until Seal
	}
	s.stmts.remove(st)
	return st.shut()
}

// shut closes the statement on the session. The caller has the turn.
func (st *stmt) shut() error {
	st.closed = true
	s := st.c.s
	if s.broken.Load() {
		return nil
	}
	if err := st.ds.Close(); err != nil {
		return s.statementFailed(st.c, err, false)
	}
	return nil
}

func (st *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	c, s := st.c, st.c.s
	if err := s.enter(ctx, c); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.check(c, &st.t); err != nil {
		return nil, err
	}
	ctx, end := s.bound(ctx)
	defer end()
	res, err := drivercall.ExecStmt(ctx, st.ds, args)
	if err != nil {
		return nil, s.statementFailed(c, err, false)
	}
	s.executed(c, &st.t, res)
	return res, nil
}

func (st *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	c, s := st.c, st.c.s
	if err := s.enter(ctx, c); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.check(c, &st.t); err != nil {
		return nil, err
	}
	statement := ctx
	ctx, end := s.bound(ctx)
	dr, err := drivercall.QueryStmt(ctx, st.ds, args)
	if err != nil {
		end()
		return nil, s.statementFailed(c, err, false)
	}
	s.executed(c, &st.t, nil)
	return s.stream(c, statement, dr, end), nil
}

// Exec is what driver.Stmt demands; database/sql calls ExecContext.
func (st *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return st.ExecContext(context.Background(), named(args))
}

// Query is what driver.Stmt demands; database/sql calls QueryContext.
func (st *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return st.QueryContext(context.Background(), named(args))
}

func named(args []driver.Value) []driver.NamedValue {
	values := make([]driver.NamedValue, len(args))
	for i, a := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return values
}

// A stmtList holds the statements prepared on the session: it would keep them
// for its next user if a handle were dropped without closing them.
type stmtList struct{ first *stmt }

func (l *stmtList) add(st *stmt) {
	st.next = l.first
	if l.first != nil {
		l.first.prev = st
	}
	l.first = st
}

func (l *stmtList) remove(st *stmt) {
	if st.prev != nil {
		st.prev.next = st.next
	} else {
		l.first = st.next
	}
	if st.next != nil {
		st.next.prev = st.prev
	}
	st.prev, st.next = nil, nil
}

func (l *stmtList) closeAll() {
	for st := l.first; st != nil; st = l.first {
		l.remove(st)
		_ = st.shut() // its error is on record
	}
}
