package client

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/troth-tx/troth/barrier"
)

// A Workflow is one run of a [WorkflowFunc]. It is used by one goroutine.
type Workflow struct {
	client   *Client
	gid      string
	look     func(ctx context.Context) (*Status, error) // what the server has of it
	recorded map[recordKey]BranchStatus
	actions  int // that were recorded when the run began

	steps  []*WorkflowStep
	broken error // the run cannot go on: the function did something else than before
}

type recordKey struct {
	id string
	op Op
}

func newWorkflow(c *Client, gid string, steps []BranchStatus) *Workflow {
	w := &Workflow{client: c, gid: gid, recorded: make(map[recordKey]BranchStatus, len(steps))}
	for _, s := range steps {
		w.recorded[recordKey{s.ID, s.Op}] = s
		if s.Op == OpAction {
			w.actions++
		}
	}
	return w
}

// GID is the workflow's name.
func (w *Workflow) GID() string { return w.gid }

// A WorkflowStep is one step of a workflow: an action, and what commits or undoes it in the end.
// One of Do, Post and Local carries it out.
type WorkflowStep struct {
	w      *Workflow
	id     string
	op     Op
	done   bool  // an action was begun
	failed bool  // it did
	lost   error // it ended with neither a result nor ErrFailed
	given  bool  // and that is recorded: it was given up

	onCommit, onRollback StepFunc
}

// A StepFunc commits or undoes a step. It works with s.Post, s.Local or s.Step, whose
// operation is then OpCommit or OpRollback. It must not fail: after any error it is
// called again, later, and must be idempotent as the barrier makes it.
type StepFunc func(ctx context.Context, s *WorkflowStep) error

// Step begins the next step. Its name is for people, and to notice when a run does
// something else than the one before it: 1 to 64 characters of [A-Za-z0-9._-]; or none,
// which looks to the server as dtm's workflows do.
func (w *Workflow) Step(name string) *WorkflowStep {
	id := fmt.Sprintf("%02d", len(w.steps)+1)
	if name != "" {
		id += "-" + name
	}
	s := &WorkflowStep{w: w, id: id, op: OpAction}
	w.steps = append(w.steps, s)
	if len(name) > nameMax || strings.ContainsFunc(name, notInName) {
		_ = w.breakOff(fmt.Errorf("step name %q: want up to %d characters of [A-Za-z0-9._-]", name, nameMax))
	}
	return s
}

func notInName(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", c)
}

// ID is the step's branch id.
func (s *WorkflowStep) ID() string { return s.id }

// OnCommit lets f be called when the workflow's function has succeeded, unless this step's
// own action failed.
func (s *WorkflowStep) OnCommit(f StepFunc) *WorkflowStep {
	s.onCommit = f
	return s
}

// OnRollback lets f be called when the workflow's function has failed, unless this step's
// own action did: that one has nothing to undo. Set it before the action, so that it is
// there for one whose end is not known.
func (s *WorkflowStep) OnRollback(f StepFunc) *WorkflowStep {
	s.onRollback = f
	return s
}

// OnFinish lets f be called at either end.
func (s *WorkflowStep) OnFinish(f func(ctx context.Context, s *WorkflowStep, rollback bool) error) *WorkflowStep {
	return s.
		OnCommit(func(ctx context.Context, s *WorkflowStep) error { return f(ctx, s, false) }).
		OnRollback(func(ctx context.Context, s *WorkflowStep) error { return f(ctx, s, true) })
}

