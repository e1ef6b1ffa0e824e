package troth

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// Upkeep keeps the registers small. The process that committed a transaction
// forgets its record itself (see forgetter); what a crash left over is proved
// again here: a record goes only when every branch that it binds is proved
// committed (R4). Abort records go when no transaction can live that long any more
// (R5).
const (
	upkeepEvery = 30 * time.Second
	upkeepBatch = 500
	// upkeepMargin is added to the age from which others than its own process prove
	// and forget a record.
	upkeepMargin = 30 * time.Second
	// abortLives is for how many longest lives an abort record is kept.
	abortLives = 10
)

// upkeepLoop keeps up every half minute, apart from the recovery passes: a
// database that does not answer must not delay them.
func (m *Manager) upkeepLoop(dice *rand.Rand) {
	var warned string
	for m.pauseOr(nil, spread(dice, upkeepEvery)) {
		err := m.keepUp(m.life)
		switch {
		case err == nil || m.life.Err() != nil:
			warned = ""
		case err.Error() != warned:
			warned = err.Error()
			m.cfg.Logger.Warn("upkeep of decision records incomplete", "err", err)
		}
	}
}

// keepUp looks after every place and every resource, in parallel.
func (m *Manager) keepUp(ctx context.Context) error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	p := &pass{mgr: m, start: time.Now()}
	var wg sync.WaitGroup
	for _, place := range m.places() {
		if reg, ok := m.registerAt(place); ok {
			wg.Go(func() { p.keepPlace(ctx, place, reg) })
		}
	}
	for _, r := range m.cfg.Resources {
		if s, ok := r.(Sweeper); ok && m.isOpen(r) {
			wg.Go(func() {
				sctx, cancel := context.WithTimeout(ctx, upkeepEvery)
				defer cancel()
				faultpoint.Hit("sweep.before")
				_, err := s.Sweep(sctx, m.keepAge(), p.forgotten)
				faultpoint.Hit("sweep.after")
				if err != nil {
					p.fail(&BranchError{Resource: r.Name(), Op: "recover", Err: err})
				}
			})
		}
	}
	wg.Wait()
	return p.err()
}

func (p *pass) keepPlace(ctx context.Context, place Place, reg Register) {
	if err := p.forgetProved(ctx, place, reg); err != nil {
		p.fail(err)
		return
	}
	for ctx.Err() == nil {
		ectx, cancel := context.WithTimeout(ctx, listTimeout)
		faultpoint.Hit("expire.before")
		lives := abortLives * p.mgr.cfg.LifeMax
		if mistake.On("abort-record-short-lived") {
			lives = 0
		}
		n, err := reg.Expire(ectx, lives)
		cancel()
		faultpoint.Hit("expire.after")
		if err != nil {
			p.fail(err)
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// keepAge is from when on a record, or a witness of one, may be dropped by others
// than its own process: no coordinator that lost the answer to its decision asks
// any more (see driver.ask).
func (m *Manager) keepAge() time.Duration {
	if mistake.On("forget-by-age") {
		return 0
	}
	return max(m.cfg.KeepDecisions, m.cfg.LifeMax) + upkeepMargin
}

// places lists where this process can read decisions.
func (m *Manager) places() []Place {
	var places []Place
	if m.cfg.Register != nil && m.registerOpen() {
		places = append(places, Place{Identity: m.cfg.Register.Identity()})
	}
	for _, r := range m.cfg.Resources {
		if m.isOpen(r) && r.Can()&CanDecide != 0 {
			places = append(places, resourcePlace(r))
		}
	}
	return places
}

// forgetProved walks one register's commit records.
func (p *pass) forgetProved(ctx context.Context, place Place, reg Register) error {
	var after GID
	for ctx.Err() == nil {
		lctx, cancel := context.WithTimeout(ctx, listTimeout)
		faultpoint.Hit("upkeep.before-list")
		records, err := reg.Committed(lctx, p.mgr.keepAge(), after, upkeepBatch)
		cancel()
		faultpoint.Hit("upkeep.listed")
		if err != nil {
			return err
		}
		var proved []GID
		for _, rec := range records {
			after = rec.GID
			if rec.GID.Domain() == p.mgr.cfg.Domain && !p.mgr.drives(rec.GID) && p.prove(ctx, place, rec) {
				proved = append(proved, rec.GID)
			}
		}
		faultpoint.Hit("forget.before")
		if len(proved) > 0 {
			lctx, cancel := context.WithTimeout(ctx, listTimeout)
			err := reg.Forget(lctx, proved)
			cancel()
			if err != nil {
				return err
			}
		}
		faultpoint.Hit("forget.after")
		if len(records) < upkeepBatch {
			return nil
		}
	}
	return ctx.Err()
}

// prove reports whether every branch of a commit record is proved committed. A
// branch that is still prepared is committed on the way.
func (p *pass) prove(ctx context.Context, place Place, rec Decision) bool {
	if mistake.On("forget-by-age") {
		return true
	}
	for _, b := range rec.Branches {
		r, err := p.mgr.resource(b.Resource)
		if err != nil {
			return false // not one of ours: whoever knows it proves it
		}
		fctx, cancel := context.WithTimeout(ctx, listTimeout)
		faultpoint.Hit("prove.before")
		err = r.Finish(fctx, XID{GID: rec.GID, Place: place, Branch: b.Branch}, Committed, b.Evidence)
		cancel()
		faultpoint.Hit("prove.answered")
		if err == nil || mistake.On("unreachable-is-gone") {
			continue
		}
		var h *HeuristicError
		if errors.As(err, &h) {
			if gone, lerr := p.forgotten(ctx, place, rec.GID); gone || lerr != nil {
				return false // another process proved and forgot it while we looked
			}
			p.mgr.reportHeuristic(h)
		}
		p.fail(&BranchError{Resource: b.Resource, Op: "recover", Err: err, Hint: "the commit record of " + string(rec.GID) + " is kept"})
		return false
	}
	return true
}

// forgotten reports whether a transaction that did commit has no record any
// more: only then may what proves it go too.
func (p *pass) forgotten(ctx context.Context, place Place, gid GID) (bool, error) {
	reg, ok := p.mgr.registerAt(place)
	if !ok {
		return false, nil
	}
	faultpoint.Hit("forgotten.before-lookup")
	outcome, err := reg.Lookup(ctx, gid)
	faultpoint.Hit("forgotten.looked-up")
	return err == nil && outcome == Undecided && !p.mgr.drives(gid), err
}
