package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// A driver is one transaction that this engine works on: its machine, and who waits for
// it. Every pass begins with a write to the store, which fails if another engine has
// changed the transaction since it was read here: what a driver knows may be old, what
// it does is not (E1).
type driver struct {
	engine *Engine
	gid    string

	users int // guarded by Engine.mu: requests and calls that hold it

	turn   chan struct{} // full while somebody works on it, also while the store writes: see lock
	m      *machine      // nil: to be read from the store; theirs who have the turn, or whose Engine.mu is and users 0
	pass   *passEnd      // of the pass under way, or of the next
	hurry  bool          // the pass is made early, because an outage may be over
	admits func()        // gives the pass's place back; nil if it has none

	idle atomic.Bool // nothing would be lost if it were forgotten: set by who has the turn
}

// passEnd tells how a pass ended.
type passEnd struct {
	done   chan struct{}
	state  store.State // zero: not known, the store did not answer
	reason string
}

func newPassEnd() *passEnd { return &passEnd{done: make(chan struct{})} }

// hold returns the driver of a transaction. release gives it back.
func (e *Engine) hold(gid string) *driver {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.drivers[gid]
	if d == nil {
		d = &driver{engine: e, gid: gid, turn: make(chan struct{}, 1), pass: newPassEnd()}
		d.idle.Store(true) // nothing is known yet
		e.makeRoomLocked()
		e.drivers[gid] = d
	}
	d.users++
	return d
}

func (e *Engine) release(d *driver) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.users--; d.users == 0 && (d.idle.Load() || d.m != nil && large(d.m.t)) {
		delete(e.drivers, d.gid)
	}
}

// large reports whether a transaction is better read again from the store than kept in
// memory while nothing happens: CacheMax counts transactions, not bytes.
func large(t *store.Transaction) bool {
	size := len(t.Data)
	for i := range t.Branches {
		size += len(t.Branches[i].Payload)
	}
	return size > keptMax
}

const keptMax = 64 << 10

// makeRoomLocked forgets a transaction that nobody holds, if there are too many: what is
// known of it is in the store.
func (e *Engine) makeRoomLocked() {
	if len(e.drivers) < e.cfg.CacheMax {
		return
	}
	looked := 0
	for gid, d := range e.drivers { // in no order: any will do
		if d.users == 0 {
			delete(e.drivers, gid)
			return
		}
		if looked++; looked == 16 {
			return
		}
	}
}

// lock waits for the turn to work on a transaction: one change comes after the other.
// Whoever waits may give up.
func (d *driver) lock(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *driver) unlock() { <-d.turn }

// create stores a new transaction, and begins its first pass if drive is set.
func (d *driver) create(ctx context.Context, t *store.Transaction, drive bool) (*passEnd, error) {
	if err := d.lock(ctx); err != nil {
		return nil, err
	}
	defer d.unlock()
	if d.m != nil {
		return nil, store.ErrExists
	}
	m := newMachine(t, &d.engine.limits)
	m.ageAhead, m.delayAhead = d.engine.steer.ahead()
	var effects []effect
	if drive {
		effects = m.begin(t.Created)
	} else {
		t.Due = m.rules.wake(m)
	}
	faultpoint.Hit("server.create.before")
	if err := d.engine.store.Create(ctx, t); err != nil {
		if !errors.Is(err, store.ErrExists) && ctx.Err() == nil {
			d.engine.cfg.Logger.WarnContext(ctx, "transaction not stored", "gid", d.gid, "err", err)
		}
		return nil, err
	}
	faultpoint.Hit("server.create.answered")
	if f := d.engine.cfg.Observer.Created; f != nil {
		f(t.Pattern)
	}
	d.m = m
	d.idle.Store(false)
	end := d.pass
	d.carryLocked(saved(effects))
	if !drive {
		d.engine.scheduler.wakeAt(t.Due)
	}
	return end, nil
}

// saved drops the write that effects begin with: it has been made.
func saved(effects []effect) []effect {
	if len(effects) > 0 && effects[0].kind == save {
		return effects[1:]
	}
	return effects
}

