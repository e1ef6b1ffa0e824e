package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// A WorkflowFunc is a transaction written as a function. It does its work in steps of w,
// whose results the server keeps. If the process dies the function is called again,
// here or in another process, with the same input, and steps that have a result return it
// and do nothing: so it must take the same steps in the same order whenever it gets the
// same results. Times, random numbers and the like belong into steps.
//
// nil ends the workflow as succeeded, with the result, unless an action of a step ended
// with an error other than ErrFailed, or a panic: then that is the function's. An error that is
// ErrFailed undoes the workflow. After any other error it is called again, later.
type WorkflowFunc func(ctx context.Context, w *Workflow, input []byte) (result []byte, err error)

// Workflows are the workflow functions of a program, by name. It is safe for concurrent
// use. It owns the runs that the server asks for: Close ends them.
type Workflows struct {
	client *Client
	resume string
	runs   *runs

	mu     sync.Mutex
	byName map[string]WorkflowFunc
}

// Workflows returns a registry. resume is the address of its [Workflows.Handler], at which
// the server goes on with workflows that nobody has ended.
func (c *Client) Workflows(resume string) *Workflows {
	return &Workflows{
		client: c, resume: resume, runs: newRuns(c.cfg.ResumeTimeout, c.cfg.ResumesMax), byName: make(map[string]WorkflowFunc),
	}
}

