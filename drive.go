package troth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// decideTimeout bounds one attempt to write or ask for a decision.
const decideTimeout = 15 * time.Second

// driver carries out the effects of one transaction's machine. One goroutine owns
// it; branches of one phase are called in parallel.
type driver struct {
	tx       *Tx
	m        machine
	branches []*enlisted
	place    Place
	vote     context.Context //nolint:containedctx // bounds what comes before the decision
	sent     time.Time       // when the decision went out: its record is no older
	lostAt   time.Time       // when the answer of the decision was first missed
	attempt  int
	decided  time.Time
	answered bool
	settled  bool
	stopped  bool // the decision's answer is lost, and asking is given up
}

// drive runs the protocol from its first event to its end. ctx bounds what comes
// before the decision.
func (tx *Tx) drive(ctx context.Context, first event) {
	d := &driver{tx: tx}
	defer d.finish()
	if first.kind == evCommit {
		var cancel context.CancelFunc
		d.vote, cancel = context.WithDeadlineCause(ctx, tx.deadline, ErrTimeout)
		defer cancel()
		// A statement that still runs must not keep a vote that was stopped.
		defer context.AfterFunc(d.vote, tx.cancel)()
		if err := errors.Join(d.awaitBegins(), d.joinHome()); err != nil {
			tx.addCause(err)
			first.kind = evRollback
		}
	}
	if first.kind == evRollback {
		tx.tellFailures()
		tx.cancel() // stops statements that still run, and begins
	}
	d.takeBranches()

	events := []event{first}
	var effects []effect
	for len(events) > 0 && !d.stopped {
		effects = effects[:0]
		for _, ev := range events {
			var err error
			if effects, err = d.m.step(ev, effects); err != nil {
				panic(err) // a bug in this file, and not one to go on with
			}
		}
		d.setState()
		events = d.carryOut(effects, events[:0])
	}
}