// conflictsMax is how often a change is tried anew because another engine was quicker.
const conflictsMax = 100

// change carries a caller's change out, and begins a pass if there is reason. The end
// that it returns is that of the pass under way, if there is one.
func (d *driver) change(ctx context.Context, c change) (*passEnd, error) {
	if err := d.lock(ctx); err != nil {
		return nil, err
	}
	defer d.unlock()
	for tries := 1; ; tries++ {
		if err := d.loadLocked(ctx); err != nil {
			return nil, err
		}
		end := d.pass
		err := d.tryLocked(ctx, c)
		if !errors.Is(err, store.ErrConflict) || tries == conflictsMax {
			return end, err
		}
		// What we knew was old: another engine was quicker. Somebody makes progress
		// each time.
	}
}

// loadLocked reads the transaction unless it is known.
func (d *driver) loadLocked(ctx context.Context) error {
	if d.m != nil {
		return nil
	}
	t, err := d.engine.store.Get(ctx, d.gid)
	if err != nil {
		return err
	}
	d.m = newMachine(t, &d.engine.limits)
	d.idle.Store(t.State.Over())
	return nil
}

func (d *driver) tryLocked(ctx context.Context, c change) error {
	if !mayReach(ctx, d.m.t) {
		return store.ErrNotFound
	}
	now, before := d.engine.cfg.Now(), len(d.m.t.Branches)
	wasOver := d.m.t.State.Over()
	changed, drive, err := c(d.m.t, now)
	if err != nil {
		return err
	}
	var effects []effect
	if drive {
		effects = d.beginLocked(now)
	}
	if !changed && len(effects) == 0 {
		return nil
	}
	if err := d.saveLocked(ctx, before); err != nil {
		return err
	}
	if !wasOver && d.m.t.State.Over() && len(effects) == 0 {
		d.overLocked()
	} else if !drive {
		d.engine.scheduler.wakeAt(d.m.t.Due)
	}
	d.carryLocked(saved(effects))
	return nil
}

func (d *driver) beginLocked(now time.Time) []effect {
	d.m.ageAhead, d.m.delayAhead = d.engine.steer.ahead()
	return d.m.begin(now)
}

// take begins a pass of a transaction that was due. done is called at its end.
func (d *driver) take(t *store.Transaction, done func()) *passEnd {
	if err := d.lock(d.engine.ctx); err != nil { // its lease makes somebody look
		done()
		return nil
	}
	defer d.unlock()
	switch {
	case d.m != nil && len(d.m.flying) > 0:
		if t.Version == d.m.t.Version+1 { // our own lease ran out while we worked
			d.m.t.Version, d.m.t.Due = t.Version, t.Due
		}
		done()
		return d.pass
	case d.m != nil && d.m.t.Version > t.Version:
		done()
		return nil
	}
	d.m = newMachine(t, &d.engine.limits)
	d.idle.Store(false)
	d.admits = done
	end := d.pass
	d.carryLocked(d.beginLocked(d.engine.cfg.Now()))
	return end
}

// again begins a pass of a transaction that waited for an address that answers now. done
// is called at its end.
func (d *driver) again(ctx context.Context, done func()) error {
	_, err := d.change(ctx, func(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
		if t.State.Over() || t.Leased && t.Due.After(now) || len(d.m.flying) > 0 {
			return false, false, nil
		}
		d.hurry, d.admits, done = true, done, nil
		return false, true, nil
	})
	if done != nil {
		done()
	}
	return err
}

func (d *driver) answered(m *machine, branch int, url string, a Answer, text string) {
	if d.lock(d.engine.ctx) != nil { // the engine is closed: the call will be made again
		return
	}
	defer d.unlock()
	if d.m != m { // it was dropped: somebody else drives, or nobody knows
		return
	}
	now := d.engine.cfg.Now()
	effects := m.answered(branch, a, text, now)
	if a == Success {
		d.engine.retryAll(d.engine.outages.over(url, d.gid))
	}
	if ends(effects) && !m.t.State.Over() && m.pass.failed {
		d.missedLocked(now, text)
	}
	d.carryLocked(effects)
}

