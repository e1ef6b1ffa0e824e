package pinned

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/internal/sqltext"
)

// A Session is one pinned session, with a branch on it. Its methods are safe for concurrent use.
//
// Lock order: turn, then mu. mu is never held across I/O.
type Session struct {
	// Immutable after New.
	cfg     Config
	key     any                      // Config.Context's value under ContextKey
	checker driver.NamedValueChecker // the driver's; nil if it has none
	one     connector

	// turn holds one element while somebody uses the physical session. A
	// channel, and not a mutex, so that waiting ends with the context. Who has the turn may
	// touch what follows, down to mu.
	turn     chan struct{}
	dc       driver.Conn // nil after Release
	begun    bool        // Start was called
	startErr error       // it failed: what is sent now might run outside of the branch
	open     *rows       // the result set that streams from the session; nil if none
	stmts    stmtList    // prepared on the session
	stack    []savepoint // set and not released; the innermost last
	sequence int64       // of the newest savepoint: even, see savepoint
	names    int         // of savepoints made by BeginTx
	lost     error       // why the session is known to be gone

	mu        sync.Mutex
	db        *sql.DB
	failed    error
	failedAt  int64 // odd: after all savepoints with a smaller sequence
	sealed    error
	final     bool // Seal is through: failed stays as it is
	released  bool
	change    Change
	wasSealed atomic.Bool // sealed != nil, for readers of buffered rows
	started   atomic.Bool
	broken    atomic.Bool
	buffered  atomic.Int64 // bytes of result sets in memory
}

// New returns a Session over cfg.Conn. Nothing is sent before the first statement.
func New(cfg Config) *Session {
	s := &Session{cfg: cfg, turn: make(chan struct{}, 1)}
	s.one.s = s
	if cfg.Context != nil && cfg.ContextKey != nil {
		s.key = cfg.Context.Value(cfg.ContextKey)
	}
	// The driver connection is kept beyond Raw. That is safe because the *sql.Conn is ours alone:
	// database/sql touches a connection in use only on behalf of its user.
	err := cfg.Conn.Raw(func(dc any) error {
		s.dc = dc.(driver.Conn)
		s.checker, _ = dc.(driver.NamedValueChecker)
		return nil
	})
	if err != nil {
		s.lose(err)
	}
	return s
}

// DB returns the handle: a *sql.DB all of whose connections are the session. It is
// the same one every time, unless the program has closed it: then the next call makes a
// new one (closing the handle does not touch the branch). After Seal every
// statement on it fails with the reason; after Release it is closed.
//
// Limits set on the handle concern connections that cost nothing, and can be left alone.
// One can hurt: with SetMaxOpenConns(n), database/sql itself makes the n+1st
// statement wait while n result sets or nested transactions are open.
func (s *Session) DB() *sql.DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		s.db = sql.OpenDB(&s.one)
		if s.released {
			_ = s.db.Close() // closes nothing: it has no connection yet
		}
	}
	return s.db
}

// Raw runs f with the driver connection: the RM's own statements. It waits for
// the session, bounded by ctx, and reads an open result set into memory first.
// It does not start the branch, ignores Seal, and returns f's error as it is;
// the error does not count as a statement's, but a lost session is noticed.
// f must not call methods of s that use the session. If the session is lost
// f is not called and the error is a *SessionLostError; after Release it is ErrReleased.
func (s *Session) Raw(ctx context.Context, f func(dc driver.Conn) error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer s.leave()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.detach(); err != nil {
		return err
	}
	err := f(s.dc)
	if err != nil {
		s.noticeLoss(err, false)
	}
	return err
}

// Started reports whether the branch was begun, or an attempt at it was made: whether
// there may be something to roll back.
func (s *Session) Started() bool { return s.started.Load() }

// Failed returns the first error that was not undone by rolling back to a
// savepoint set before it, and nil if there is none. A branch that failed can only be
// rolled back. The answer is final once Seal has returned.
func (s *Session) Failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mistake.On("statement-error-ignored") || mistake.On("prepare-tag-ignored") {
		return nil
	}
	return s.failed
}

// Wrote tells what is known about the branch having changed anything.
func (s *Session) Wrote() Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change
}

// Broken reports whether the session is known to be lost.
func (s *Session) Broken() bool { return s.broken.Load() }

