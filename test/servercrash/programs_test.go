//go:build linux

package servercrash

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// A kind is what a program does, and how it ends if nothing stands in its way.
type kind struct {
	name    string
	pattern client.Pattern
	run     func(ctx context.Context, w *world, p *plan) error
	ends    client.State // without faults; empty: either way
	calls   bool         // the server calls participants, in passes of its own
	dies    bool         // the program does, before it says how its transaction goes on
}

var kinds = []kind{
	{"message", client.PatternMessage, message, client.Succeeded, true, false},
	{"message-undone", client.PatternMessage, messageUndone, client.Failed, false, false},
	{"message-lost", client.PatternMessage, messageLost, client.Succeeded, true, true},
	{"saga", client.PatternSaga, saga, client.Succeeded, true, false},
	{"saga-back", client.PatternSaga, sagaBack, client.Failed, true, false},
	{"tcc", client.PatternTCC, tcc, client.Succeeded, true, false},
	{"tcc-back", client.PatternTCC, tccBack, client.Failed, true, false},
	{"tcc-lost", client.PatternTCC, tccLost, client.Failed, true, true},
	{"saga-hasty", client.PatternSaga, sagaHasty, "", true, false},
	{"tcc-late", client.PatternTCC, tccLate, "", true, false},
	{"workflow", client.PatternWorkflow, workflow, client.Succeeded, false, false},
	{"workflow-back", client.PatternWorkflow, workflowBack, client.Failed, false, false},
	{"workflow-lost", client.PatternWorkflow, workflowLost, client.Succeeded, true, true},
	{"xa", client.PatternXA, xa, client.Succeeded, true, false},
	{"xa-back", client.PatternXA, xaBack, client.Failed, true, false},
	{"xa-lost", client.PatternXA, xaLost, client.Failed, true, true},
}

// A plan is one transaction: what a program wants, and what it was told.
type plan struct {
	kind   kind
	gid    string
	wait   bool
	calm   bool
	amount int64
	rng    *rand.Rand // of the program

	returned chan struct{} // closed: the program has ended
	err      error         // what it was told; read after returned
	settled  atomic.Bool   // it is over, or never was: nobody need watch it

	state client.State // as last seen by the watch; world.mu guards it
}

// programTime is how long a program keeps at it, while a server is up.
const programTime = 3 * time.Second

// begin lets a program make a transaction.
func (w *world) begin(k kind, gid string, rng *rand.Rand) *plan {
	p := &plan{kind: k, gid: gid, wait: rng.IntN(2) == 0, calm: w.calm.Load(), amount: 1 + rng.Int64N(9), rng: rng, returned: make(chan struct{})}
	w.mu.Lock()
	w.plans = append(w.plans, p)
	w.mu.Unlock()
	go func() {
		defer close(p.returned)
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		go w.limit(ctx, cancel, p.calm)
		p.err = k.run(ctx, w, p)
	}()
	w.watches.Go(func() { w.watch(p) })
	return p
}

// limit ends a program when its time is over. That stands still while there is no server:
// on a busy machine the next one may take long to start.
func (w *world) limit(ctx context.Context, end context.CancelCauseFunc, calm bool) {
	left := programTime
	if calm {
		left = patience
	}
	const tick = 50 * time.Millisecond
	for ; left > 0 && ctx.Err() == nil; await(ctx, tick) {
		if len(w.all()) > 0 {
			left -= tick
		}
	}
	end(context.DeadlineExceeded)
}

// options are those of the transaction.
func (p *plan) options() []client.Option {
	all := []client.Option{client.GID(p.gid)}
	if p.wait {
		all = append(all, client.Wait())
	}
	switch {
	case p.kind.dies && p.calm:
		all = append(all, client.TimeoutToFail(4*time.Second)) // nobody asks before it is dead
	case p.kind.dies:
		all = append(all, client.TimeoutToFail(time.Second)) // somebody notices soon
	case p.calm && p.kind.decides():
		all = append(all, client.TimeoutToFail(patience))
	}
	return all
}

