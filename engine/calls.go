package engine

import (
	"cmp"
	"context"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/store"
)

// call calls a branch in a goroutine of its own, and tells the driver. If there is no
// place for it at its host it is not called, and wait says by when there will be one even
// if every call before it takes all its time.
func (e *Engine) call(d *driver, branch int) (wait time.Duration, ok bool) {
	m := d.m
	c := callOf(m.t, branch, &e.limits)
	place, before := e.gate.enter(hostOf(c.URL), &d.load, d.awaited)
	if place == nil {
		rounds := 1 + before/e.cfg.CallsPerHostMax
		return min(time.Duration(rounds)*c.Timeout, e.limits.RetryIntervalMax), false
	}
	e.mu.Lock()
	d.users++
	e.mu.Unlock()
	e.wg.Go(func() {
		defer e.release(d)
		e.steer.pause()
		if !place.wait(e.ctx) {
			return
		}
		a, text := e.callOnce(c)
		place.leave()
		if e.ctx.Err() == nil { // else the engine was closed, and the answer was not waited for
			d.answered(m, branch, c.URL, a, text)
		}
	})
	return 0, true
}

func (e *Engine) callOnce(c Call) (Answer, string) {
	if c.URL == "" { // a branch without one is not called: this is the sender of a message, or a workflow
		return Unknown, "query_prepared is empty: there is nobody to ask"
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	began := time.Now()
	faultpoint.Hit("server.call.before")
	a, text := e.caller.Call(ctx, c)
	faultpoint.Hit("server.call.answered")
	if f := e.cfg.Observer.Called; f != nil {
		f(c.Pattern, c.Op, a, time.Since(began))
	}
	return a, text
}

func callOf(t *store.Transaction, branch int, limits *Limits) Call {
	c := Call{
		GID: t.GID, Pattern: t.Pattern, Protocol: t.Protocol, Headers: t.Options.Headers,
		Timeout: cmp.Or(t.Options.RequestTimeout, limits.RequestTimeout),
	}
	if branch != own {
		b := &t.Branches[branch]
		c.Branch, c.Op, c.URL, c.Payload = b.ID, b.Op, b.URL, b.Payload
		return c
	}
	c.Branch, c.URL, c.Op = ownBranch, t.QueryPrepared, store.Query
	if t.Pattern == store.Workflow {
		c.Op = store.Resume
		c.Name, c.Payload = WorkflowOf(t.Data)
	}
	return c
}
