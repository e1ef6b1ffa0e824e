// Package reserve keeps sessions of a pool that business code cannot exhaust.
//
// Recovery needs sessions exactly when things are bad: when every session of a
// limited pool waits for a row that a prepared branch holds, the statement that
// ends the branch must not wait for that pool. database/sql has no way to reach
// the connector of a *sql.DB, so the reserve takes its sessions from the pool
// itself, holds them for good, and raises the pool's limit by as many:
//
//	limit of the pool = the program's own limit + sessions held by reserves
//
// When a reserved session breaks, database/sql gives its place to business code
// that queues for the pool. The reserve gets another place all the same; the pool
// then has one session more than its limit, until business code returns one.
package reserve

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/troth-tx/troth"
)

// A Reserve holds sessions of one pool. Its methods are safe for concurrent use.
type Reserve struct {
	db    *sql.DB
	slots chan struct{} // one token for each caller inside Do; as many as sessions

	mu     sync.Mutex
	idle   []*sql.Conn // a stack: few callers use few sessions
	busy   int         // callers inside Do
	closed bool
	gone   chan struct{} // closed once closed is set and busy is 0
}

// New returns a Reserve of one session: callers of Do take turns. The session
// is taken at the first Do. A limit that the program changes later, with
// SetMaxOpenConns, is understood as its own number at the next change here.
func New(db *sql.DB) *Reserve { return NewSize(db, 1) }

// NewSize returns a Reserve of up to n sessions, taken as they are needed.
func NewSize(db *sql.DB, n int) *Reserve {
	return &Reserve{db: db, slots: make(chan struct{}, n), gone: make(chan struct{})}
}

// Do calls f with a reserved session that nobody else uses meanwhile. If f
// failed and its session turns out to be broken, f is called once more on a new
// one: it must be idempotent. f may change the session's settings, and must not
// leave a transaction or rows open. After Close the error is troth.ErrClosed.
func (r *Reserve) Do(ctx context.Context, f func(ctx context.Context, c *sql.Conn) error) error {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a reserved session: %w", context.Cause(ctx))
	}
	defer func() { <-r.slots }()
	if err := ctx.Err(); err != nil { // select is fair: a free slot can win against a dead ctx
		return fmt.Errorf("wait for a reserved session: %w", context.Cause(ctx))
	}

	c, err := r.enter()
	if err != nil {
		return err
	}
	sound := false // also when f panics: a session in an unknown state is dropped
	defer func() { r.leave(c, sound) }()
	if c == nil {
		if c, err = r.dial(ctx); err != nil {
			return err
		}
	}

	err = f(ctx, c)
	if err == nil || !broken(c, err) {
		sound = true
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	r.drop(c)
	var dialErr error
	if c, dialErr = r.dial(ctx); dialErr != nil {
		return errors.Join(err, dialErr)
	}
	err = f(ctx, c)
	sound = err == nil || !broken(c, err)
	return err
}

// Close ends the sessions and gives the pool its own limit back. It waits for
// the callers inside Do until ctx ends; their sessions end when they return, in
// any case. It is idempotent.
func (r *Reserve) Close(ctx context.Context) error {
	r.mu.Lock()
	idle := r.idle
	r.idle = nil
	if !r.closed {
		r.closed = true
		r.signalLocked()
	}
	r.mu.Unlock()
	for _, c := range idle {
		r.drop(c)
	}
	select {
	case <-r.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close reserved sessions, some still in use: %w", context.Cause(ctx))
	}
}

// enter counts a caller and returns an idle session for it, nil if there is none.
func (r *Reserve) enter() (*sql.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("reserved session: %w", troth.ErrClosed)
	}
	r.busy++
	if len(r.idle) == 0 {
		return nil, nil
	}
	c := r.idle[len(r.idle)-1]
	r.idle = r.idle[:len(r.idle)-1]
	return c, nil
}

// leave is the end of enter. c is nil if the caller never got a session.
func (r *Reserve) leave(c *sql.Conn, sound bool) {
	r.mu.Lock()
	keep := sound && !r.closed
	if keep {
		r.idle = append(r.idle, c)
	}
	r.mu.Unlock()
	if !keep && c != nil {
		r.drop(c)
	}
	r.mu.Lock()
	r.busy--
	r.signalLocked()
	r.mu.Unlock()
}

func (r *Reserve) signalLocked() {
	if r.closed && r.busy == 0 {
		close(r.gone)
	}
}

// patienceMin is how long the first attempt to get a session may take before it
// is taken for one that queues behind business code, not one that is dialing.
const patienceMin = time.Second

// dial takes a new session from the pool. It raises the limit by one and asks:
// since the limit is then above the number of open sessions, the pool opens
// one at once, or hands over an idle one. Business code can be faster and take
// the new place, and the pool serves its queue in random order; so an attempt
// that takes long is given up for another one, with a further place and twice
// the patience. The further places are taken back at the end; a pool above its
// limit closes what is returned to it.
func (r *Reserve) dial(ctx context.Context) (*sql.Conn, error) {
	places := 1
	limits.grow(r.db, places)
	defer func() {
		if places > 0 {
			limits.grow(r.db, -places)
		}
	}()
	stale := r.db.Stats().Idle // so many of the pool's sessions can be dead without its knowing
	for patience := patienceMin; ; {
		attempt, cancel := context.WithTimeout(ctx, patience)
		c, err := r.db.Conn(attempt)
		if err == nil {
			if err = c.PingContext(attempt); err == nil {
				cancel()
				places-- // the place of c, until drop
				return c, nil
			}
			r.drop(c)
			limits.grow(r.db, 1) // its place is for the next attempt
		}
		gaveUp := attempt.Err() != nil
		cancel()
		switch {
		case ctx.Err() == nil && gaveUp:
			patience *= 2
			if r.full() {
				limits.grow(r.db, 1)
				places++
			}
		case ctx.Err() == nil && c != nil && stale > 0:
			stale--
		default:
			return nil, fmt.Errorf("take a session for the reserve: %w", err)
		}
	}
}

// full reports whether the pool is at its limit, so that a request may queue.
func (r *Reserve) full() bool {
	s := r.db.Stats()
	return s.MaxOpenConnections > 0 && s.OpenConnections >= s.MaxOpenConnections
}

// drop ends a session and gives up its place. It does not go back to the pool:
// its settings may have been changed, and work may be going on in it.
func (r *Reserve) drop(c *sql.Conn) {
	// The place goes first: the pool gives a place that falls free below the limit
	// to whoever queues, and business code would have one session more.
	limits.grow(r.db, -1)
	_ = c.Raw(func(any) error { return driver.ErrBadConn }) // that is how database/sql is told
	_ = c.Close()                                           // ErrConnDone if it is gone already
}

// pingTimeout bounds the question whether a session is still good, after an
// error. The caller's ctx may be the very reason of the error, so it is not used.
const pingTimeout = 2 * time.Second

// broken reports whether the session is of no more use.
func broken(c *sql.Conn, err error) bool {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return true
	}
	valid := true
	rawErr := c.Raw(func(dc any) error {
		if v, ok := dc.(driver.Validator); ok {
			valid = v.IsValid()
		}
		return nil
	})
	if rawErr != nil || !valid {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	return c.PingContext(ctx) != nil
}
