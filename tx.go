package troth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// branchesMax is how many branches one transaction may have.
const branchesMax = 64

// A Tx is one global transaction. Its methods are safe for concurrent use, but
// statements that race with Commit may come too late: they then fail, and the
// transaction commits without them. End the work first.
type Tx struct {
	mgr   *Manager
	gid   GID
	opt   txOptions
	begun time.Time

	// ctx ends when no more statements may run: at the deadline, or when the
	// transaction is rolled back. It descends from no caller's context.
	ctx      context.Context //nolint:containedctx // the lifetime of the transaction
	cancel   context.CancelFunc
	deadline time.Time
	unwatch  func() bool // stops the watch over the deadline

	mu       sync.Mutex // guards what follows; never held across I/O
	branches []*enlisted
	place    Place // where the decision will be, once fixed
	fixed    bool
	claimed  bool // somebody is ending the transaction
	seized   bool // and it is not the program: its deadline, or the Close of the Manager
	state    txState
	causes   []error
	heur     *HeuristicError
	before   []func(context.Context) error
	after    []func(Outcome)

	settling chan struct{} // closed once the vote is over: the decision is asked for, or known
	answer   chan struct{} // closed once Commit and Rollback may return
	ended    chan struct{} // closed once nobody drives the transaction any more
}

// enlisted is a resource's place in a transaction.
type enlisted struct {
	res    Resource
	no     int
	ready  chan struct{} // closed once branch and err are set
	branch Branch
	err    error
}

// ID is the transaction's name, known from the begin.
func (tx *Tx) ID() GID { return tx.gid }

// Enlist returns the branch of a resource, and begins it if this is the first
// time: a resource has one branch in a transaction. Resource managers call it;
// programs call their DB or Tx methods. ctx bounds the wait for a session.
//
// It fails if r is not one of Config.Resources, if r or the register could not be
// opened yet ([ErrUnreachable]), if the transaction has ended, or with the
// database's own error; after the latter the transaction can only be rolled back,
// for the resource may have been counted on to record the decision.
func (tx *Tx) Enlist(ctx context.Context, r Resource) (Branch, error) {
	if err := tx.mgr.usable(r); err != nil {
		return nil, err
	}
	tx.mu.Lock()
	if tx.claimed {
		err := tx.endedErrLocked()
		tx.mu.Unlock()
		return nil, err
	}
	for _, e := range tx.branches {
		if e.res == r {
			tx.mu.Unlock()
			return e.wait(ctx)
		}
	}
	if len(tx.branches) == branchesMax {
		tx.mu.Unlock()
		return nil, fmt.Errorf("troth: a transaction has at most %d branches", branchesMax)
	}
	e := &enlisted{res: r, no: len(tx.branches) + 1, ready: make(chan struct{})}
	tx.branches = append(tx.branches, e)
	tx.mu.Unlock()

	// A session is waited for no longer than the transaction lives.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(tx.ctx, func() { cancel(context.Cause(tx.ctx)) })()
	tx.begin(ctx, e)
	return e.branch, e.err
}

// begin begins the branch of a resource that has just been enlisted.
func (tx *Tx) begin(ctx context.Context, e *enlisted) {
	defer close(e.ready)
	faultpoint.Hit("branch.before-start")
	e.branch, e.err = e.res.Begin(ctx, BranchConfig{
		GID:       tx.gid,
		Branch:    e.no,
		Context:   tx.ctx,
		XID:       func() (XID, error) { return tx.name(e) },
		Isolation: tx.opt.isolation,
	})
	faultpoint.Hit("branch.started")
	var b *BranchError
	if e.err != nil && !errors.As(e.err, &b) {
		e.err = &BranchError{Resource: e.res.Name(), Op: "begin", Err: e.err}
	}
}

