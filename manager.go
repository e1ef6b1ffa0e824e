package troth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
)

// A Manager is a transaction manager: it begins transactions, drives them to
// their end, and recovers those that a crash left behind, its own process's or
// another's. Its methods are safe for concurrent use.
type Manager struct {
	cfg    Config // immutable after Open
	forget *forgetter

	// life ends when Close gives up what is still under way. Background work runs
	// in tasks.
	life  context.Context //nolint:containedctx // the Manager's own lifetime
	stop  context.CancelFunc
	tasks sync.WaitGroup
	wake  chan struct{} // asks for a recovery pass soon; buffered 1

	passing sync.Mutex // held during a recovery pass; taken before mu
	keeping sync.Mutex // held during upkeep; taken before mu
	dice    sync.Mutex // held while cfg.Rand is read

	mu      sync.Mutex // guards what follows; taken after Tx.mu; never held across I/O
	closed  bool
	opened  map[Resource]bool
	failed  map[Resource]error // why one is not open
	regOpen bool
	regErr  error
	active  map[GID]*Tx
	idle    chan struct{} // closed and replaced whenever active becomes empty
	recent  ring
	heur    map[GID]*HeuristicError
	seen    map[string]time.Time // when recovery first saw a prepared branch
	seenNow map[string]time.Time // and when last
}

// Open connects to the resources and the register, creates their tables if they
// are missing, runs one recovery pass and starts the periodic ones. The caller
// must Close the Manager; databases and pools remain the caller's.
//
// It fails if cfg is not valid, if a database cannot be reached (unless
// Config.AllowUnreachable), or if its settings would lose decisions; the error
// names the field or the setting and what mends it. After an error nothing is left
// open, Config.Register included. ctx bounds Open alone.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		seen:    make(map[string]time.Time),
		seenNow: make(map[string]time.Time),
		opened:  make(map[Resource]bool),
		failed:  make(map[Resource]error),
		active:  make(map[GID]*Tx),
		idle:    make(chan struct{}),
		heur:    make(map[GID]*HeuristicError),
	}
	m.life, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	m.forget = &forgetter{mgr: m, work: make(chan struct{}, 1)}
	if err := m.openAll(ctx); err != nil {
		m.stop()
		return nil, errors.Join(err, m.closeParts(context.WithoutCancel(ctx)))
	}
	m.tasks.Go(m.forget.run)
	if cfg.NoRecovery {
		return m, nil
	}
	if _, err := m.recoverPass(ctx); err != nil {
		cfg.Logger.WarnContext(ctx, "recovery incomplete at open", "err", err)
	}
	if cfg.RecoverEvery > 0 {
		recovering, keeping := m.newDice(), m.newDice()
		m.tasks.Go(func() { m.recoverLoop(recovering) })
		m.tasks.Go(func() { m.upkeepLoop(keeping) })
	}
	return m, nil
}

// openAll opens what is not open yet, in parallel. An attempt takes no longer than
// listTimeout once the Manager runs, or may run, without the one that does not
// answer.
func (m *Manager) openAll(ctx context.Context) error {
	if m.cfg.AllowUnreachable {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, listTimeout)
		defer cancel()
	}
	n := 0
	results := make(chan error)
	if m.cfg.Register != nil && !m.registerOpen() {
		n++
		go func() { results <- m.openRegister(ctx) }()
	}
	for _, r := range m.cfg.Resources {
		if !m.isOpen(r) {
			n++
			go func() { results <- m.openResource(ctx, r) }()
		}
	}
	var errs []error
	for range n {
		errs = append(errs, <-results)
	}
	if err := m.checkIdentities(); err != nil {
		return err // never to be overlooked: two names for one table
	}
	err := errors.Join(errs...)
	if m.cfg.AllowUnreachable && err != nil {
		m.cfg.Logger.DebugContext(ctx, "not everything could be opened", "err", err)
		return nil
	}
	return err
}

