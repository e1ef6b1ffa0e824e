package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

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

	mu      sync.Mutex // held while the store writes: one change comes after the other
	m       *machine   // nil: to be read from the store
	passEnd chan struct{}

	idle atomic.Bool // nothing would be lost if it were forgotten: set while mu is held
}

// hold returns the driver of a transaction. release gives it back.
func (e *Engine) hold(gid string) *driver {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.drivers[gid]
	if d == nil {
		d = &driver{engine: e, gid: gid, passEnd: make(chan struct{})}
		e.drivers[gid] = d
	}
	d.users++
	return d
}

func (e *Engine) release(d *driver) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.users--; d.users == 0 && (d.idle.Load() || len(e.drivers) > e.cfg.CacheMax) {
		delete(e.drivers, d.gid)
	}
}

// load reads the transaction unless it is known.
func (d *driver) loadLocked(ctx context.Context) error {
	if d.m != nil {
		return nil
	}
	t, err := d.engine.store.Get(ctx, d.gid)
	if err != nil {
		return err
	}
	d.m = newMachine(t, &d.engine.limits)
	return nil
}

// create stores a new transaction, and begins its first pass if drive is set.
func (d *driver) create(ctx context.Context, t *store.Transaction, drive bool) (passEnd <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m != nil {
		return nil, store.ErrExists
	}
	m := newMachine(t, &d.engine.limits)
	var effects []effect
	if drive {
		effects = m.begin(t.Created)
	} else {
		t.Due = m.rules.wake(m)
	}
	if err := d.engine.store.Create(ctx, t); err != nil {
		return nil, err
	}
	d.m = m
	passEnd = d.passEnd
	if len(effects) > 0 && effects[0].kind == save {
		effects = effects[1:]
	}
	d.carryLocked(effects)
	d.engine.scheduler.wakeAt(t.Due)
	return passEnd, nil
}

// change carries a caller's change out, and begins a pass if there is reason.
// passEnd is closed at the end of that pass.
func (d *driver) change(ctx context.Context, c change) (passEnd <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		known := d.m != nil
		if err := d.loadLocked(ctx); err != nil {
			return nil, err
		}
		err := d.tryLocked(ctx, c)
		if known && err != nil && d.m == nil && errors.Is(err, store.ErrConflict) {
			continue // what we knew was old
		}
		return d.passEnd, err
	}
}

func (d *driver) tryLocked(ctx context.Context, c change) error {
	now, before := d.engine.cfg.Now(), len(d.m.t.Branches)
	changed, drive, err := c(d.m.t, now)
	if err != nil || !changed && !drive {
		return err
	}
	var effects []effect
	if drive {
		effects = d.m.begin(now)
	}
	if err := d.saveLocked(ctx, before); err != nil {
		return err
	}
	if len(effects) > 0 && effects[0].kind == save {
		effects = effects[1:]
	}
	d.carryLocked(effects)
	return nil
}

// take begins a pass of a transaction that was due.
func (d *driver) take(t *store.Transaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.m != nil && len(d.m.flying) > 0:
		if t.Version == d.m.t.Version+1 { // our own lease ran out while we worked
			d.m.t.Version, d.m.t.Due = t.Version, t.Due
		}
		return
	case d.m != nil && d.m.t.Version > t.Version:
		return
	}
	d.m = newMachine(t, &d.engine.limits)
	d.carryLocked(d.m.begin(d.engine.cfg.Now()))
}

func (d *driver) answered(m *machine, branch int, a Answer, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == m { // else it was dropped: somebody else drives, or nobody knows
		d.carryLocked(m.answered(branch, a, text, d.engine.cfg.Now()))
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
	err := d.engine.store.Save(ctx, t, added)
	if err == nil {
		return nil
	}
	d.engine.cfg.Logger.WarnContext(ctx, "transaction not stored", "gid", d.gid, "err", err)
	d.m = nil
	d.idle.Store(true)
	d.endPassLocked() // the lease makes somebody look
	return err
}

func (d *driver) restLocked() {
	t := d.m.t
	d.idle.Store(t.State.Over())
	if !t.State.Over() {
		d.engine.scheduler.wakeAt(t.Due)
	}
	d.endPassLocked()
}

func (d *driver) endPassLocked() {
	close(d.passEnd)
	d.passEnd = make(chan struct{})
}

var errStoreTimeout = errors.New("engine: the store takes too long")

// call calls a branch in a goroutine of its own.
func (e *Engine) call(d *driver, m *machine, branch int) {
	c := callOf(m.t, branch, &e.limits)
	e.mu.Lock()
	d.users++
	e.mu.Unlock()
	e.wg.Go(func() {
		defer e.release(d)
		a, text := e.callOnce(c)
		if e.ctx.Err() == nil {
			d.answered(m, branch, a, text)
		}
	})
}

func (e *Engine) callOnce(c Call) (Answer, string) {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-e.ctx.Done():
		return Unknown, ""
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	return e.caller.Call(ctx, c)
}

func callOf(t *store.Transaction, branch int, limits *Limits) Call {
	c := Call{
		GID: t.GID, Pattern: t.Pattern, Protocol: t.Protocol, Headers: t.Options.Headers,
		Timeout: t.Options.RequestTimeout,
	}
	if c.Timeout <= 0 {
		c.Timeout = limits.RequestTimeout
	}
	if branch == own {
		c.Branch, c.URL, c.Op = "00", t.QueryPrepared, store.Query
		if t.Pattern == store.Workflow {
			c.Op = store.Resume
		}
		return c
	}
	b := &t.Branches[branch]
	c.Branch, c.Op, c.URL, c.Payload = b.ID, b.Op, b.URL, b.Payload
	return c
}
