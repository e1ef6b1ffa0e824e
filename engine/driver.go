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

	turn chan struct{} // full while somebody works on it, also while the store writes: see lock
	m    *machine      // nil: to be read from the store; theirs who have the turn, or whose Engine.mu is and users 0
	pass *passEnd      // of the pass under way, or of the next
	read time.Time     // when the store had what m has
	current

	idle atomic.Bool // nothing would be lost if it were forgotten: set by who has the turn
}

// current is what is known of the pass under way; theirs who have the turn.
type current struct {
	load    load
	awaited bool   // a request waits for its end
	hurry   bool   // it is made early, because an outage may be over
	away    string // the host that had no place for a call; empty: there was none
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
	if d.users--; d.users > 0 {
		return
	}
	if d.idle.Load() || len(e.drivers) > e.cfg.CacheMax || d.m != nil && sizeOf(d.m.t) > keptMax {
		delete(e.drivers, d.gid)
	}
}

// keptMax is up to which size in bytes a transaction is kept in memory while nothing
// happens: CacheMax counts transactions. Larger ones are read again.
const keptMax = 16 << 10

// sizeOf is about how many bytes of memory a transaction takes.
func sizeOf(t *store.Transaction) int {
	const itself, each = 1024, 256 // with what surrounds them
	size := itself + len(t.Data) + len(t.Result) + each*len(t.Branches)
	for i := range t.Branches {
		size += len(t.Branches[i].Payload) + len(t.Branches[i].URL)
	}
	return size
}

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

// create stores a new transaction, and begins its first pass if drive is set. wait tells
// that its end is awaited.
func (d *driver) create(ctx context.Context, t *store.Transaction, drive, wait bool) (*passEnd, error) {
	if err := d.lock(ctx); err != nil {
		return nil, err
	}
	defer d.unlock()
	d.forgetOldLocked()
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
	d.m, d.read, d.awaited, d.load.size = m, t.Created, wait, sizeOf(t)
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
// that it returns is that of the pass under way, if there is one; wait tells that it is
// awaited.
func (d *driver) change(ctx context.Context, c change, wait bool) (*passEnd, error) {
	if err := d.lock(ctx); err != nil {
		return nil, err
	}
	defer d.unlock()
	for tries := 1; ; tries++ {
		if err := d.loadLocked(ctx); err != nil {
			return nil, err
		}
		end := d.pass
		err := d.tryLocked(ctx, c, wait)
		if !errors.Is(err, store.ErrConflict) || tries == conflictsMax {
			return end, err
		}
		// What we knew was old: another engine was quicker. Somebody makes progress
		// each time.
	}
}

// readMax is how long what is known is good for a request. The store tells at a write what
// is old, but a refusal makes none: by now the name may be that of another transaction, if
// the one that was known here was ended elsewhere, and purged.
const readMax = time.Minute

// forgetOldLocked forgets what nothing was done about for long.
func (d *driver) forgetOldLocked() {
	if d.m == nil || len(d.m.flying) > 0 {
		return
	}
	if age := d.engine.cfg.Now().Sub(d.read); age < 0 || age > readMax {
		d.m = nil
		d.idle.Store(true)
	}
}

// loadLocked reads the transaction unless it is known.
func (d *driver) loadLocked(ctx context.Context) error {
	d.forgetOldLocked()
	if d.m != nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.engine.cfg.StoreTimeout, errStoreTimeout) // others wait for the turn
	defer cancel()
	t, err := d.engine.store.Get(ctx, d.gid)
	if err != nil {
		return err
	}
	d.m, d.read = newMachine(t, &d.engine.limits), d.engine.cfg.Now()
	d.idle.Store(t.State.Over())
	return nil
}

func (d *driver) tryLocked(ctx context.Context, c change, wait bool) error {
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
		d.awaited = d.awaited || wait
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
	if len(d.m.flying) == 0 {
		d.load.size = sizeOf(d.m.t)
	}
	d.m.ageAhead, d.m.delayAhead = d.engine.steer.ahead()
	return d.m.begin(now)
}