func (e *enlisted) wait(ctx context.Context) (Branch, error) {
	select {
	case <-e.ready: // even if ctx has ended
		return e.branch, e.err
	default:
	}
	select {
	case <-e.ready:
		return e.branch, e.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// name gives a branch its XID before its work begins, which fixes the place of
// the decision for the whole transaction.
func (tx *Tx) name(e *enlisted) (XID, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if !tx.fixed {
		place, err := tx.choosePlaceLocked(e)
		if err != nil {
			return XID{}, err
		}
		tx.place, tx.fixed = place, true
	}
	return XID{GID: tx.gid, Place: tx.place, Branch: e.no}, nil
}

// choosePlaceLocked foretells where the decision will be recorded, before the
// work is known: where Home says; else in the branch that cannot prepare; else
// in the register; else in the first branch that can.
func (tx *Tx) choosePlaceLocked(asking *enlisted) (Place, error) {
	if tx.opt.home != "" {
		return tx.mgr.placeOf(tx.opt.home)
	}
	var first Resource
	for _, e := range tx.branches {
		can := e.res.Can()
		if can&CanPrepare == 0 {
			return resourcePlace(e.res), nil
		}
		if first == nil && can&CanDecide != 0 {
			first = e.res
		}
	}
	if tx.mgr.cfg.Register != nil {
		return Place{Identity: tx.mgr.cfg.Register.Identity()}, nil
	}
	if first == nil {
		return Place{}, fmt.Errorf("troth: no database that takes part can record the decision before %s begins: "+
			"set Config.Register, or let a database with a troth_decision table take part first", asking.res.Name())
	}
	return resourcePlace(first), nil
}

func resourcePlace(r Resource) Place {
	return Place{Resource: r.Name(), Identity: r.Decisions().Identity()}
}

// BeforeCommit registers a function that Commit calls before it asks for votes,
// while statements may still run. Its error rolls the transaction back. Functions
// run in the order of their registration, with Commit's context.
func (tx *Tx) BeforeCommit(f func(context.Context) error) {
	if f == nil {
		panic("troth: BeforeCommit(nil)")
	}
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.before = append(tx.before, f)
}

// AfterDone registers a function that is called once when the outcome is known:
// Committed or Aborted. If the decision's answer is lost that may be long after
// Commit returned; if this process never learns it, the function is not called. It
// must not block.
func (tx *Tx) AfterDone(f func(Outcome)) {
	if f == nil {
		panic("troth: AfterDone(nil)")
	}
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.after = append(tx.after, f)
}

// Commit prepares every branch that wrote and, if all vote to, commits them. A
// nil error means that every branch has acknowledged (or, with
// [ReturnAtDecision], that the decision is durable). Otherwise errors.Is finds
// [ErrRolledBack], [ErrPending] or [ErrUndecided] in a *[TxError], or errors.As a
// *[HeuristicError] if a database ended a branch against the decision. On a
// transaction that the program has ended already it returns [ErrClosed].
//
// ctx can stop the vote, never the decision; afterwards it bounds only the wait.
func (tx *Tx) Commit(ctx context.Context) error {
	for _, f := range tx.hooks() {
		if err := f(ctx); err != nil {
			return tx.abort(context.WithoutCancel(ctx), fmt.Errorf("before commit: %w", err))
		}
	}
	if !tx.claim() {
		if err := tx.endedErr(); errors.Is(err, ErrClosed) && !errors.Is(err, ErrRolledBack) {
			return err
		}
		tx.await(ctx)
		return tx.err()
	}
	go tx.drive(ctx, event{kind: evCommit})
	tx.await(ctx)
	return tx.err()
}

// Rollback rolls every branch back. nil means that the transaction is rolled
// back, or will be as soon as the databases that did not answer are reached: no
// decision to commit exists or ever will. After Commit it does nothing and
// returns nil, so "defer tx.Rollback(ctx)" is safe. ctx bounds only the wait.
func (tx *Tx) Rollback(ctx context.Context) error {
	if !tx.claim() {
		return nil
	}
	go tx.drive(context.WithoutCancel(ctx), event{kind: evRollback})
	tx.await(ctx)
	var h *HeuristicError
	if err := tx.err(); errors.As(err, &h) {
		return err
	}
	return nil
}

// abort rolls back because of err, and returns what to tell the caller. If the
// transaction is being ended already, by its deadline or by the program, err is
// told together with how that went.
func (tx *Tx) abort(ctx context.Context, err error) error {
	if tx.claim() {
		if !time.Now().Before(tx.deadline) {
			tx.addCause(tx.timeoutErr()) // whatever the statement that was cut off says
		}
		tx.addCause(err)
		go tx.drive(ctx, event{kind: evRollback})
		tx.await(ctx)
		return tx.err()
	}
	tx.await(ctx)
	var ended *TxError
	switch now := tx.err(); {
	case now == nil:
		return fmt.Errorf("troth: transaction %s is committed, but then: %w", tx.gid, err)
	case errors.Is(now, err):
		return now
	case errors.As(now, &ended):
		return &TxError{GID: ended.GID, Kind: ended.Kind, Err: errors.Join(ended.Err, err)}
	default:
		return errors.Join(now, err)
	}
}

func (tx *Tx) timeoutErr() error { return fmt.Errorf("%w after %v", ErrTimeout, tx.opt.timeout) }

// tellFailures adds to the causes of a rollback what the branches know: the
// program returns a driver's error, which names no database.
func (tx *Tx) tellFailures() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	for _, e := range tx.branches {
		select {
		case <-e.ready:
		default:
			continue
		}
		f, ok := e.branch.(Failer)
		if !ok {
			continue
		}
		failure := f.Failed()
		var b *BranchError
		if failure == nil || !errors.As(failure, &b) {
			continue
		}
		same := func(c error) bool { return errors.Is(c, b.Err) && errors.Is(b.Err, c) }
		if i := slices.IndexFunc(tx.causes, same); i >= 0 {
			tx.causes[i] = failure // it wraps what the program returned as it was
		} else {
			tx.causes = append(tx.causes, failure)
		}
	}
}

// claim makes the program the one who ends the transaction.
func (tx *Tx) claim() bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.claimed {
		return false
	}
	tx.claimed = true
	return true
}

