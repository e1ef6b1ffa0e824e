// Package reserve keeps sessions of a pool that business code cannot exhaust.
package reserve

import (
	"context"
	"database/sql"
	"errors"
)

// A Reserve holds one session of a pool for recovery.
type Reserve struct{}

// New returns a Reserve over db. It takes its session at the first Do.
func New(db *sql.DB) *Reserve { return &Reserve{} }

// Do calls f with the reserved session, one caller at a time. If the session
// turns out broken and f failed, f is called once more on a new one: it must be
// idempotent. The session's settings may be changed.
func (r *Reserve) Do(ctx context.Context, f func(ctx context.Context, c *sql.Conn) error) error {
	return errors.New("reserve: not written yet")
}

// Close ends the session and restores the pool's limit.
func (r *Reserve) Close(ctx context.Context) error { return nil }