// Do carries the action out as f does, once per result: f's result, UTF-8 text over HTTP,
// and its failure (ErrFailed) are kept by the server and returned in later runs. After
// other errors nothing is kept: the function returns them, and the action is carried out
// again in the next run. It may also end with ErrFailed, which gives the action up: its
// rollback is called, though nobody knows what there is to undo. But it cannot succeed. f's
// ctx tells gRPC clients (package grpcclient) which step calls.
func (s *WorkflowStep) Do(ctx context.Context, f func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	if s.done && s.op == OpAction {
		_ = s.w.breakOff(fmt.Errorf("step %s has two actions: each needs a step of its own", s.id))
	}
	s.done = true
	if s.w.broken != nil {
		return nil, s.w.broken
	}
	ctx = WithOutgoing(ctx, &Call{GID: s.w.gid, Pattern: PatternWorkflow, Branch: s.id, Op: s.op, Server: s.w.client.transport.Server()})
	if s.op != OpAction {
		return f(ctx) // the end of a step is recorded as a whole
	}
	s.lost = errNoReturn // if f panics, which somebody may outlive
	result, err := s.w.record(ctx, s.id, OpAction, f)
	s.lost = nil
	switch r := s.w.recorded[recordKey{s.id, OpAction}]; {
	case errors.Is(err, ErrFailed):
		s.failed = true
	case err != nil:
		s.lost, s.given = err, r.State == Failed
	}
	return result, err
}

// Post carries the action out by a call of an HTTP participant, and returns its answer.
// []byte is sent as it is, other payloads as JSON.
func (s *WorkflowStep) Post(ctx context.Context, address string, payload any) ([]byte, error) {
	body, err := encode(payload)
	if err != nil {
		return nil, &Error{Op: string(s.op), GID: s.w.gid, URL: withoutQuery(address), Kind: ErrInvalid, Err: err}
	}
	return s.Do(ctx, func(ctx context.Context) ([]byte, error) {
		return s.w.client.callBranch(ctx, participantCall{
			gid: s.w.gid, pattern: PatternWorkflow, branch: s.id, op: s.op, url: address, payload: body,
		})
	})
}

// Local carries the action out in a transaction of this program's database, once, also
// if the result does not reach the server: the barrier sees to that.
func (s *WorkflowStep) Local(ctx context.Context, o Outbox, f func(ctx context.Context, tx *sql.Tx) error) error {
	if o.DB == nil || o.Barrier == nil || f == nil {
		return &Error{Op: string(s.op), GID: s.w.gid, Kind: ErrInvalid, Err: errors.New("the outbox or the function is nil")}
	}
	_, err := s.Do(ctx, func(ctx context.Context) ([]byte, error) {
		step, err := s.Barrier()
		if err != nil {
			return nil, err
		}
		return nil, o.Barrier.Run(ctx, o.DB, step, f)
	})
	return err
}

// Barrier is the step for package barrier.
func (s *WorkflowStep) Barrier() (barrier.Step, error) {
	return barrier.NewStep(string(PatternWorkflow), s.w.gid, s.id, barrier.Op(s.op))
}

// record returns what is recorded, or does it and records what came of it.
func (w *Workflow) record(ctx context.Context, id string, op Op, f func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	if r, ok := w.recorded[recordKey{id, op}]; ok {
		if r.State != Failed {
			return r.Data, nil
		}
		text, given := strings.CutPrefix(string(r.Data), givenUp)
		e := &Error{Op: string(op), GID: w.gid, Kind: ErrFailed, Text: clip(text)}
		if given {
			e.Kind = ErrUnknown
		}
		return nil, e
	}
	if err := w.deviates(id, op); err != nil {
		return nil, err
	}
	result, err := f(ctx)
	b := &Branch{GID: w.gid, Pattern: PatternWorkflow, ID: id, Op: op, Data: result}
	switch {
	case errors.Is(err, ErrFailed):
		text := clip(err.Error())
		if strings.HasPrefix(text, givenUp) { // which is ours to say
			text = "failed: " + text
		}
		b.Failed, b.Data = true, []byte(text)
	case err != nil:
		return nil, err
	}
	if registered := w.keep(ctx, b); registered != nil {
		return nil, registered
	}
	return result, err
}

// givenUp begins the text that is recorded of an action whose end is not known, and whose
// workflow fails nevertheless.
const givenUp = "given up: "