// Seal ends the program's use of the session: from now on every statement of
// the handle fails with reason. It waits for the statement that is running (which ends
// at the latest with Config.Context), closes the open result set and the
// prepared statements, and marks the branch failed if a nested transaction is
// still open, for its work was never committed. Ask Failed afterwards. The first reason stays.
func (s *Session) Seal(reason error) {
	if reason == nil {
		reason = errors.New("troth: the branch is being ended")
	}
	s.mu.Lock()
	if s.sealed == nil {
		s.sealed = reason
		s.wasSealed.Store(true)
	}
	s.mu.Unlock()

	s.turn <- struct{}{}
	defer s.leave()
	s.sealLocked()
}

// sealLocked closes what the program has left open. The caller has the turn.
func (s *Session) sealLocked() {
	if s.open != nil {
		s.open.shut(s.sealReason())
	}
	s.stmts.closeAll()
	if s.openAbove(-1) != "" {
		s.fail(1, fmt.Errorf("troth: resource %s: a nested transaction was neither committed nor rolled back", s.cfg.Resource))
	}
	s.mu.Lock()
	s.final = true
	s.mu.Unlock()
}

func (s *Session) sealReason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sealed
}

// Release seals the session if that was not done, closes the handle, and returns the
// connection to its pool; or throws it away, if discard is set or the session is lost.
// Further calls do nothing.
func (s *Session) Release(discard bool) error {
	s.Seal(ErrReleased)

	s.mu.Lock()
	done, db := s.released, s.db
	s.released = true
	s.mu.Unlock()
	if done {
		return nil
	}
	if db != nil {
		_ = db.Close() // its connections have nothing to close, so it cannot fail
	}

	s.turn <- struct{}{}
	defer s.leave()
	s.dc = nil
	if discard || s.broken.Load() {
		// The pool closes a connection of which it is told that it is bad.
		if err := s.cfg.Conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(err, driver.ErrBadConn) {
			return fmt.Errorf("discard session of %s: %w", s.cfg.Resource, err)
		}
		return nil
	}
	if err := s.cfg.Conn.Close(); err != nil && !errors.Is(err, sql.ErrConnDone) {
		return fmt.Errorf("give back session of %s: %w", s.cfg.Resource, err)
	}
	return nil
}

// usable reports why nothing can be sent any more, if so. The caller has the turn.
func (s *Session) usable() error {
	switch {
	case s.broken.Load():
		return &SessionLostError{Resource: s.cfg.Resource, Cause: s.lost}
	case s.dc == nil:
		return ErrReleased
	}
	return nil
}

// wait takes the turn for c. Its error is on record.
func (s *Session) wait(ctx context.Context, c *conn) error {
	select {
	case s.turn <- struct{}{}: // the common case, cheaper than a select of three
		return nil
	default:
	}
	var over <-chan struct{}
	if s.cfg.Context != nil {
		over = s.cfg.Context.Done()
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return s.failWaiting(c, ctx.Err())
	case <-over:
		return s.failWaiting(c, s.contextEnded(nil))
	}
}

// enter takes the turn for a statement of the program and makes the session ready for it. After
// an error the turn is not taken and the error is on record.
func (s *Session) enter(ctx context.Context, c *conn) error {
	if err := s.wait(ctx, c); err != nil {
		return err
	}
	admitted := false
	defer func() {
		if !admitted {
			s.giveBack(recover())
		}
	}()
	if err := s.admit(ctx, c); err != nil {
		return err
	}
	admitted = true
	return nil
}

// admit checks that a statement of c may be sent.
func (s *Session) admit(ctx context.Context, c *conn) error {
	if s.wasSealed.Load() {
		return s.sealReason()
	}
	if err := s.usable(); err != nil {
		return s.failIn(c, err)
	}
	if s.startErr != nil {
		return &FailedError{Resource: s.cfg.Resource, Cause: s.startErr}
	}
	if s.cfg.Context != nil && s.cfg.Context.Err() != nil {
		return s.failIn(c, s.contextEnded(nil))
	}
	if err := ctx.Err(); err != nil {
		return s.failIn(c, err)
	}
	if err := s.detach(); err != nil {
		return s.failIn(c, err)
	}
	return nil
}

// leave gives the turn back. It must be deferred: a panic of the driver leaves
// the session in a state that nobody knows.
func (s *Session) leave() { s.giveBack(recover()) }

func (s *Session) giveBack(p any) {
	if p != nil {
		err := fmt.Errorf("troth: resource %s: panic in the driver: %v", s.cfg.Resource, p)
		s.lose(err)
		s.fail(1, err)
		<-s.turn
		panic(p)
	}
	<-s.turn
}

// start begins the branch unless that was done.
func (s *Session) start(ctx context.Context, c *conn) error {
	if s.begun {
		return nil
	}
	s.begun = true
	s.started.Store(true)
	if err := s.cfg.Start(ctx, s.dc); err != nil {
		return s.startFailed(c, err)
	}
	return nil
}

