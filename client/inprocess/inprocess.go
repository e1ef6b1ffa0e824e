// Package inprocess lets a client use an engine of the same program: messages, sagas and
// TCC without a server. Branches may be functions of the program, with addresses
// "func://name", see engine.Config.Funcs.
//
//	e, err := engine.Open(ctx, store, engine.Config{Funcs: funcs})
//	...
//	c, err := client.New(client.Config{Transport: inprocess.New(e)})
package inprocess

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// QueryPrepared is client.QueryPrepared as a function of the program: the query of
// client.Message.DoAndSubmit is then "func://" and its name.
func QueryPrepared(o client.Outbox) engine.Func {
	return func(ctx context.Context, c engine.Call) error {
		step, err := barrier.ForMessage(c.GID)
		if err != nil {
			return err
		}
		committed, err := o.Barrier.QueryPrepared(ctx, o.DB, step)
		if err == nil && !committed {
			return fmt.Errorf("%w: the sender's transaction was not committed", engine.ErrFailed)
		}
		return err
	}
}

// Step is a branch's call for the barrier, as client.Call.Step is for one that came over
// HTTP.
func Step(c engine.Call) (barrier.Step, error) {
	return barrier.NewStep(c.Pattern.String(), c.GID, c.Branch, barrier.Op(c.Op.String()))
}

// A transport is a client.Transport over an engine.
type transport struct {
	engine *engine.Engine
}

// New returns a transport. The engine stays the caller's, to be closed after the last
// request.
func New(e *engine.Engine) client.Transport { return &transport{engine: e} }

// Server implements client.Transport: participants elsewhere cannot reach an engine.
func (t *transport) Server() string { return "" }

// Protocol implements client.Transport.
func (t *transport) Protocol() string { return "http" }

// Prepare implements client.Transport.
func (t *transport) Prepare(ctx context.Context, x *client.Transaction) error {
	r, err := requestOf(x)
	if err == nil {
		err = t.engine.Prepare(ctx, r)
	}
	return kinded("prepare", x.Options.GID, err)
}

// Submit implements client.Transport.
func (t *transport) Submit(ctx context.Context, x *client.Transaction) error {
	r, err := requestOf(x)
	if err == nil {
		err = t.engine.Submit(ctx, r)
	}
	return kinded("submit", x.Options.GID, err)
}

// Abort implements client.Transport.
func (t *transport) Abort(ctx context.Context, x *client.Transaction) error {
	return kinded("abort", x.Options.GID, t.engine.Abort(ctx, x.Options.GID, x.Reason, x.Options.Wait))
}

// Register implements client.Transport.
func (t *transport) Register(ctx context.Context, b *client.Branch) error {
	branch := func(op store.Op, url string, payload []byte) store.Branch {
		return store.Branch{ID: b.ID, Op: op, URL: url, Payload: payload, State: store.BranchPrepared}
	}
	var branches []store.Branch
	switch b.Pattern {
	case client.PatternTCC:
		branches = []store.Branch{branch(store.Cancel, b.Cancel, b.Payload), branch(store.Confirm, b.Confirm, b.Payload)}
	case client.PatternXA:
		branches = []store.Branch{branch(store.Rollback, b.URL, nil), branch(store.Commit, b.URL, nil)}
	case client.PatternWorkflow:
		step := branch(opOf(b.Op), "", b.Data)
		step.State = store.BranchSucceeded
		if b.Failed {
			step.State = store.BranchFailed
		}
		branches = []store.Branch{step}
	case client.PatternMessage, client.PatternSaga:
		return &client.Error{Op: "register", GID: b.GID, Kind: client.ErrInvalid, Err: fmt.Errorf("a %s registers no branches", b.Pattern)}
	}
	return kinded("register", b.GID, t.engine.Register(ctx, b.GID, branches...))
}

// StartWorkflow implements client.Transport.
func (t *transport) StartWorkflow(ctx context.Context, x *client.Transaction) (*client.Status, error) {
	r, err := requestOf(x)
	var started *store.Transaction
	if err == nil {
		started, err = t.engine.StartWorkflow(ctx, r)
	}
	if err != nil {
		return nil, kinded("start", x.Options.GID, err)
	}
	return statusOf(started), nil
}

// EndWorkflow implements client.Transport.
func (t *transport) EndWorkflow(ctx context.Context, x *client.Transaction) error {
	result := base64.StdEncoding.EncodeToString(x.Result) // as it is over the wire
	return kinded("submit", x.Options.GID, t.engine.EndWorkflow(ctx, x.Options.GID, !x.Failed, result, x.Reason))
}

// Status implements client.Transport.
func (t *transport) Status(ctx context.Context, gid string) (*client.Status, error) {
	found, err := t.engine.Get(ctx, gid)
	if err != nil {
		return nil, kinded("status", gid, err)
	}
	return statusOf(found), nil
}

var patterns = map[client.Pattern]store.Pattern{
	client.PatternMessage: store.Message, client.PatternSaga: store.Saga, client.PatternTCC: store.TCC,
	client.PatternXA: store.XA, client.PatternWorkflow: store.Workflow,
}

func requestOf(x *client.Transaction) (engine.Request, error) {
	o := &x.Options
	custom, err := x.CustomData()
	r := engine.Request{
		GID: o.GID, Pattern: patterns[x.Pattern], Protocol: "http", QueryPrepared: x.QueryPrepared, Data: custom,
		Options: store.Options{
			Wait: o.Wait, TimeoutToFail: o.TimeoutToFail, RetryInterval: o.RetryInterval, RequestTimeout: o.RequestTimeout,
			RetryLimit: o.RetryLimit, Headers: o.Headers, Concurrent: x.Concurrent, Orders: x.Orders, Delay: x.Delay,
		},
	}
	for _, s := range x.Steps {
		r.Steps = append(r.Steps, engine.Step{Action: s.Action, Compensate: s.Compensate, Payload: s.Payload})
	}
	return r, err
}

// opOf finds the operation of a workflow's step.
func opOf(op client.Op) store.Op {
	for _, o := range []store.Op{store.Commit, store.Rollback} {
		if o.String() == string(op) {
			return o
		}
	}
	return store.Action
}

func statusOf(t *store.Transaction) *client.Status {
	s := &client.Status{
		GID: t.GID, Pattern: client.Pattern(t.Pattern.String()), State: client.State(t.State.String()), Reason: t.Reason,
	}
	s.SetCustomData(t.Data)
	s.Result, _ = base64.StdEncoding.DecodeString(t.Result) // written above
	for i := range t.Branches {
		b := &t.Branches[i]
		s.Branches = append(s.Branches, client.BranchStatus{
			ID: b.ID, Op: client.Op(b.Op.String()), URL: b.URL, State: client.State(b.State.String()), Data: b.Payload,
		})
	}
	return s
}

// kinded gives an engine's error its kind.
func kinded(op, gid string, err error) error {
	if err == nil {
		return nil
	}
	var state *engine.StateError
	kind := client.ErrInvalid // what else the engine says is about the request itself
	switch {
	case errors.As(err, &state):
		kind = client.ErrRefused
	case errors.Is(err, engine.ErrFailed):
		kind = client.ErrFailed
	case errors.Is(err, engine.ErrOngoing):
		kind = client.ErrOngoing
	case errors.Is(err, engine.ErrUnknown), errors.Is(err, engine.ErrClosed):
		kind = client.ErrUnknown
	case errors.Is(err, engine.ErrNotFound):
		kind = client.ErrNotFound
	case errors.Is(err, store.ErrExists):
		kind = client.ErrExists
	}
	return &client.Error{Op: op, GID: gid, Kind: kind, Err: err}
}
