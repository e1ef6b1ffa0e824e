package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

// A guard decides who is let in. HTTP and gRPC ask the same one.
type guard struct {
	open   bool // nobody has to say who they are
	tokens *auth.Tokens
	rates  *rates
	quota  *quota
	places *places
	turns  *turns
	logins *logins
	meter  *metrics.Server
	log    *slog.Logger

	complaints *rate.Limiter // log entries about strangers, who must not fill the log
}

func newGuard(cfg Config, open bool) *guard {
	g := &guard{
		open: open, tokens: cfg.Tokens, rates: newRates(cfg.Limits, cfg.Now), places: newPlaces(cfg.Limits.RequestsMax),
		turns: newTurns(turnsEach, turnLong), logins: newLogins(cfg.Store, cfg.Logger, cfg.Now),
		meter: cfg.Meter, log: cfg.Logger, complaints: rate.NewLimiter(1, 10),
		quota: &quota{store: cfg.Store, openMax: cfg.Limits.OpenMax, now: cfg.Now, each: make(map[string]*owned)},
	}
	if g.tokens == nil && !open {
		g.tokens, _ = auth.Open("", cfg.Logger) // certificates alone: there is no file to fail
	}
	return g
}

// A refusal is why a request is not let in.
type refusal struct {
	why     metrics.Refusal
	message string
}

func (r *refusal) Error() string { return r.message }

var (
	errRole = &refusal{metrics.LackOfRole, "your role does not allow this"}
	errRate = &refusal{metrics.TooFast, "too many requests: slow down"}
	errBusy = &refusal{metrics.TooBusy, "the server has too much to do: come again"}
	errOpen = &refusal{metrics.TooManyOpen, "you have too many open transactions: wait for some to end"}
	errSize = &refusal{metrics.TooLarge, "the request is too large"}
)

// A visitor is a request that asks to be let in.
type visitor struct {
	header string               // Authorization
	state  *tls.ConnectionState // nil without TLS
	from   string               // address, without its port
	needs  auth.Role
	makes  bool // it may make a transaction
}

// admit lets a visitor in, or says why not with a *refusal. The context is the
// caller's; leave ends its stay.
func (g *guard) admit(ctx context.Context, v visitor) (_ context.Context, leave func(), err error) {
	defer func() {
		var r *refusal
		if errors.As(err, &r) {
			g.meter.Refused(r.why)
		}
	}()
	caller := auth.Caller{Role: auth.Admin, From: v.from}
	if !g.open {
		caller, err = g.tokens.Authenticate(v.header, v.state)
		if err != nil {
			g.logins.note(v.from, err)
			if g.complaints.Allow() {
				g.log.WarnContext(ctx, "credentials refused", "from", v.from, "err", err)
			}
			return ctx, nil, &refusal{metrics.BadCredentials, err.Error()}
		}
		caller.From = v.from
	}
	switch {
	case !g.rates.allow(caller.String()):
		return ctx, nil, errRate
	case !caller.May(v.needs):
		return ctx, nil, errRole
	}
	leave, ok := g.take(ctx, caller)
	if !ok {
		return ctx, nil, errBusy
	}
	if v.makes && !g.quota.allow(ctx, caller.Owner()) { // it may wait for the store, in its place
		leave()
		return ctx, nil, errOpen
	}
	return auth.As(ctx, caller), leave, nil
}

// take takes a place, and waits there for a turn if the caller is a client.
func (g *guard) take(ctx context.Context, c auth.Caller) (leave func(), ok bool) {
	leavePlace, ok := g.places.take(c)
	if !ok || c.Role > auth.Client && c.Name != "" {
		return leavePlace, ok
	}
	endTurn, ok := g.turns.take(ctx, c.String())
	if !ok {
		leavePlace()
		return nil, false
	}
	return func() { endTurn(); leavePlace() }, true
}

// hostOf is an address without its port.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// A quota limits how many open transactions each principal has. It counts what is made,
// and asks the store only when that reaches the limit: a principal who never comes near
// costs nothing. It may let in as many too many as were under way while the store
// counted; and after a start it does not know what is open, so that a principal may reach
// twice the limit.
type quota struct {
	store   store.Store
	openMax int
	now     func() time.Time

	mu   sync.Mutex
	each map[string]*owned
}

// owned is what one principal has, at most.
type owned struct {
	mu      sync.Mutex // held while the store counts
	open    int
	counted time.Time
}

// recountEvery is how often the store counts for one principal.
const recountEvery = 5 * time.Second

// allow reports whether an owner may make another transaction.
func (q *quota) allow(ctx context.Context, owner string) bool {
	if owner == "" {
		return true
	}
	q.mu.Lock()
	o := q.each[owner]
	if o == nil {
		o = new(owned)
		q.each[owner] = o // as many as the file of tokens and the authority know
	}
	q.mu.Unlock()

	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open >= q.openMax && q.now().Sub(o.counted) >= recountEvery {
		n, err := count(ctx, q.store, store.Filter{States: unfinished, Owner: owner}, q.openMax)
		if err != nil {
			return ctx.Err() == nil // the store will refuse by itself, but not for one who hung up
		}
		o.open, o.counted = n, q.now()
	}
	if o.open >= q.openMax {
		return false
	}
	o.open++
	return true
}

var unfinished = []store.State{store.Prepared, store.Submitted, store.Aborting}

// countStep is how many transactions are listed at a time to be counted: each comes with
// its payloads.
const countStep = 50

// count counts up to limit transactions.
func count(ctx context.Context, s store.Store, f store.Filter, limit int) (n int, err error) {
	for {
		f.Limit = min(limit-n, countStep)
		page, next, err := s.List(ctx, f)
		if err != nil {
			return 0, err
		}
		n += len(page)
		if next == "" || n >= limit {
			return n, nil
		}
		f.Cursor = next
	}
}