func (m *Manager) openRegister(ctx context.Context) error {
	err := m.cfg.Register.Open(ctx, RegisterConfig{Domain: m.cfg.Domain, Logger: m.cfg.Logger})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.regOpen, m.regErr = err == nil, err
	if err != nil {
		return fmt.Errorf("troth: open Config.Register: %w", err)
	}
	return nil
}

func (m *Manager) openResource(ctx context.Context, r Resource) error {
	err := r.Open(ctx, ResourceConfig{
		Domain:        m.cfg.Domain,
		Logger:        m.cfg.Logger,
		NeedDecisions: m.cfg.Register == nil,
		LifeMax:       m.cfg.LifeMax,
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened[r], m.failed[r] = err == nil, err
	if err != nil {
		return fmt.Errorf("troth: open resource %s: %w", r.Name(), err)
	}
	return nil
}

// checkIdentities refuses two resources over one database: their branches would
// wait for each other's locks for ever.
func (m *Manager) checkIdentities() error {
	names := make(map[string]string)
	for _, r := range m.cfg.Resources {
		if !m.isOpen(r) || r.Can()&CanDecide == 0 {
			continue
		}
		id := r.Decisions().Identity()
		if other, ok := names[id]; ok {
			return fmt.Errorf("troth: Config.Resources %q and %q are the same database: use one resource, which a transaction shares among its users", other, r.Name())
		}
		names[id] = r.Name()
	}
	return nil
}

func (m *Manager) isOpen(r Resource) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened[r]
}

func (m *Manager) registerOpen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.regOpen
}

// Run runs f in a new transaction: a nil error commits it, an error or a panic
// rolls it back. f's context carries the transaction's deadline. f need not end the
// transaction itself; if it does, that is what happened. The error is that of
// [Tx.Commit], or a *[TxError] with ErrRolledBack and the error of f.
func (m *Manager) Run(ctx context.Context, f func(ctx context.Context, tx *Tx) error, opts ...TxOption) error {
	if f == nil {
		return errors.New("troth: Run: the function is nil")
	}
	tx, err := m.Begin(ctx, opts...)
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned { // a panic or Goexit goes on up once nothing is left behind
			_ = tx.Rollback(context.WithoutCancel(ctx))
		}
	}()
	fctx, cancel := context.WithDeadlineCause(ctx, tx.deadline, ErrTimeout)
	defer cancel()
	err = f(fctx, tx)
	returned = true
	if err != nil {
		return tx.abort(context.WithoutCancel(ctx), err)
	}
	err = tx.Commit(ctx)
	if errors.Is(err, ErrClosed) { // f ended the transaction itself
		tx.await(ctx)
		return tx.err()
	}
	return err
}

// Begin begins a transaction. The caller must end it with Commit or Rollback; at
// its deadline it is rolled back in any case. ctx gives values only: its end does
// not end the transaction. It fails after Close, or if an option is not valid.
func (m *Manager) Begin(ctx context.Context, opts ...TxOption) (*Tx, error) {
	opt := txOptions{timeout: m.cfg.Timeout}
	for _, o := range opts {
		o(&opt)
	}
	if opt.timeout <= 0 || opt.timeout > m.cfg.LifeMax {
		return nil, fmt.Errorf("troth: Timeout is %v: use more than 0 and at most Config.LifeMax, %v", opt.timeout, m.cfg.LifeMax)
	}
	if opt.home != "" {
		if _, err := m.placeOf(opt.home); err != nil {
			return nil, err
		}
	}
	now := m.cfg.Now()
	tx := &Tx{
		mgr: m, opt: opt, begun: now,
		gid:      m.newGID(now),
		deadline: time.Now().Add(opt.timeout),
		state:    stateActive,
		settling: make(chan struct{}),
		answer:   make(chan struct{}),
		ended:    make(chan struct{}),
	}
	tx.ctx, tx.cancel = context.WithDeadlineCause(context.WithoutCancel(ctx), tx.deadline, ErrTimeout)
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		tx.cancel()
		return nil, fmt.Errorf("troth: Begin: the Manager is closed: %w", ErrClosed)
	}
	m.active[tx.gid] = tx
	m.mu.Unlock()
	tx.unwatch = context.AfterFunc(tx.ctx, tx.expire)
	if f := m.cfg.Observer.TxBegin; f != nil {
		f(tx.gid)
	}
	return tx, nil
}

