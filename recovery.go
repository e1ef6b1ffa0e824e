package troth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// Recovery finds branches that were prepared and never told how their transaction
// ended, and tells them. Any process that knows the databases can do it, and
// several may at once. There is no list of "my" transactions to lose: the branches
// themselves are the list, and each one's name says where its decision is.
//
// One pass, per resource, in this order (no clock of ours decides anything):
//
//	P  the prepared branches
//	A  the transactions that this process is driving
//	T  the decisions about those in P that are not in A
//	Q  the prepared branches again
//
// Decided in T: carry out. Undecided, and in both P and Q: whoever drove it is dead
// or slow; once the grace time is over the pass asks the register for abort (R2)
// and carries out what the register then holds, be it commit after all. A branch
// that a dead session prepares later is seen by a later pass: passes never end
// (R6).
//
// A pass that cannot ask a resource leaves that resource's branches alone, and
// says nothing about them (R6).

// listTimeout bounds one question to one database.
const listTimeout = 15 * time.Second

// Recover runs one full recovery pass and the upkeep of the registers now, and
// returns how many in-doubt branches it ended. Its error joins what kept it from
// ending others: databases that did not answer, branches whose decision is out of
// reach. Branches of transactions that may still be decided by a live process are
// left for Config.Grace, without an error.
func (m *Manager) Recover(ctx context.Context) (int, error) {
	n, err := m.recoverPass(ctx)
	return n, errors.Join(err, m.keepUp(ctx))
}

// recoverPass runs one pass. What could not be opened so far is tried again at the
// same time, for the next pass: a database that accepts connections and does not
// answer must not keep the others waiting.
func (m *Manager) recoverPass(ctx context.Context) (int, error) {
	m.passing.Lock()
	defer m.passing.Unlock()
	p := &pass{mgr: m, start: time.Now()}
	var wg sync.WaitGroup
	if m.outOfReach() != nil {
		wg.Go(func() {
			if err := m.openAll(ctx); err != nil {
				p.fail(err)
			}
		})
	}
	p.run(ctx)
	wg.Wait()
	faultpoint.Hit("recover.end")
	if err := m.outOfReach(); err != nil {
		p.fail(err)
	}
	m.forgetUnseen(p.start)
	if f := m.cfg.Observer.RecoverPass; f != nil {
		f(p.inDoubt, p.unreachable, time.Since(p.start))
	}
	return p.ended, p.err()
}

// recoverLoop runs a pass every RecoverEvery, and soon when nudged.
func (m *Manager) recoverLoop(dice *rand.Rand) {
	var warned string // what was last complained of: an outage is told once
	for m.pauseOr(m.wake, spread(dice, m.cfg.RecoverEvery)) {
		_, err := m.recoverPass(m.life)
		if mistake.On("one-pass") {
			return
		}
		switch {
		case err == nil || m.life.Err() != nil:
			warned = ""
		case err.Error() != warned:
			warned = err.Error()
			m.cfg.Logger.Warn("recovery pass incomplete", "err", err)
		}
	}
}

// spread keeps the processes of a cluster apart: 80 to 120 % of the period.
func spread(dice *rand.Rand, period time.Duration) time.Duration {
	return time.Duration(float64(period) * (0.8 + 0.4*dice.Float64()))
}

// pauseOr waits for a while, or less if woken. It reports false if the Manager
// ends meanwhile.
func (m *Manager) pauseOr(wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-m.life.Done():
		return false
	case <-wake:
		return m.pause(100 * time.Millisecond) // let what is failing fail for others too
	case <-timer.C:
		return true
	}
}

// nudge asks for a recovery pass soon.
func (m *Manager) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// pass is one recovery pass.
type pass struct {
	mgr   *Manager
	start time.Time

	mu          sync.Mutex // guards what follows
	ended       int
	inDoubt     int
	unreachable int
	silent      map[Place]error // places that did not answer in this pass
	errs        []error
	more        int // errors beyond errsMax
}

func (p *pass) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, r := range p.mgr.cfg.Resources {
		switch {
		case !p.mgr.isOpen(r):
			p.mu.Lock()
			p.unreachable++
			p.mu.Unlock()
		case r.Can()&CanPrepare != 0:
			wg.Go(func() { p.resource(ctx, r) })
		}
	}
	wg.Wait()
}

// resource carries out one resource's part of the pass.
func (p *pass) resource(ctx context.Context, r Resource) {
	prepared, err := p.list(ctx, r)
	if err != nil {
		return
	}
	waiting := make(map[string]Prepared)
	for _, b := range prepared {
		if ctx.Err() != nil {
			return
		}
		switch outcome, err := p.outcome(ctx, r, b); {
		case err != nil:
			p.leave(err)
		case outcome != Undecided:
			if !p.finish(ctx, r, b, outcome) {
				return
			}
		case !p.graceOver(r, b):
			p.leave(nil)
		default:
			waiting[b.Native] = b
		}
	}
	if len(waiting) == 0 {
		return
	}
	asked := time.Now()
	again, err := p.list(ctx, r)
	if err != nil {
		return
	}
	for _, b := range again {
		if _, ok := waiting[b.Native]; ok && p.fresh(asked) && !p.presumeAbort(ctx, r, b) {
			return
		}
	}
}

