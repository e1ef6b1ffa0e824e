// Package engine drives transactions across services: two-phase messages, sagas, TCC, XA
// and workflows. It keeps them in a [store.Store] and calls their participants.
//
// Any number of engines, in any number of processes, may drive one store: each change
// is made on the version that it was decided on, or not at all. An engine may die at
// any instant; another, or the next, goes on where it stopped. A participant may be
// called more than once for the same thing (package barrier makes it count once), and
// is called until it gives an agreed answer, for ever.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/store"
)

// Config is how an engine works. Zero fields have defaults.
type Config struct {
	// Caller carries calls to participants elsewhere, Funcs are participants in this
	// program. One of the two is required.
	Caller Caller
	Funcs  map[string]Func

	Logger   *slog.Logger // nil: silent
	Observer Observer
	Limits   Limits

	CallsMax        int           // calls under way at a time; 1024
	CallsPerHostMax int           // of those, to one host and port; 256
	WaitingMax      int           // calls that wait for their turn at a time, and as many that requests await; 4096
	BytesMax        int           // of the transactions of calls that are under way or wait; 256 MiB
	ClaimMax        int           // transactions that are taken from the store at a time, while new ones wait; 64
	CacheMax        int           // transactions that are kept in memory while nothing happens; 10,000
	PollEvery       time.Duration // how long a shared store is not looked at; 2 s
	StoreTimeout    time.Duration // of one write, or of a read for which others wait; 10 s

	// For tests: the clock, and what is made of a pause so that what failed together is
	// not retried together. By default up to a tenth is added.
	Now    func() time.Time
	Jitter func(time.Duration) time.Duration
}

// An Engine drives the transactions of one store. Others may drive the same. Its methods
// are safe for concurrent use.
type Engine struct {
	cfg       Config
	limits    Limits
	store     store.Store
	caller    Caller
	gate      *gate
	outages   outages
	scheduler *scheduler
	retrying  chan struct{} // one for each write of retry
	steer     steer

	ctx     context.Context //nolint:containedctx // the engine's life
	stop    context.CancelFunc
	looking context.Context //nolint:containedctx // while it looks for work
	looker  context.CancelFunc
	wg      sync.WaitGroup // requests, calls, the scheduler

	mu      sync.Mutex // guards what follows; no other is taken while it is held
	closed  bool
	drivers map[string]*driver
}

// Open starts an engine. It does not own the store, which is closed after it.
func Open(_ context.Context, s store.Store, cfg Config) (*Engine, error) {
	if cfg.Caller == nil && len(cfg.Funcs) == 0 {
		return nil, errors.New("engine: Config.Caller is nil and Config.Funcs is empty: nobody could be called")
	}
	cfg.setDefaults()
	e := &Engine{
		cfg: cfg, limits: cfg.Limits, store: s, caller: cfg.Caller,
		gate:     newGate(&cfg),
		outages:  newOutages(),
		retrying: make(chan struct{}, retryMax),
		drivers:  make(map[string]*driver),
	}
	if len(cfg.Funcs) > 0 {
		e.caller = funcs{byName: cfg.Funcs, others: cfg.Caller}
	}
	e.steer.init()
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.looking, e.looker = context.WithCancel(e.ctx)
	e.scheduler = &scheduler{engine: e, wake: make(chan struct{}, 1)}
	if e.steer.loop() {
		e.gate.retry = e.retry
		e.wg.Go(func() { e.scheduler.run(e.looking) })
	}
	return e, nil
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	setDefault(&c.CallsMax, 1024)
	setDefault(&c.CallsPerHostMax, 256)
	setDefault(&c.WaitingMax, 4096)
	setDefault(&c.BytesMax, 256<<20)
	setDefault(&c.ClaimMax, 64)
	setDefault(&c.CacheMax, 10_000)
	setDefault(&c.PollEvery, 2*time.Second)
	setDefault(&c.StoreTimeout, 10*time.Second)
	l := &c.Limits
	setDefault(&l.TimeoutToFail, 35*time.Second)
	setDefault(&l.RetryInterval, 10*time.Second)
	setDefault(&l.RetryIntervalMax, 10*time.Minute)
	setDefault(&l.RequestTimeout, 3*time.Second)
	setDefault(&l.ErrorMax, 1024)
	setDefault(&l.StepsMax, 1000)
	setDefault(&l.PayloadsMax, 16<<20)
	setDefault(&l.Lease, 15*time.Second)
	if l.jitter = c.Jitter; l.jitter == nil {
		l.jitter = func(d time.Duration) time.Duration { return d + rand.N(d/10+1) }
	}
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Close stops the engine. Requests that come later fail with ErrClosed. It looks for no
// more work and waits for the passes that are under way; when ctx ends it gives them up,
// and whoever drives the store next makes their calls again. Their leases are returned.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.looker()
	e.drain(ctx)
	e.stop()
	e.wg.Wait()
	e.returnLeases(ctx)
	return nil
}

// enter admits a request; leave ends it.
func (e *Engine) enter() (leave func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	e.wg.Add(1)
	return e.wg.Done, nil
}

// drain waits until no pass is under way.
func (e *Engine) drain(ctx context.Context) {
	for {
		end := e.anyPass()
		if end == nil {
			return
		}
		select {
		case <-end.done:
		case <-ctx.Done():
			return
		}
	}
}

// anyPass returns a pass that is under way.
func (e *Engine) anyPass() *passEnd {
	for _, d := range e.known() {
		_ = d.lock(context.Background()) // it is not held for ever: see StoreTimeout
		end, flying := d.pass, d.m != nil && len(d.m.flying) > 0
		d.unlock()
		if flying {
			return end
		}
	}
	return nil
}

// known returns the drivers in the order of their names, so that a simulated engine
// closes in the same way each time.
func (e *Engine) known() (all []*driver) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.drivers {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *driver) int { return strings.Compare(a.gid, b.gid) })
	return all
}

// returnLeases lets others begin at once with what this engine had begun.
func (e *Engine) returnLeases(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, d := range e.known() {
		if d.m != nil && d.m.t.Leased {
			e.giveBack(ctx, d.m.t)
		}
	}
}

func (e *Engine) giveBack(ctx context.Context, t *store.Transaction) {
	t.Due, t.Leased = e.cfg.Now(), false
	_ = e.store.Save(ctx, t, len(t.Branches)) // else the lease runs out
}