// awaitBegins waits for the branches that are still waiting for their session, and
// returns the errors of those that did not get one.
func (d *driver) awaitBegins() error {
	tx := d.tx
	tx.mu.Lock()
	all := tx.branches // no more are added: the transaction is claimed
	tx.mu.Unlock()
	var errs []error
	for _, e := range all {
		_, err := e.wait(d.vote)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// joinHome lets the resource that Home names take part even if the program never
// used it: its table was promised to hold the decision.
func (d *driver) joinHome() error {
	tx := d.tx
	if tx.opt.home == "" {
		return nil
	}
	r, err := tx.mgr.resource(tx.opt.home)
	if err != nil {
		return err
	}
	tx.mu.Lock()
	n := len(tx.branches)
	here := false
	for _, e := range tx.branches {
		here = here || e.res == r
	}
	tx.mu.Unlock()
	if n == 0 || here || n == 1 && !tx.branches[0].returns() {
		return nil
	}
	e := &enlisted{res: r, no: n + 1, ready: make(chan struct{})}
	tx.begin(d.vote, e)
	if e.err != nil {
		return e.err
	}
	tx.mu.Lock()
	tx.branches = append(tx.branches, e)
	tx.mu.Unlock()
	return nil
}

// returns reports whether the branch cannot rely on a one-phase commit, see
// [OnePhaseReturns].
func (e *enlisted) returns() bool { return e.res.Can()&OnePhaseReturns != 0 }

// takeBranches hands the transaction's branches to the machine. Nothing is
// enlisted any more: the transaction is claimed.
func (d *driver) takeBranches() {
	tx := d.tx
	tx.mu.Lock()
	all, place, fixed := tx.branches, tx.place, tx.fixed
	tx.mu.Unlock()
	d.m = machine{state: stateActive, register: tx.mgr.cfg.Register != nil, home: noBranch, fixed: fixed}
	for _, e := range all {
		<-e.ready
		if e.err != nil {
			continue // nothing to end
		}
		d.branches = append(d.branches, e)
		d.m.branches = append(d.m.branches, branchState{can: e.res.Can()})
	}
	if !fixed && tx.opt.home != "" {
		if p, err := tx.mgr.placeOf(tx.opt.home); err == nil {
			place, d.m.fixed = p, true
		}
	}
	d.place = place
	if d.m.fixed && place.Resource != "" {
		for i, e := range d.branches {
			if e.res.Name() == place.Resource {
				d.m.home = i
			}
		}
	}
}

// carryOut does what the machine asks for and returns what came of it. The last
// branch is served by this goroutine, so that one branch costs no other.
func (d *driver) carryOut(effects []effect, events []event) []event {
	work := effects[:0]
	for _, ef := range effects {
		switch ef.kind {
		case efReport:
			d.report()
		case efForget:
			faultpoint.Hit("acks.complete")
			d.tx.mgr.forget.add(d.placeOfDecision(), d.tx.gid, d.leaves())
			faultpoint.Hit("acks.noted")
		case efPrepare:
			d.name()
			work = append(work, ef)
		case efPoll, efDecide, efAsk, efCommit, efRollback, efRelease:
			work = append(work, ef)
		}
	}
	if len(work) == 0 {
		return events
	}
	if work[0].kind == efDecide {
		faultpoint.Hit("votes.complete")
	}
	if d.m.state == stateDeciding || d.m.state == stateReleasing {
		d.settle()
	}
	var others chan event
	if n := len(work) - 1; n > 0 {
		others = make(chan event, n)
		for _, ef := range work[:n] {
			go func() { others <- d.do(ef) }()
		}
	}
	events = append(events, d.do(work[len(work)-1]))
	for range len(work) - 1 {
		events = append(events, <-others)
	}
	return events
}

func (d *driver) do(ef effect) event {
	switch ef.kind {
	case efPoll:
		return d.poll(ef.branch)
	case efPrepare:
		return d.prepare(ef.branch)
	case efDecide:
		return d.decide(ef.branch)
	case efAsk:
		return d.ask(ef.branch)
	case efCommit:
		return d.commit(ef.branch)
	case efRollback:
		return d.rollback(ef.branch)
	case efRelease:
		return d.release(ef.branch)
	case efReport, efForget:
	}
	panic(fmt.Sprintf("troth: effect %d is not one of a branch", ef.kind))
}

func (d *driver) poll(i int) event {
	faultpoint.Hit("poll.before")
	wrote, err := d.branches[i].branch.Wrote(d.vote)
	if err != nil {
		d.cause(i, "work", err)
	}
	faultpoint.Hit("poll.answered")
	return event{kind: evPolled, branch: i, wrote: wrote, ok: err == nil}
}

// name settles the place of the decision just before the first branch is asked
// to prepare under a name that carries it.
func (d *driver) name() {
	if d.m.fixed || d.place != (Place{}) {
		return
	}
	d.place = d.placeOfDecision()
}

// placeOfDecision is where the record of this transaction is. For a transaction
// of one branch that is the branch itself, whatever its name foretold.
func (d *driver) placeOfDecision() Place {
	if d.m.home == noBranch {
		return Place{Identity: d.tx.mgr.cfg.Register.Identity()}
	}
	r := d.branches[d.m.home].res
	if r.Can()&CanDecide == 0 {
		return Place{} // a sole branch that leaves no record
	}
	return resourcePlace(r)
}

// leaves lists the resources in which this transaction's branches left rows.
func (d *driver) leaves() []Forgetter {
	var out []Forgetter
	for i, b := range d.m.branches {
		if f, ok := d.branches[i].res.(Forgetter); ok && b.wrote {
			out = append(out, f)
		}
	}
	return out
}

func (d *driver) xid(i int) XID {
	return XID{GID: d.tx.gid, Place: d.place, Branch: d.branches[i].no}
}

func (d *driver) prepare(i int) event {
	faultpoint.Hit("prepare.before")
	start := time.Now()
	vote, err := d.branches[i].branch.Prepare(d.vote, d.xid(i))
	d.observe(i, "prepare", start, err)
	if err != nil {
		d.cause(i, "prepare", err)
	}
	faultpoint.Hit("prepare.answered")
	if vote != VoteCommit {
		faultpoint.Hit("vote.no")
	}
	return event{kind: evVoted, branch: i, vote: vote}
}

// decide writes the commit record (R1: before any branch commits). From here on
// nothing heeds the caller's context.
func (d *driver) decide(home int) event {
	if d.vote.Err() != nil {
		// Too late, and nobody was asked yet: the last moment to roll back (R2).
		return event{kind: evDecided, outcome: Aborted}
	}
	ctx, cancel := d.detached(decideTimeout, "decide")
	defer cancel()
	d.sent = time.Now()
	rec := d.record()
	sole := len(rec.Branches) == 0
	if mistake.On("commit-before-record") {
		for _, b := range rec.Branches {
			_ = d.commit(slices.IndexFunc(d.branches, func(e *enlisted) bool { return e.no == b.Branch }))
		}
	}
	faultpoint.Hit("decide.before")
	if sole {
		faultpoint.Hit("one.before-commit")
	}
	start := time.Now()
	var outcome Outcome
	var err error
	if home == noBranch {
		outcome, err = d.tx.mgr.cfg.Register.Decide(ctx, rec)
	} else {
		outcome, err = d.branches[home].branch.CommitDeciding(ctx, rec)
	}
	d.observe(home, "decide", start, err)
	if err != nil {
		d.cause(home, "decide", err)
		if home == noBranch {
			outcome = Undecided // R3, whatever came with the error
			if mistake.On("register-error-is-abort") {
				outcome = Aborted
			}
		}
	} else if outcome == Aborted && home == noBranch {
		d.tx.addCause(errBeaten)
	}
	if sole {
		faultpoint.Hit("one.answered")
	}
	faultpoint.Hit("decide.after")
	return event{kind: evDecided, outcome: outcome}
}

// errBeaten is why a register of its own holds an abort. Participants give their own
// reason, a duplicate key.
var errBeaten = errors.New("troth: recovery, in this process or another, decided abort first: the vote took longer than Config.Grace")

// record is what the decision binds: every branch that voted.
func (d *driver) record() Decision {
	rec := Decision{GID: d.tx.gid, Outcome: Committed}
	for i, b := range d.m.branches {
		if b.vote == VoteCommit {
			e := d.branches[i]
			rec.Branches = append(rec.Branches, BranchRecord{Resource: e.res.Name(), Branch: e.no, Evidence: e.branch.Evidence()})
		}
	}
	return rec
}

// ask finds out what became of a decision whose answer was lost (R3). A register
// is asked to commit again, which is idempotent. A home participant's session is
// gone, and its work with it unless it committed: asking for abort in its table
// waits for that session to end, and answers what is stored.
//
// Asking for abort is safe for as long as nobody can have forgotten a commit record
// that is there: LifeMax since the decision went out, see keepAge; this process may
// have been stopped before it missed the answer. After that the transaction is left to
// recovery, which asks for abort only where a branch is still prepared, and so
// nothing was forgotten.
func (d *driver) ask(home int) event {
	if d.attempt == 0 {
		d.lostAt = time.Now()
		d.tx.mgr.cfg.Logger.Warn("decision not answered, asking again", "gid", d.tx.gid)
	}
	until := d.sent.Add(d.tx.mgr.cfg.LifeMax - upkeepMargin)
	if time.Since(d.lostAt) >= d.tx.mgr.cfg.AckTimeout {
		d.letGo()
	}
	if time.Now().After(until) || !d.tx.mgr.pause(backoff(d.attempt)) {
		d.stopped = true
		return event{kind: evDecided}
	}
	d.attempt++
	ctx, cancel := d.detachedUntil(earlier(time.Now().Add(decideTimeout), until), "ask for the decision")
	defer cancel()
	faultpoint.Hit("ask.before")
	outcome, err := d.askOnce(ctx, home)
	if err != nil {
		d.tx.mgr.cfg.Logger.Debug("decision still not answered", "gid", d.tx.gid, "attempt", d.attempt, "err", err)
		outcome = Undecided
	}
	if outcome == Aborted && time.Now().After(until) {
		outcome = Undecided // this process slept, and the abort may be its own and too late
	}
	faultpoint.Hit("ask.answered")
	return event{kind: evDecided, outcome: outcome}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (d *driver) askOnce(ctx context.Context, home int) (Outcome, error) {
	if home == noBranch {
		return d.tx.mgr.cfg.Register.Decide(ctx, d.record())
	}
	e := d.branches[home]
	e.branch.Close() // its session must end, or the question waits for it
	if err := d.endReturned(ctx, home); err != nil {
		return Undecided, err
	}
	if e.res.Can()&CanDecide != 0 {
		return e.res.Decisions().Decide(ctx, Decision{GID: d.tx.gid, Outcome: Aborted})
	}
	if s, ok := e.branch.(Settler); ok {
		return s.Settle(ctx)
	}
	return Undecided, fmt.Errorf("troth: %s can neither record nor settle a decision", e.res.Name())
}

// endReturned commits a home participant that a crash of its server has brought
// back as prepared: it holds the record, so the question would wait for it for ever.
func (d *driver) endReturned(ctx context.Context, home int) error {
	e := d.branches[home]
	if !e.returns() {
		return nil
	}
	prepared, err := e.res.Recover(ctx)
	if err != nil {
		return err
	}
	for _, b := range prepared {
		if !b.Ours || b.XID.GID != d.tx.gid {
			continue
		}
		back, err := returned(ctx, e.res, b.XID)
		if err == nil && back {
			err = e.res.Finish(ctx, b.XID, Committed, "")
		}
		if err != nil && !errors.Is(err, ErrNoEvidence) {
			return err // the record is the evidence, and is asked for next
		}
	}
	return nil
}

// commit ends a prepared branch: on its own session, and if that is lost from a
// recovery session, until AckTimeout. After that the branch is recovery's.
func (d *driver) commit(i int) event {
	faultpoint.Hit("commit.before")
	ctx, cancel := d.detachedUntil(d.decided.Add(d.tx.mgr.cfg.AckTimeout), "commit")
	defer cancel()
	start := time.Now()
	err := d.branches[i].branch.Commit(ctx)
	if err != nil && mistake.On("failed-commit-rolls-back") {
		err = d.finishBranch(ctx, i, Aborted, err)
	}
	if err != nil {
		err = d.finishBranch(ctx, i, Committed, err)
	}
	d.observe(i, "commit", start, err)
	faultpoint.Hit("commit.answered")
	return event{kind: evEnded, branch: i, ok: err == nil}
}

// rollback ends a branch of a transaction that is decided abort, or was never
// decided and never will be (R2).
func (d *driver) rollback(i int) event {
	faultpoint.Hit("rollback.before")
	ctx, cancel := d.detached(d.tx.mgr.cfg.AckTimeout, "rollback")
	defer cancel()
	start := time.Now()
	err := d.branches[i].branch.Rollback(ctx)
	if err != nil && d.m.branches[i].can&CanPrepare != 0 && d.place != (Place{}) {
		err = d.finishBranch(ctx, i, Aborted, err)
	}
	d.observe(i, "rollback", start, err)
	faultpoint.Hit("rollback.answered")
	return event{kind: evEnded, branch: i, ok: err == nil}
}

// finishBranch ends a branch whose own session failed with first, from a recovery
// session, until ctx ends.
func (d *driver) finishBranch(ctx context.Context, i int, outcome Outcome, first error) error {
	e := d.branches[i]
	e.branch.Close()
	err := first
	for attempt := 0; ; attempt++ {
		faultpoint.Hit("finish.before")
		next := e.res.Finish(ctx, d.xid(i), outcome, e.branch.Evidence())
		faultpoint.Hit("finish.answered")
		if next == nil {
			return nil
		}
		var h *HeuristicError
		if errors.As(next, &h) {
			d.heuristic(h)
			return next
		}
		if ctx.Err() == nil {
			err = next
		}
		if errors.Is(next, ErrNoEvidence) || !d.tx.mgr.pauseIn(ctx, backoff(attempt)) {
			d.cause(i, outcome.verb(), err)
			return err
		}
	}
}

func (d *driver) release(i int) event {
	faultpoint.Hit("release.before")
	ctx, cancel := d.detached(d.tx.mgr.cfg.AckTimeout, "release")
	defer cancel()
	err := d.branches[i].branch.Release(ctx)
	if err != nil && d.m.state == stateReleasing {
		d.cause(i, "commit", err)
	}
	faultpoint.Hit("release.answered")
	return event{kind: evEnded, branch: i, ok: err == nil}
}

// report makes the outcome known. It comes after the decision, never before (R1).
func (d *driver) report() {
	faultpoint.Hit("report.before")
	d.decided = time.Now()
	tx := d.tx
	d.explain()
	tx.mu.Lock()
	tx.state = d.m.state
	outcome := tx.state.outcome()
	after := tx.after
	tx.after = nil
	tx.mu.Unlock()
	tx.mgr.remember(tx.gid, outcome)
	d.settle()
	for _, f := range after {
		f(outcome)
	}
	if tx.opt.atDecision && outcome == Committed {
		d.letGo()
	}
	faultpoint.Hit("report.after")
}

// explain adds the causes of an abort that no branch gave.
func (d *driver) explain() {
	if d.m.state != stateAborting {
		return
	}
	if d.m.homeless {
		d.tx.addCause(d.homelessErr())
	}
	if d.vote != nil && d.vote.Err() != nil && d.lostAt.IsZero() {
		if cause := context.Cause(d.vote); !errors.Is(cause, ErrTimeout) {
			d.tx.addCause(cause)
		} else {
			d.tx.addCause(d.tx.timeoutErr())
		}
	}
}

// homelessErr says why no database can record the decision.
func (d *driver) homelessErr() error {
	var unable []string
	for i, b := range d.m.branches {
		if b.wrote && b.can&CanPrepare == 0 {
			unable = append(unable, d.branches[i].res.Name())
		}
	}
	switch {
	case len(unable) > 1:
		return fmt.Errorf("troth: %s cannot prepare (vote first, commit later), and only one such database can write in a transaction; "+
			"PostgreSQL can once max_prepared_transactions is above 0 (ALTER SYSTEM SET max_prepared_transactions = 100, and a restart)",
			strings.Join(unable, " and "))
	case len(unable) == 1:
		return fmt.Errorf("troth: %[1]s cannot prepare, so it must record the decision, but a branch that began earlier is already bound to %[2]s: "+
			"use %[1]s first, or begin with troth.Home(%[1]q)", unable[0], d.place)
	}
	return errors.New("troth: no database that wrote can record the decision: set Config.Register, or give one of them its troth_decision table")
}

// settle marks that a caller whose context ended need wait no longer.
func (d *driver) settle() {
	if !d.settled {
		d.settled = true
		d.setState()
		close(d.tx.settling)
	}
}

// letGo lets the waiting caller go, once.
func (d *driver) letGo() {
	if !d.answered {
		d.answered = true
		close(d.tx.answer)
	}
}

func (d *driver) setState() {
	d.tx.mu.Lock()
	d.tx.state = d.m.state
	d.tx.mu.Unlock()
}

// finish ends the drive: the sessions go back, the caller hears, and from now on
// recovery may touch what is left of the transaction.
func (d *driver) finish() {
	tx := d.tx
	tx.unwatch()
	for _, e := range d.branches {
		e.branch.Close()
	}
	tx.cancel()
	tx.mgr.done(tx)
	d.settle()
	d.letGo()
	close(tx.ended)
	if f := tx.mgr.cfg.Observer.TxEnd; f != nil {
		f(tx.gid, tx.outcome(), len(d.branches), tx.mgr.cfg.Now().Sub(tx.begun), tx.err())
	}
	if left := d.m.state == stateCommitting || d.leftBehind(); left {
		tx.mgr.nudge()
	}
}

// leftBehind reports whether an aborted transaction may have left a prepared
// branch somewhere.
func (d *driver) leftBehind() bool {
	for _, b := range d.m.branches {
		if d.m.state == stateAborted && !b.ended && b.vote != VoteRollback {
			return true
		}
	}
	return false
}

func (d *driver) heuristic(h *HeuristicError) {
	tx := d.tx
	tx.mu.Lock()
	if tx.heur == nil {
		tx.heur = &HeuristicError{GID: h.GID, Decision: h.Decision}
	}
	tx.heur.Branches = append(tx.heur.Branches, h.Branches...)
	tx.mu.Unlock()
	tx.mgr.reportHeuristic(h)
}

func (d *driver) cause(i int, op string, err error) {
	var b *BranchError
	if i != noBranch && !errors.As(err, &b) {
		b = &BranchError{Resource: d.branches[i].res.Name(), Op: op, Err: err}
		if d.place != (Place{}) && op != "work" {
			b.XID = d.xid(i).String()
		}
		err = b
	}
	d.tx.addCause(err)
}

func (d *driver) observe(i int, op string, start time.Time, err error) {
	f := d.tx.mgr.cfg.Observer.BranchOp
	if f == nil {
		return
	}
	resource := ""
	if i != noBranch {
		resource = d.branches[i].res.Name()
	}
	f(d.tx.gid, resource, op, time.Since(start), err)
}

// detached is a context for work that the caller cannot stop.
func (d *driver) detached(timeout time.Duration, op string) (context.Context, context.CancelFunc) {
	return d.detachedUntil(time.Now().Add(timeout), op)
}

func (d *driver) detachedUntil(t time.Time, op string) (context.Context, context.CancelFunc) {
	if mistake.On("context-cancels-decision") && d.vote != nil {
		return context.WithDeadlineCause(d.vote, t, &timeoutError{op})
	}
	return context.WithDeadlineCause(context.Background(), t, &timeoutError{op})
}

// timeoutError is the cause of a detached context's end.
type timeoutError struct{ op string }

func (e *timeoutError) Error() string { return "troth: no answer in time: " + e.op }

func (o Outcome) verb() string {
	switch o {
	case Committed:
		return "commit"
	case Aborted:
		return "rollback"
	case Undecided:
	}
	return "end"
}

// backoff is the pause before attempt n, from 0: none, then 20 ms doubling up to
// two seconds.
func backoff(n int) time.Duration {
	if n == 0 {
		return 0
	}
	return min(20*time.Millisecond<<min(n-1, 10), 2*time.Second)
}
