package engine

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/store"
)

// call calls a branch in a goroutine of its own, and tells the driver.
func (e *Engine) call(d *driver, m *machine, branch int) {
	c := callOf(m.t, branch, &e.limits)
	e.mu.Lock()
	d.users++
	e.mu.Unlock()
	e.wg.Go(func() {
		defer e.release(d)
		e.steer.pause()
		a, text := e.callOnce(c)
		if e.ctx.Err() == nil { // else the engine was closed, and the answer was not waited for
			d.answered(m, branch, c.URL, a, text)
		}
	})
}

func (e *Engine) callOnce(c Call) (Answer, string) {
	leave, ok := e.gate.enter(e.ctx, hostOf(c.URL))
	if !ok {
		return Unknown, ""
	}
	defer leave()
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
		c.Name, c.Payload = workflowOf(t.Data)
	}
	return c
}

// A gate bounds the calls that are under way, in all and to one host: hosts that hang
// must not take what the others need. Each host has a few places of its own; beyond them
// all share a crowd, which leaves a quarter of all places to those few.
type gate struct {
	all, crowd          chan struct{}
	perHostMax, fewEach int

	mu    sync.Mutex // guards hosts
	hosts map[string]*hostGate
}

type hostGate struct {
	slots chan struct{}
	few   chan struct{} // of slots: those that need no place in the crowd
	users int           // guarded by gate.mu
}

func newGate(allMax, perHostMax int) *gate {
	return &gate{
		all: make(chan struct{}, allMax), crowd: make(chan struct{}, allMax-allMax/4),
		perHostMax: perHostMax, fewEach: max(1, allMax/64), hosts: make(map[string]*hostGate),
	}
}

// enter waits for a place; leave gives it back. It fails when ctx ends.
func (g *gate) enter(ctx context.Context, host string) (leave func(), ok bool) {
	h := g.hold(host)
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		g.release(host, h)
		return nil, false
	}
	var place chan struct{}
	select {
	case h.few <- struct{}{}:
		place = h.few
	case g.crowd <- struct{}{}:
		place = g.crowd
	case <-ctx.Done():
		<-h.slots
		g.release(host, h)
		return nil, false
	}
	select {
	case g.all <- struct{}{}:
	case <-ctx.Done():
		<-place
		<-h.slots
		g.release(host, h)
		return nil, false
	}
	return func() {
		<-g.all
		<-place
		<-h.slots
		g.release(host, h)
	}, true
}

func (g *gate) hold(host string) *hostGate {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[host]
	if h == nil {
		h = &hostGate{slots: make(chan struct{}, g.perHostMax), few: make(chan struct{}, g.fewEach)}
		g.hosts[host] = h
	}
	h.users++
	return h
}

func (g *gate) release(host string, h *hostGate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(g.hosts, host)
	}
}

// hostOf is the host and port of an address with or without a scheme, or the name of a
// function.
func hostOf(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	if i := strings.IndexAny(url, "/?#"); i >= 0 {
		url = url[:i]
	}
	return url
}