// outcome is the decision about a branch, wherever it is.
func (p *pass) outcome(ctx context.Context, r Resource, b Prepared) (Outcome, error) {
	outcome, err := p.lookup(ctx, b)
	if err != nil || outcome != Undecided {
		return outcome, err
	}
	rctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if back, err := returned(rctx, r, b.XID); err != nil || !back {
		return Undecided, err
	}
	return Committed, nil
}

// returned reports whether a prepared branch is the home participant of its own
// transaction. It never voted: it was committing in one phase, with the record in
// it, when its server crashed (see OnePhaseReturns). Nobody can have decided abort,
// and its coordinator may have been told that it committed: committing it is the
// decision.
func returned(ctx context.Context, r Resource, x XID) (bool, error) {
	h, ok := r.(Returner)
	if mistake.On("returned-home-left") {
		return false, nil
	}
	if !ok || r.Can()&OnePhaseReturns == 0 || r.Can()&CanDecide == 0 || x.Place != resourcePlace(r) {
		return false, nil
	}
	return h.Returned(ctx, x.GID)
}

// fresh reports whether what was listed is recent enough to act on. A pass that
// slept for longer than records are kept might find that the transaction committed
// and was forgotten meanwhile, and would leave a wrong record of an abort, which no
// branch would follow but Outcome would tell.
func (p *pass) fresh(asked time.Time) bool {
	keep := p.mgr.cfg.KeepDecisions
	return keep < 0 || time.Since(asked) < keep/2
}

// abortWithin bounds the question for an abort, which may wait for its home: together
// with what was listed before (see fresh) it must not outlast the record of a commit.
func (c *Config) abortWithin() time.Duration {
	if c.KeepDecisions < 0 {
		return decideTimeout
	}
	return min(decideTimeout, c.KeepDecisions/2)
}

// list returns the prepared branches that this pass is to look after: of our
// domain (R7), and driven by no one in this process.
func (p *pass) list(ctx context.Context, r Resource) ([]Prepared, error) {
	lctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	faultpoint.Hit("recover.before-list")
	all, err := r.Recover(lctx)
	faultpoint.Hit("recover.listed")
	if err != nil {
		p.mu.Lock()
		p.unreachable++
		p.mu.Unlock()
		p.fail(&BranchError{Resource: r.Name(), Op: "recover", Err: err})
		return nil, err
	}
	ours := all[:0]
	for _, b := range all {
		domain := b.XID.GID.Domain()
		if mistake.On("domain-prefix") && strings.HasPrefix(domain, p.mgr.cfg.Domain) {
			domain = p.mgr.cfg.Domain
		}
		if b.Ours && domain == p.mgr.cfg.Domain && !p.mgr.drives(b.XID.GID) {
			ours = append(ours, b)
		}
	}
	return ours, nil
}

func (m *Manager) drives(gid GID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.active[gid] != nil
}

