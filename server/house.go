package server

import (
	"context"
	"errors"
	"time"

	"github.com/troth-tx/troth/store"
)

// How the background work is spread, so that requests do not notice it.
const (
	houseEvery  = 15 * time.Second
	purgeBatch  = 500
	purgePause  = 50 * time.Millisecond // between batches
	purgeLimit  = 30 * time.Second      // of one batch
	stuckLimit  = 10 * time.Second      // of one count
	stuckNumber = 1000                  // counted at most
)

// keepHouse removes what nobody wants to see any more, and counts what is stuck. It
// ends with the server.
func (s *Server) keepHouse() {
	for s.ctx.Err() == nil {
		if s.storeBroke() {
			return
		}
		s.countStuck()
		s.purge()
		pause(s.ctx, houseEvery)
	}
}

// storeBroke reports whether the store has failed for good. The server ends then, for
// whoever started it to start it anew: it would refuse everything for ever.
func (s *Server) storeBroke() bool {
	ctx, cancel := context.WithTimeout(s.ctx, stuckLimit)
	defer cancel()
	_, err := s.cfg.Store.NextDue(ctx)
	if !errors.Is(err, store.ErrBroken) {
		return false
	}
	s.fail(err)
	return true
}

// purge removes transactions whose retention is over, in batches. Several servers on
// one store may do so at the same time: each removes what it finds.
func (s *Server) purge() {
	if s.cfg.Retention < 0 {
		return
	}
	before := s.cfg.Now().Add(-s.cfg.Retention)
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.ctx, purgeLimit)
		n, err := s.cfg.Store.Purge(ctx, before, purgeBatch)
		cancel()
		s.meter.Purged(n)
		if err != nil {
			if s.ctx.Err() == nil {
				s.log.WarnContext(s.ctx, "finished transactions not purged", "err", err)
			}
			return
		}
		if n < purgeBatch {
			return
		}
		pause(s.ctx, purgePause)
	}
}

func (s *Server) countStuck() {
	ctx, cancel := context.WithTimeout(s.ctx, stuckLimit)
	defer cancel()
	if n, err := count(ctx, s.cfg.Store, store.Filter{Stuck: true}, stuckNumber); err == nil {
		s.meter.Stuck(n)
	}
}
