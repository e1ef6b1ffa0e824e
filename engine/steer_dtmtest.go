//go:build dtmtest

package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/troth-tx/troth/store"
)

// steer lets a foreign test suite turn the clock and take each step by hand. Nothing
// happens in the background then.
type steer struct {
	mu         sync.Mutex
	age, delay time.Duration

	cron      sync.Mutex // one CronOnce at a time: its clocks are its own
	processed chan string
}

// processedMax is how many ends of passes are kept for Processed; the oldest go first.
const processedMax = 100_000

func (s *steer) init() {
	s.delay = 180 * time.Second
	s.processed = make(chan string, processedMax)
}

func (s *steer) ahead() (age, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.age, s.delay
}

func (*steer) loop() bool { return false }

// pause leaves a suite the time to look at a transaction that it has just submitted, and
// that is over within a millisecond otherwise.
func (*steer) pause() { time.Sleep(lookTime) }

const lookTime = 20 * time.Millisecond

func (s *steer) passed(gid string) {
	for {
		select {
		case s.processed <- gid:
			return
		default:
			<-s.processed
		}
	}
}

// Forward sets how far clocks are ahead: now for the ages by which timeouts are judged,
// cron for the delays of messages and for what is due.
func (e *Engine) Forward(now, cron time.Duration) {
	e.steer.mu.Lock()
	defer e.steer.mu.Unlock()
	e.steer.age, e.steer.delay = now, cron
}

// CronOnce takes one transaction that is due, makes one pass of it, and returns its gid,
// or "" if none is due. The clocks are ahead for this call only.
func (e *Engine) CronOnce(ctx context.Context, now, cron time.Duration) (gid string, err error) {
	e.steer.cron.Lock()
	defer e.steer.cron.Unlock()
	oldNow, oldCron := e.steer.ahead()
	e.Forward(now, cron)
	defer e.Forward(oldNow, oldCron)
	due, err := e.store.Claim(ctx, e.cfg.Now().Add(cron), e.limits.Lease, 1)
	if err != nil || len(due) == 0 {
		return "", err
	}
	d := e.hold(due[0].GID)
	defer e.release(d)
	if end := d.take(due[0]); end != nil {
		select {
		case <-end.done:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return due[0].GID, nil
}

// Processed returns the next transaction in the order in which passes ended, or "" when
// ctx ends.
func (e *Engine) Processed(ctx context.Context) (gid string) {
	select {
	case gid = <-e.steer.processed:
	case <-ctx.Done():
	}
	return gid
}

// Reset deletes all transactions and topics.
func (e *Engine) Reset(ctx context.Context) error {
	for {
		page, _, err := e.store.List(ctx, store.Filter{States: []store.State{store.Prepared, store.Submitted, store.Aborting}, Limit: store.ListLimitMax})
		if err != nil || len(page) == 0 {
			if err == nil {
				break
			}
			return err
		}
		for _, t := range page {
			if err := e.Stop(ctx, t.GID, "reset"); err != nil && !errors.As(err, new(*StateError)) {
				return err
			}
		}
	}
	for n := 1; n > 0; {
		var err error
		if n, err = e.store.Purge(ctx, e.cfg.Now().Add(time.Hour), 1000); err != nil {
			return err
		}
	}
	names, err := e.store.AllTopics(ctx, "", 10_000)
	for _, name := range names {
		err = errors.Join(err, e.store.DeleteTopic(ctx, name))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for gid, d := range e.drivers {
		if d.users == 0 {
			delete(e.drivers, gid)
		}
	}
	for {
		select {
		case <-e.steer.processed:
			continue
		default:
		}
		return err
	}
}
