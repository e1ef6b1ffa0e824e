package client

import (
	"context"
	"errors"
	"sync"
)

// A TCC is a transaction whose branches are tried by the program and then confirmed, or
// all cancelled, by the server. Its methods are safe for concurrent use.
type TCC struct {
	client *Client
	gid    string
	ids    *branchIDs
	lost   *firstError
}

// A TCCBranch is one participant's part. Confirm and Cancel must not fail; Cancel may
// come for a Try that never arrived, or before it: use package barrier.
type TCCBranch struct {
	Try, Confirm, Cancel string // addresses

	// Payload is sent with all three: []byte as it is, other values as JSON.
	Payload any

	// Reply gets what Try answers, decoded from JSON, unless it is nil.
	Reply any
}

// TCC runs f, which tries branches with [TCC.Call]. When f returns nil they are
// confirmed, else cancelled, by the server, which also cancels them if this process
// dies. A panic of f cancels them too and goes on. An error of Call or Do, or a panic in
// it, cancels them also if f swallows it: the branch is registered, and must not be confirmed untried.
//
//	nil         the decision to confirm is in the server's store; with [Wait], everything is
//	            confirmed
//	ErrFailed   nothing is kept; f's error, if there was one, is wrapped
//	ErrOngoing  decided to confirm, and some branch may not be confirmed yet: with Wait, or
//	            because ctx has ended
//	ErrUnknown  ask [Client.Status]
//	ErrRefused  f was not called: the transaction of this [GID] is decided, or of another
//	            pattern; State tells which way
func (c *Client) TCC(ctx context.Context, f func(ctx context.Context, t *TCC) error, opts ...Option) error {
	t := Transaction{Pattern: PatternTCC, Options: optionsOf(opts)}
	return c.decide(ctx, &t, func(ctx context.Context) error {
		tcc := &TCC{client: c, gid: t.Options.GID, ids: new(branchIDs), lost: new(firstError)}
		if err := f(ctx, tcc); err != nil {
			return err
		}
		return tcc.lost.get()
	})
}

// JoinTCC lets a participant try branches of its own, as part of the transaction that
// calls it: ctx is that of its [Handler] or [Middleware]. The transaction's owner
// decides about them too: an error of Call or Do is the answer to the owner also if the
// participant swallows it, see [JoinError].
func (c *Client) JoinTCC(ctx context.Context) (*TCC, error) {
	in := incomingFrom(ctx)
	if in == nil || in.call.Pattern != PatternTCC {
		return nil, &Error{Op: "join", Kind: ErrInvalid, Err: errors.New("the context is not that of a call by a TCC: use client.Handler or client.Middleware")}
	}
	return &TCC{client: c, gid: in.call.GID, ids: &in.ids, lost: &in.lost}, nil
}

// GID is the transaction's name.
func (t *TCC) GID() string { return t.gid }

// Call registers a branch with the server and calls its Try. After an error the program
// returns it, or an error of its own: the branch is cancelled whatever became of Try.
// ErrFailed: the participant refuses.
func (t *TCC) Call(ctx context.Context, b TCCBranch) error {
	return t.try(ctx, b, func(ctx context.Context, id string, payload []byte) error {
		answer, err := t.client.callBranch(ctx, participantCall{
			gid: t.gid, pattern: PatternTCC, branch: id, op: OpTry, url: b.Try, payload: payload,
		})
		if err != nil {
			return err
		}
		if err := decode(answer, b.Reply); err != nil {
			return &Error{Op: string(OpTry), GID: t.gid, URL: withoutQuery(b.Try), Kind: ErrUnknown, Err: err}
		}
		return nil
	})
}

// Do is Call for a try that is made by f: a gRPC call with the interceptor of package
// grpcclient, or a call of a library. b.Try and b.Reply are not used.
func (t *TCC) Do(ctx context.Context, b TCCBranch, f func(ctx context.Context) error) error {
	return t.try(ctx, b, func(ctx context.Context, id string, _ []byte) error {
		return f(WithOutgoing(ctx, &Call{GID: t.gid, Pattern: PatternTCC, Branch: id, Op: OpTry, Server: t.client.transport.Server()}))
	})
}

func (t *TCC) try(ctx context.Context, b TCCBranch, f func(ctx context.Context, id string, payload []byte) error) error {
	id, err := t.ids.next()
	var payload []byte
	if err == nil {
		payload, err = encode(b.Payload)
	}
	if err != nil {
		return &Error{Op: "register", GID: t.gid, Kind: ErrInvalid, Err: err}
	}
	err = t.client.register(ctx, &Branch{
		GID: t.gid, Pattern: PatternTCC, ID: id, Confirm: b.Confirm, Cancel: b.Cancel, Payload: payload,
	})
	defer func() { t.lost.set(err) }()
	if err == nil {
		err = errNoReturn // of an f that panics: somebody may outlive that
		err = f(ctx, id, payload)
	}
	return err
}

// A firstError remembers the first error of branches that may be registered.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// decide announces a TCC or XA, runs the program's part, and submits or aborts. The
// decision is the submission: once f returned nil nothing here aborts any more.
func (c *Client) decide(ctx context.Context, t *Transaction, f func(ctx context.Context) error) error {
	if err := c.prepare(ctx, t); err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			_ = c.giveUp(ctx, t, "panic") // the server's timeout does it otherwise
		}
	}()
	err := f(ctx)
	returned = true
	if err != nil {
		return c.failed(ctx, t, err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return c.failed(ctx, t, cause)
	}
	return c.finish(ctx, t)
}

// failed aborts, and returns the error with which f ended. If the abort does not arrive
// the server aborts by itself: nobody submits any more.
func (c *Client) failed(ctx context.Context, t *Transaction, cause error) error {
	err := &Error{Op: "submit", GID: t.Options.GID, Kind: ErrFailed, Err: cause}
	if aborted := c.giveUp(ctx, t, cause.Error()); errors.Is(aborted, ErrRefused) {
		err.Kind = ErrUnknown // somebody else decided: the name was not ours alone
		err.Err = errors.Join(cause, aborted)
	}
	return err
}

// giveUp aborts for a caller whose context may have ended.
func (c *Client) giveUp(ctx context.Context, t *Transaction, reason string) error {
	ctx, cancel := c.detached(ctx)
	defer cancel()
	a := *t
	a.Reason, a.Steps = clip(reason), nil
	a.Options.Wait = false
	return c.abort(ctx, &a)
}