// take begins a pass of a transaction that was due.
func (d *driver) take(t *store.Transaction) *passEnd {
	if err := d.lock(d.engine.ctx); err != nil { // its lease makes somebody look
		return nil
	}
	defer d.unlock()
	switch {
	case d.m != nil && len(d.m.flying) > 0:
		if t.Version == d.m.t.Version+1 { // our own lease ran out while we worked
			d.m.t.Version, d.m.t.Due = t.Version, t.Due
		}
		return d.pass
	case d.m != nil && d.m.t.Version > t.Version:
		return nil
	}
	d.m, d.read = newMachine(t, &d.engine.limits), d.engine.cfg.Now()
	d.idle.Store(false)
	end := d.pass
	d.carryLocked(d.beginLocked(d.engine.cfg.Now()))
	return end
}

// again begins a pass of a transaction that was put off, or that waited for an address
// that answers now: in a hurry.
func (d *driver) again(ctx context.Context, hurry bool) error {
	_, err := d.change(ctx, func(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
		if t.State.Over() || t.Leased && t.Due.After(now) || len(d.m.flying) > 0 {
			return false, false, nil
		}
		d.hurry = hurry
		return false, true, nil
	}, false)
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
	if a == Success {
		d.engine.gate.remember(hostOf(url), d.engine.outages.over(url, d.gid)...)
	}
	now := d.engine.cfg.Now()
	d.carryLocked(d.endingLocked(m.answered(branch, a, text, now), now))
}

// endingLocked looks at what is to be done, and notes why the pass ends if it does.
func (d *driver) endingLocked(effects []effect, now time.Time) []effect {
	if ends(effects) && !d.m.t.State.Over() && d.m.pass.failed {
		d.missedLocked(now)
	}
	return effects
}

func ends(effects []effect) bool { return len(effects) > 0 && effects[len(effects)-1].kind == rest }

// missesTold is at how many failed passes in a row the log tells. What a participant said
// may be anything, and is for those who turn the level to debug.
const missesTold = 3

// missedLocked handles the end of a pass that failed.
func (d *driver) missedLocked(now time.Time) {
	t := d.m.t
	c := callOf(t, d.m.pass.missed, d.m.limits)
	first := d.m.interval()
	if !d.hurry && d.engine.steer.loop() && d.engine.outages.failed(c.URL, d.gid, sizeOf(t), now, 2*(first+c.Timeout)) {
		t.Due = now.Add(d.m.limits.jitter(first))
	}
	if t.Attempts == missesTold { // once: the pauses are long by now, and who is stuck is listed
		d.engine.cfg.Logger.WarnContext(d.engine.ctx, "branch keeps failing", "gid", d.gid, "branch", c.Branch, "op", c.Op, "state", t.State, "attempt", t.Attempts)
		d.engine.cfg.Logger.DebugContext(d.engine.ctx, "branch said", "gid", d.gid, "branch", c.Branch, "text", d.m.pass.said)
	}
	if f := d.engine.cfg.Observer.Missed; f != nil {
		f(Miss{GID: d.gid, Pattern: t.Pattern, State: t.State, Branch: c.Branch, Op: c.Op, Error: d.m.pass.said, Attempts: t.Attempts})
	}
}

// carryLocked carries effects out in their order.
func (d *driver) carryLocked(effects []effect) {
	for len(effects) > 0 {
		e := effects[0]
		effects = effects[1:]
		switch e.kind {
		case save:
			if err := d.saveLocked(d.engine.ctx, len(d.m.t.Branches)); err != nil {
				return
			}
		case call:
			if wait, ok := d.engine.call(d, e.branch); !ok {
				effects = append(effects, d.turnedAwayLocked(e.branch, wait)...)
			}
		case rest:
			d.restLocked()
		}
	}
}

// turnedAwayLocked tells the machine that a call found no place.
func (d *driver) turnedAwayLocked(branch int, wait time.Duration) []effect {
	now := d.engine.cfg.Now()
	d.away = hostOf(callOf(d.m.t, branch, d.m.limits).URL)
	return d.endingLocked(d.m.turnedAway(branch, wait, now), now)
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
		d.read = t.Updated
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
	was, waits := d.current, d.m.pass.waits() && !t.State.Over()
	d.endPassLocked(t.State, t.Reason)
	if waits {
		d.engine.gate.remember(was.away, putOff{gid: d.gid, size: sizeOf(t), hurry: was.hurry})
	}
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
	d.engine.gate.unload(&d.load)
	d.current = current{}
}
