package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/store"
)

// A scheduler finds what is due and hands it to drivers. It asks the store when there is
// something to expect, and now and then because others may have put something in. It
// never waits for a participant: what finds no place to be called goes back to the store.
type scheduler struct {
	engine *Engine
	batch  batch

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
	s.batch = batch{n: 1, max: e.cfg.ClaimMax, bytesMax: e.cfg.BytesMax / 4}
	for s.memory(ctx) {
		now, limit := e.cfg.Now(), s.batch.n
		faultpoint.Hit("server.claim.before")
		due, err := e.store.Claim(ctx, now, e.limits.Lease, limit)
		faultpoint.Hit("server.claim.answered")
		switch {
		case ctx.Err() != nil:
			s.giveBack(due)
			return
		case err != nil:
			e.cfg.Logger.WarnContext(ctx, "due transactions not read", "err", err)
			doze(ctx, e.cfg.PollEvery)
			continue
		}
		s.batch.claimed(due)
		s.take(due)
		if len(due) < limit {
			s.sleep(ctx, now)
		}
	}
}

// giveBack returns what was claimed too late.
func (s *scheduler) giveBack(due []*store.Transaction) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, t := range due {
		s.engine.giveBack(ctx, t)
	}
}

// memory waits until there is memory for more transactions; it fails when ctx ends.
func (s *scheduler) memory(ctx context.Context) bool {
	for s.engine.gate.full() && doze(ctx, pause) {
	}
	return ctx.Err() == nil
}

// take begins passes. What they write at once they write together.
func (s *scheduler) take(due []*store.Transaction) {
	var all sync.WaitGroup
	for _, t := range due {
		all.Go(func() {
			d := s.engine.hold(t.GID)
			defer s.engine.release(d)
			d.take(t)
		})
	}
	all.Wait()
}

// batch is how many transactions are claimed at a time. How large they are is seen when
// they are in memory, so the number begins with one, doubles while they are small, and
// falls when they are not.
type batch struct{ n, max, bytesMax int }

func (b *batch) claimed(all []*store.Transaction) {
	size := 0
	for _, t := range all {
		size += sizeOf(t)
	}
	switch {
	case size > b.bytesMax:
		b.n = max(1, len(all)*b.bytesMax/size)
	case len(all) == b.n && size <= b.bytesMax/2:
		b.n = min(2*b.n, b.max)
	}
}

// doze waits; it fails when ctx ends.
func doze(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *scheduler) sleep(ctx context.Context, since time.Time) {
	s.mu.Lock()
	s.next = since.Add(s.engine.cfg.PollEvery)
	s.mu.Unlock()
	// What was put off between the look at the store and now is in the store.
	if next, err := s.nextDue(ctx); err == nil {
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

func (s *scheduler) nextDue(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.engine.cfg.StoreTimeout, errStoreTimeout)
	defer cancel()
	return s.engine.store.NextDue(ctx)
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

// retry drives what waits in line for a host, as long as there is room.
func (e *Engine) retry(host string) {
	e.wg.Go(func() {
		for ready := e.gate.next(host); len(ready) > 0 && e.looking.Err() == nil; ready = e.gate.next(host) {
			var all sync.WaitGroup
			for _, one := range ready {
				e.retrying <- struct{}{} // nobody keeps it for longer than the store may take
				all.Go(func() {
					e.retryOne(one)
					<-e.retrying
				})
			}
			all.Wait()
		}
	})
}

func (e *Engine) retryOne(one putOff) {
	d := e.hold(one.gid)
	defer e.release(d)
	err := d.again(e.looking, one.hurry)
	if err != nil && !errors.Is(err, store.ErrNotFound) && e.looking.Err() == nil {
		e.cfg.Logger.WarnContext(e.looking, "not retried yet", "gid", one.gid, "err", err) // its pause ends by itself
	}
}
