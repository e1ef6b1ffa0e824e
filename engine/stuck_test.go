//go:build !dtmtest

package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// hanging is a store of which one question of a kind is never answered, as on a connection
// that leads nowhere.
type hanging struct {
	store.Store
	get, next atomic.Bool // the next one hangs
}

func (h *hanging) Get(ctx context.Context, gid string) (*store.Transaction, error) {
	if h.get.CompareAndSwap(true, false) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return h.Store.Get(ctx, gid)
}

func (h *hanging) NextDue(ctx context.Context) (time.Time, error) {
	if h.next.CompareAndSwap(true, false) {
		<-ctx.Done()
		return time.Time{}, context.Cause(ctx)
	}
	return h.Store.NextDue(ctx)
}

// One question that the store never answers keeps nothing from being driven.
func TestUnansweredReadStopsNothing(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"next", "get"} {
		synctest.Test(t, func(t *testing.T) {
			s := &hanging{Store: memory.New()}
			s.next.Store(what == "next")
			e := open(t, s, &participants{})
			defer func() { _ = e.Close(t.Context()) }()
			synctest.Wait()
			due(t, s, "held", "a", nil, time.Now())
			due(t, s, "other", "a", nil, time.Now().Add(30*time.Second))
			asked := make(chan error, 1)
			if what == "get" {
				s.get.Store(true)
				go func() { asked <- e.RetryNow(context.Background(), "held") }()
				synctest.Wait()
			}
			time.Sleep(time.Minute)
			for _, gid := range []string{"held", "other"} {
				if got, err := s.Store.Get(t.Context(), gid); err != nil || got.State != store.Succeeded {
					t.Errorf("%s: %s is %+v (%v), want that it succeeded", what, gid, got, err)
				}
			}
			if what == "get" {
				if err := <-asked; !errors.Is(err, ErrUnknown) {
					t.Errorf("the request heard %v, want that nothing is known", err)
				}
			}
		})
	}
}
