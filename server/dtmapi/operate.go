package dtmapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// forceStop ends a transaction as failed. Nobody is called.
func (h *handler) forceStop(ctx context.Context, body []byte) error {
	t, err := decode(body)
	if err != nil {
		return malformed{err}
	}
	return in(h.Engine.Stop(ctx, t.GID, "force stop"), t.GID, cannotStop)
}

// resetNextCronTime begins the next pass of a transaction now. For one that is over there
// is none: that is no error.
func (h *handler) resetNextCronTime(ctx context.Context, body []byte) error {
	t, err := decode(body)
	if err != nil {
		return malformed{err}
	}
	var over *engine.StateError
	if err := h.Engine.RetryNow(ctx, t.GID); !errors.As(err, &over) {
		return in(err, t.GID, nil)
	}
	return nil
}

type resetAnswer struct {
	Succeeded int64 `json:"succeed_count"`
	Remaining bool  `json:"has_remaining"`
}

var unfinished = []store.State{store.Prepared, store.Submitted, store.Aborting}

// resetCronTime begins the next pass of those now that would have begun later than the
// time-out from now: after an outage.
func (h *handler) resetCronTime(r *http.Request) (any, error) {
	q := r.URL.Query()
	timeout, err := number(q, "timeout", int64(3*h.TimeoutToFail/time.Second))
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	ctx, late := r.Context(), h.Now().Add(seconds(timeout))
	f := store.Filter{States: unfinished, Owner: engine.OwnerOf(ctx), Limit: listStep}
	var a resetAnswer
	for {
		page, next, err := h.Store.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, t := range page {
			if !t.Due.After(late) {
				continue
			}
			if a.Succeeded == int64(limit) {
				a.Remaining = true
				return a, nil
			}
			if err := h.Engine.RetryNow(ctx, t.GID); err == nil {
				a.Succeeded++
			} else if !gone(err) {
				return nil, err
			}
		}
		if next == "" {
			return a, nil
		}
		f.Cursor = next
	}
}

// gone reports whether a transaction came to its end meanwhile.
func gone(err error) bool {
	var over *engine.StateError
	return errors.As(err, &over) || errors.Is(err, engine.ErrNotFound)
}
