package pgxtx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/sqltext"
)

// session is one connection of the pool with a branch on it. It implements
// [pgrm.Session] and [pgrm.Queuer].
//
// R9: the server itself puts a transaction whose statement failed into a state
// ('E') that only a rollback ends, and tells that state with every answer. So
// errors that come late (Rows, BatchResults, CopyFrom, LargeObjects) need no
// watching. What is noted here are errors that never reached the server.
type session struct {
	name  string
	begin string
	ctx   context.Context //nolint:containedctx // lifetime of the branch
	stop  func() bool     // ends the watch over ctx

	op sync.Mutex // held while the connection is used

	pooled   *pgxpool.Conn // nil after Release
	conn     *pgx.Conn
	started  bool
	sealed   error
	failure  error // that did not reach the server, or the server's last
	failedAt int   // clock of failure
	clock    int   // counts savepoints and failures
	saves    []save
	names    int // savepoints that were named
	wrote    pinned.Change
	open     interface{ Close() } // the last result set
	queue    []Stmt
}

type save struct {
	name  string
	clock int
}

func newSession(ctx context.Context, name string, pooled *pgxpool.Conn, begin string) *session {
	s := &session{name: name, begin: begin, ctx: ctx, pooled: pooled, conn: pooled.Conn()}
	s.stop = context.AfterFunc(s.ctx, s.interrupt)
	return s
}

// interrupt breaks the statement that runs when the transaction's time is up.
// pgx then closes the connection and asks the server to cancel.
func (s *session) interrupt() {
	if s.op.TryLock() {
		s.op.Unlock() // nothing runs; statements to come are refused
		return
	}
	_ = s.conn.PgConn().Conn().SetDeadline(time.Now())
}

// errBusy is what pgx calls "conn busy". Waiting instead would be for ever where
// a callback of a running statement uses the Tx.
var errBusy = errors.New("pgxtx: another statement is running: a pgx.Tx is for one goroutine at a time")

// use locks the connection for a statement of the program. The caller unlocks op
// if the error is nil.
func (s *session) use() error {
	if !s.op.TryLock() {
		if err := s.ctx.Err(); err != nil {
			return context.Cause(s.ctx)
		}
		return errBusy
	}
	err := s.sealed
	switch {
	case err != nil:
	case s.ctx.Err() != nil:
		err = context.Cause(s.ctx)
	case s.conn.IsClosed():
		err = s.lost()
	}
	if err != nil {
		s.op.Unlock()
	}
	return err
}

func (s *session) lost() error {
	return &pinned.SessionLostError{Resource: s.name, Cause: s.failure}
}

// start begins the branch with a round trip of its own, for statements that
// cannot be joined with it.
func (s *session) start(ctx context.Context) error {
	if s.started {
		return nil
	}
	s.started = true
	_, err := pgrm.PgxLine{Conn: s.conn}.Round(ctx, s.begin)
	return s.note(err)
}

// note remembers the error of a statement.
func (s *session) note(err error) error {
	if err == nil {
		return nil
	}
	s.clock++
	s.failure, s.failedAt = err, s.clock
	if s.ctx.Err() != nil && pgrm.SQLState(err) == "" {
		return fmt.Errorf("%w: %w", context.Cause(s.ctx), err)
	}
	return err
}

// look classifies a text before it is sent, and refuses what would end the branch.
func (s *session) look(text string) error {
	for st := range sqltext.Statements(sqltext.Postgres, text) {
		switch st.Kind {
		case sqltext.TransactionControl, sqltext.ImplicitCommit:
			return &pinned.RefusedError{Resource: s.name, Kind: st.Kind, Word: st.Word, Dialect: sqltext.Postgres}
		case sqltext.Write:
			if s.wrote == pinned.ChangeNo {
				s.wrote = pinned.ChangeMaybe
			}
		case sqltext.Empty, sqltext.Read, sqltext.Savepoint, sqltext.RollbackTo, sqltext.Release, sqltext.Setting:
		}
	}
	return nil
}