func message(ctx context.Context, w *world, p *plan) error { return w.send(ctx, w.client, p, nil) }

var errOverdrawn = errors.New("overdrawn")

// messageUndone is of a sender whose own transaction fails.
func messageUndone(ctx context.Context, w *world, p *plan) error {
	return w.send(ctx, w.client, p, errOverdrawn)
}

// messageLost is of a sender that dies after its commit.
func messageLost(ctx context.Context, w *world, p *plan) error { return w.send(ctx, w.dying, p, nil) }

func (w *world) send(ctx context.Context, c *client.Client, p *plan, fails error) error {
	give, get := drawMove(p.rng, -p.amount), drawMove(p.rng, p.amount)
	m := c.Message(p.options()...).Add(w.to(1), get)
	return m.DoAndSubmit(ctx, w.outbox(), w.url+"/query", func(ctx context.Context, tx *sql.Tx) error {
		step, err := barrier.ForMessage(p.gid)
		if err != nil {
			return err
		}
		if err := w.banks[0].book(ctx, tx, step, give); err != nil {
			return err
		}
		return fails
	})
}

func saga(ctx context.Context, w *world, p *plan) error { return w.saga(ctx, p, false) }

// sagaBack is refused by its last participant.
func sagaBack(ctx context.Context, w *world, p *plan) error { return w.saga(ctx, p, true) }

func (w *world) saga(ctx context.Context, p *plan, refuse bool) error {
	last := drawMove(p.rng, p.amount)
	last.Refuse = refuse
	return w.client.Saga(p.options()...).
		Add(w.to(0), w.to(0), drawMove(p.rng, -2*p.amount)).
		Add(w.to(1), w.to(1), drawMove(p.rng, p.amount)).
		Add(w.to(1), w.to(1), last).
		Submit(ctx)
}

// sagaHasty is undone unless it is over within a second, which its slow participants may
// take: an action may then be done whose answer nobody has heard.
func sagaHasty(ctx context.Context, w *world, p *plan) error {
	s := w.client.Saga(append(p.options(), client.TimeoutToFail(time.Second))...)
	for i, amount := range []int64{-2 * p.amount, p.amount, p.amount} {
		m := drawMove(p.rng, amount)
		m.Slow = time.Duration(p.rng.Int64N(int64(600 * time.Millisecond)))
		s.Add(w.to(min(i, 1)), w.to(min(i, 1)), m)
	}
	return s.Submit(ctx)
}

// tccLate is of a program that decides at about the time at which the server gives up.
func tccLate(ctx context.Context, w *world, p *plan) error {
	pause := 500*time.Millisecond + time.Duration(p.rng.Int64N(int64(1500*time.Millisecond)))
	return w.tccThen(ctx, w.client, p, false, func() { await(ctx, pause) }, client.TimeoutToFail(time.Second))
}

func tcc(ctx context.Context, w *world, p *plan) error { return w.tcc(ctx, w.client, p, false) }

// tccBack is refused by its second participant.
func tccBack(ctx context.Context, w *world, p *plan) error { return w.tcc(ctx, w.client, p, true) }

// tccLost is of a program that dies after its tries.
func tccLost(ctx context.Context, w *world, p *plan) error { return w.tcc(ctx, w.dying, p, false) }

func (w *world) tcc(ctx context.Context, c *client.Client, p *plan, refuse bool) error {
	return w.tccThen(ctx, c, p, refuse, func() {})
}

// tccThen calls then after the tries.
func (w *world) tccThen(ctx context.Context, c *client.Client, p *plan, refuse bool, then func(), more ...client.Option) error {
	moves := []move{drawMove(p.rng, -p.amount), drawMove(p.rng, p.amount)}
	moves[1].Refuse = refuse
	return c.TCC(ctx, func(ctx context.Context, t *client.TCC) error {
		for i, m := range moves {
			if err := t.Call(ctx, client.TCCBranch{Try: w.to(i), Confirm: w.to(i), Cancel: w.to(i), Payload: m}); err != nil {
				return err
			}
		}
		then()
		return nil
	}, append(p.options(), more...)...)
}