// startFailed is for errors of Start, and of the statement joined with it: no
// savepoint was set before.
func (s *Session) startFailed(c *conn, err error) error {
	s.startErr = s.statementFailed(c, err, false)
	return s.startErr
}

// contextEnded is the error of a statement that the end of the transaction's context stopped.
func (s *Session) contextEnded(err error) error {
	if err == nil {
		return fmt.Errorf("troth: resource %s: the transaction is over: %w", s.cfg.Resource, context.Cause(s.cfg.Context))
	}
	return fmt.Errorf("troth: resource %s: the transaction is over: %w (%w)", s.cfg.Resource, context.Cause(s.cfg.Context), err)
}

// bound gives ctx the transaction's end. end must be called when the statement is over.
func (s *Session) bound(ctx context.Context) (bounded context.Context, end func()) {
	tx := s.cfg.Context
	if tx == nil {
		return ctx, func() {}
	}
	if ctx.Done() == nil { // never ends by itself
		return valuesOf{Context: tx, values: ctx}, func() {}
	}
	// context.WithoutCancel keeps the value and loses the end. Its plain use is caught above; who
	// puts an end of his own on it has his statement run until then.
	if ctx == tx || s.key != nil && ctx.Value(s.cfg.ContextKey) == s.key {
		return ctx, func() {}
	}
	bounded, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(tx, func() { cancel(context.Cause(tx)) })
	return bounded, func() {
		stop()
		cancel(nil)
	}
}

// valuesOf is a context that ends with one and has the values of another.
type valuesOf struct {
	context.Context //nolint:containedctx // a context made of two
	values          context.Context
}

func (c valuesOf) Value(key any) any { return c.values.Value(key) }

// statementFailed puts the error of a statement on record and makes it fit for database/sql.
// streaming: the session may be in the middle of a result set.
func (s *Session) statementFailed(c *conn, err error, streaming bool) error {
	s.noticeLoss(err, streaming)
	if s.cfg.Context != nil && s.cfg.Context.Err() != nil && errors.Is(err, context.Canceled) {
		err = s.contextEnded(err)
	}
	if errors.Is(err, driver.ErrBadConn) {
		err = &SessionLostError{Resource: s.cfg.Resource, Cause: err}
	}
	return s.failIn(c, err)
}

// failIn records err as met by a statement of c. The caller has the turn.
func (s *Session) failIn(c *conn, err error) error {
	s.fail(s.position(c), err)
	return err
}

// failWaiting records the error of a statement of c that did not get its turn. Where the others are
// is not known, so only rolling back c's own nested transaction undoes it.
func (s *Session) failWaiting(c *conn, err error) error {
	if s.wasSealed.Load() {
		return s.sealReason()
	}
	at := int64(1)
	if tx := c.tx.Load(); tx != nil {
		at = tx.sequence + 1
	}
	s.fail(at, err)
	return err
}

func (s *Session) fail(at int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final || s.failed != nil && s.failedAt <= at {
		return
	}
	s.failed, s.failedAt = err, at
}

// undone forgets the failure if it came after the savepoint.
func (s *Session) undone(sequence int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mistake.On("savepoint-forgets-all") {
		sequence = -1
	}
	if !s.final && s.failed != nil && s.failedAt > sequence {
		s.failed = nil
	}
}

func (s *Session) wrote(c Change) {
	s.mu.Lock()
	s.change = max(s.change, c)
	s.mu.Unlock()
}

// lose records that the session is gone. The caller has the turn.
func (s *Session) lose(cause error) {
	if s.lost == nil {
		s.lost = cause
	}
	s.broken.Store(true)
}

func (s *Session) noticeLoss(err error, streaming bool) {
	if s.dc == nil || !s.lostBy(err, streaming) {
		return
	}
	s.lose(err)
}

func (s *Session) lostBy(err error, streaming bool) bool {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	if s.cfg.Lost != nil && s.cfg.Lost(s.dc, err) {
		return true
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) && s.cfg.Dialect == sqltext.Postgres {
		switch state.SQLState() {
		// admin_shutdown, crash_shutdown, database_dropped, idle_session_timeout,
		// idle_in_transaction_session_timeout, transaction_timeout: FATAL, all of them.
		case "57P01", "57P02", "57P04", "57P05", "25P03", "25P04":
			return true
		}
	}
	// The MySQL driver calls a connection invalid also while a result set is being read.
	if v, ok := s.dc.(driver.Validator); ok && !streaming && s.open == nil {
		return !v.IsValid()
	}
	return false
}