// seize rolls the transaction back behind the program's back, because of err. It
// reports whether it came first.
func (tx *Tx) seize(err error) bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.claimed {
		return false
	}
	tx.claimed, tx.seized = true, true
	tx.causes = append(tx.causes, err)
	return true
}

func (tx *Tx) hooks() []func(context.Context) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.claimed {
		return nil
	}
	return tx.before
}

// await returns when the caller may be told something: see Commit.
func (tx *Tx) await(ctx context.Context) {
	select {
	case <-tx.answer:
	case <-ctx.Done():
		<-tx.settling // the vote hears ctx too, so this is soon
	}
}

// err is what the caller is told, by the state that the transaction is in.
func (tx *Tx) err() error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	cause := errors.Join(tx.causes...)
	var heur *HeuristicError
	if tx.heur != nil {
		heur = &HeuristicError{GID: tx.heur.GID, Decision: tx.heur.Decision, Branches: slices.Clone(tx.heur.Branches)}
		cause = errors.Join(heur, cause)
	}
	switch tx.state {
	case stateCommitted:
		if heur != nil {
			return heur
		}
		return nil
	case stateCommitting:
		if heur != nil {
			return heur
		}
		if tx.opt.atDecision {
			return nil
		}
		return &TxError{GID: tx.gid, Kind: ErrPending, Err: cause}
	case stateAborting, stateAborted:
		return &TxError{GID: tx.gid, Kind: ErrRolledBack, Err: cause}
	case stateActive, statePolling, statePreparing, stateDeciding, stateReleasing:
	}
	return &TxError{GID: tx.gid, Kind: ErrUndecided, Err: cause}
}

// endedErr is what a use of an ended transaction is told.
func (tx *Tx) endedErr() error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.endedErrLocked()
}

func (tx *Tx) endedErrLocked() error {
	if tx.seized {
		return &TxError{GID: tx.gid, Kind: ErrRolledBack, Err: errors.Join(tx.causes...)}
	}
	return fmt.Errorf("troth: transaction %s has ended: %w", tx.gid, ErrClosed)
}

func (tx *Tx) addCause(err error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if len(tx.causes) < branchesMax { // an outage of hours must not grow the list for ever
		tx.causes = append(tx.causes, err)
	}
}

// expire rolls back a transaction whose time is up while its program is at work.
// During a vote the deadline ends the vote itself.
func (tx *Tx) expire() {
	if !errors.Is(context.Cause(tx.ctx), ErrTimeout) || !tx.seize(tx.timeoutErr()) {
		return
	}
	faultpoint.Hit("deadline.hit")
	tx.drive(context.Background(), event{kind: evRollback})
}

func (tx *Tx) outcome() Outcome {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.state.outcome()
}

func (s txState) outcome() Outcome {
	switch s {
	case stateCommitting, stateCommitted:
		return Committed
	case stateAborting, stateAborted:
		return Aborted
	case stateReleasing:
		if mistake.On("readers-told-early") {
			return Committed
		}
		return Undecided
	case stateActive, statePolling, statePreparing, stateDeciding:
		return Undecided
	}
	panic("troth: transaction in " + strconv.Itoa(int(s)))
}