// saved follows the savepoints of a text that was carried out.
func (s *session) saved(text string) {
	for st := range sqltext.Statements(sqltext.Postgres, text) {
		switch st.Kind {
		case sqltext.Savepoint:
			s.clock++
			s.saves = append(s.saves, save{st.Name, s.clock})
		case sqltext.RollbackTo:
			if i := lastSave(s.saves, st.Name); i >= 0 {
				if s.failedAt > s.saves[i].clock {
					s.failure, s.failedAt = nil, 0
				}
				s.saves = s.saves[:i+1]
			}
		case sqltext.Release:
			if i := lastSave(s.saves, st.Name); i >= 0 {
				s.saves = s.saves[:i]
			}
		case sqltext.Empty, sqltext.Read, sqltext.Write, sqltext.TransactionControl, sqltext.ImplicitCommit, sqltext.Setting:
		}
	}
}

// lastSave is the newest savepoint of a name, which hides the older ones.
func lastSave(saves []save, name string) int {
	for i := len(saves) - 1; i >= 0; i-- {
		if saves[i].name == name {
			return i
		}
	}
	return -1
}

// count notes what an Exec changed.
func (s *session) count(tag pgconn.CommandTag) {
	if (tag.Update() || tag.Insert() || tag.Delete()) && tag.RowsAffected() > 0 {
		s.wrote = pinned.ChangeYes
	}
}

// closeOpen ends the last result set, which occupies the connection.
func (s *session) closeOpen() {
	if s.open != nil {
		s.open.Close()
		s.open = nil
	}
}

// Raw is as [pgrm.Session] says.
func (s *session) Raw(_ context.Context, f func(pgrm.Line) error) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.pooled == nil {
		return pinned.ErrReleased
	}
	if s.conn.IsClosed() {
		return s.lost()
	}
	s.closeOpen()
	return f(pgrm.PgxLine{Conn: s.conn})
}

// Started is as [pgrm.Session] says.
func (s *session) Started() bool { return s.started }

// Seal is as [pgrm.Session] says.
func (s *session) Seal(reason error) {
	s.op.Lock()
	defer s.op.Unlock()
	if s.sealed != nil {
		return
	}
	s.sealed = reason
	s.stop()
	if s.pooled == nil {
		return
	}
	if s.open != nil && s.ctx.Err() != nil {
		_ = s.conn.PgConn().Conn().SetDeadline(time.Now()) // do not read the rest of it
	}
	s.closeOpen()
	open := slices.ContainsFunc(s.saves, func(v save) bool { return strings.HasPrefix(v.name, savepointPrefix) })
	if open && s.failure == nil {
		s.failure = errors.New("a nested transaction was neither committed nor rolled back")
	}
}

// Failed is as [pgrm.Session] says.
func (s *session) Failed() error {
	s.op.Lock()
	defer s.op.Unlock()
	switch {
	case s.pooled == nil || !s.started && s.failure == nil:
		return nil
	case s.conn.IsClosed():
		return s.lost()
	case s.conn.PgConn().TxStatus() == 'E':
		if s.failure != nil {
			return s.failure
		}
		return errors.New("a statement of the transaction failed")
	case pgrm.SQLState(s.failure) != "" && s.conn.PgConn().TxStatus() == 'T':
		return nil // the server says that it was undone
	}
	return s.failure
}

// Wrote is as [pgrm.Session] says.
func (s *session) Wrote() pinned.Change { return s.wrote }

// Broken is as [pgrm.Session] says.
func (s *session) Broken() bool {
	s.op.Lock()
	defer s.op.Unlock()
	return s.conn.IsClosed()
}

// Release is as [pgrm.Session] says.
func (s *session) Release(discard bool) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.pooled == nil {
		return nil
	}
	s.stop()
	pooled := s.pooled
	s.pooled = nil
	if !discard || s.conn.IsClosed() {
		pooled.Release() // the pool looks whether it is in order
		return nil
	}
	// Let the server notice at once; the pool's own way waits for it.
	c := pooled.Hijack()
	_ = c.PgConn().Conn().Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it fails, on the closed socket
	return nil
}

var (
	_ pgrm.Session = (*session)(nil)
	_ pgrm.Queuer  = (*session)(nil)
)
