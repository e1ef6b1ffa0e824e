package engine

import (
	"sync"
	"time"
)

// A scheduler finds what is due and hands it to drivers. It asks the store when there is
// something to expect, and now and then because others may have put something in.
type scheduler struct {
	engine *Engine

	mu   sync.Mutex
	next time.Time     // when the sleeper wakes
	wake chan struct{} // capacity 1: next has come closer
}

// run ends with the engine.
func (s *scheduler) run() {
	e := s.engine
	for e.ctx.Err() == nil {
		now := e.cfg.Now()
		due, err := e.store.Claim(e.ctx, now, e.limits.Lease, e.cfg.ClaimMax)
		if err != nil && e.ctx.Err() == nil {
			e.cfg.Logger.WarnContext(e.ctx, "due transactions not read", "err", err)
		}
		for _, t := range due {
			d := e.hold(t.GID)
			d.take(t)
			e.release(d)
		}
		if len(due) == 0 || len(due) < e.cfg.ClaimMax {
			s.sleep(now)
		}
	}
}

func (s *scheduler) sleep(since time.Time) {
	s.mu.Lock()
	s.next = since.Add(s.engine.cfg.PollEvery)
	s.mu.Unlock()
	if next, err := s.engine.store.NextDue(s.engine.ctx); err == nil && !next.IsZero() {
		s.wakeAt(next)
	}
	for {
		s.mu.Lock()
		left := s.next.Sub(s.engine.cfg.Now())
		s.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
			return
		case <-s.engine.ctx.Done():
			timer.Stop()
			return
		case <-s.wake:
			timer.Stop()
		}
	}
}

// wakeAt tells of work that is due at a time.
func (s *scheduler) wakeAt(at time.Time) {
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