// Register names a function. Do so before the handler is served: the server may have work
// for it. Names are used once, have at most 64 bytes and are part of what the server
// keeps: do not change them.
func (ws *Workflows) Register(name string, f WorkflowFunc) error {
	if name == "" || len(name) > nameMax || f == nil {
		return fmt.Errorf("client: workflow %q: want a name of 1 to %d bytes and a function", name, nameMax)
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byName[name] != nil {
		return fmt.Errorf("client: there is a workflow %q", name)
	}
	ws.byName[name] = f
	return nil
}

const nameMax = 64

// Execute runs a workflow to its end, or goes on with the one of that [GID], and returns
// its result; that of one that is over at once. If a run of it is under way in this
// registry, Execute waits for that one first.
//
//	ErrFailed   it is undone
//	ErrOngoing  another run is at it, or has ended it meanwhile: one in another process, or
//	            one that is still under way here when ctx ends
//	ErrRefused  there is a transaction of that GID with another pattern, name or input
//	ErrMixed    the function has ended, and somebody has ended the workflow otherwise by force
//
// After any other error, of the function or of the server, the server lets it be gone on
// with: ask [Client.Status].
func (ws *Workflows) Execute(ctx context.Context, name string, input []byte, opts ...Option) (result []byte, err error) {
	t := &Transaction{Pattern: PatternWorkflow, QueryPrepared: ws.resume, Options: optionsOf(opts), Name: name, Input: input}
	f, err := ws.function(t)
	if err != nil {
		return nil, err
	}
	leave, err := ws.runs.enter(ctx, t.Options.GID)
	if err != nil {
		return nil, err
	}
	err = errNoReturn // of a function that panics
	defer func() { leave(err) }()
	return ws.run(ctx, t, f)
}

// function finds the function of a workflow.
func (ws *Workflows) function(t *Transaction) (WorkflowFunc, error) {
	ws.mu.Lock()
	f := ws.byName[t.Name]
	ws.mu.Unlock()
	if f == nil {
		return nil, &Error{Op: "start", GID: t.Options.GID, Kind: ErrInvalid, Err: fmt.Errorf("no workflow is registered as %q", t.Name)}
	}
	return f, check("start", t)
}

// run calls the function of a workflow, unless that is over, and ends it.
func (ws *Workflows) run(ctx context.Context, t *Transaction, f WorkflowFunc) ([]byte, error) {
	s, err := ws.start(ctx, t)
	switch {
	case err != nil:
		return nil, err
	case s.State == Succeeded:
		return s.Result, nil
	case s.State == Failed:
		return nil, &Error{Op: "workflow", GID: t.Options.GID, Kind: ErrFailed, Text: clip(s.Reason)}
	}
	w := newWorkflow(ws.client, t.Options.GID, s.Branches)
	w.look = func(ctx context.Context) (*Status, error) { return ws.start(ctx, t) }
	result, err := f(ctx, w, t.Input)
	return ws.conclude(ctx, t, w, result, err)
}

// start announces a workflow, and makes sure that it is the one that is meant.
func (ws *Workflows) start(ctx context.Context, t *Transaction) (s *Status, err error) {
	err = ws.client.repeat(ctx, false, func(ctx context.Context, _ int) error {
		s, err = ws.client.transport.StartWorkflow(ctx, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	differs := ""
	switch {
	case s.Pattern != "" && s.Pattern != PatternWorkflow:
		differs = "it is a " + string(s.Pattern)
	case s.Name != "" && s.Name != t.Name:
		differs = fmt.Sprintf("it is %q", s.Name)
	case s.Name != "" && !bytes.Equal(s.Input, t.Input):
		differs = "it has another input"
	}
	if differs != "" {
		return nil, &Error{Op: "start", GID: t.Options.GID, Kind: ErrRefused, Err: errors.New("there is another transaction of this name: " + differs)}
	}
	return s, nil
}

// conclude commits or undoes the steps of a function that has returned, and tells the
// server.
func (ws *Workflows) conclude(ctx context.Context, t *Transaction, w *Workflow, result []byte, failure error) ([]byte, error) {
	if failure == nil || errors.Is(failure, ErrFailed) {
		if err := w.leftOver(); err != nil {
			return nil, err
		}
	}
	err := w.broken
	switch {
	case err != nil: // also if the function has swallowed it
	case failure == nil:
		t.Result = result
		if err = w.unfinished(); err == nil { // the same
			err = w.end(ctx, OpCommit)
		}
	case errors.Is(failure, ErrFailed):
		t.Failed, t.Reason = true, clip(failure.Error())
		if err = w.giveUp(ctx); err == nil {
			err = w.end(ctx, OpRollback)
		}
	default:
		return nil, failure
	}
	if err == nil {
		err = ws.tellEnd(ctx, t)
	}
	if err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, &Error{Op: "workflow", GID: t.Options.GID, Kind: ErrFailed, Err: failure}
	}
	return result, nil
}

// tellEnd tells the server also for a caller whose context has ended.
func (ws *Workflows) tellEnd(ctx context.Context, t *Transaction) error {
	tell := func(ctx context.Context) error {
		return ws.client.repeat(ctx, false, func(ctx context.Context, _ int) error { return ws.client.transport.EndWorkflow(ctx, t) })
	}
	err := tell(ctx)
	if err != nil && ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = ws.client.detached(ctx)
		defer cancel()
		err = tell(ctx)
	}
	if !errors.Is(err, ErrRefused) {
		return err
	}
	s, asked := ws.client.stateAfter(ctx, t, err)
	switch {
	case asked != nil:
		return asked
	case s.State == Failed && t.Failed, s.State == Succeeded && !t.Failed:
		return nil
	case s.State.Over():
		return &Error{Op: "submit", GID: t.Options.GID, Kind: ErrMixed, Text: clip(s.Reason)}
	}
	return err
}

// Handler serves the registry's address, where the server goes on with workflows, as
// Resume does.
func (ws *Workflows) Handler(opts ...HandlerOption) http.Handler {
	return Handler(func(ctx context.Context, call *Call) (any, error) {
		return nil, ws.Resume(ctx, string(call.Op), call.GID, call.Body)
	}, opts...)
}

// Resume goes on with a workflow as the server asks. The run is not the call's: it has
// [Config.ResumeTimeout] and the values of ctx, and goes on when the call has been
// answered. One run of a workflow is under way at a time, so a later call finds it, or
// what came of it.
//
//	nil         the workflow is over
//	ErrOngoing  the run goes on, or cannot begin now, because there are [Config.ResumesMax]
//	            or Close was called: the server asks again
//
// Any other error is that with which the run ended. The next call begins another, which
// goes on after the steps that have a result. A panic of the function goes on in the call
// that learns of it.
//
// Resume waits for the run for three quarters of the time that ctx has left, or for half a
// second where ctx does not tell, as over HTTP.
func (ws *Workflows) Resume(ctx context.Context, name, gid string, input []byte) error {
	t := &Transaction{Pattern: PatternWorkflow, QueryPrepared: ws.resume, Options: Options{GID: gid}, Name: name, Input: input}
	f, err := ws.function(t)
	if err != nil {
		return err
	}
	r, err := ws.runs.resume(ctx, gid, func(ctx context.Context) error {
		_, err := ws.run(ctx, t, f)
		return err
	})
	if err != nil {
		return err
	}
	waiting, cancel := withPatience(ctx)
	defer cancel()
	select {
	case <-r.done:
	case <-waiting.Done():
		return goesOn(gid, errors.New("the run goes on"))
	}
	if err := ws.runs.heard(gid, r); !errors.Is(err, ErrFailed) {
		return err
	}
	return nil // it is over: the server has been told so
}

// Close lets no more workflows be resumed here: the server's calls are answered with
// ErrOngoing, and it asks again, perhaps another process. Close waits for the resumed runs
// that are under way; when ctx ends their contexts end, and it waits for their functions to
// return. Steps that were done are kept by the server, so nothing is lost. It returns an
// error if runs were given up. Runs of Execute are their callers'; more may follow.
func (ws *Workflows) Close(ctx context.Context) error { return ws.runs.close(ctx) }
