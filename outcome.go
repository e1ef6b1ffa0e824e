package troth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
)

// Outcome tells how a transaction ended, as far as is recorded: it changes
// nothing. It asks this process's memory, then the register and every database
// that can record decisions. [ErrNoRecord] comes with Undecided if all of them
// answered and none has a record; any other error means that one that might know
// could not be asked.
func (m *Manager) Outcome(ctx context.Context, id GID) (Outcome, error) {
	o, _, err := m.locate(ctx, id)
	return o, err
}

// locate is Outcome, and the place that holds the record.
func (m *Manager) locate(ctx context.Context, id GID) (Outcome, Place, error) {
	if _, err := ParseGID(string(id)); err != nil {
		return Undecided, Place{}, err
	}
	m.mu.Lock()
	tx := m.active[id]
	known, ok := m.recent.outcomes[id]
	m.mu.Unlock()
	if tx != nil {
		return tx.outcome(), Place{}, nil
	}
	if ok {
		return known, Place{}, nil
	}
	type answer struct {
		outcome Outcome
		place   Place
		err     error
	}
	places := m.places()
	answers := make(chan answer, len(places))
	for _, p := range places {
		go func() {
			a := answer{place: p, err: fmt.Errorf("troth: %s is not reached", p)}
			if reg, ok := m.registerAt(p); ok {
				a.outcome, a.err = reg.Lookup(ctx, id)
			}
			answers <- a
		}()
	}
	var errs []error
	for range places {
		a := <-answers
		if a.err != nil {
			errs = append(errs, fmt.Errorf("look up %s at %s: %w", id, a.place, a.err))
		} else if a.outcome != Undecided {
			return a.outcome, a.place, nil // only one place can hold a record
		}
	}
	if err := m.outOfReach(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return Undecided, Place{}, errors.Join(errs...)
	}
	if mistake.On("forgotten-is-aborted") {
		return Aborted, Place{}, nil
	}
	return Undecided, Place{}, fmt.Errorf("%s: %w", id, ErrNoRecord)
}

// Wait asks like [Manager.Outcome] until the transaction is decided, and returns
// Committed or Aborted. Errors on the way are retried. It gives up when ctx ends,
// with the last error; or with [ErrNoRecord] when no record appeared although the
// transaction is older than Config.Timeout and Config.Grace together.
func (m *Manager) Wait(ctx context.Context, id GID) (Outcome, error) {
	for attempt := 1; ; attempt++ {
		o, err := m.Outcome(ctx, id)
		if o != Undecided {
			return o, nil
		}
		if _, bad := ParseGID(string(id)); bad != nil {
			return Undecided, bad
		}
		if errors.Is(err, ErrNoRecord) && m.cfg.Now().Sub(id.Time()) > m.cfg.Timeout+max(m.cfg.Grace, 0) {
			return Undecided, err
		}
		if !m.waitOn(ctx, id, attempt) {
			if cause := context.Cause(ctx); cause != nil {
				err = errors.Join(cause, err)
			} else {
				err = errors.Join(ErrClosed, err)
			}
			return Undecided, fmt.Errorf("troth: wait for %s: %w", id, err)
		}
	}
}

// waitOn waits for news of a transaction that this process drives, or a while.
func (m *Manager) waitOn(ctx context.Context, id GID, attempt int) bool {
	m.mu.Lock()
	tx := m.active[id]
	m.mu.Unlock()
	if tx == nil {
		return m.pauseIn(ctx, min(backoff(attempt), 500*time.Millisecond))
	}
	select {
	case <-tx.ended:
		return true
	case <-ctx.Done():
		return false
	}
}
