// Package engine drives transactions across services: two-phase messages, sagas, TCC, XA
// and workflows. It keeps them in a [store.Store] and calls their participants.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/troth-tx/troth/store"
)

// Config is how an engine works. Zero fields have defaults.
type Config struct {
	Caller Caller // required
	Logger *slog.Logger
	Limits Limits

	CallsMax     int           // calls under way at a time; 1024
	ClaimMax     int           // transactions that are taken from the store at a time; 256
	CacheMax     int           // transactions that are kept in memory while nothing happens; 10,000
	PollEvery    time.Duration // how long a shared store is not looked at; 2 s
	StoreTimeout time.Duration // of one write; 10 s

	Now func() time.Time
}

// An Engine drives the transactions of one store. Others may drive the same.
type Engine struct {
	cfg       Config
	limits    Limits
	store     store.Store
	caller    Caller
	scheduler *scheduler
	slots     chan struct{}

	ctx  context.Context //nolint:containedctx // the engine's life
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // taken before no other
	drivers map[string]*driver
}

// Open starts an engine. It does not own the store.
func Open(_ context.Context, s store.Store, cfg Config) (*Engine, error) {
	if cfg.Caller == nil {
		return nil, errors.New("engine: Config.Caller is nil")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.CallsMax, 1024)
	setDefault(&cfg.ClaimMax, 256)
	setDefault(&cfg.CacheMax, 10_000)
	setDefault(&cfg.PollEvery, 2*time.Second)
	setDefault(&cfg.StoreTimeout, 10*time.Second)
	l := &cfg.Limits
	setDefault(&l.TimeoutToFail, 35*time.Second)
	setDefault(&l.RetryInterval, 10*time.Second)
	setDefault(&l.RetryIntervalMax, 10*time.Minute)
	setDefault(&l.RequestTimeout, 3*time.Second)
	setDefault(&l.ErrorMax, 1024)
	setDefault(&l.StepsMax, 1000)
	setDefault(&l.PayloadsMax, 16<<20)
	setDefault(&l.Lease, 15*time.Second)
	l.jitter = func(d time.Duration) time.Duration { return d + rand.N(d/10+1) }
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Engine{
		cfg: cfg, limits: cfg.Limits, store: s, caller: cfg.Caller,
		slots: make(chan struct{}, cfg.CallsMax), drivers: make(map[string]*driver),
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.scheduler = &scheduler{engine: e, wake: make(chan struct{}, 1)}
	e.wg.Go(e.scheduler.run)
	return e, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Close stops the engine: calls that are under way are given up, and made again by
// whoever drives their transactions next.
func (e *Engine) Close(context.Context) error {
	e.stop()
	e.wg.Wait()
	return nil
}