// newGID names a transaction that begins now.
func (m *Manager) newGID(now time.Time) GID {
	var random [idRandomSize]byte
	m.random(random[:])
	return newGID(m.cfg.Domain, now, random)
}

// newDice makes a source of pauses for one goroutine.
func (m *Manager) newDice() *rand.Rand {
	var seed [16]byte
	m.random(seed[:])
	return rand.New(rand.NewPCG(binary.BigEndian.Uint64(seed[:8]), binary.BigEndian.Uint64(seed[8:])))
}

// random fills b.
func (m *Manager) random(b []byte) {
	m.dice.Lock()
	defer m.dice.Unlock()
	if _, err := io.ReadFull(m.cfg.Rand, b); err != nil {
		panic(fmt.Errorf("troth: Config.Rand: %w", err)) // an id that is not random could be used twice
	}
}

// resource finds a resource of the configuration by its name. It comes with an
// error if it is not open.
func (m *Manager) resource(name string) (Resource, error) {
	for _, r := range m.cfg.Resources {
		if r.Name() == name {
			if !m.isOpen(r) {
				return r, m.usable(r)
			}
			return r, nil
		}
	}
	return nil, fmt.Errorf("troth: no resource is called %q: add it to Config.Resources", clip(name))
}

// usable says why r cannot be used, if it cannot.
func (m *Manager) usable(r Resource) error {
	m.mu.Lock()
	open, err, regErr := m.opened[r], m.failed[r], m.regErr
	m.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("resource %s: %w: %w", r.Name(), ErrUnreachable, err)
	case !open:
		return fmt.Errorf("troth: resource %q is not one of this Manager's: add it to Config.Resources", clip(r.Name()))
	case regErr != nil:
		return fmt.Errorf("Config.Register: %w: %w", ErrUnreachable, regErr)
	}
	return nil
}

// outOfReach tells of everything that is not open.
func (m *Manager) outOfReach() error {
	var errs []error
	if m.cfg.Register != nil && !m.registerOpen() {
		m.mu.Lock()
		errs = append(errs, fmt.Errorf("Config.Register: %w: %w", ErrUnreachable, m.regErr))
		m.mu.Unlock()
	}
	for _, r := range m.cfg.Resources {
		if !m.isOpen(r) {
			errs = append(errs, m.usable(r))
		}
	}
	return errors.Join(errs...)
}

// placeOf is the place of decisions in a resource.
func (m *Manager) placeOf(name string) (Place, error) {
	r, err := m.resource(name)
	if err != nil {
		return Place{}, fmt.Errorf("troth: Home: %w", err)
	}
	if r.Can()&CanDecide == 0 {
		return Place{}, fmt.Errorf("troth: Home: resource %q cannot record decisions", name)
	}
	return resourcePlace(r), nil
}

// registerAt is the register at a place, false if this process does not know it:
// a place is known by name and identity together.
func (m *Manager) registerAt(p Place) (Register, bool) {
	if p.Resource == "" {
		if r := m.cfg.Register; r != nil && m.registerOpen() && r.Identity() == p.Identity {
			return r, true
		}
		return nil, false
	}
	r, err := m.resource(p.Resource)
	if mistake.On("foreign-identity") && err == nil && r.Can()&CanDecide != 0 {
		return r.Decisions(), true
	}
	if err != nil || r.Can()&CanDecide == 0 || r.Decisions().Identity() != p.Identity {
		return nil, false
	}
	return r.Decisions(), true
}

