package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"
)

const pauseMax = 2 * time.Second

var errAttemptTimeout = errors.New("the server takes too long")

// repeat makes a request until it is answered, at most Config.Attempts times. Every
// request may be repeated: the server takes the second for the first. long: an attempt
// may take as long as ctx allows, because branches are called meanwhile.
//
// The loop is written here rather than taken from a library because it is ten lines,
// and users of this package get no dependency for them.
func (c *Client) repeat(ctx context.Context, long bool, request func(ctx context.Context, attempt int) error) error {
	pause := c.cfg.RetryPause
	for attempt := 1; ; attempt++ {
		err := c.attempt(ctx, long, func(ctx context.Context) error { return request(ctx, attempt) })
		if !errors.Is(err, ErrUnknown) || attempt >= c.cfg.Attempts || !sleep(ctx, pause) {
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

func (c *Client) attempt(ctx context.Context, long bool, request func(ctx context.Context) error) error {
	if !long {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.cfg.RequestTimeout, errAttemptTimeout)
		defer cancel()
	}
	return request(ctx)
}

// sleep pauses for up to d, at least half of it, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// detached returns a context for what has to be done although the caller's may have
// ended. It keeps the caller's values.
func (c *Client) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), c.cfg.FinishTimeout, errAttemptTimeout)
}

func itoa(n int) string { return strconv.Itoa(n) }