// lookup asks the place that the branch's name gives for the decision. A place that
// once ran out of time is not asked again in the same pass.
func (p *pass) lookup(ctx context.Context, b Prepared) (Outcome, error) {
	p.mu.Lock()
	silent := p.silent[b.XID.Place]
	p.mu.Unlock()
	if silent != nil {
		return Undecided, silent
	}
	reg, ok := p.mgr.registerAt(b.XID.Place)
	if !ok {
		return Undecided, fmt.Errorf("troth: %s: its decision is recorded at %s, which this process does not know or cannot reach", b.Native, b.XID.Place)
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	faultpoint.Hit("recover.before-lookup")
	outcome, err := reg.Lookup(ctx, b.XID.GID)
	faultpoint.Hit("recover.looked-up")
	if err != nil && mistake.On("failed-lookup-is-abort") {
		return Aborted, nil
	}
	if err != nil {
		err = fmt.Errorf("troth: look up decisions at %s: %w", b.XID.Place, err)
		if ctx.Err() != nil {
			p.mu.Lock()
			if p.silent == nil {
				p.silent = make(map[Place]error)
			}
			p.silent[b.XID.Place] = err
			p.mu.Unlock()
		}
		return Undecided, err
	}
	return outcome, nil
}

// graceOver reports whether an undecided branch has been prepared for longer than
// the grace time, by its database's clock or, where that does not say, since a
// pass first saw it.
func (p *pass) graceOver(r Resource, b Prepared) bool {
	grace := p.mgr.cfg.Grace
	if grace < 0 || p.mgr.gaveUp(b.XID.GID) {
		return true
	}
	age := b.Age
	if age == 0 {
		age = p.start.Sub(p.mgr.firstSeen(r.Name()+" "+b.Native, p.start))
	}
	if age >= grace {
		return true
	}
	p.mgr.nudgeAfter(grace - age)
	return false
}

// gaveUp reports whether this process itself rolled the transaction back: nobody
// is about to decide it.
func (m *Manager) gaveUp(gid GID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recent.outcomes[gid] == Aborted
}

// firstSeen is when a pass first saw a branch. Only passes call it, one at a time
// but for their parallel resources.
func (m *Manager) firstSeen(key string, now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, ok := m.seen[key]
	if !ok {
		first = now
		m.seen[key] = first
	}
	m.seenNow[key] = now
	return first
}

// forgetUnseen drops what no pass has seen for a minute.
func (m *Manager) forgetUnseen(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, last := range m.seenNow {
		if now.Sub(last) > time.Minute {
			delete(m.seen, key)
			delete(m.seenNow, key)
		}
	}
}

// nudgeAfter asks for a pass in a while, so that a branch does not wait a whole
// period more than its grace.
func (m *Manager) nudgeAfter(d time.Duration) {
	if m.cfg.RecoverEvery > 0 && d < m.cfg.RecoverEvery {
		time.AfterFunc(d, m.nudge)
	}
}

// presumeAbort ends a branch that nobody decided: the register is asked for abort,
// and what it then holds is carried out (R2). It reports whether to go on with the
// resource.
func (p *pass) presumeAbort(ctx context.Context, r Resource, b Prepared) bool {
	reg, ok := p.mgr.registerAt(b.XID.Place)
	if !ok {
		return true
	}
	if mistake.On("no-tombstone") {
		return p.finish(ctx, r, b, Aborted)
	}
	faultpoint.Hit("recover.before-decide")
	dctx, cancel := context.WithTimeout(ctx, p.mgr.cfg.abortWithin())
	defer cancel()
	outcome, err := reg.Decide(dctx, Decision{GID: b.XID.GID, Outcome: Aborted})
	if err != nil && mistake.On("abort-error-is-abort") {
		return p.finish(ctx, r, b, Aborted)
	}
	if err != nil {
		p.leave(fmt.Errorf("troth: %s: ask for abort: %w", b.Native, err)) // R3
		return dctx.Err() == nil
	}
	faultpoint.Hit("recover.after-decide")
	return p.finish(ctx, r, b, outcome)
}

// finish ends a branch as decided. It reports false if the resource ran out of
// time: its other branches are left to the next pass.
func (p *pass) finish(ctx context.Context, r Resource, b Prepared, outcome Outcome) bool {
	faultpoint.Hit("recover.before-finish")
	fctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	err := r.Finish(fctx, b.XID, outcome, "")
	var h *HeuristicError
	switch {
	case err == nil:
		p.mu.Lock()
		p.ended++
		p.mu.Unlock()
		p.mgr.cfg.Logger.InfoContext(ctx, "in-doubt branch ended", "gid", b.XID.GID, "rm", r.Name(), "decision", outcome.String())
		if f := p.mgr.cfg.Observer.Recovered; f != nil {
			f(b.XID, r.Name(), outcome)
		}
	case errors.As(err, &h):
		if outcome == Committed {
			if gone, lerr := p.forgotten(ctx, b.XID.Place, b.XID.GID); gone || lerr != nil {
				break // another process ended it, proved it and forgot it while we looked
			}
		}
		p.mgr.reportHeuristic(h)
		p.fail(err)
	case errors.Is(err, ErrNoEvidence):
		// Somebody else ended it since we listed it. Its record, if there is one, is
		// proved before it is forgotten.
	default:
		p.leave(&BranchError{Resource: r.Name(), Op: "recover", XID: b.XID.String(), Err: err})
	}
	faultpoint.Hit("recover.after-finish")
	return fctx.Err() == nil
}

// leave counts a branch that stays in doubt, because of err if it is not nil.
func (p *pass) leave(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inDoubt++
	p.failLocked(err)
}

func (p *pass) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
}

// errsMax is how many errors of one pass are told one by one.
const errsMax = 8

// failLocked keeps the errors sorted, and those first in that order: resources are
// asked in parallel, and the same trouble must read the same in every pass, for it
// is told once.
func (p *pass) failLocked(err error) {
	if err == nil {
		return
	}
	i, found := slices.BinarySearchFunc(p.errs, err, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	if found {
		return
	}
	if p.errs = slices.Insert(p.errs, i, err); len(p.errs) > errsMax {
		p.errs = p.errs[:errsMax]
		p.more++
	}
}

// err is everything that kept the pass from its work.
func (p *pass) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.more > 0 {
		return errors.Join(append(slices.Clone(p.errs), fmt.Errorf("troth: and %d more errors", p.more))...)
	}
	return errors.Join(p.errs...)
}