func ends(effects []effect) bool { return len(effects) > 0 && effects[len(effects)-1].kind == rest }

// missesTold is at how many failed passes in a row the log tells. What a participant said
// may be anything, and is for those who turn the level to debug.
const missesTold = 3

// missedLocked handles the end of a pass that failed.
func (d *driver) missedLocked(now time.Time, text string) {
	t := d.m.t
	c := callOf(t, d.m.pass.missed, d.m.limits)
	if !d.hurry && d.engine.steer.loop() && d.engine.outages.failed(c.URL, d.gid) {
		t.Due = now.Add(d.m.limits.jitter(d.m.interval()))
	}
	if d.m.pass.missed != own {
		text = t.Branches[d.m.pass.missed].Error
	}
	if t.Attempts == missesTold { // once: the pauses are long by now, and who is stuck is listed
		d.engine.cfg.Logger.WarnContext(d.engine.ctx, "branch keeps failing", "gid", d.gid, "branch", c.Branch, "op", c.Op, "state", t.State, "attempt", t.Attempts)
		d.engine.cfg.Logger.DebugContext(d.engine.ctx, "branch said", "gid", d.gid, "branch", c.Branch, "text", cut(text, d.m.limits.ErrorMax))
	}
	if f := d.engine.cfg.Observer.Missed; f != nil {
		f(Miss{GID: d.gid, Pattern: t.Pattern, State: t.State, Branch: c.Branch, Op: c.Op, Error: cut(text, d.m.limits.ErrorMax), Attempts: t.Attempts})
	}
}

// carryLocked carries effects out in their order.
func (d *driver) carryLocked(effects []effect) {
	for _, e := range effects {
		switch e.kind {
		case save:
			if err := d.saveLocked(d.engine.ctx, len(d.m.t.Branches)); err != nil {
				return
			}
		case call:
			d.engine.call(d, d.m, e.branch)
		case rest:
			d.restLocked()
		}
	}
}

// saveLocked stores the transaction. After an error nothing is known of it, and who
// comes next reads it anew.
func (d *driver) saveLocked(ctx context.Context, added int) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), d.engine.cfg.StoreTimeout, errStoreTimeout)
	defer cancel()
	t := d.m.t
	t.Updated = d.engine.cfg.Now()
	faultpoint.Hit("server.save.before")
	err := d.engine.store.Save(ctx, t, added)
	faultpoint.Hit("server.save.answered")
	if err == nil {
		return nil
	}
	if errors.Is(err, store.ErrConflict) && mistake.On("conflict-is-saved") || mistake.On("lost-save-is-saved") {
		return nil
	}
	if !errors.Is(err, store.ErrConflict) {
		d.engine.cfg.Logger.WarnContext(ctx, "transaction not stored", "gid", d.gid, "err", err)
	}
	d.m = nil
	d.idle.Store(true)
	d.endPassLocked(0, "") // the lease makes somebody look
	return err
}

var errStoreTimeout = errors.New("engine: the store takes too long")

func (d *driver) restLocked() {
	t := d.m.t
	if t.State.Over() {
		d.overLocked()
	} else {
		d.engine.scheduler.wakeAt(t.Due)
	}
	faultpoint.Hit("server.passed")
	d.endPassLocked(t.State, t.Reason)
	d.engine.steer.passed(d.gid)
}

func (d *driver) overLocked() {
	t := d.m.t
	if f := d.engine.cfg.Observer.Ended; f != nil && !d.idle.Load() {
		f(t.Pattern, t.State, t.Finished.Sub(t.Created))
	}
	d.idle.Store(true)
}

func (d *driver) endPassLocked(s store.State, reason string) {
	d.pass.state, d.pass.reason = s, reason
	close(d.pass.done)
	d.pass = newPassEnd()
	d.hurry = false
	if d.admits != nil {
		d.admits()
		d.admits = nil
	}
}
