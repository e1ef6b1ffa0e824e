package engine

import (
	"context"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// A scheduler finds what is due and hands it to drivers. It asks the store when there is
// something to expect, and now and then because others may have put something in.
type scheduler struct {
	engine *Engine
	places chan struct{} // one for each pass that is under way because of the scheduler

	mu   sync.Mutex
	next time.Time     // when the sleeper wakes
	wake chan struct{} // capacity 1: next has come closer
}

// pause is the least time between two looks at the store: what comes due meanwhile is
// found together.
const pause = 10 * time.Millisecond

// run ends when ctx ends.
func (s *scheduler) run(ctx context.Context) {
	e := s.engine
	for s.admit(ctx) {
		s.leave() // there is room: how much is seen below
		now := e.cfg.Now()
		limit := min(e.cfg.ClaimMax, cap(s.places)-len(s.places))
		faultpoint.Hit("server.claim.before")
		due, err := e.store.Claim(ctx, now, e.limits.Lease, limit)
		faultpoint.Hit("server.claim.answered")
		if err != nil && ctx.Err() == nil {
			e.cfg.Logger.WarnContext(ctx, "due transactions not read", "err", err)
		}
		for _, t := range due {
			if !s.admit(ctx) {
				return // its lease makes somebody look
			}
			d := e.hold(t.GID)
			d.take(t, s.leave)
			e.release(d)
		}
		if len(due) < limit {
			s.sleep(ctx, now)
		}
	}
}

// admit waits for a place, which leave gives back; it fails when ctx ends.
func (s *scheduler) admit(ctx context.Context) bool {
	select {
	case s.places <- struct{}{}:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (s *scheduler) leave() { <-s.places }

func (s *scheduler) sleep(ctx context.Context, since time.Time) {
	s.mu.Lock()
	s.next = since.Add(s.engine.cfg.PollEvery)
	s.mu.Unlock()
	// What was put off between the look at the store and now is in the store.
	if next, err := s.engine.store.NextDue(ctx); err == nil && !next.IsZero() {
		s.wakeAt(next)
	}
	for {
		s.mu.Lock()
		left := max(s.next.Sub(s.engine.cfg.Now()), pause)
		s.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wake:
			timer.Stop()
		}
	}
}

// wakeAt tells of work that is due at a time.
func (s *scheduler) wakeAt(at time.Time) {
	if at.IsZero() {
		return
	}
	s.mu.Lock()
	closer := at.Before(s.next)
	if closer {
		s.next = at
	}
	s.mu.Unlock()
	if closer {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// retryAll begins passes of transactions whose outage is over.
func (e *Engine) retryAll(gids []string) {
	if len(gids) == 0 {
		return
	}
	next := make(chan string)
	e.wg.Go(func() {
		defer close(next)
		for _, gid := range gids {
			if !e.scheduler.admit(e.ctx) {
				return // their pauses end by themselves
			}
			next <- gid
		}
	})
	for range min(retryWorkers, len(gids)) {
		e.wg.Go(func() {
			for gid := range next {
				d := e.hold(gid)
				if err := d.again(e.ctx, e.scheduler.leave); err != nil && e.ctx.Err() == nil {
					e.cfg.Logger.WarnContext(e.ctx, "not retried yet", "gid", gid, "err", err)
				}
				e.release(d)
			}
		})
	}
}

// retryWorkers is how many writes of retryAll are made at a time; the store makes one
// of them.
const retryWorkers = 64