func xa(ctx context.Context, w *world, p *plan) error { return w.xaThen(ctx, w.client, p, false) }

// xaBack is refused by its second participant, after its work.
func xaBack(ctx context.Context, w *world, p *plan) error { return w.xaThen(ctx, w.client, p, true) }

// xaLost is of a program that dies when both branches are prepared.
func xaLost(ctx context.Context, w *world, p *plan) error { return w.xaThen(ctx, w.dying, p, false) }

func (w *world) xaThen(ctx context.Context, c *client.Client, p *plan, refuse bool) error {
	moves := []move{drawMove(p.rng, -p.amount), drawMove(p.rng, p.amount)}
	moves[1].Refuse = refuse
	return c.XA(ctx, func(ctx context.Context, x *client.XA) error {
		for i, m := range moves {
			if err := x.Call(ctx, w.toXA(i), m, nil); err != nil {
				return err
			}
		}
		return nil
	}, append(p.options(), client.RequestTimeout(xaCallMax))...)
}

func workflow(ctx context.Context, w *world, p *plan) error { return w.flow(ctx, w.flows, p, false) }

// workflowBack is refused by its second participant.
func workflowBack(ctx context.Context, w *world, p *plan) error { return w.flow(ctx, w.flows, p, true) }

// workflowLost is of a program that dies before it tells the end.
func workflowLost(ctx context.Context, w *world, p *plan) error {
	return w.flow(ctx, w.dyers, p, false)
}

func (w *world) flow(ctx context.Context, flows *client.Workflows, p *plan, refuse bool) error {
	moves := []move{drawMove(p.rng, -p.amount), drawMove(p.rng, p.amount)}
	moves[1].Refuse = refuse
	input, err := json.Marshal(moves)
	if err == nil {
		_, err = flows.Execute(ctx, "transfer", input, p.options()...)
	}
	return err
}

// transfer is the workflow's function: a step in the program's own database, and one of
// the other bank.
func (w *world) transfer(ctx context.Context, f *client.Workflow, input []byte) ([]byte, error) {
	var moves []move
	if err := json.Unmarshal(input, &moves); err != nil || len(moves) != 2 {
		return nil, fmt.Errorf("%w: %w", client.ErrInvalid, err)
	}
	own := func(ctx context.Context, s *client.WorkflowStep) error {
		step, err := s.Barrier()
		if err != nil {
			return err
		}
		return s.Local(ctx, w.outbox(), func(ctx context.Context, tx *sql.Tx) error { return w.banks[0].book(ctx, tx, step, moves[0]) })
	}
	theirs := func(ctx context.Context, s *client.WorkflowStep) error {
		_, err := s.Post(ctx, w.to(1), moves[1])
		return err
	}
	if err := own(ctx, f.Step("give").OnRollback(own)); err != nil {
		return nil, err
	}
	return nil, theirs(ctx, f.Step("get").OnRollback(theirs))
}

// told is which end a program may rely on after what it was told; empty if none.
func (p *plan) told() client.State {
	var e *client.Error
	switch {
	case p.err == nil && p.kind.pattern == client.PatternSaga && !p.wait:
		return "" // it is stored, no more
	case p.err == nil:
		return client.Succeeded
	case errors.Is(p.err, client.ErrFailed):
		return client.Failed
	case errors.As(p.err, &e) && errors.Is(e.Kind, client.ErrOngoing) && p.kind.decides():
		return client.Succeeded // it is decided
	}
	return ""
}

// decides reports whether a program of the kind decides about its transaction, and cannot
// take that back.
func (k kind) decides() bool {
	return k.pattern == client.PatternMessage || k.pattern == client.PatternTCC || k.pattern == client.PatternXA
}