// done takes a transaction out of the active ones: recovery may touch it now.
func (m *Manager) done(tx *Tx) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.active, tx.gid)
	if len(m.active) == 0 {
		close(m.idle)
		m.idle = make(chan struct{})
	}
}

func (m *Manager) remember(gid GID, o Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recent.add(gid, o)
}

// reportHeuristic tells of branches that ended against a decision, each once.
func (m *Manager) reportHeuristic(h *HeuristicError) {
	m.mu.Lock()
	all := &HeuristicError{GID: h.GID, Decision: h.Decision, Branches: slices.Clone(h.Branches)}
	if old := m.heur[h.GID]; old != nil {
		all.Branches = slices.Clone(old.Branches)
		for _, b := range h.Branches {
			if !slices.Contains(all.Branches, b) {
				all.Branches = append(all.Branches, b)
			}
		}
	}
	known := m.heur[h.GID] != nil && len(all.Branches) == len(m.heur[h.GID].Branches)
	if len(m.heur) < ringSize {
		m.heur[h.GID] = all
	}
	m.mu.Unlock()
	if known {
		return
	}
	m.cfg.Logger.Error("heuristic outcome: a branch ended against the decision", "gid", h.GID, "err", h)
	if f := m.cfg.Observer.Heuristic; f != nil {
		f(h)
	}
}

// pause waits, and reports false if the Manager gives up meanwhile.
func (m *Manager) pause(d time.Duration) bool { return m.pauseIn(m.life, d) }

func (m *Manager) pauseIn(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil && m.life.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-m.life.Done():
		return false
	}
}

// Close ends the Manager, in this order: new transactions are refused; those
// whose program is still at work are rolled back; those that are voting or
// decided run to their end; what is still not acknowledged when ctx ends is left
// to recovery, by the next Open of any process; then the register and the
// resources are let go. The caller's databases stay open. It returns ctx's error
// if something was left, and what closing the register returned. A second Close does
// nothing.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	open := make([]*Tx, 0, len(m.active))
	for _, tx := range m.active {
		open = append(open, tx)
	}
	idle := m.idle
	m.mu.Unlock()

	for _, tx := range open {
		if tx.seize(fmt.Errorf("the Manager was closed: %w", ErrClosed)) {
			go tx.drive(context.WithoutCancel(ctx), event{kind: evRollback})
		}
	}
	var left error
	if len(open) > 0 {
		select {
		case <-idle:
		case <-ctx.Done():
			left = fmt.Errorf("troth: Close left transactions to recovery: %w", context.Cause(ctx))
		}
	}
	m.stop()
	m.tasks.Wait()
	m.forget.flush(context.WithoutCancel(ctx))
	return errors.Join(left, m.closeParts(ctx))
}

// closeParts closes what openAll opened.
func (m *Manager) closeParts(ctx context.Context) error {
	var errs []error
	for _, r := range m.cfg.Resources {
		if m.isOpen(r) {
			errs = append(errs, r.Close(ctx))
		}
	}
	if m.registerOpen() {
		errs = append(errs, m.cfg.Register.Close(ctx))
	}
	return errors.Join(errs...)
}

// ring remembers the outcomes of this process's latest transactions, of which
// the aborted leave no record (presumed abort).
type ring struct {
	outcomes map[GID]Outcome
	order    []GID
	next     int
}

const ringSize = 4096

func (r *ring) add(gid GID, o Outcome) {
	if r.outcomes == nil {
		r.outcomes = make(map[GID]Outcome)
	}
	if len(r.order) < ringSize {
		r.order = append(r.order, gid)
	} else {
		delete(r.outcomes, r.order[r.next])
		r.order[r.next] = gid
		r.next = (r.next + 1) % ringSize
	}
	r.outcomes[gid] = o
}