// giveUp records that such actions failed, before anything is undone: else another process
// whose call of the participant succeeds would go on, and commit what this one undoes.
func (w *Workflow) giveUp(ctx context.Context) error {
	for _, s := range w.steps {
		if s.lost == nil || s.given {
			continue
		}
		b := &Branch{GID: w.gid, Pattern: PatternWorkflow, ID: s.id, Op: OpAction, Failed: true, Data: []byte(givenUp + clip(s.lost.Error()))}
		if err := w.keep(ctx, b); err != nil {
			return err
		}
		s.given = true
	}
	return nil
}

// unfinished returns the error of an action whose end is not known.
func (w *Workflow) unfinished() error {
	for _, s := range w.steps {
		if s.lost != nil {
			return s.lost
		}
	}
	return nil
}

// keep registers what has come of a step, also for a caller whose context has ended: what
// is done should be known. ErrOngoing: another process came first, or has ended the workflow
// by now: a further run finds out.
func (w *Workflow) keep(ctx context.Context, b *Branch) error {
	ctx, cancel := w.client.detached(ctx)
	defer cancel()
	err := w.register(ctx, b)
	switch {
	case errors.Is(err, ErrExists):
		err = errors.New("another process runs this workflow")
	case errors.Is(err, ErrRefused):
		err = fmt.Errorf("somebody else has ended this workflow: %w", err)
	default:
		return err
	}
	return &Error{Op: string(b.Op), GID: w.gid, Kind: ErrOngoing, Err: err}
}

// register takes "exists" for success if an earlier attempt was not answered and what
// exists is the same: another process may have recorded another result.
func (w *Workflow) register(ctx context.Context, b *Branch) error {
	repeated := false
	err := w.client.repeat(ctx, false, func(ctx context.Context, attempt int) error {
		repeated = attempt > 1
		return w.client.transport.Register(ctx, b)
	})
	if !repeated || !errors.Is(err, ErrExists) {
		return err
	}
	s, asked := w.look(ctx)
	if asked != nil {
		return asked
	}
	for _, r := range s.Branches {
		if r.ID == b.ID && r.Op == b.Op && (r.State == Failed) == b.Failed && bytes.Equal(r.Data, b.Data) {
			return nil
		}
	}
	return err
}

// deviates notices a new action with the number of one that was recorded under another
// name, or before one that was recorded.
func (w *Workflow) deviates(id string, op Op) error {
	if op != OpAction {
		return nil
	}
	number, _, _ := strings.Cut(id, "-")
	for key := range w.recorded {
		if n, _, _ := strings.Cut(key.id, "-"); n == number && key.id != id && key.op == OpAction {
			return w.breakOff(fmt.Errorf("step %s was %s in an earlier run", id, key.id))
		}
	}
	return nil
}

// leftOver notices actions that were recorded and not taken in this run.
func (w *Workflow) leftOver() error {
	taken := 0
	for _, s := range w.steps {
		if _, ok := w.recorded[recordKey{s.id, OpAction}]; ok && s.done {
			taken++
		}
	}
	if taken < w.actions {
		return w.breakOff(fmt.Errorf("%d of the %d actions of an earlier run were not taken", w.actions-taken, w.actions))
	}
	return nil
}

// breakOff returns an error, and makes the run end without a result, so that the server shows it as stuck.
func (w *Workflow) breakOff(err error) error {
	if w.broken == nil {
		w.broken = &Error{Op: "workflow", GID: w.gid, Kind: ErrInvalid, Err: fmt.Errorf("the function is not deterministic, or was changed: %w", err)}
	}
	return w.broken
}

// end commits or undoes the steps, the last one first, each once.
func (w *Workflow) end(ctx context.Context, op Op) error {
	for _, s := range slices.Backward(w.steps) {
		f := s.onCommit
		if op == OpRollback {
			f = s.onRollback
		}
		if f == nil || s.failed {
			continue
		}
		s.op = op
		_, err := w.record(ctx, s.id, op, func(ctx context.Context) ([]byte, error) {
			err := f(ctx, s)
			if errors.Is(err, ErrFailed) {
				err = &Error{Op: string(op), GID: w.gid, Kind: ErrUnknown, Text: clip("must not fail: " + err.Error())}
			}
			return nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
