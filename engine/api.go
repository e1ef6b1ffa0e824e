package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// As returns a context whose requests are made by a principal: it can see and change
// only its own transactions, and what it makes is its own. Without a principal, or with
// an empty one, a request reaches all.
func As(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

type ownerKey struct{}

func ownerOf(ctx context.Context) string {
	owner, _ := ctx.Value(ownerKey{}).(string)
	return owner
}

func mayReach(ctx context.Context, t *store.Transaction) bool {
	owner := ownerOf(ctx)
	return owner == "" || owner == t.Owner
}

// A Request describes a transaction to be prepared or submitted.
type Request struct {
	GID           string
	Pattern       store.Pattern
	Protocol      string
	QueryPrepared string
	Data          string
	Steps         []Step // of a message or a saga
	Options       store.Options
}

// A Step is one step of a message or a saga. An action of a message may be
// "topic://name": it stands for one branch for each subscriber.
type Step struct {
	Action     string
	Compensate string // of a saga
	Payload    []byte
}

// Prepare announces a transaction: a message that its sender is about to commit, a TCC
// or XA whose branches will be registered. It returns when that is durable, also if it
// was before. A *StateError says that the transaction has gone on meanwhile, or that
// its name is that of one of another pattern; store.ErrExists that its name is that of
// one with other steps, or of another owner.
func (e *Engine) Prepare(ctx context.Context, r Request) error {
	t, err := e.transaction(ctx, r, store.Prepared)
	if err != nil {
		return err
	}
	stored, err := e.announce(ctx, t)
	if stored == nil || err != nil {
		return err
	}
	return prepare(stored, asked(r, t))
}

// announce creates a transaction that nothing is done about yet, or returns what has its
// name: as it is in the store, for what is known here may be old, and is not checked by a
// write.
func (e *Engine) announce(ctx context.Context, t *store.Transaction) (stored *store.Transaction, err error) {
	if _, err = e.createOr(ctx, t, false, false, nil); !errors.Is(err, store.ErrExists) {
		return nil, err
	}
	stored, err = e.Get(ctx, t.GID)
	if errors.Is(err, ErrNotFound) {
		err = store.ErrExists // it belongs to somebody else
	}
	return stored, err
}

// Submit goes forth with a transaction that was prepared, or with a new message or saga;
// a TCC or XA that was not prepared is ErrNotFound. It returns when that is durable; with
// Options.Wait when the first pass has ended: nil if the transaction succeeded, else
// ErrFailed or ErrOngoing. Other errors are those of Prepare.
func (e *Engine) Submit(ctx context.Context, r Request) error {
	t, err := e.transaction(ctx, r, store.Submitted)
	if err != nil {
		return err
	}
	going := func(stored *store.Transaction, now time.Time) (changed, drive bool, err error) {
		return submit(stored, asked(r, t), now)
	}
	var end *passEnd
	if r.Pattern == store.TCC || r.Pattern == store.XA {
		// What was tried was registered under it: one that is not there cannot succeed.
		end, err = e.change(ctx, r.GID, r.Options.Wait, going)
	} else {
		end, err = e.createOr(ctx, t, true, r.Options.Wait, going)
	}
	if err != nil || !r.Options.Wait {
		return err
	}
	return e.await(ctx, end, store.Succeeded)
}

// asked is what a repetition is compared with. Topics are for the first request to
// expand: their subscribers may have changed since.
func asked(r Request, t *store.Transaction) *store.Transaction {
	if !slices.ContainsFunc(r.Steps, func(s Step) bool { return strings.HasPrefix(s.Action, topicScheme) }) {
		return t
	}
	return &store.Transaction{GID: t.GID, Pattern: t.Pattern}
}

// Abort goes back with a transaction that was prepared. With wait it returns when the
// first pass has ended.
func (e *Engine) Abort(ctx context.Context, gid, reason string, wait bool) error {
	over := false // a message is, at once: no pass begins that could be waited for
	end, err := e.change(ctx, gid, wait, func(t *store.Transaction, now time.Time) (changed, drive bool, err error) {
		changed, drive, err = abort(t, cut(reason, e.limits.ErrorMax), now)
		over = t.State.Over()
		return changed, drive, err
	})
	if err != nil || !wait || over {
		return err
	}
	return e.await(ctx, end, store.Failed)
}

// Register adds branches to a TCC, an XA or a workflow that is prepared.
func (e *Engine) Register(ctx context.Context, gid string, branches ...store.Branch) error {
	_, err := e.change(ctx, gid, false, register(branches, &e.limits))
	return err
}

// StartWorkflow creates a workflow, or finds it, and returns it with what it has done.
// The errors are those of Prepare.
func (e *Engine) StartWorkflow(ctx context.Context, r Request) (*store.Transaction, error) {
	t, err := e.transaction(ctx, r, store.Prepared)
	if err != nil {
		return nil, err
	}
	switch stored, err := e.announce(ctx, t.Clone()); {
	case err != nil:
		return nil, err
	case stored != nil:
		return stored, nil
	}
	return t, nil
}

// EndWorkflow ends a workflow as its function did. The same end again is no error.
func (e *Engine) EndWorkflow(ctx context.Context, gid string, ok bool, result, reason string) error {
	end := store.Failed
	if ok {
		end = store.Succeeded
	}
	_, err := e.change(ctx, gid, false, conclude(end, result, cut(reason, e.limits.ErrorMax)))
	return err
}

// Stop ends a transaction as failed without calling anybody: an operator's last
// resort. What its branches have done stays done.
func (e *Engine) Stop(ctx context.Context, gid, reason string) error {
	_, err := e.change(ctx, gid, false, stop(cut(reason, e.limits.ErrorMax)))
	return err
}

// RetryNow lets the next pass begin now. It returns when that is stored, not when the
// pass has ended; if one is under way there is nothing to do.
func (e *Engine) RetryNow(ctx context.Context, gid string) error {
	_, err := e.change(ctx, gid, false, makeDue)
	return err
}

// Get returns a transaction as it is stored.
func (e *Engine) Get(ctx context.Context, gid string) (*store.Transaction, error) {
	t, err := e.store.Get(ctx, gid)
	if err == nil && !mayReach(ctx, t) {
		return nil, ErrNotFound
	}
	return t, told(err)
}

// createOr creates a transaction, or changes it if it is there. Without a change that is
// store.ErrExists.
func (e *Engine) createOr(ctx context.Context, t *store.Transaction, drive, wait bool, c change) (end *passEnd, err error) {
	leave, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	d := e.hold(t.GID)
	defer e.release(d)
	end, err = d.create(ctx, t, drive, wait)
	if errors.Is(err, store.ErrExists) && c != nil {
		end, err = d.change(ctx, c, wait)
		if errors.Is(err, store.ErrNotFound) {
			err = store.ErrExists // it belongs to somebody else
		}
	}
	return end, told(err)
}

func (e *Engine) change(ctx context.Context, gid string, wait bool, c change) (end *passEnd, err error) {
	leave, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	d := e.hold(gid)
	defer e.release(d)
	end, err = d.change(ctx, c, wait)
	return end, told(err)
}

// told turns what the store says into what callers are told.
func told(err error) error {
	var state *StateError
	switch {
	case err == nil, errors.As(err, &state), errors.Is(err, store.ErrExists), errors.Is(err, ErrInvalid):
		return err
	case errors.Is(err, store.ErrNotFound):
		return ErrNotFound
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// await waits for the end of a pass.
func (e *Engine) await(ctx context.Context, end *passEnd, want store.State) error {
	select {
	case <-end.done:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrOngoing, context.Cause(ctx))
	case <-e.ctx.Done():
		return fmt.Errorf("%w: %w", ErrOngoing, ErrClosed)
	}
	if mistake.On("not-over-is-success") {
		return nil
	}
	switch {
	case end.state == want:
		return nil
	case end.state.Over():
		return fmt.Errorf("%w: %s", ErrFailed, end.reason)
	}
	return ErrOngoing
}

// transaction makes what a request describes.
func (e *Engine) transaction(ctx context.Context, r Request, s store.State) (*store.Transaction, error) {
	if err := e.limits.check(r); err != nil {
		return nil, err
	}
	branches, err := e.branchesOf(ctx, r)
	if err != nil {
		return nil, err
	}
	now := e.cfg.Now()
	t := &store.Transaction{
		GID: r.GID, Owner: ownerOf(ctx), Pattern: r.Pattern, Protocol: r.Protocol, QueryPrepared: r.QueryPrepared, Data: r.Data,
		Options: r.Options, Branches: branches, Created: now, Updated: now, State: s, Interval: e.limits.RetryInterval,
	}
	if r.Options.RetryInterval > 0 {
		t.Interval = r.Options.RetryInterval
	}
	return t, nil
}

const topicScheme = "topic://"

// branchesOf numbers the branches of the steps as dtm does: "01", "02", ...; and
// "01-01", "01-02", ... if a step goes to several subscribers.
func (e *Engine) branchesOf(ctx context.Context, r Request) (branches []store.Branch, err error) {
	perStep := 1
	if r.Pattern == store.Saga {
		perStep = 2
	}
	branches = make([]store.Branch, 0, perStep*len(r.Steps))
	for i, s := range r.Steps {
		id := fmt.Sprintf("%02d", i+1)
		if r.Pattern == store.Saga {
			branches = append(branches, newBranch(id, store.Compensate, s.Compensate, s.Payload), newBranch(id, store.Action, s.Action, s.Payload))
			continue
		}
		topic, ok := strings.CutPrefix(s.Action, topicScheme)
		if !ok {
			branches = append(branches, newBranch(id, store.Action, s.Action, s.Payload))
			continue
		}
		subscribers, err := e.store.Topic(ctx, topic)
		if err != nil {
			return nil, told(err)
		}
		if len(subscribers) == 0 {
			return nil, fmt.Errorf("%w: step %d: topic not found: %q", ErrInvalid, i+1, topic)
		}
		for j, sub := range subscribers {
			each := id
			if len(subscribers) > 1 {
				each = fmt.Sprintf("%s-%02d", id, j+1)
			}
			branches = append(branches, newBranch(each, store.Action, sub.URL, s.Payload))
		}
		if err := e.limits.checkBranches(branches); err != nil {
			return nil, err
		}
	}
	return branches, nil
}

func newBranch(id string, op store.Op, url string, payload []byte) store.Branch {
	return store.Branch{ID: id, Op: op, URL: url, Payload: payload, State: store.BranchPrepared}
}
