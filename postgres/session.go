package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/sqltext"
)

// session is a pinned session of the pool. It implements [pgrm.Session].
type session struct {
	*pinned.Session
	res   *Resource
	begin string
	line  pgrm.Line // made at first use
}

func newSession(r *Resource, conn *sql.Conn, cfg troth.BranchConfig, begin string) *session {
	s := &session{res: r, begin: begin}
	s.Session = pinned.New(pinned.Config{
		Resource:   r.Name(),
		Dialect:    sqltext.Postgres,
		Conn:       conn,
		Driver:     r.db.Driver(),
		Start:      s.start,
		StartExec:  s.startExec,
		StartQuery: s.startQuery,
		Context:    cfg.Context,
		Lost:       s.lost,
	})
	return s
}

// Raw is as [pgrm.Session] says.
func (s *session) Raw(ctx context.Context, f func(pgrm.Line) error) error {
	return s.Session.Raw(ctx, func(dc driver.Conn) error {
		l, err := s.lineOf(ctx, dc)
		if err != nil {
			return err
		}
		return f(l)
	})
}

func (s *session) lineOf(ctx context.Context, dc driver.Conn) (pgrm.Line, error) {
	if s.line == nil {
		l, err := s.res.lines.Of(ctx, dc)
		if err != nil {
			return nil, err
		}
		s.line = l
	}
	return s.line, nil
}

func (s *session) start(ctx context.Context, dc driver.Conn) error {
	l, err := s.lineOf(ctx, dc)
	if err != nil {
		return err
	}
	_, err = l.Round(ctx, pgrm.Parts(s.begin)...)
	return err
}

// startExec joins BEGIN with the first statement.
func (s *session) startExec(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Result, error) {
	l, err := s.lineOf(ctx, dc)
	if err != nil {
		return nil, err
	}
	if conn := s.pgxOf(dc); conn != nil {
		return s.execPgx(ctx, conn, query, args)
	}
	if e, ok := dc.(driver.ExecerContext); ok && len(args) == 0 && pgrm.Joins(l) {
		return e.ExecContext(ctx, s.begin+"; "+query, nil)
	}
	return nil, pinned.ErrNotJoined
}

// startQuery joins BEGIN with the first statement.
func (s *session) startQuery(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Rows, error) {
	l, err := s.lineOf(ctx, dc)
	if err != nil {
		return nil, err
	}
	if conn := s.pgxOf(dc); conn != nil {
		return s.queryPgx(ctx, conn, query, args)
	}
	if q, ok := dc.(driver.QueryerContext); ok && len(args) == 0 && pgrm.Joins(l) {
		return q.QueryContext(ctx, s.begin+"; "+query, nil)
	}
	return nil, pinned.ErrNotJoined
}

// lost tells pinned what only pgx knows: its connections have no IsValid.
func (s *session) lost(driver.Conn, error) bool {
	l, ok := s.line.(pgrm.PgxLine)
	return ok && l.Conn.IsClosed()
}
